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

    An execution begins where the file ended when its input came; this position is recorded. What an
    attempt that died has written after it is cut off, and the next attempt writes it again. So each
    attempt sees the same session, and the file grows with what is new.
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
        size = await ctx.step("adk-session", _size, path, effect="read", request=FILE)
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

    def sync(self) -> None:
        """Make durable what was written."""
        if self._path.exists():
            with self._path.open("rb") as file:
                os.fsync(file.fileno())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _load(path: Path, size: int) -> list[Event]:
    """Read the events up to a position, and cut off what is after it.

    Raises:
        ValueError: The file is shorter than it was.
    """
    if _size(path) < size:
        raise ValueError(f"{path} has lost events: it had {size} bytes when the input came")
    if not path.exists():
        return []
    os.truncate(path, size)
    with path.open(encoding="utf-8") as file:
        return [Event.model_validate_json(line) for line in file]


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
