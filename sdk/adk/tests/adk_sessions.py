"""What the tests of sessions share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.session import Session
from google.genai import types

from agent_executor_adk import AxSessionService

USER = "user"


def said(
    text: str, *, delta: dict[str, Any] | None = None, author: str = "user", **more: Any
) -> Event:
    return Event(
        author=author,
        invocation_id="inv",
        content=types.Content(role="user", parts=[types.Part(text=text)]),
        actions=EventActions(state_delta=delta or {}),
        **more,
    )


def texts(session: Session) -> list[str | None]:
    found = []
    for event in session.events:
        assert event.content is not None
        assert event.content.parts
        found.append(event.content.parts[0].text)
    return found


async def get(sessions: AxSessionService, session: Session, **config: Any) -> Session:
    ids: dict[str, Any] = {
        "app_name": session.app_name,
        "user_id": session.user_id,
        "session_id": session.id,
    }
    return await there(sessions, ids, **config)


async def there(sessions: AxSessionService, ids: dict[str, Any], **config: Any) -> Session:
    wanted = GetSessionConfig(**config) if config else None
    found = await sessions.get_session(**ids, config=wanted)
    assert found is not None
    return found


async def is_there(sessions: AxSessionService, session: Session) -> bool:
    ids: dict[str, Any] = {
        "app_name": session.app_name,
        "user_id": session.user_id,
        "session_id": session.id,
    }
    return await sessions.get_session(**ids) is not None


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)
