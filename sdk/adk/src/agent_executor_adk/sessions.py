"""ADK sessions in Agent Executor: each is a session there, and each of its events a record."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

from agent_executor.client import AsyncClient
from agent_executor.records import Deleted, Stale
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.platform import time as platform_time
from google.adk.platform import uuid as platform_uuid
from google.adk.sessions.base_session_service import (
    BaseSessionService,
    GetSessionConfig,
    ListSessionsResponse,
)
from google.adk.sessions.session import Session
from pydantic_core import to_jsonable_python

from .history import (
    STATE_ENTRIES,
    Entry,
    History,
    keep_state,
    of_scope,
    read_all,
    read_recent,
    write,
)
from .listing import Listing
from .place import AGENT, Missing, Place, Views, adk_name, app_name, user_name
from .shared import SharedState


class AxSessionService(BaseSessionService):  # type: ignore[misc,unused-ignore]
    """Keeps ADK sessions in Agent Executor.

    An event is durable, together with all that it changes, when ``append_event`` returns; it is
    recorded once, however often it has to be sent. If somebody else has written to the session
    since it was read, ``append_event`` raises ``StaleSessionError``, and nothing was written: it is
    the session's one writer who decides that, not a comparison of times.

        sessions = AxSessionService("ax://127.0.0.1:7700")
        runner = Runner(app=app, session_service=sessions)
    """

    def __init__(
        self, uri: str = "", *, client: AsyncClient | None = None, agent: str = AGENT, **_: Any
    ) -> None:
        """Keep sessions at an address: see :class:`agent_executor_adk.place.Place`.

        Args:
            uri: Such as ``ax://127.0.0.1:7700``; the server of ``AX_SERVER`` if it is empty.
            client: To use instead of that server.
            agent: The agent that the sessions have; it is made if there is none.
            **_: What ADK hands to every service, such as ``agents_dir``.
        """
        self._place = Place(uri, client, agent)
        self._shared = Views(self._place, SharedState)
        self._listing = Listing(self._place)
        self._locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Create a session.

        Raises:
            AlreadyExistsError: There is one with this id.
        """
        session_id = (session_id or "").strip() or platform_uuid.new_uuid()
        given: dict[str, Any] = to_jsonable_python(dict(state or {}), fallback=str)
        kept = {key: value for key, value in given.items() if not key.startswith("temp:")}
        created = {
            "app": app_name,
            "user": user_id,
            "session": session_id,
            "state": kept,
            "time": platform_time.get_time(),
        }
        key = f"created-{secrets.token_hex(16)}"

        async def create(name: str) -> tuple[str, int]:
            data = {"created": created}
            agent = self._place.agent
            plan = write(name, data, agent=agent, key=key, after=0, may_create=True)
            return name, (await self._place.client.carry(plan)).seq

        try:
            name, seq = await self._place.at(adk_name(app_name, user_id, session_id), create)
        except Stale as error:
            raise AlreadyExistsError(f"Session with id {session_id} already exists.") from error
        await self._change_shared(app_name, user_id, kept, f"{name} {seq}")
        entry = Entry(seq, 0, {"created": created})
        history = History()
        history.take([entry])
        return await self._session(app_name, user_id, session_id, name, history, [])

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> Session | None:
        """Return a session, or None if there is none."""
        session_id = session_id.strip()
        count = config.num_recent_events if config else None
        since = config.after_timestamp if config else None
        everything = count is None and since is None

        async def read(name: str) -> tuple[str, History]:
            plan = read_all(name) if everything else read_recent(name, count, since)
            history = await self._place.client.carry(plan)
            if history.last - history.kept > STATE_ENTRIES and len(history.entries):
                await self._place.client.carry(keep_state(name, history))
            return name, history

        try:
            name, history = await self._place.at(adk_name(app_name, user_id, session_id), read)
        except Missing:
            return None
        if not history.last:
            return None
        await self._mend(app_name, user_id, history)
        events = history.events
        if since is not None:
            events = [entry for entry in events if entry.time >= since]
        if count is not None:
            events = events[-count:] if count else []
        return await self._session(app_name, user_id, session_id, name, history, events)

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """List the sessions of a user, or of all users of an app, without their events.

        The one that was changed last is the last.
        """
        found = await self._listing.of(app_name, user_id)
        users = {user for user, _, _ in found}
        of_app = await self._of_app(app_name) if found else {}
        of_users = {user: await self._of_user(app_name, user) for user in users}
        sessions = [
            Session(
                app_name=app_name,
                user_id=user,
                id=session,
                state=_merged(summary.state, of_app, of_users[user]),
                last_update_time=summary.time,
            )
            for user, session, summary in found
        ]
        sessions.sort(key=lambda one: (one.last_update_time, one.user_id, one.id))
        return ListSessionsResponse(sessions=sessions)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session; its artifacts are deleted with it."""
        await self._place.delete(adk_name(app_name, user_id, session_id.strip()))

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Return the state of a user, its keys without their prefix."""
        return await self._of_user(app_name, user_id)

    async def append_event(self, session: Session, event: Event) -> Event:
        """Record an event; it is durable when this returns.

        Raises:
            StaleSessionError: Somebody else has written to the session since it was read.
            SessionNotFoundError: There is no such session, or no more.
        """
        if event.partial:
            return event
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        async with self._lock(session):
            if any(one == event for one in session.events if one.id == event.id):
                return event
            name, after = await self._revision(session)
            data = {"event": _dump(event)}
            entry = await self._write(session, name, data, after)
            key = f"{name} {entry.seq}"
            await self._change_shared(session.app_name, session.user_id, entry.delta, key)
            session._storage_update_marker = _marker(name, entry.seq)
            session.last_update_time = event.timestamp
            committed: Event = self._commit_event_to_session(session, event)
            return committed

    async def flush(self) -> None:
        """Do nothing: what was appended is durable."""

    async def _write(
        self, session: Session, name: str, data: Mapping[str, Any], after: int
    ) -> Entry:
        digest = hashlib.sha256(json.dumps(data).encode()).hexdigest()
        plan = write(
            name,
            data,
            agent=self._place.agent,
            key=f"event-{digest}",
            after=after,
            may_create=False,
        )
        try:
            written = await self._place.client.carry(plan)
        except Stale as error:
            raise StaleSessionError(
                f"Session {session.id} was changed since it was read. Get it again before you "
                "append to it."
            ) from error
        except (Deleted, Missing) as error:
            raise SessionNotFoundError(f"Session {session.id} not found.") from error
        return Entry(written.seq, 0, data)

    async def _revision(self, session: Session) -> tuple[str, int]:
        """Return under which name the session lives, and the newest entry that it is based on."""
        if session._storage_update_marker is not None:
            seq, _, name = session._storage_update_marker.partition(" ")
            return name, int(seq)

        # It does not come from here: it is good if it ends with the event that is the newest.
        async def read(name: str) -> tuple[str, History]:
            return name, await self._place.client.carry(read_recent(name, 1))

        base = adk_name(session.app_name, session.user_id, session.id)
        try:
            name, history = await self._place.at(base, read)
        except Missing as error:
            raise SessionNotFoundError(f"Session {session.id} not found.") from error
        if not history.last:
            raise SessionNotFoundError(f"Session {session.id} not found.")
        newest = history.events[-1].data["event"]["id"] if history.events else None
        if newest != (session.events[-1].id if session.events else None):
            raise StaleSessionError(f"Session {session.id} does not end as it was recorded.")
        return name, history.last

    async def _session(
        self,
        app: str,
        user: str,
        session_id: str,
        name: str,
        history: History,
        events: list[Entry],
    ) -> Session:
        of_app, of_user = await asyncio.gather(self._of_app(app), self._of_user(app, user))
        session = Session(
            app_name=app,
            user_id=user,
            id=session_id,
            state=_merged(history.state, of_app, of_user),
            events=[_load(entry.data["event"]) for entry in events],
            last_update_time=history.time,
        )
        session._storage_update_marker = _marker(name, history.last)
        return session

    async def _of_app(self, app: str) -> dict[str, Any]:
        return await self._shared.do(app_name(app), lambda state: state.read())

    async def _of_user(self, app: str, user: str) -> dict[str, Any]:
        return await self._shared.do(user_name(app, user), lambda state: state.read())

    async def _change_shared(self, app: str, user: str, delta: Mapping[str, Any], key: str) -> None:
        if of_app := of_scope(delta, "app:"):
            await self._shared.do(app_name(app), lambda state: state.write(of_app, key))
        if of_user := of_scope(delta, "user:"):
            await self._shared.do(user_name(app, user), lambda state: state.write(of_user, key))

    async def _mend(self, app: str, user: str, history: History) -> None:
        """Make up for a process that died after it had written the newest entry."""
        if not history.entries:
            return
        delta, at = history.entries[-1].delta, history.entries[-1].at_millis
        if of_app := of_scope(delta, "app:"):
            await self._shared.do(app_name(app), lambda state: state.mend(of_app, at))
        if of_user := of_scope(delta, "user:"):
            await self._shared.do(user_name(app, user), lambda state: state.mend(of_user, at))

    def _lock(self, session: Session) -> asyncio.Lock:
        """Return what keeps two tasks from appending to a session at the same time."""
        name = adk_name(session.app_name, session.user_id, session.id)
        key = (id(asyncio.get_running_loop()), name)
        return self._locks.setdefault(key, asyncio.Lock())


def _dump(event: Event) -> dict[str, Any]:
    """Return the JSON form of an event, the same however often it is made."""
    form: dict[str, Any] = event.model_dump(mode="json", by_alias=True, exclude_none=True)
    if "longRunningToolIds" in form:
        form["longRunningToolIds"].sort()
    return form


def _load(form: Mapping[str, Any]) -> Event:
    # Only a JSON text is read as one: bytes are in base64.
    event: Event = Event.model_validate_json(json.dumps(form))
    return event


def _marker(name: str, seq: int) -> str:
    return f"{seq} {name}"


def _merged(
    own: Mapping[str, Any], of_app: Mapping[str, Any], of_user: Mapping[str, Any]
) -> dict[str, Any]:
    merged = copy.deepcopy(dict(own))
    merged.update({f"app:{key}": value for key, value in of_app.items()})
    merged.update({f"user:{key}": value for key, value in of_user.items()})
    return merged
