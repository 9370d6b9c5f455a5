"""A runtime for tests: drives a real agent process by the book of docs/formats/harness-stdio.md.

It keeps what is recorded in memory across attempts, and checks every frame that it gets.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Frame = dict[str, Any]

SOURCE = Path(__file__).parent.parent / "src"
LIMIT_SECONDS = 60
HEADER = "import agent_executor as ax\n"
REQUIRED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "hello": {"protocol": int},
    "heartbeat": {},
    "delta": {"block": str, "text": str},
    "output": {},
    "step_begin": {"key": str, "kind": str, "name": str, "effect": str},
    "step_end": {"key": str},
    "ask": {"key": str, "kind": str, "prompt": str},
    "sleep": {"key": str, "due_ms": int},
    "signal": {"key": str, "name": str},
    "emit": {"name": str},
    "checkpoint": {"key": str},
    "diverged": {"key": str, "expected": str, "found": str},
    "end": {},
    "fail": {"failure": dict},
}
DIRECT = ("hello", "heartbeat", "delta", "end", "fail", "diverged")


@dataclass
class Outcome:
    """What became of an attempt."""

    frames: list[Frame]
    status: int
    stderr: str

    def of(self, kind: str) -> list[Frame]:
        return [frame for frame in self.frames if frame["type"] == kind]

    def last(self, kind: str) -> Frame:
        found = self.of(kind)
        assert found, f"no {kind} among {[each['type'] for each in self.frames]}\n{self.stderr}"
        return found[-1]

    @property
    def result(self) -> Any:
        return self.last("end")["result"]

    @property
    def failure(self) -> Frame:
        return dict(self.last("fail")["failure"])

    def begun(self) -> list[str]:
        return [frame["key"] for frame in self.of("step_begin")]


@dataclass
class Runtime:
    """The durable side of one execution."""

    folder: Path
    source: str = ""
    input: Any = "hello"
    config: Any = None
    history: list[Frame] = field(default_factory=list)
    answers: dict[str, Frame] = field(default_factory=dict)
    signals: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    frame_bytes_max: int = 16 * 1024 * 1024
    start: Frame = field(default_factory=dict)
    timers_fire: bool = True

    def __post_init__(self) -> None:
        self.workspace = self.folder / "workspace"
        self.workspace.mkdir(exist_ok=True)
        self.journal: dict[str, Frame] = {}
        self.granted: dict[str, Frame] = {}
        self.attempts = 0
        self.seqs = itertools.count(10)
        self.change(self.source)

    def change(self, source: str) -> None:
        """Replace the agent's program."""
        if source:
            path = self.folder / "agent.py"
            path.write_text(HEADER + textwrap.dedent(source), encoding="utf-8")
            self.command = [sys.executable, str(path)]

    def effects(self) -> list[str]:
        path = self.workspace / "effects.txt"
        return path.read_text(encoding="utf-8").split() if path.exists() else []

    def attempt(self, **how: Any) -> Outcome:
        """Run an attempt to its end."""
        self.attempts += 1
        return Attempt(self, **how).run()

    def opening(self) -> list[Frame]:
        start: Frame = {
            "type": "start",
            "protocol": 1,
            "namespace": "default",
            "session": "ses_1",
            "agent": {"name": "test", "version": 1},
            "execution": "exec_1",
            "attempt": self.attempts,
            "workspace": str(self.workspace),
            "config": self.config,
            "frame_bytes_max": self.frame_bytes_max,
            **self.start,
        }
        parts = self.input if isinstance(self.input, list) else [text_part(self.input)]
        frames = [start, *({"type": "history", **message} for message in self.history)]
        frames.append({"type": "input", "seq": 2, "parts": parts})
        frames += [{"type": "journal", **entry} for entry in self.journal.values()]
        frames.append({"type": "ready", "journal": len(self.journal)})
        return frames


