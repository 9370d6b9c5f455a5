"""The ADK session of an agent that Agent Executor runs: a file in the session's workspace."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import agent_executor as ax
from google.adk.events.event import Event
from google.adk.sessions.in_memory_session_service import InMemorySessionService
from google.adk.sessions.session import Session
from google.genai import types

FILE = "adk-session.jsonl"


class WorkspaceSessions(InMemorySessionService):  # type: ignore[misc,unused-ignore]
    """One ADK session, whose events are lines of a file.

    An execution begins where the last one that ended well has ended; a second file says where that
    is, and the execution records it. What is after it is cut off: an attempt that died has left it,
    and the next attempt writes it again, or an execution that failed or was canceled, whose half
    turn no model would take. So each attempt sees the same session, of whole turns, and the file
    grows with what is new.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._is_open = False

    @classmethod
    async def open(
        cls, ctx: ax.AsyncContext, app: str, user: str, session: str
    ) -> WorkspaceSessions:
        """Open the session of an execution as it was when its input came."""
        path = ctx.workspace / FILE
        size = await ctx.step("adk-session", _begin, path, effect="read", request=FILE)
        sessions = cls(path)
        made = await sessions.create_session(app_name=app, user_id=user, session_id=session)
        for event in _load(path, size):
            await sessions.append_event(made, event)
        sessions._is_open = True
        for event in [] if size else _of_history(ctx, app):
            await sessions.append_event(made, event)
        return sessions

    async def append_event(self, session: Session, event: Event) -> Event:
        """Take an event in, and write it down."""
        known = len(session.events)
        appended: Event = await super().append_event(session, event)
        if self._is_open and len(session.events) > known:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(appended.model_dump_json(by_alias=True, exclude_none=True) + "\n")
        return appended

    def end(self) -> None:
        """Make durable what was written, and then that the execution has ended well with it.

        An attempt that dies after that is followed by one that begins where it began, which takes
        the end back before it cuts anything off.
        """
        if self._path.exists():
            with self._path.open("rb") as file:
                os.fsync(file.fileno())
            _write_end(self._path, self._path.stat().st_size)


def _begin(path: Path) -> int:
    """Return where an input begins."""
    if not path.exists():
        return 0
    end = _read_end(path)
    # A file of which no end was ever written down is taken up to its last whole line.
    return path.read_bytes().rfind(b"\n") + 1 if end is None else end


def _load(path: Path, size: int) -> list[Event]:
    """Read the events up to a position, and cut off what is after it.

    Raises:
        ValueError: The file is shorter than it was.
    """
    content = path.read_bytes() if path.exists() else b""
    if len(content) < size:
        raise ValueError(f"{path} has lost events: the input begins after {size} bytes of it")
    events = [Event.model_validate_json(line) for line in content[:size].splitlines()]
    if _read_end(path) != size:
        _write_end(path, size)
    if path.exists():
        os.truncate(path, size)
    return events


def _read_end(path: Path) -> int | None:
    """Return where the last execution that ended well has ended, if it was written down."""
    end = path.with_suffix(".end")
    return int(end.read_text(encoding="ascii")) if end.exists() else None


def _write_end(path: Path, size: int) -> None:
    """Write an end down, whole or not at all, also if the power is lost."""
    draft = path.with_suffix(".draft")
    with draft.open("w", encoding="ascii") as file:
        file.write(f"{size}\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path.with_suffix(".end"))
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _of_history(ctx: ax.AsyncContext, app: str) -> list[Event]:
    """Make events of what was said before, if there is no file: in a branch, say."""
    roles = {"user": ("user", "user"), "agent": (app, "model")}
    said: list[Any] = [message for message in ctx.history if message.role in roles and message.text]
    return [
        Event(
            author=roles[message.role][0],
            invocation_id=f"history-{number}",
            content=types.Content(
                role=roles[message.role][1], parts=[types.Part(text=message.text)]
            ),
        )
        for number, message in enumerate(said)
    ]
