"""The agent of ``examples/adk`` under the real program, killed in the midst of its tools."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from agent_executor.client import APPROVE, Client, Event, Text, choose, deny
from google.adk.events.event import Event as AdkEvent

from agent_executor_adk.workspace import WorkspaceSessions
from conftest import ROOT, Server, ax

EXAMPLE = ROOT / "examples/adk"
ANSWER = "Your kettle is refunded: 40 EUR, and a voucher."
EFFECTS = ["refund 1042 40", "ask_manager kettle 1042"]
LETTER = "send_letter Your 40 EUR and a voucher are on their way."
LIMIT = 120.0


class Shop:
    """The example in a directory of its own, and what of it the world can see."""

    def __init__(self, directory: pathlib.Path, **env: str) -> None:
        self.effects_file = directory / "effects.txt"
        self.ledger = directory / "ledger.jsonl"
        model = [ax(), "fakemodel", "--script", str(EXAMPLE / "model.json"), "--json"]
        args = [*model, "--listen", "127.0.0.1:0", "--ledger", str(self.ledger)]
        self.model = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
        assert self.model.stdout is not None
        self.model_url = json.loads(self.model.stdout.readline())["url"]
        self.directory = directory / "adk"
        shutil.copytree(EXAMPLE, self.directory)
        paths = os.pathsep.join(str(ROOT / path) for path in ("sdk/python/src", "sdk/adk/src"))
        self.server = Server(directory / "data", {"GEMINI_API_KEY": "none"})
        self.client = Client(self.server.url)
        manifest = (EXAMPLE / "agent.yaml").read_text()
        manifest = manifest.replace("http://127.0.0.1:8484", self.model_url)
        manifest = manifest.replace("python3", sys.executable)
        given = json.dumps({"EFFECTS": str(self.effects_file), "PYTHONPATH": paths, **env})
        manifest = manifest.replace("protocol: jsonl\n", f"protocol: jsonl\n    env: {given}\n")
        mcp = json.dumps({"EFFECTS": str(self.effects_file), **env})
        manifest = manifest.replace('"post.py"]\n', f'"post.py"]\n        env: {mcp}\n')
        self.client.apply_agent(manifest, directory=str(self.directory))

    def stop(self) -> None:
        self.server.stop()
        self.model.terminate()
        self.model.wait(timeout=60)

    @property
    def effects(self) -> list[str]:
        return self.effects_file.read_text().splitlines() if self.effects_file.exists() else []

    @property
    def paid(self) -> int:
        """How often the model was asked."""
        said = [line for line in self.ledger.read_text().splitlines() if line]
        return len({json.loads(line)["seq"] for line in said})

    def begin(self, text: str = "Please refund order 1042.") -> int:
        return self.client.submit(text, agent="adk-shop", session="one").seq

    def until(self, is_so: Callable[[], Any]) -> Any:
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            if found := is_so():
                return found
            time.sleep(0.02)
        raise AssertionError(f"nothing came of it: {self.client.session('one')}")

    def question(self) -> dict[str, Any]:
        """Wait for a question, and return it."""

        def asked() -> Any:
            session = self.client.session("one")
            assert session.state not in {"failed", "canceled"}, self.kinds()
            return session.raw.get("status", {}).get("asks")

        (ask,) = self.until(asked)
        return dict(ask)

    def answer(self, answer: dict[str, Any]) -> None:
        self.client.answer("one", answer, ask=int(self.question()["ask"]))

    def text(self, since: int) -> str:
        """Follow to the end of an input, and return what was said."""
        text = Text()
        for item in self.client.follow("one", after=since, until_input=since):
            if isinstance(item, Event):
                text.add(item)
        return str(text)

    def kept(self) -> list[dict[str, Any]]:
        """Read the events of the ADK session."""
        (path,) = self.server.data.glob("workspaces/*/*/adk-session.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def tear(self) -> None:
        """Leave what an attempt that dies within a write leaves."""
        (path,) = self.server.data.glob("workspaces/*/*/adk-session.jsonl")
        with path.open("a") as file:
            file.write('{"author": "sh')

    def kinds(self) -> list[str]:
        return [event.kind for event in self.client.events("one", limit=1000).events]

    def kill_harness(self) -> None:
        """Kill the process of the agent, by its number."""
        for process in pathlib.Path("/proc").iterdir():
            if process.name.isdigit() and self._is_harness(process):
                os.kill(int(process.name), signal.SIGKILL)

    def _is_harness(self, process: pathlib.Path) -> bool:
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            return b"main.py" in command and (process / "cwd").resolve() == self.directory
        except OSError:
            return False


Make = Callable[..., Shop]


@pytest.fixture()
def shop(tmp_path: pathlib.Path) -> Iterator[Make]:
    made: list[Shop] = []

    def make(**env: str) -> Shop:
        made.append(Shop(tmp_path, **env))
        return made[0]

    yield make
    for one in made:
        one.stop()


def test_confirmations_and_long_running_tools_are_questions_and_turns_go_on(shop: Make) -> None:
    one = shop()
    seq = one.begin()
    asked = one.question()
    assert "Carry out refund(euros=40, order='1042')?" in json.dumps(asked)
    assert one.effects == []
    one.answer(APPROVE)
    one.until(lambda: one.effects == EFFECTS[:1] or len(one.effects) > 1)
    one.answer(APPROVE)
    assert one.text(seq).endswith(ANSWER)
    assert one.effects == [*EFFECTS, LETTER]
    assert one.paid == 6
    assert one.kinds().count("attempt.lost") == 0
    seq = one.begin("Which order was it?")
    assert one.text(seq).endswith("It was order 1042, as you said.")
    assert one.paid == 7


def test_what_is_denied_does_not_happen(shop: Make) -> None:
    one = shop()
    seq = one.begin()
    one.answer(deny("no"))
    one.answer(deny("no"))
    assert one.text(seq).endswith(ANSWER)
    assert one.effects == [EFFECTS[1], LETTER]
    assert one.paid == 6


def test_a_function_that_has_its_effect_and_dies_has_it_once(shop: Make) -> None:
    """ADK by itself carries it out again: see the test without the runner."""
    one = shop(DEADLY_TOOL="refund")
    seq = one.begin()
    one.answer(APPROVE)
    one.until(lambda: one.effects == EFFECTS[:1])
    # It must not happen twice, and nobody but a person can know whether it did.
    asked = one.until(lambda: "refund" in json.dumps(one.question()) and one.question())
    assert "completed" in json.dumps(asked)
    one.answer(choose("completed", '{"refunded": 40}'))
    one.until(lambda: "ask_manager" in json.dumps(one.question()))
    one.answer(APPROVE)
    assert one.text(seq).endswith(ANSWER)
    assert one.effects == [*EFFECTS, LETTER]
    assert one.paid == 6


@pytest.mark.parametrize("victim", ["harness", "server"])
def test_whoever_is_killed_in_a_tool_of_the_gateway_its_effect_is_had_once(
    shop: Make, victim: str
) -> None:
    one = shop(TOOL_SECONDS="1")
    seq = one.begin()
    one.answer(APPROVE)
    one.until(lambda: len(one.effects) >= 2)
    one.answer(APPROVE)
    one.until(lambda: LETTER in one.effects)
    if victim == "harness":
        one.kill_harness()
    else:
        one.server.kill()
        one.server.start()
        one.answer(choose("completed", "it was sent"))
    assert one.text(seq).endswith(ANSWER)
    assert one.effects == [*EFFECTS, LETTER]
    assert one.paid == 6
    assert one.kinds().count("attempt.lost") == 1
    # What the first attempt had written is not there twice, and the state is what tools made it.
    kept = one.kept()
    deltas = [event["actions"]["stateDelta"] for event in kept if event["actions"]["stateDelta"]]
    assert deltas == [{"order": "1042"}]
    assert json.dumps(kept).count("I look it up.") == 1


def test_while_a_question_is_open_everything_may_be_killed(shop: Make) -> None:
    one = shop()
    seq = one.begin()
    for _ in range(2):
        one.question()
        one.kill_harness()
        one.server.kill()
        one.server.start()
        one.answer(APPROVE)
        one.until(lambda: len(one.effects) >= 1)
        one.until(lambda: one.client.session("one").state != "running")
    assert one.text(seq).endswith(ANSWER)
    assert one.effects == [*EFFECTS, LETTER]
    assert one.paid == 6


@pytest.mark.parametrize("torn", [False, True], ids=["half turn", "torn line"])
def test_what_a_canceled_input_left_is_not_there_for_the_next(shop: Make, torn: bool) -> None:
    one = shop()
    for before in range(2):  # with nothing before it, and after a turn that ended well
        one.begin()
        one.question()
        assert _calls(one.kept())
        one.client.cancel("one")
        one.until(lambda: one.client.session("one").state == "canceled")
        if torn:
            one.tear()
        seq = one.begin("Which order was it?")
        assert one.text(seq).endswith("It was order 1042, as you said.")
        kept = one.kept()
        assert not _calls(kept)
        assert json.dumps(kept).count("Which order was it?") == before + 1


def _calls(kept: list[dict[str, Any]]) -> list[str]:
    parts = [part for event in kept for part in event.get("content", {}).get("parts", [])]
    return [part["functionCall"]["name"] for part in parts if "functionCall" in part]


def test_an_attempt_that_dies_after_its_end_is_followed_by_a_whole_one(
    tmp_path: pathlib.Path,
) -> None:
    class Context:
        """What is asked of a context, and a journal of one entry."""

        workspace = tmp_path
        history = ()

        def __init__(self) -> None:
            self.recorded: int | None = None

        async def step(self, key: str, fn: Callable[..., int], *args: Any, **_: Any) -> int:
            self.recorded = fn(*args) if self.recorded is None else self.recorded
            return self.recorded

    async def attempt(ctx: Any, *texts: str) -> tuple[WorkspaceSessions, list[str]]:
        sessions = await WorkspaceSessions.open(ctx, "shop", "user", "one")
        session = await sessions.get_session(app_name="shop", user_id="user", session_id="one")
        assert session is not None
        seen = [event.author for event in session.events]
        for text in texts:
            await sessions.append_event(session, AdkEvent(author=text))
        return sessions, seen

    async def main() -> None:
        sessions, _ = await attempt(Context(), "first")
        sessions.end()
        ctx = Context()
        sessions, seen = await attempt(ctx, "second", "third")
        assert seen == ["first"]
        sessions.end()  # and it dies before the runtime knows
        _, seen = await attempt(ctx, "second")  # which is canceled
        assert seen == ["first"]
        _, seen = await attempt(Context())
        assert seen == ["first"]

    asyncio.run(main())


def test_a_branch_begins_with_what_was_said(shop: Make) -> None:
    one = shop()
    seq = one.begin()
    one.answer(APPROVE)
    one.until(lambda: len(one.effects) >= 2)
    one.answer(APPROVE)
    assert one.text(seq).endswith(ANSWER)
    last = one.client.session("one").last
    (branch,) = one.client.branch("one", at=last, names=["two"]).sessions
    for question in ("Which order was it?", "Which order?"):
        sent = one.client.submit(question, session=branch)
        text = Text()
        for item in one.client.follow(branch, after=sent.seq, until_input=sent.seq):
            if isinstance(item, Event):
                text.add(item)
        assert str(text) == "It was order 1042, as you said."
    (path,) = one.server.data.glob(f"workspaces/*/{branch}/adk-session.jsonl")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    # What the runner kept comes with the files: calls and their results, too.
    parts = [event["content"]["parts"][0] for event in events if "content" in event]
    assert any("functionCall" in part or "function_call" in part for part in parts)
    kept = [part["text"] for part in parts if "text" in part]
    assert kept[0] == "Please refund order 1042."
    assert ANSWER in "".join(kept)
    assert kept.count("It was order 1042, as you said.") == 2