@dataclass
class Attempt:
    """One attempt.

    Attributes:
        kill_at: After which frame of the agent (heartbeats not counted) it is killed.
        when: ``unseen``: the frame is lost; ``recorded``: no reply is sent; ``replied``: one is.
        on_frame: Sees every frame first; returns whether it has dealt with it.
    """

    runtime: Runtime
    kill_at: int | None = None
    when: str = "recorded"
    on_frame: Callable[[Attempt, Frame], object] = lambda _attempt, _frame: False
    opening: list[Frame | bytes] | None = None

    def run(self) -> Outcome:
        runtime = self.runtime
        environment = {
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "PYTHONUNBUFFERED": "",
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONWARNINGS": "error",
            "AX_SESSION": "ses_1",
            "AX_EXECUTION": "exec_1",
            "AX_WORKSPACE": str(runtime.workspace),
            **runtime.env,
        }
        self.frames: list[Frame] = []
        self.blocks: dict[str, str] = {}
        self.keys: set[str] = set()
        self.open: dict[str, Frame] = {}
        with (runtime.folder / "stderr").open("w+b") as stderr:
            self.process = subprocess.Popen(
                runtime.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=runtime.workspace,
                env=environment,
            )
            guard = threading.Timer(LIMIT_SECONDS, self.process.kill)
            guard.start()
            try:
                self._converse()
            finally:
                if self.process.poll() is None and sys.exc_info()[0] is not None:
                    self.process.kill()
                self.close()
                status = self.process.wait()
                guard.cancel()
                assert self.process.stdout is not None
                self.process.stdout.close()
            stderr.seek(0)
            text = stderr.read().decode("utf-8", "replace")
        return Outcome(self.frames, status, text)

    def _converse(self) -> None:
        for frame in self.opening if self.opening is not None else self.runtime.opening():
            self.tell(frame)
        assert self.process.stdout is not None
        count = 0
        for line in self.process.stdout:
            frame = json.loads(line)
            self._check(frame)
            self.frames.append(frame)
            counted = frame["type"] not in ("heartbeat",)
            count += counted
            last = counted and count == self.kill_at
            if last and self.when == "unseen":
                break
            if not self.on_frame(self, frame):
                reply = self._record(frame)
                if reply is not None and not (last and self.when == "recorded"):
                    self.tell(reply)
            if last:
                break
            if frame["type"] in ("end", "fail", "diverged"):
                rest = self.process.stdout.read()
                assert rest == b"", f"said after its last frame: {rest[:200]!r}"
                return
        else:
            return
        self.process.kill()
        self.process.wait()

    def tell(self, frame: Frame | bytes) -> None:
        line = frame if isinstance(frame, bytes) else json.dumps(frame).encode() + b"\n"
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def close(self) -> None:
        """Close the agent's standard input."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def _check(self, frame: Frame) -> None:
        kind = frame["type"]
        for name, expected in REQUIRED[kind].items():
            assert isinstance(frame.get(name), expected), frame
        assert self.frames or kind == "hello", "hello comes first"
        assert len(json.dumps(frame, ensure_ascii=False)) < 2 * self.runtime.frame_bytes_max
        key = frame.get("key")
        if kind not in ("step_end", "diverged") and key is not None:
            assert 0 < len(key.encode()) <= 256
            assert key not in self.keys, f"{key} is used twice"
            self.keys.add(key)
        if kind == "step_begin":
            assert re.fullmatch("[0-9a-f]{64}", frame["digest"]), frame
            self.open[frame["key"]] = frame
        if kind == "step_end":
            assert key in self.open, f"{key} ends but has not begun"
            assert ("result" in frame) != ("failure" in frame), frame

    def _record(self, frame: Frame) -> Frame | None:
        """Make a frame durable; return the reply."""
        runtime, kind, key = self.runtime, frame["type"], frame.get("key")
        if kind == "delta":
            block = frame["block"]
            self.blocks[block] = self.blocks.get(block, "") + frame["text"]
        if kind in DIRECT or not isinstance(key, str):
            return None
        recorded = {"type": "recorded", "key": key, "seq": next(runtime.seqs), "before": None}
        known = runtime.journal.get(key)
        if kind in ("ask", "sleep", "signal"):
            return self._wait(frame, recorded, known)
        if known is not None:
            return {**recorded, "before": known}
        if kind == "step_begin":
            if frame["effect"] != "once":
                return None
            assert key not in runtime.granted, f"{key} is granted a second time"
            runtime.granted[key] = frame
            return {"type": "granted", "key": key}
        entry: Frame = {"entry": kind, "key": key, "seq": recorded["seq"]}
        if kind == "step_end":
            begin = self.open.pop(key)
            runtime.granted.pop(key, None)
            entry = {**entry, "entry": "step", **step_fields(begin)}
            entry |= {name: frame[name] for name in ("result", "failure") if name in frame}
        elif kind == "output":
            entry["text"] = self.blocks.pop(frame.get("block", ""), "") + frame.get("text", "")
        else:
            entry["name"] = frame.get("name", "")
        runtime.journal[key] = entry
        return recorded

    def _wait(self, frame: Frame, recorded: Frame, known: Frame | None) -> Frame | None:
        runtime, kind, key = self.runtime, frame["type"], frame["key"]
        entry = runtime.journal.setdefault(key, {"entry": kind, "key": key})
        if known is not None:
            self.tell({**recorded, "before": dict(known)})
        if kind == "ask":
            answer = runtime.answers.get(key)
            if answer is None:
                return None
            entry |= {"answer": answer} if "kind" in answer else answer
            if "kind" not in answer:
                return {"type": "expired", "key": key}
            return {"type": "answered", "key": key, "answer": answer}
        if kind == "sleep":
            entry |= {"due_ms": frame["due_ms"], "fired": runtime.timers_fire}
            return {"type": "fired", "key": key} if runtime.timers_fire else None
        entry["name"] = frame["name"]
        if frame["name"] not in runtime.signals:
            return None
        payload = entry["payload"] = runtime.signals[frame["name"]]
        return {"type": "signaled", "key": key, "name": frame["name"], "payload": payload}


def step_fields(begin: Frame) -> Frame:
    return {name: begin[name] for name in ("kind", "name", "effect", "digest")}


def text_part(text: str) -> Frame:
    return {"kind": "text", "media_type": "text/plain", "name": "", "text": text}
