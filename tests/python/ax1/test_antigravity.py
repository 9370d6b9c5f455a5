"""The real Antigravity SDK behind `ax.HarnessService`: `examples/antigravity`, killed.

The SDK runs its own Go program; only the model is scripted.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys

import pytest
from conftest import CACHE, EXAMPLE, texts, wait_for
from test_serving import exec_request, executions, run

pytest.importorskip("google.antigravity", reason="examples/antigravity/requirements.txt")
SERVICER = str(EXAMPLE / "servicer.py")
FIRST = ("Note that I need milk.", "I have noted that you need milk.")
SECOND = ("And bread.", "Milk and bread are on your list.")


@pytest.fixture
def agent(server, model, tmp_path):
    url = model(json.loads((EXAMPLE / "model.json").read_text()))

    def apply(linger: float) -> None:
        # What the example's own manifest has, with this model and these files.
        section = {
            "type": "ax1",
            "command": [sys.executable, SERVICER]
            + ["--listen", "unix:{socket}", "--state", "{state}"],
            "env": {
                "GEMINI_API_KEY": "any",
                "EFFECTS_FILE": str(tmp_path / "effects.txt"),
                "LINGER_SECONDS": str(linger),
                "PYTHONDONTWRITEBYTECODE": "1",
                **CACHE,
            },
            "config": {"model": "fake-model", "base_url": url},
        }
        retry = {"backoffMin": "10ms", "backoffMax": "50ms"}
        server.apply("antigravity-demo", section, retry=retry)

    server.agent = apply
    server.effects = lambda: effects(tmp_path)
    server.ledger = lambda: ledger(tmp_path)
    return server


def effects(directory: pathlib.Path) -> list[str]:
    file = directory / "effects.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line.split(" ", 1)[1] for line in lines]


def ledger(directory: pathlib.Path) -> list[dict]:
    lines = (directory / "ledger.jsonl").read_text().splitlines()
    last = {entry["seq"]: entry for entry in map(json.loads, filter(None, lines))}
    return [entry for entry in last.values() if entry["kind"] == "generate"]


def servicers(data: pathlib.Path) -> list[int]:
    """The harness servers of a data directory, without their supervisors."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        is_one = SERVICER.encode() in command and b"__supervise" not in command
        if is_one and any(str(data).encode() in word for word in command):
            found.append(int(entry.name))
    return found


def test_the_example_is_what_is_tested():
    manifest = (EXAMPLE / "agent.yaml").read_text()
    assert '"servicer.py", "--listen", "unix:{socket}", "--state", "{state}"' in manifest


def test_a_conversation_goes_on_after_a_kill_between_its_turns(agent):
    agent.agent(linger=0)
    first = run(agent, exec_request("talk", FIRST[0]))
    assert texts(first) == [FIRST[1]]
    contents = [message.content for response in first for message in response.outputs]
    calls = [one.tool_call for one in contents if one.HasField("tool_call")]
    assert [call.function_call.name for call in calls] == ["write_note"]
    wait_for("rest between turns", lambda: not servicers(agent.data))
    agent.kill()
    agent.start()
    second = run(agent, exec_request("talk", SECOND[0], first[-1].step))
    assert texts(second) == [SECOND[1]]
    assert agent.effects() == ["buy milk", "buy bread"]
    assert len(agent.ledger()) == 4, "each model call was made once"


@pytest.mark.parametrize("victim", ["harness", "server"])
def test_a_turn_that_is_killed_is_done_again_and_its_effect_is_not(agent, victim):
    agent.agent(linger=0)
    first = run(agent, exec_request("talk", FIRST[0]))
    # Sessions keep the manifest that they began with: the next one has an agent that lingers.
    agent.agent(linger=5)
    agent.ax("run", "--agent", "antigravity-demo", "--session", "slow", "--detach", FIRST[0])
    wait_for("effect", lambda: agent.effects() == ["buy milk", "buy milk"])
    running = wait_for("harness", lambda: servicers(agent.data))
    if victim == "harness":
        os.kill(running[0], signal.SIGKILL)
    else:
        agent.kill()
        agent.start()
    said = run(agent, exec_request("slow"))
    assert texts(said) == [FIRST[1]]
    # The tool was called again under the same key, which added nothing.
    assert agent.effects() == ["buy milk", "buy milk"]
    assert "attempt.lost" in str(agent.events("slow"))
    assert executions(agent, "slow") == 1
    # Both conversations go on with what they know.
    for session, last in (("talk", first[-1].step), ("slow", said[-1].step)):
        assert texts(run(agent, exec_request(session, SECOND[0], last))) == [SECOND[1]]
    assert sorted(agent.effects()) == ["buy bread", "buy bread", "buy milk", "buy milk"]


def test_a_turn_that_is_over_is_said_again_not_done_again(tmp_path):
    """What becomes of a server that dies after the turn, before that was heard."""
    from turns import Turns

    turn = Turns(tmp_path / "talk").begin("exec_1")
    (turn.dir / "half").write_text("of it")
    # It was killed: the next try finds nothing of it, and gives its calls the same names.
    again = Turns(tmp_path / "talk").begin("exec_1")
    assert list(again.dir.iterdir()) == [] and again.said is None
    key = again.key("note", text="milk")
    assert key == turn.key("note", text="milk") != again.key("note", text="milk")
    (again.dir / "state").write_text("all of it")
    again.end(["one"])
    assert Turns(tmp_path / "talk").begin("exec_1").said == ["one"]
    after = Turns(tmp_path / "talk").begin("exec_2")
    assert (after.dir / "state").read_text() == "all of it" and after.said is None
    assert after.key("note", text="milk") != key
