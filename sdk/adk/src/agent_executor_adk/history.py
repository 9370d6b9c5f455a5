"""The entries of one ADK session: how they are written and read. It does no I/O itself.

Each entry is a record of the collection ``events``. The first one says that the session was
created and with which state, each later one is an event with its changes of the state: whole or
not at all. The collection ``state`` holds what the entries up to a position amount to, so that the
state of a long session can be known without reading all of it. It follows from the entries, and
nothing is lost with it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_executor.client import Plan, RecordWritten, ServerError
from agent_executor.records import Deleted, Stale, manifest_of

from .place import DELETED, STALE, UNKNOWN_AGENT, UNKNOWN_SESSION, Missing

EVENTS = "events"
STATE = "state"
# Longer texts are stored as blobs before the record that refers to them.
INLINE_BYTES_MAX = 32 << 10
# After how many entries the state is written down anew.
STATE_ENTRIES = 256
# How far is looked back at first for recent events.
WINDOW_MIN = 64
# How many records the server puts into a page at most.
PAGE_MAX = 1000

_JSON = "application/json"


@dataclass(frozen=True)
class Entry:
    """An entry: ``{"created": …}`` or ``{"event": …}``."""

    seq: int
    at_millis: int
    data: Mapping[str, Any]

    @property
    def time(self) -> float:
        """When it happened, as ADK counts."""
        if "created" in self.data:
            return float(self.data["created"]["time"])
        return float(self.data["event"].get("timestamp", 0.0))

    @property
    def ids(self) -> tuple[str, str, str]:
        """App, user and session, if it is the first one."""
        created = self.data["created"]
        return str(created["app"]), str(created["user"]), str(created["session"])

    @property
    def delta(self) -> Mapping[str, Any]:
        """The changes of the state, those of user and app included."""
        if "created" in self.data:
            said: Mapping[str, Any] = self.data["created"]["state"]
        else:
            said = self.data["event"].get("actions", {}).get("stateDelta", {})
        return said


@dataclass
class History:
    """What was read of a session.

    Attributes:
        entries: Entries, oldest first, up to the newest.
        state: The session's own state.
        time: When it was changed last.
        last: The position of the newest entry; 0 if there is no such session.
        begin: The position behind which all entries were read.
        kept: The position up to which the state is written down.
    """

    entries: list[Entry] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    time: float = 0.0
    last: int = 0
    begin: int = 0
    kept: int = 0

    @property
    def events(self) -> list[Entry]:
        """Those of the entries that are events."""
        return [entry for entry in self.entries if "event" in entry.data]

    def take(self, entries: list[Entry]) -> None:
        """Take newer entries in."""
        for entry in entries:
            self.state.update(own(entry.delta))
            self.time = entry.time
            self.last = entry.seq
        self.entries += entries


def own(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a state that belongs to the session itself."""
    prefixes = ("app:", "user:", "temp:")
    return {key: value for key, value in state.items() if not key.startswith(prefixes)}


