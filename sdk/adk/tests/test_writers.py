"""Several that write to a session at a time, and again what was written. A real server."""

from __future__ import annotations

import asyncio
import copy
import uuid
from typing import Any

import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.sessions.session import Session

from adk_sessions import USER, get, run, said, texts, there
from agent_executor_adk import AxSessionService
from conftest import Server


def test_who_has_not_read_what_another_wrote_is_refused(
    sessions: AxSessionService, server: Server, app: str
) -> None:
    async def main() -> None:
        made = await sessions.create_session(app_name=app, user_id=USER)
        other = AxSessionService(server.uri)
        theirs = await get(other, made)
        await sessions.append_event(made, said("first", delta={"by": "one"}))
        stale = said("second", delta={"by": "other", "app:by": "other"})
        with pytest.raises(StaleSessionError):
            await other.append_event(theirs, stale)
        found = await get(other, made)
        assert (texts(found), found.state) == (["first"], {"by": "one"})
        assert texts(theirs) == []
        await other.append_event(found, stale)
        with pytest.raises(StaleSessionError):
            await sessions.append_event(made, said("third"))
        assert texts(await get(sessions, made)) == ["first", "second"]

    run(main())


def test_a_copy_of_a_session_is_as_stale_as_the_session(
    sessions: AxSessionService, app: str
) -> None:
    async def main() -> None:
        made = await sessions.create_session(app_name=app, user_id=USER)
        copies = [copy.deepcopy(made), made.model_copy(deep=True), copy.copy(made)]
        await sessions.append_event(made, said("mine"))
        for one in copies[:2]:
            with pytest.raises(StaleSessionError):
                await sessions.append_event(one, said("theirs"))

    run(main())


def test_a_session_from_elsewhere_is_good_if_it_ends_as_it_was_recorded(
    sessions: AxSessionService, app: str
) -> None:
    async def main() -> None:
        made = await sessions.create_session(app_name=app, user_id=USER, session_id="one")
        await sessions.append_event(made, said("first"))
        same = Session.model_validate(made.model_dump())
        behind = Session(id="one", app_name=app, user_id=USER, last_update_time=9e9)
        with pytest.raises(StaleSessionError):
            await sessions.append_event(behind, said("no"))
        await sessions.append_event(same, said("second"))
        assert texts(await get(sessions, made)) == ["first", "second"]
        unknown = Session(id="two", app_name=app, user_id=USER)
        with pytest.raises(SessionNotFoundError):
            await sessions.append_event(unknown, said("no"))
        listed = (await sessions.list_sessions(app_name=app)).sessions
        assert [one.id for one in listed] == ["one"], "nothing was made by accident"

    run(main())


def test_of_many_that_write_at_once_one_wins_each_time(server: Server, app: str) -> None:
    async def add(number: int, ids: dict[str, Any]) -> None:
        """Append a number, as often as somebody else was faster."""
        sessions = AxSessionService(server.uri)
        while True:
            session = await there(sessions, ids)
            total = session.state.get("total", 0) + number
            try:
                await sessions.append_event(session, said(str(number), delta={"total": total}))
                return
            except StaleSessionError:
                continue

    async def main() -> None:
        sessions = AxSessionService(server.uri)
        ids: dict[str, Any] = {"app_name": app, "user_id": USER, "session_id": "one"}
        made = await sessions.create_session(**ids)
        await asyncio.gather(*(add(number, ids) for number in range(1, 11)))
        found = await get(sessions, made)
        assert sorted(int(text or 0) for text in texts(found)) == list(range(1, 11))
        assert found.state == {"total": 55}, "nobody's change was lost"

    run(main())


def test_tasks_that_share_a_session_write_one_after_the_other(
    sessions: AxSessionService, app: str
) -> None:
    async def main() -> None:
        made = await sessions.create_session(app_name=app, user_id=USER)
        events = [said(str(n), delta={f"k{n}": n}) for n in range(20)]
        await asyncio.gather(*(sessions.append_event(made, event) for event in events))
        found = await get(sessions, made)
        assert found.events == made.events
        assert sorted(map(str, texts(found))) == sorted(str(n) for n in range(20))
        assert found.state == {f"k{n}": n for n in range(20)}

    run(main())


def test_an_event_that_is_delivered_again_is_recorded_once(
    sessions: AxSessionService, server: Server, app: str
) -> None:
    async def main() -> None:
        made = await sessions.create_session(app_name=app, user_id=USER)
        event = said("hi", delta={"n": 1})
        event.long_running_tool_ids = {"a", "b", "c"}
        # It was written, and the answer got lost: nobody here knows.
        lost = await get(AxSessionService(server.uri), made)
        await AxSessionService(server.uri).append_event(lost, event.model_copy(deep=True))
        await sessions.append_event(made, event)
        assert texts(made) == ["hi"]
        await sessions.append_event(made, event)
        await sessions.append_event(made, said("next"))
        await sessions.append_event(made, event.model_copy(deep=True))
        assert texts(made) == ["hi", "next"]
        assert texts(await get(sessions, made)) == ["hi", "next"]

    run(main())


def test_events_that_only_share_an_id_are_two(sessions: AxSessionService, app: str) -> None:
    async def main() -> None:
        made = await sessions.create_session(app_name=app, user_id=USER)
        for text in ("one", "two"):
            await sessions.append_event(made, said(text, id="same"))
        assert texts(await get(sessions, made)) == ["one", "two"]

    run(main())


def test_many_change_the_state_of_an_app_at_once(server: Server, app: str) -> None:
    async def work(number: int) -> None:
        sessions = AxSessionService(server.uri)
        made = await sessions.create_session(app_name=app, user_id=f"u{number}")
        for n in range(30):
            await sessions.append_event(made, said("x", delta={f"app:k{number}": n, "app:any": n}))

    async def main() -> None:
        await asyncio.gather(*(work(number) for number in range(6)))
        for _ in range(2):
            fresh = AxSessionService(server.uri)
            made = await fresh.create_session(app_name=app, user_id=str(uuid.uuid4()))
            expected = {f"app:k{number}": 29 for number in range(6)}
            state = dict(made.state)
            assert state.pop("app:any") in range(30)
            assert state == expected

    run(main())
