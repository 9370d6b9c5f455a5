"""Frames on file descriptors: framing and nothing else, and the guard of standard output."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from typing import Any, TypeVar

from .errors import Finished, FrameTooLarge, ProtocolError
from .values import encode

Frame = dict[str, Any]
T = TypeVar("T")

FRAME_BYTES_MAX = 16 * 1024 * 1024
"""The largest frame until the runtime says its own limit."""
READ_BYTES = 64 * 1024

_guarded: tuple[int, int] | None = None


def guard_stdio() -> tuple[int, int]:
    """Take standard input and output for the protocol; return their new descriptors.

    From here on ``print`` and child processes write to standard error, and standard input is empty.
    Called by :func:`agent_executor.run`; call it first thing in a program that writes to standard
    output while it is being imported. A second call returns the same descriptors.
    """
    global _guarded  # noqa: PLW0603
    if _guarded is not None:
        return _guarded
    frames_in, frames_out = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # standard error is closed
        os.dup2(null, 1)
    os.close(null)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(line_buffering=True)
    _guarded = (frames_in, frames_out)
    os.register_at_fork(after_in_child=_close_in_child)
    return _guarded


def _close_in_child() -> None:
    """Keep a forked child from holding the pipes open, or from writing to them."""
    for fd in _guarded or ():
        with contextlib.suppress(OSError):
            os.close(fd)


def field(frame: Frame, name: str, kind: type[T]) -> T:
    """Return a field of a frame, which must be there and of this type."""
    value = frame.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        said = "is missing" if name not in frame else f"is {json.dumps(value)[:80]}"
        raise ProtocolError(f"a {frame.get('type')!r} frame whose {name!r} {said}")
    return value


class Wire:
    """Both directions of the conversation. Any thread may send; one thread receives."""

    def __init__(self, frames_in: int, frames_out: int) -> None:
        self.frame_bytes_max = FRAME_BYTES_MAX
        self._in = frames_in
        self._out = frames_out
        self._buffer = bytearray()
        self._searched = 0
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False

    def encode(self, frame: Frame) -> bytes:
        """Return the line of a frame, or raise :class:`FrameTooLarge`."""
        line = encode(frame).encode("utf-8", "replace")
        if len(line) > self.frame_bytes_max:
            what = " ".join(filter(None, [str(frame["type"]), str(frame.get("key") or "")]))
            raise FrameTooLarge(f"the frame {what!r}", len(line), self.frame_bytes_max)
        return line + b"\n"

    def send(self, frame: Frame, *, last: bool = False) -> None:
        """Write a frame as a whole."""
        self.send_line(self.encode(frame), last=last)

    def send_line(self, line: bytes, *, last: bool = False) -> None:
        """Write an encoded frame as a whole; after the last, nothing more is taken.

        The end of the runtime is the end of this process.
        """
        if os.getpid() != self._pid:
            raise Finished("a forked process cannot speak for the agent; use threads or tasks")
        with self._lock:
            if self._closed:
                raise Finished("the attempt is over; nothing more can be recorded")
            rest = memoryview(line)
            try:
                while rest:
                    rest = rest[os.write(self._out, rest) :]
            except OSError:  # nobody reads any more
                os._exit(1)
            if last:
                self._close()

    def close(self) -> None:
        """Close the direction to the runtime."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._out)

    @property
    def closed(self) -> bool:
        """Whether the direction to the runtime is closed."""
        return self._closed

    def receive(self) -> Frame | None:
        """Wait for the next frame; ``None`` at the end of the stream."""
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if max(end, len(self._buffer) if end < 0 else 0) > self.frame_bytes_max:
                raise ProtocolError(f"a frame of more than {self.frame_bytes_max} bytes")
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                self._searched = 0
                return _decode(line)
            self._searched = len(self._buffer)
            try:
                chunk = os.read(self._in, READ_BYTES)
            except OSError:
                return None
            if not chunk:
                return None
            self._buffer += chunk


def _decode(line: bytes) -> Frame:
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError(f"a line that is not JSON: {line[:80]!r}") from None
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise ProtocolError(f"a line that is not a frame: {line[:80]!r}")
    return frame