def of_scope(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the part of a state under a prefix, without it."""
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }


def write(
    name: str, data: Any, *, agent: str, key: str, after: int | None, may_create: bool
) -> Plan[RecordWritten]:
    """Plan to write an entry.

    Args:
        name: The session.
        data: A JSON value.
        agent: Of a session that is made.
        key: Under which it is written once.
        after: The position of the newest entry that is known.
        may_create: Whether the session is made if there is none.

    Raises:
        Stale: There is a newer entry. Nothing was written.
        Deleted: The session was deleted.
        Missing: There is none, and none may be made.
    """
    part = yield from _part(json.dumps(data, separators=(",", ":")))
    again = may_create
    while True:
        try:
            written: RecordWritten = yield lambda calls: calls.record(
                name, EVENTS, [part], agent if may_create else "", key, False, after
            )
        except ServerError as error:
            if error.code != UNKNOWN_AGENT or not again:
                raise _error(error, name) from error
            again = False
        else:
            return written
        yield lambda calls: calls.apply_agent(manifest_of(agent), "")


def read(name: str, after: int = 0, until: int | None = None) -> Plan[list[Entry]]:
    """Plan to read the entries after a position, up to another one if it is given.

    Raises:
        Missing: There is no such session, or no more.
    """
    entries: list[Entry] = []
    while until is None or after < until:
        limit = PAGE_MAX if until is None else min(PAGE_MAX, until - after)
        page = yield from _page(name, EVENTS, after, limit)
        for event in page:
            if until is not None and event.seq > until:
                return entries
            data = yield from _content(event.data["parts"][0])
            entries.append(Entry(event.seq, event.at_millis, json.loads(data)))
        if not page:
            break
        after = page[-1].seq
    return entries


def read_all(name: str) -> Plan[History]:
    """Plan to read a session from its beginning."""
    history = History()
    history.take((yield from read(name)))
    if len(history.entries) > STATE_ENTRIES:
        history.kept = (yield from _kept(name)).last
    return history


def read_first(name: str) -> Plan[Entry | None]:
    """Plan to read the first entry of a session."""
    for event in (yield from _page(name, EVENTS, 0, 1)):
        data = yield from _content(event.data["parts"][0])
        return Entry(event.seq, event.at_millis, json.loads(data))
    return None


def read_recent(name: str, count: int | None = None, since: float | None = None) -> Plan[History]:
    """Plan to read the state and the newest entries: as many, or as old, as is asked for.

    More may come than is asked for. With neither, there are no more than is needed for the state.
    """
    history = yield from _kept(name)
    history.begin = history.kept
    history.take((yield from read(name, history.kept)))
    window = max(WINDOW_MIN, 2 * (count or 0))
    while history.begin and not _reaches(history, count, since):
        begin = max(0, history.begin - window)
        history.entries[:0] = yield from read(name, begin, history.begin)
        history.begin, window = begin, 2 * window
    return history


def keep_state(name: str, history: History) -> Plan[None]:
    """Plan to write the state of a history down."""
    data = {"seq": history.last, "time": history.time, "state": history.state}
    part = yield from _part(json.dumps(data, separators=(",", ":")))
    yield lambda calls: calls.record(name, STATE, [part], "", "", True, None)


def _reaches(history: History, count: int | None, since: float | None) -> bool:
    if count is None and since is None:
        return True
    if count is not None and len(history.events) >= count:
        return True
    return since is not None and any(entry.time < since for entry in history.entries)


def _kept(name: str) -> Plan[History]:
    """Read the state that was written down last; the beginning if there is none."""
    events = yield from _page(name, STATE, 0, PAGE_MAX)
    if not events:
        return History()
    said = json.loads((yield from _content(events[-1].data["parts"][0])))
    seq = int(said["seq"])
    return History([], dict(said["state"]), float(said["time"]), seq, seq, seq)


def _page(name: str, collection: str, after: int, limit: int) -> Plan[list[Any]]:
    try:
        page = yield lambda calls: calls.records(name, collection, after, limit)
    except ServerError as error:
        raise _error(error, name) from error
    return list(page.events)


def _part(text: str) -> Plan[dict[str, Any]]:
    body: dict[str, Any] = {"text": text}
    if len(text) > INLINE_BYTES_MAX:
        # So that no request becomes too large. What refers to it is written after it.
        blob = yield lambda calls: calls.write_blob(text.encode())
        digest = base64.b64encode(bytes.fromhex(blob.id.removeprefix("blob_"))).decode()
        body = {"blob": {"hash": digest, "bytes": str(blob.bytes)}}
    return {"kind": "PART_KIND_DATA", "mediaType": _JSON, "name": "data", "body": body}


def _content(part: Mapping[str, Any]) -> Plan[str]:
    body = part.get("body", {})
    if "blob" not in body:
        return str(body.get("text", ""))
    digest = base64.b64decode(body["blob"]["hash"]).hex()
    content: bytes = yield lambda calls: calls.read_blob(f"blob_{digest}")
    return content.decode()


def _error(error: ServerError, name: str) -> Exception:
    if error.code == STALE:
        return Stale(f"somebody else has written to {name!r}")
    if error.code == DELETED:
        return Deleted(f"session {name!r} was deleted")
    if error.code == UNKNOWN_SESSION:
        return Missing(f"there is no session {name!r}")
    return error
