"""The real `claude`, against the scripted model server: killed in the middle, resumed elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from agent_executor.client import AsyncClient
from claude_agent_sdk import project_key_for_directory

from agent_executor_claude import AxSessionStore
from real import ROOT, Model, Server

EXAMPLE = ROOT / "examples/claude-store/agent.py"
PATIENCE = 90.0


class Run:
    """A run of the example on a machine of its own: nothing of an earlier one is left."""

    def __init__(self, home: Path, work: Path, server: Server, model: Model, *words: str) -> None:
        config = home / "config"
        config.mkdir(parents=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "CLAUDE_CONFIG_DIR": str(config),
            "TMPDIR": str(home),
            "ANTHROPIC_BASE_URL": model.url,
            "ANTHROPIC_API_KEY": "placeholder",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "IS_SANDBOX": "1",
            "AX_SERVER": server.url,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self.process = subprocess.Popen(
            [sys.executable, EXAMPLE, *words],
            cwd=work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def kill(self) -> None:
        """Kill it and all that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def said(self) -> str:
        said, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, said
        return said


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def wait_until_asked(model: Model, count: int) -> None:
    began = time.monotonic()
    while len(model.requests()) < count:
        assert time.monotonic() - began < PATIENCE, "it does not ask"
        time.sleep(0.05)


def bash(command: str) -> dict[str, object]:
    return {"tool": "Bash", "arguments": {"command": command, "description": "as told"}}


def test_a_conversation_goes_on_from_the_store_alone_after_a_kill(
    tmp_path: Path, work: Path, server: Server, model: Model
) -> None:
    session = "0b6a39f2-9f0e-4c7e-8a3c-5d4c0f5a1f01"
    model.script(
        {"when": {"turn": 0}, "text": "I count.", "calls": [bash("echo 42 boxes | tee count")]},
        # It is killed here, in the middle of an answer.
        {"when": {"turn": 1, "text": "many"}, "text": "never", "fault": {"hang_after_chunks": 3}},
        {"text": "As I said: {{prompt}}"},
    )
    first = Run(tmp_path / "one", work, server, model, "--id", session, "How many boxes?")
    wait_until_asked(model, 2)
    wait_until_kept(server, work, session)
    first.kill()
    paid = len(model.requests())

    second = Run(tmp_path / "two", work, server, model, "--resume", session, "Say it again.")
    assert "As I said:" in second.said()
    after = model.requests()[paid:]
    assert len(after) == 1, "what was said before is not asked again"
    assert after[0]["turn"] == 2, "the model was told what it had said, and what the tool had"
    assert (work / "count").read_text() == "42 boxes\n"

    third = Run(tmp_path / "three", work, server, model, "--list")
    assert session in third.said()


def test_a_finished_conversation_can_be_forked(
    tmp_path: Path, work: Path, server: Server, model: Model
) -> None:
    session = "0b6a39f2-9f0e-4c7e-8a3c-5d4c0f5a1f02"
    model.script(
        {"when": {"turn": 0}, "text": "Noted."},
        {"text": "Turn one: {{prompt}}"},
    )
    Run(tmp_path / "one", work, server, model, "--id", session, "Note it.").said()
    forked = Run(tmp_path / "two", work, server, model, "--resume", session, "--fork", "And?")
    assert "Turn one: And?" in forked.said()
    listed = Run(tmp_path / "three", work, server, model, "--list").said().splitlines()
    assert len(listed) == 2 and sum(session in line for line in listed) == 1, listed
    again = Run(tmp_path / "four", work, server, model, "--resume", session, "Or?")
    assert "Turn one: Or?" in again.said(), "the fork did not change it"


def wait_until_kept(server: Server, work: Path, session: str) -> None:
    """Wait until the result of the tool is in the store."""

    async def load() -> Any:
        project = project_key_for_directory(work)
        store = AxSessionStore(AsyncClient(server.url))
        return await store.load({"project_key": project, "session_id": session})

    began = time.monotonic()
    while "tool_result" not in json.dumps(asyncio.run(load())):
        assert time.monotonic() - began < PATIENCE, "it is not kept"
        time.sleep(0.05)
