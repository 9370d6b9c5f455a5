"""ADK memory in Agent Executor: what was said, searched by words."""

from __future__ import annotations

import json
import re
import secrets
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from agent_executor.client import AsyncClient
from agent_executor.records import AsyncCollection, Record, Stale
from google.adk.events.event import Event
from google.adk.memory.base_memory_service import BaseMemoryService, SearchMemoryResponse
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions.session import Session

from .place import AGENT, Place, Views, user_name

COLLECTION = "memory"
# How many memories a search returns at most.
FOUND_MAX = 10
# Memories of no session belong to this one; ADK's sessions have ids that are not empty.
_NO_SESSION = ""

_WORD = re.compile(r"\w+")
# Runs of letters of the Latin alphabet, of digits and of underscores within a word.
_LATIN = re.compile("[0-9_a-z\u00df-\u024f]+")


@dataclass(frozen=True)
class _Memory:
    """A memory, and what it is found by."""

    entry: Mapping[str, Any]
    text: str
    words: frozenset[str]


@dataclass
class _Known:
    """What a user's records amount to: memories by session and id, and ids that were deleted."""

    sessions: dict[str, dict[str, _Memory]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    dead: int = 0

    def put(self, session: str, entries: Iterable[Mapping[str, Any]]) -> None:
        """Add memories."""
        kept = self.sessions.setdefault(session, {})
        for entry in entries:
            self.dead += entry["id"] in kept
            kept[entry["id"]] = _memory(entry)

    def drop(self, session: str, ids: Iterable[str]) -> None:
        """Forget memories of a session."""
        for one in ids:
            if self.sessions.get(session, {}).pop(one, None):
                self.dead += 1

    def delete(self, one: str) -> None:
        """Forget a memory for good."""
        for session in self.sessions:
            self.drop(session, [one])
        self.deleted.add(one)

    def all(self) -> Iterable[_Memory]:
        """Return all memories, oldest first within a session."""
        return (memory for kept in self.sessions.values() for memory in kept.values())

    def whole(self) -> dict[str, Any]:
        """Return a record that stands for all."""
        sessions = {
            session: [memory.entry for memory in kept.values()]
            for session, kept in self.sessions.items()
        }
        return {"sessions": sessions, "deleted": sorted(self.deleted)}


class _Memories:
    """The memories of a user."""

    def __init__(self, client: AsyncClient, name: str, agent: str) -> None:
        self._known = _Known()
        self._records = AsyncCollection(client, name, COLLECTION, agent=agent, take=self._take)

    async def refresh(self) -> _Known:
        """Return what there is now."""
        await self._records.refresh()
        return self._known

    async def add(self, session: str, entries: list[dict[str, Any]], *, whole: bool) -> None:
        """Add what is not there yet; if it is the whole session, forget what is not in it."""
        while True:
            known = await self.refresh()
            kept = known.sessions.get(session, {})
            new = [one for one in entries if one["id"] not in kept.keys() | known.deleted]
            gone = sorted(kept.keys() - {one["id"] for one in entries}) if whole else []
            if not new and not gone:
                return
            try:
                await self._records.append({"session": session, "put": new, "drop": gone})
            except Stale:
                continue
            return

    async def delete(self, one: str) -> None:
        """Forget a memory, and never take it in again."""
        known = await self.refresh()
        if any(one in kept for kept in known.sessions.values()):
            await self._records.append({"delete": one}, if_unchanged=False)
        known = await self.refresh()
        if known.dead > sum(1 for _ in known.all()) + 64:
            # If somebody else writes meanwhile, the next one does it.
            with suppress(Stale):
                await self._records.replace(known.whole())

    def _take(self, record: Record) -> None:
        data = record.data
        if record.replaces:
            # In place: whoever searches has it in hand.
            self._known.sessions = {}
            self._known.deleted, self._known.dead = set(data["deleted"]), 0
            for session, entries in data["sessions"].items():
                self._known.put(session, entries)
        elif "delete" in data:
            self._known.delete(data["delete"])
        else:
            self._known.drop(data["session"], data["drop"])
            self._known.put(data["session"], data["put"])


class AxMemoryService(BaseMemoryService):  # type: ignore[misc,unused-ignore]
    """Keeps ADK memory in Agent Executor, one store for each user of an app.

    The search is by words, not by meaning: a memory is found if it has a word of the query, whole,
    in any case. Those with the most of its words come first, newer ones before older ones; there
    are ten at most. Words of other scripts than Latin are found anywhere in the text, since not all
    of them put spaces between words. The memories of a user are held in the memory of the process
    that searches them.
    """

    def __init__(
        self, uri: str = "", *, client: AsyncClient | None = None, agent: str = AGENT, **_: Any
    ) -> None:
        """Keep memory at an address; see :class:`agent_executor_adk.AxSessionService`."""
        self._place = Place(uri, client, agent)
        self._memories = Views(self._place, _Memories)

    async def add_session_to_memory(self, session: Session) -> None:
        """Remember the events of a session; of one that was added before, what is new."""
        entries = [_of_event(event, {}) for event in session.events if _has_content(event)]
        await self._add(session.app_name, session.user_id, session.id, entries, whole=True)

    async def add_events_to_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        events: Sequence[Event],
        session_id: str | None = None,
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Remember some events; those that are known already are not added again."""
        metadata = dict(custom_metadata or {})
        entries = [_of_event(event, metadata) for event in events if _has_content(event)]
        session = session_id or _NO_SESSION
        await self._add(app_name, user_id, session, entries, whole=False)

    async def add_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        memories: Sequence[MemoryEntry],
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Remember what is given, under ids that are made up where there are none."""
        now = datetime.now(timezone.utc).isoformat()
        entries = []
        for memory in memories:
            form = memory.model_dump(mode="json", exclude_none=True)
            form["id"] = memory.id or f"memory-{secrets.token_hex(16)}"
            form.setdefault("timestamp", now)
            form["custom_metadata"] = {**(custom_metadata or {}), **memory.custom_metadata}
            entries.append(form)
        await self._add(app_name, user_id, _NO_SESSION, entries, whole=False)

    async def search_memory(
        self, *, app_name: str, user_id: str, query: str
    ) -> SearchMemoryResponse:
        """Return the memories that have the most words of the query."""
        base = user_name(app_name, user_id)
        known = await self._memories.do(base, lambda memories: memories.refresh())
        wanted = set(_WORD.findall(_plain(query)))
        scored = [(_score(memory, wanted), memory) for memory in known.all()]
        found = [(score, memory) for score, memory in scored if score]
        found.sort(key=lambda one: (one[0], str(one[1].entry.get("timestamp", ""))), reverse=True)
        return SearchMemoryResponse(memories=[_load(one.entry) for _, one in found[:FOUND_MAX]])

    async def delete_memory(
        self, *, app_name: str, user_id: str, memory_id: str | None = None
    ) -> None:
        """Delete a memory. It does not come back when its session is added again."""
        if memory_id:
            base = user_name(app_name, user_id)
            await self._memories.do(base, lambda memories: memories.delete(memory_id))

    async def _add(
        self, app: str, user: str, session: str, entries: list[dict[str, Any]], *, whole: bool
    ) -> None:
        await self._memories.do(
            user_name(app, user),
            lambda memories: memories.add(session, entries, whole=whole),
        )


def _has_content(event: Event) -> bool:
    return bool(event.content and event.content.parts)


def _of_event(event: Event, metadata: Mapping[str, Any]) -> dict[str, Any]:
    assert event.content is not None  # noqa: S101 (the caller has looked)
    entry = MemoryEntry(
        id=event.id,
        author=event.author,
        timestamp=datetime.fromtimestamp(event.timestamp, timezone.utc).isoformat(),
        content=event.content,
        custom_metadata=dict(metadata),
    )
    form: dict[str, Any] = entry.model_dump(mode="json", exclude_none=True)
    return form


def _load(form: Mapping[str, Any]) -> MemoryEntry:
    # Only a JSON text is read as one: bytes are in base64.
    entry: MemoryEntry = MemoryEntry.model_validate_json(json.dumps(form))
    return entry


def _memory(entry: Mapping[str, Any]) -> _Memory:
    parts = entry["content"].get("parts") or []
    text = _plain(" ".join(part["text"] for part in parts if part.get("text")))
    words = set(_WORD.findall(text))
    # A Latin word within a text that has no spaces is a word, too.
    words.update(run for word in list(words) if not word.isascii() for run in _LATIN.findall(word))
    return _Memory(entry, text, frozenset(words))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()


def _score(memory: _Memory, wanted: set[str]) -> int:
    """Count the words of a query that a memory has."""
    return sum(
        word in memory.words or (not _LATIN.fullmatch(word) and word in memory.text)
        for word in wanted
    )
