"""The store: sessions of Claude as sessions of Agent Executor."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator

from agent_executor.client import AsyncClient, Session
from agent_executor.records import Deleted, forget, living
from claude_agent_sdk.types import (
    SessionKey,
    SessionListSubkeysKey,
    SessionStore,
    SessionStoreEntry,
    SessionStoreListEntry,
    SessionSummaryEntry,
)

from .names import SUBPATHS, name_of, project_prefix, session_of
from .transcript import Subpaths, Transcript, read_summary

# What is remembered of so many sessions, those that were used last; others are read again.
HELD_MAX = 64
# Summaries that are remembered, as long as nothing happens in their sessions.
SUMMARIES_MAX = 1000
# How many sessions are read at a time.
READS_MAX = 16
# How often a session may be deleted under the hands of one call.
LIVES_MAX = 8
# A page of a list, at most what the server gives.
PAGE = 1000


class AxSessionStore(SessionStore):
    """Keeps sessions of the Claude Agent SDK on an Agent Executor server.

        options = ClaudeAgentOptions(
            session_store=AxSessionStore(), session_store_flush="eager", resume=session_id
        )

    A session of Claude is a session of Agent Executor, named ``claude/PROJECT/SESSION``; each
    :meth:`append` is one record of it, durable when the call returns. An entry with a uuid is kept
    once, also if several processes append it. Deleting is final; a session that is appended to
    after that begins anew.

    It is to be used in one event loop of asyncio.
    """

    def __init__(
        self,
        client: AsyncClient | None = None,
        *,
        agent: str = "claude",
        prefix: str = "claude",
    ) -> None:
        """Keep sessions on a server.

        Args:
            client: Where; the server that ``AX_SERVER`` names if it is left out.
            agent: The agent of the sessions. It is made if there is none; lists show its sessions.
            prefix: How the names of the sessions begin, 16 characters at most.

        Raises:
            ValueError: The prefix is too long.
        """
        if len(prefix.encode()) > 16:
            raise ValueError(f"a prefix has at most 16 bytes, not {prefix!r}")
        self._client = client or AsyncClient()
        self._agent = agent
        self._prefix = prefix
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._summaries: OrderedDict[str, tuple[int, SessionSummaryEntry | None]] = OrderedDict()

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Keep entries, in the order of the calls; each uuid once."""
        if not entries:
            return
        name = name_of(self._prefix, key["project_key"], key["session_id"])
        for _ in range(LIVES_MAX):
            held = await self._hold(name)
            try:
                await self._append(held, key, entries)
            except Deleted:
                self._held.pop(name, None)
            else:
                return
        raise Deleted(f"session {name!r} is deleted again and again")

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """Return all entries, or None if there are none."""
        name = name_of(self._prefix, key["project_key"], key["session_id"])
        for _ in range(LIVES_MAX):
            held = await self._hold(name)
            transcript = Transcript(held.session, key, self._agent, keep=True)
            try:
                await self._client.carry(transcript.view.refresh())
            except Deleted:
                self._held.pop(name, None)
                continue
            if not transcript.view.last and await self._is_over(name, held):
                continue
            kept, transcript.kept = transcript.kept or {}, None
            # What is appended next need not be read again.
            held.transcripts.setdefault(transcript.collection, transcript)
            return kept.get(key.get("subpath", ""))
        return None

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """Return the sessions of a project, with the times of the last entry of any transcript."""
        listed = []
        async for session, row in self._rows(project_key):
            listed.append(SessionStoreListEntry(session_id=session, mtime=_mtime(row)))
        return listed

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """Return the summaries of a project's sessions."""
        gate = asyncio.Semaphore(READS_MAX)

        async def read(session: str, row: Session) -> SessionSummaryEntry | None:
            async with gate:
                key = SessionKey(project_key=project_key, session_id=session)
                return await self._summary(key, row)

        rows = [read(session, row) async for session, row in self._rows(project_key)]
        summaries = await asyncio.gather(*rows)
        return [summary for summary in summaries if summary is not None]

    async def delete(self, key: SessionKey) -> None:
        """Delete a session with all its transcripts, or one transcript of a subagent."""
        name = name_of(self._prefix, key["project_key"], key["session_id"])
        subpath = key.get("subpath", "")
        if not subpath:
            await self._client.carry(forget(name, self._agent))
            self._held.pop(name, None)
            return
        held, subpaths = await self._subpaths(name)
        try:
            if subpath in subpaths:
                # In this order: who appends meanwhile finds out, and puts it on the list again.
                await self._client.carry(held.subpaths.put(subpath, there=False))
                await held.transcript(key).delete(self._client, subpath)
        except Deleted:
            self._held.pop(name, None)

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """Return the subpaths of the subagents' transcripts of a session."""
        name = name_of(self._prefix, key["project_key"], key["session_id"])
        _, subpaths = await self._subpaths(name)
        return subpaths

    async def _subpaths(self, name: str) -> tuple[_Held, list[str]]:
        for _ in range(LIVES_MAX):
            held = await self._hold(name)
            try:
                subpaths = await self._client.carry(held.subpaths.refresh())
            except Deleted:
                self._held.pop(name, None)
                continue
            if held.subpaths.last or not await self._is_over(name, held):
                return held, subpaths
        raise Deleted(f"session {name!r} is deleted again and again")

    async def _is_over(self, name: str, held: _Held) -> bool:
        """Tell whether a session of which nothing was read came and went unseen."""
        if await self._client.carry(living(name, self._agent)) == held.session:
            return False
        self._held.pop(name, None)
        return True

    async def _hold(self, name: str) -> _Held:
        held = self._held.get(name)
        if held is None:
            session = await self._client.carry(living(name, self._agent))
            held = self._held.setdefault(name, _Held(session, self._agent))
            if len(self._held) > HELD_MAX:
                self._held.popitem(last=False)
        self._held.move_to_end(name)
        return held

    async def _append(self, held: _Held, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        subpath = key.get("subpath", "")
        transcript = held.transcript(key)
        async with transcript.lock:
            while True:
                if subpath:
                    await self._client.carry(held.subpaths.put(subpath, there=True))
                if await transcript.append(self._client, subpath, entries):
                    return
                if subpath:
                    await self._client.carry(held.subpaths.refresh())

    async def _rows(self, project: str) -> AsyncIterator[tuple[str, Session]]:
        start = project_prefix(self._prefix, project)
        cursor = ""
        while True:
            page = await self._client.sessions(cursor=cursor, limit=PAGE, agent=self._agent)
            for row in page.sessions:
                session = session_of(row.name, start)
                if session is not None:
                    yield session, row
            cursor = page.cursor
            if not cursor:
                return

    async def _summary(self, key: SessionKey, row: Session) -> SessionSummaryEntry | None:
        last, summary = self._summaries.get(row.name, (0, None))
        if last != row.last:
            try:
                summary = await self._client.carry(read_summary(row.name, key, self._agent))
            except Deleted:
                return None
            self._summaries[row.name] = (row.last, summary)
            if len(self._summaries) > SUMMARIES_MAX:
                self._summaries.popitem(last=False)
        if summary is None:
            return None
        # What was written after the list was made is in it, but counts as older: then it is read
        # again, and nothing is missed.
        return SessionSummaryEntry(
            session_id=key["session_id"], mtime=_mtime(row), data=dict(summary["data"])
        )


class _Held:
    """What is remembered of a session."""

    def __init__(self, session: str, agent: str) -> None:
        self.session = session
        self.subpaths = Subpaths(session, agent, SUBPATHS)
        self.transcripts: dict[str, Transcript] = {}
        self._agent = agent

    def transcript(self, key: SessionKey) -> Transcript:
        new = Transcript(self.session, key, self._agent)
        return self.transcripts.setdefault(new.collection, new)


def _mtime(row: Session) -> int:
    return int(row.raw.get("updatedAtMillis", 0))
