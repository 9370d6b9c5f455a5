"""Programs that are killed, and others that go on with what they left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from real import ROOT, Model, Server

WORKER = Path(__file__).parent / "worker.py"
PROGRAM = ROOT / "examples/openai-agents/agent.py"
SEND = {"tool": "send_goods", "arguments": {"shelf": 3}}
TURNS = (
    {"when": {"turn": 0}, "calls": [SEND]},
    {"when": {"turn": 1, "result": "on its way"}, "text": "Done: {{result}}"},
    {"when": {"turn": 1}, "text": "Not done: {{result}}"},
)


def run(server: Server, model: Model, *words: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": f"{model.url}/v1",
        "OPENAI_API_KEY": "placeholder",
        "AX_SERVER": server.url,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return subprocess.Popen(
        [sys.executable, *words],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate("go\n", timeout=60)
    assert process.returncode == 0, said
    return said.strip()


def test_a_tool_that_was_approved_after_a_kill_runs_once(
    server: Server, model: Model, tmp_path: Path
) -> None:
    model.script(*TURNS)
    effects = tmp_path / "effects"
    words = (server.url, "order-1", str(effects))
    first = run(server, model, str(WORKER), "start", *words)
    assert line(first) == "saved"
    first.kill()
    first.wait()
    assert not effects.exists()

    second = run(server, model, str(WORKER), "go-on", *words)
    assert line(second) == "loaded"
    assert go(second) == "Done: shelf 3 is on its way"
    assert effects.read_text() == "send 3\n"
    assert len(model.requests()) == 2, "the first answer was not asked for again"


def test_of_two_that_approve_one_runs_the_tool(
    server: Server, model: Model, tmp_path: Path
) -> None:
    model.script(*TURNS)
    effects = tmp_path / "effects"
    words = (server.url, "order-2", str(effects))
    first = run(server, model, str(WORKER), "start", *words)
    assert line(first) == "saved"
    first.kill()
    first.wait()
    both = [run(server, model, str(WORKER), "go-on", *words) for _ in range(2)]
    assert [line(one) for one in both] == ["loaded", "loaded"]
    assert sorted(go(one) for one in both) == ["Done: shelf 3 is on its way", "conflict"]
    assert effects.read_text() == "send 3\n"


def test_a_conversation_goes_on_in_another_process(
    server: Server, model: Model, tmp_path: Path
) -> None:
    model.script({"when": {"turn": 0}, "text": "Noted."}, {"when": {"turn": 1}, "text": "Again."})
    words = ("talk", server.url, "friday", str(tmp_path / "effects"))
    assert go(run(server, model, str(WORKER), *words, "Note it.")) == "Noted."
    assert go(run(server, model, str(WORKER), *words, "And?")) == "Again."


def test_the_example_does_what_its_manual_says(
    server: Server, model: Model, tmp_path: Path
) -> None:
    model.script(*TURNS)

    def example(*words: str) -> list[str]:
        process = run(server, model, str(PROGRAM), *words)
        return go(process).splitlines()

    os.environ["EFFECTS"] = str(tmp_path / "effects")
    assert example("start", "order-8", "Send shelf 3.") == [
        'order-8 waits for: send_goods {"shelf":3}'
    ]
    assert example("list") == ["order-8"]
    assert example("approve", "order-8") == ["Done: shelf 3 is on its way"]
    assert example("list") == []
    assert (tmp_path / "effects").read_text() == "send 3\n"
    assert len(example("start", "order-9", "Send shelf 3.")) == 1
    [said] = example("reject", "order-9")
    assert said.startswith("Not done: "), said
    assert (tmp_path / "effects").read_text() == "send 3\n"
