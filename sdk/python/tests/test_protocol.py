"""A runtime that does not keep to the protocol, or that keeps to a later one."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake_runtime import SOURCE, Attempt, Frame, Runtime

Make = Callable[..., Runtime]

AGENT = """
    @ax.agent
    def main(ctx: ax.Context):
        ctx.step("s", lambda: 1)
        return ctx.signal("go")
    main.run()
"""


def opened(runtime: Runtime, *changes: Callable[[list[Any]], object]) -> list[Any]:
    frames: list[Any] = runtime.opening()
    for change in changes:
        change(frames)
    return frames


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.insert(0, b"not json\n"), "not JSON"),
        (lambda f: f.insert(0, b"[1, 2]\n"), "not a frame"),
        (lambda f: f.insert(0, b'{"type": 5}\n'), "not a frame"),
        (lambda f: f.insert(0, b"\xff\xfe\n"), "not JSON"),
        (lambda f: f.insert(0, b"[" * 100_000 + b"\n"), "not JSON"),
        (lambda f: f[0].pop("frame_bytes_max"), "'frame_bytes_max' is missing"),
        (lambda f: f[0].update(protocol=2), "speaks protocol 2, this SDK speaks 1"),
        (lambda f: f[0].update(protocol=True), "'protocol' is true"),
        (lambda f: f[0].update(agent="x"), "'agent' is \"x\""),
        (lambda f: f[0].update(frame_bytes_max=5000) or f.insert(1, b"x" * 9000), "more than 5000"),
        (lambda f: f.pop(0), "before 'start' and 'input'"),
        (lambda f: f[1].update(parts=[{"kind": "text"}]), "'text' is missing"),
        (lambda f: f[1].update(parts=[3]), "a part that is not an object"),
        (
            lambda f: f[1].update(parts=[{"kind": "image", "blob": {"id": "b"}}]),
            "'path' is missing",
        ),
        (lambda f: f[2].update(journal=4), "0 journal entries came, 4 were announced"),
        (lambda f: f.insert(2, {"type": "journal", "entry": "step"}), "'key' is missing"),
    ],
)
def test_a_malformed_opening_fails_the_attempt(
    agent: Make, change: Callable[[list[Any]], object], message: str
) -> None:
    runtime = agent(AGENT)
    said = runtime.attempt(opening=opened(runtime, change))
    assert said.failure["code"] == "protocol"
    assert message in said.failure["message"]
    assert said.begun() == []


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"garbage\n", "not JSON"),
        (b'{"type": "signaled"}\n', "'key' is missing"),
        (b'{"type": "park"}\n', "'grace_ms' is missing"),
        (b'{"type": "cancel", "grace_ms": "1"}\n', "'grace_ms' is"),
    ],
)
def test_a_malformed_frame_later_on_fails_the_attempt(
    agent: Make, reply: bytes, message: str
) -> None:
    runtime = agent(AGENT)

    def on_frame(attempt: Attempt, frame: Frame) -> bool:
        if frame["type"] == "signal":
            attempt.tell(reply)
        return bool(frame["type"] == "signal")

    said = runtime.attempt(on_frame=on_frame)
    assert said.failure["code"] == "protocol"
    assert message in said.failure["message"]


def test_what_a_later_runtime_says_more_is_ignored(agent: Make) -> None:
    runtime = agent(AGENT, signals={"go": 5})

    def change(frames: list[Any]) -> None:
        frames[0]["more"] = {"x": 1}
        frames.insert(1, {"type": "weather", "sunny": True})
        frames[-1]["journal"] = 1
        frames.insert(-1, {"type": "journal", "entry": "dream", "key": "d", "of": 1})

    def on_frame(attempt: Attempt, frame: Frame) -> bool:
        if frame["type"] == "signal":
            attempt.tell({"type": "granted", "key": "nobody"})
            attempt.tell({"type": "recorded", "key": "nobody", "seq": 1, "before": None})
            attempt.tell({"type": "error", "code": "AX1", "message": "late", "key": "nobody"})
        return False

    said = runtime.attempt(opening=opened(runtime, change), on_frame=on_frame)
    assert said.result == 5
    assert "ignored a 'weather' frame" in said.stderr


def test_an_error_without_a_key_ends_the_attempt(agent: Make) -> None:
    runtime = agent(AGENT)

    def on_frame(attempt: Attempt, frame: Frame) -> bool:
        if frame["type"] == "signal":
            said = {"code": "AX1201", "message": "no such frame", "hint": "update", "key": None}
            attempt.tell({"type": "error", **said})
        return False

    said = runtime.attempt(on_frame=on_frame)
    assert said.status == 1
    assert "AX1201: no such frame update" in said.stderr
    assert not said.of("fail")


def test_frames_may_come_in_pieces(agent: Make) -> None:
    runtime = agent(AGENT, signals={"go": "ü" * 100_000})
    opening = b"".join(json.dumps(frame).encode() + b"\n" for frame in runtime.opening())
    pieces: list[Frame | bytes] = [opening[at : at + 7] for at in range(0, len(opening), 7)]
    assert runtime.attempt(opening=pieces).result == "ü" * 100_000


def test_in_a_terminal_it_says_how_to_run_it(tmp_path: Path) -> None:
    program = tmp_path / "agent.py"
    program.write_text("import agent_executor as ax\nax.run(lambda ctx: None)\n")
    main, terminal = pty.openpty()
    done = subprocess.run(
        [sys.executable, str(program)],
        stdin=terminal,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        timeout=60,
        check=False,
    )
    os.close(main)
    os.close(terminal)
    assert done.returncode == 2
    assert "ax run" in done.stderr
    assert done.stdout == ""
