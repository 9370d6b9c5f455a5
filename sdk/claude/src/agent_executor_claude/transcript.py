"""What this process knows of a transcript: where it ends, and which entries it has.

A record of the collections ``main`` and ``sub-…`` is ``{"entries": […]}``, with the ``subpath`` of
the subagent if it is one's, or ``{"subpath": …, "deleted": true}``. Each is written only if nothing
was written since the last one that was read, so no entry is there twice, whoever else writes.

A record of ``summary`` is ``{"upto": position, "data": …}``: what the SDK makes of the entries of
``main`` up to that position. If it falls behind, because a process died between the two, readers
fold in what is missing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from agent_executor.client import AsyncClient, Plan
from agent_executor.records import Record, Stale, View
from claude_agent_sdk import fold_session_summary
from claude_agent_sdk.types import SessionKey, SessionStoreEntry, SessionSummaryEntry

from .names import MAIN, SUMMARY, collection_of

# A summary is written when it changes, or when it is so many records behind.
SUMMARY_RECORDS_MAX = 32


class Transcript:
    """The transcript of a conversation, or those of some subagents of it."""

    def __init__(self, session: str, key: SessionKey, agent: str, *, keep: bool = False) -> None:
        """Know nothing yet.

        Args:
            session: The session's name, as it lives now.
            key: Any key that belongs to the collection.
            agent: The agent of the session.
            keep: Keep the entries that are read, in ``kept``.
        """
        self.collection = collection_of(key.get("subpath", ""))
        self.view = View(session, self.collection, agent=agent, take=self._take)
        # Appends come in the order in which they were called.
        self.lock = asyncio.Lock()
        self.kept: dict[str, list[SessionStoreEntry]] | None = {} if keep else None
        self._summary_view = View(session, SUMMARY, agent=agent)
        self._key = key
        self._uuids: dict[str, set[str]] = {}
        self._summary: SessionSummaryEntry | None = None
        self._summarized: tuple[int, dict[str, Any]] = (0, {})
        self._behind = 0

    async def append(
        self, client: AsyncClient, subpath: str, entries: list[SessionStoreEntry]
    ) -> bool:
        """Write the entries that are new.

        Returns:
            Whether it is done. If not, somebody else has written meanwhile, and that was read.
        """
        new = self._new(subpath, entries)
        if not new:
            # What is known here may have been deleted elsewhere.
            await client.carry(self.view.refresh())
            if self._new(subpath, entries):
                return False
        else:
            data = {"subpath": subpath, "entries": new} if subpath else {"entries": new}
            if not await self._write(client, data):
                return False
        if self.collection == MAIN:
            await self._summarize(client)
        return True

    async def delete(self, client: AsyncClient, subpath: str) -> None:
        """Delete the transcript of a subagent."""
        while not await self._write(client, {"subpath": subpath, "deleted": True}):
            pass

    async def _write(self, client: AsyncClient, data: dict[str, Any]) -> bool:
        # The same entries at the same place are the same record: an append whose outcome nobody
        # heard of is made again by the SDK, also when none of its entries has an id.
        text = json.dumps([self.collection, self.view.last, data])
        key = hashlib.sha256(text.encode()).hexdigest()
        try:
            seq = await client.carry(self.view.append(data, key=key))
        except Stale:
            await client.carry(self.view.refresh())
            return False
        if self.view.last < seq:
            await client.carry(self.view.refresh())
        return True

    async def _summarize(self, client: AsyncClient) -> None:
        upto, data = self._summarized
        if self._summary is None or self.view.last <= upto:
            return
        if self._summary["data"] == data and self._behind < SUMMARY_RECORDS_MAX:
            return
        now = (self.view.last, self._summary["data"])
        said = {"upto": now[0], "data": now[1]}
        # Whoever writes last: each says what is true up to its position.
        plan = self._summary_view.append(said, replaces=True, if_unchanged=False)
        await client.carry(plan)
        self._summarized, self._behind = now, 0

    def _take(self, record: Record) -> None:
        subpath = str(record.data.get("subpath", ""))
        if record.data.get("deleted"):
            self._uuids.pop(subpath, None)
            if self.kept is not None:
                self.kept.pop(subpath, None)
            return
        new = self._new(subpath, record.data["entries"])
        self._uuids.setdefault(subpath, set()).update(_uuids(new))
        if self.kept is not None:
            self.kept.setdefault(subpath, []).extend(new)
        if self.collection == MAIN:
            self._summary = fold_session_summary(self._summary, self._key, new)
            self._behind += 1

    def _new(self, subpath: str, entries: list[SessionStoreEntry]) -> list[SessionStoreEntry]:
        known = self._uuids.get(subpath, set())
        here: set[str] = set()
        new = []
        for entry in entries:
            uuid = entry.get("uuid")
            if uuid is not None and (uuid in known or uuid in here):
                continue
            if uuid is not None:
                here.add(uuid)
            new.append(entry)
        return new


class Subpaths:
    """Which transcripts of subagents a session has, in the order in which they began.

    A record is ``{"subpath": …}``, with ``"deleted": true`` if it is no more.
    """

    def __init__(self, session: str, agent: str, collection: str) -> None:
        self.known: dict[str, None] = {}
        self._view = View(session, collection, agent=agent, take=self._take)

    @property
    def last(self) -> int:
        """The position of the newest record that was read."""
        return self._view.last

    def refresh(self) -> Plan[list[str]]:
        """Plan to read which there are."""
        yield from self._view.refresh()
        return list(self.known)

    def put(self, subpath: str, *, there: bool) -> Plan[None]:
        """Plan to write that one is there, or no more, unless it is written."""
        while (subpath in self.known) != there:
            try:
                said = {"subpath": subpath} if there else {"subpath": subpath, "deleted": True}
                yield from self._view.append(said)
            except Stale:
                yield from self._view.refresh()

    def _take(self, record: Record) -> None:
        if record.data.get("deleted"):
            self.known.pop(record.data["subpath"], None)
        else:
            self.known[record.data["subpath"]] = None


def read_summary(session: str, key: SessionKey, agent: str) -> Plan[SessionSummaryEntry | None]:
    """Plan to read the summary of a session; None if nobody has said anything in it yet."""
    upto, summary = 0, None
    for record in (yield from View(session, SUMMARY, agent=agent).refresh()):
        upto = int(record.data["upto"])
        data: dict[str, Any] = record.data["data"]
        summary = SessionSummaryEntry(session_id=key["session_id"], mtime=0, data=data)
    for record in (yield from View(session, MAIN, agent=agent, after=upto).refresh()):
        summary = fold_session_summary(summary, key, record.data["entries"])
    return summary


def _uuids(entries: Iterable[SessionStoreEntry]) -> set[str]:
    return {entry["uuid"] for entry in entries if entry.get("uuid") is not None}
