"""What a framework that runs elsewhere keeps in a session: collections of records.

A session can be a store: each record is an entry of its log, in the collection that it names.

    store = Collection(Client(), "notes/friday", "notes", agent="notes")
    for record in store.refresh():          # what is new since the last time, oldest first
        show(record.data)
    store.append({"text": "milk"}, {"photo": jpeg})

A record is written whole or not at all, and once, however often it had to be sent. It holds a JSON
value and named bytes. Bytes of some size are kept apart and are read only when they are asked for:
``store.read(record.blobs["photo"])``.

Several programs may write to a collection. What one writes upon what it has read is refused with
:class:`Stale` if another one has written meanwhile: refresh, think again, and write again.

All that is done is a *plan* (:class:`View`), a generator without any I/O; :class:`Collection`
carries it out waiting, :class:`AsyncCollection` awaiting. To combine plans, use ``yield from`` and
``Client.carry``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from .client import AsyncClient, Client, Event, Plan, RecordPage, RecordWritten, ServerError
from .client.calls import Calls, Prepared
from .errors import Error

# Bytes up to this length are kept within the record, longer ones apart.
INLINE_BYTES_MAX = 32 << 10
# How much of a record is kept within it in all. The server takes 8 MiB a request.
RECORD_BYTES_MAX = 2 << 20
# The server takes 256 parts; one is the JSON value.
BLOBS_MAX = 255
# Collections with fewer records than this are not worth being rewritten.
WORN_MIN = 64

_Bytes = bytes
_JSON = "application/json"
_BYTES = "application/octet-stream"
_BASE64 = "application/octet-stream; encoding=base64"
_DATA = "data"
_NAME_BYTES_MAX = 240
_UNKNOWN_SESSION = "AX1002"
_UNKNOWN_AGENT = "AX1003"
_DELETED = "AX1011"
_STALE = "AX1021"
# A position that no record has.
_NOWHERE = 1 << 62


class Stale(Error):
    """Somebody else has written to the collection since it was read. Nothing was written."""


class Deleted(Error):
    """The session was deleted. :func:`living` finds the name that is used after it."""


@dataclass(frozen=True)
class Blob:
    """Bytes of a record.

    Attributes:
        bytes: How many.
        inline: The bytes themselves, if they are within the record.
        id: What the store knows them by, if they are kept apart.
    """

    bytes: int
    inline: _Bytes | None = field(default=None, repr=False)
    id: str = ""

    def content(self) -> Plan[_Bytes]:
        """Plan to read them."""
        if self.inline is not None:
            return self.inline
        content: _Bytes = yield lambda calls: calls.read_blob(self.id)
        return content


@dataclass(frozen=True)
class Record:
    """An entry of a collection.

    Attributes:
        seq: Its position in the session's log.
        at_millis: When, in milliseconds since the Unix epoch; 0 if it was just written here.
        replaces: It stands for all earlier ones: forget what they said.
        key: Under which it was written once.
        data: A JSON value.
        blobs: Named bytes.
    """

    seq: int
    at_millis: int
    replaces: bool
    key: str
    data: Any
    blobs: Mapping[str, Blob]


class View:
    """What was read of a collection, and the plans to read more and to write. It does no I/O.

    Several threads or tasks may carry out plans of a view at the same time.
    """

    def __init__(
        self,
        session: str,
        collection: str,
        *,
        agent: str,
        manifest: str = "",
        take: Callable[[Record], None] | None = None,
        after: int = 0,
    ) -> None:
        """Look at a collection from its beginning.

        Args:
            session: The id or name of the session. It is made by the first record.
            collection: The name of the collection.
            agent: The agent of a session that is made: its name, or ``NAME@VERSION``.
            manifest: What is applied if there is no such agent; one that takes no inputs if empty.
            take: Is called with each record once and in order, those appended here included. It
                must be quick, and must not fail.
            after: Begin after this position: what is up to there counts as read.
        """
        self.session = session
        self.collection = collection
        self._agent = agent
        self._manifest = manifest or manifest_of(agent)
        self._take = take
        self._lock = threading.Lock()
        self._last = after
        self._count = 0

    @property
    def last(self) -> int:
        """The position of the newest record that was read."""
        return self._last

    def is_worn(self, alive: int) -> bool:
        """Tell whether to write a record that replaces the others.

        True if there are more than twice as many as what is alive would need; so what is read at
        the beginning, and what is ever rewritten, stay proportional to what is alive.

        Args:
            alive: How many records' worth of contents are alive.
        """
        return self._count > max(WORN_MIN, 2 * alive)

    def refresh(self) -> Plan[list[Record]]:
        """Plan to read what is new; nothing if there is no such session.

        Raises:
            Deleted: The session was deleted.
        """
        fresh: list[Record] = []
        while True:
            try:
                page = yield self._page
            except ServerError as error:
                if error.code != _UNKNOWN_SESSION:
                    raise self._error(error) from error
                if self._last:
                    raise Deleted(f"session {self.session!r} was deleted") from error
                return fresh
            records = []
            for event in page.events:
                records.append((yield from _record(event)))
            fresh += self._apply(records)
            if self._last >= page.last or not page.events:
                return fresh

    def append(
        self,
        data: Any,
        blobs: Mapping[str, bytes | Blob] | None = None,
        *,
        key: str = "",
        if_unchanged: bool = True,
        replaces: bool = False,
    ) -> Plan[int]:
        """Plan to write a record; returns its position.

        Args:
            data: A JSON value.
            blobs: Named bytes, 255 at most. Those of a record of this session are not sent again.
            key: Under which it is written once; made up if it is empty.
            if_unchanged: Only if the newest record is the last one that was read here.
            replaces: It stands for all earlier ones.

        Raises:
            Stale: It is not; nothing was written.
            Deleted: The session was deleted.
        """
        after = self._last if if_unchanged else None
        key = key or f"sent-{secrets.token_hex(16)}"
        text = json.dumps(data, separators=(",", ":"))
        parts, kept = yield from _parts(text, blobs or {})
        written = yield from self._write(parts, key, replaces, after)
        if after is not None and not written.duplicate:
            # Nobody wrote between: it is the next one. What others will read is what counts here.
            own = Record(written.seq, 0, replaces, key, json.loads(text), kept)
            self._apply_own(after, own)
        return written.seq

    def _page(self, calls: Calls) -> Prepared[RecordPage]:
        return calls.records(self.session, self.collection, self._last, 0)

    def _write(
        self, parts: list[dict[str, Any]], key: str, replaces: bool, after: int | None
    ) -> Plan[RecordWritten]:
        again = True
        while True:
            try:
                written: RecordWritten = yield lambda calls: calls.record(
                    self.session, self.collection, parts, self._agent, key, replaces, after
                )
            except ServerError as error:
                if error.code != _UNKNOWN_AGENT or not again:
                    raise self._error(error) from error
                again = False
            else:
                return written
            yield lambda calls: calls.apply_agent(self._manifest, "")

    def _error(self, error: ServerError) -> Error:
        if error.code == _STALE:
            return Stale(f"somebody else has written to {self.collection!r} of {self.session!r}")
        if error.code == _DELETED:
            return Deleted(f"session {self.session!r} was deleted")
        return error

    def _apply(self, records: list[Record]) -> list[Record]:
        with self._lock:
            # Another thread may have read the same.
            fresh = [record for record in records if record.seq > self._last]
            for record in fresh:
                self._apply_one(record)
        return fresh

    def _apply_own(self, after: int, record: Record) -> None:
        with self._lock:
            if self._last == after:
                self._apply_one(record)

    def _apply_one(self, record: Record) -> None:
        self._last = record.seq
        self._count = 1 if record.replaces else self._count + 1
        if self._take is not None:
            self._take(record)


class Collection:
    """The records of a collection, for programs that wait."""

    def __init__(self, client: Client, session: str, collection: str, **options: Any) -> None:
        """Look at a collection; ``options`` are those of :class:`View`."""
        self._client = client
        self.view = View(session, collection, **options)

    def refresh(self) -> list[Record]:
        """Read what is new since the last time; see :meth:`View.refresh`.

        What was appended here is not among it. The first one ``replaces`` all that was read
        before if somebody has rewritten the collection.
        """
        return self._client.carry(self.view.refresh())

    def append(
        self,
        data: Any,
        blobs: Mapping[str, bytes | Blob] | None = None,
        *,
        key: str = "",
        if_unchanged: bool = True,
    ) -> int:
        """Write a record; return its position. See :meth:`View.append`.

        What is written with ``if_unchanged=False`` comes back from the next ``refresh``.
        """
        plan = self.view.append(data, blobs, key=key, if_unchanged=if_unchanged)
        return self._client.carry(plan)

    def replace(
        self, data: Any, blobs: Mapping[str, bytes | Blob] | None = None, *, key: str = ""
    ) -> int:
        """Write a record that stands for all that were read; see :meth:`View.append`."""
        return self._client.carry(self.view.append(data, blobs, key=key, replaces=True))

    def is_worn(self, alive: int) -> bool:
        """Tell whether to :meth:`replace`; see :meth:`View.is_worn`."""
        return self.view.is_worn(alive)

    def read(self, blob: Blob) -> bytes:
        """Read bytes of a record."""
        return self._client.carry(blob.content())


class AsyncCollection:
    """The records of a collection, for programs that await."""

    def __init__(self, client: AsyncClient, session: str, collection: str, **options: Any) -> None:
        """Look at a collection; ``options`` are those of :class:`View`."""
        self._client = client
        self.view = View(session, collection, **options)

    async def refresh(self) -> list[Record]:
        """Do as :meth:`Collection.refresh`."""
        return await self._client.carry(self.view.refresh())

    async def append(
        self,
        data: Any,
        blobs: Mapping[str, bytes | Blob] | None = None,
        *,
        key: str = "",
        if_unchanged: bool = True,
    ) -> int:
        """Do as :meth:`Collection.append`."""
        plan = self.view.append(data, blobs, key=key, if_unchanged=if_unchanged)
        return await self._client.carry(plan)

    async def replace(
        self, data: Any, blobs: Mapping[str, bytes | Blob] | None = None, *, key: str = ""
    ) -> int:
        """Do as :meth:`Collection.replace`."""
        return await self._client.carry(self.view.append(data, blobs, key=key, replaces=True))

    def is_worn(self, alive: int) -> bool:
        """Tell whether to :meth:`replace`; see :meth:`View.is_worn`."""
        return self.view.is_worn(alive)

    async def read(self, blob: Blob) -> bytes:
        """Read bytes of a record."""
        return await self._client.carry(blob.content())


def session_name(prefix: str, *ids: str) -> str:
    """Return a name of a session that no other prefix and ids have.

    Names that become too long, and ids of strange characters, are hashed or escaped.
    """
    name = "/".join([prefix, *(quote(one, safe=" !$'()*+,:;=@") for one in ids)])
    # Tildes are for generations; quote leaves them as they are.
    name = name.replace("~", "%7E")
    if len(name.encode()) <= _NAME_BYTES_MAX:
        return name
    return f"{prefix}/%{hashlib.sha256(name.encode()).hexdigest()}"


def living(name: str, agent: str = "") -> Plan[str]:
    """Plan to find the name under which a session lives, or is to be made, under a name.

    A name that was deleted is not free again, so the next session is ``name~2``, then ``name~3``.
    Carry it out with ``client.carry(living("notes/friday", "notes"))``.

    Args:
        name: The name.
        agent: The agent of the session; without it, a server that shows a deleted session as if
            it had never been is believed.
    """
    deleted, candidate = 0, 1
    while (yield from is_deleted(_generation(name, candidate), agent)):
        deleted, candidate = candidate, 2 * candidate
    while candidate - deleted > 1:
        middle = (deleted + candidate) // 2
        if (yield from is_deleted(_generation(name, middle), agent)):
            deleted = middle
        else:
            candidate = middle
    return _generation(name, candidate)


def forget(name: str, agent: str = "") -> Plan[bool]:
    """Plan to delete the session that lives under a name; tells whether there was one.

    :func:`living` then finds the name of the next one.
    """
    current = yield from living(name, agent)
    try:
        yield lambda calls: calls.delete(current)
    except ServerError as error:
        if error.code not in {_UNKNOWN_SESSION, _DELETED}:
            raise
        return False
    return True


def is_deleted(session: str, agent: str = "") -> Plan[bool]:
    """Plan to find out whether a session was deleted, as opposed to unknown or alive.

    Args:
        session: The session.
        agent: Its agent; without it, a server that shows a deleted session as if it had never
            been is believed.
    """
    try:
        yield lambda calls: calls.session(session)
    except ServerError as error:
        if error.code not in {_UNKNOWN_SESSION, _DELETED}:
            raise
        if error.code == _DELETED or not agent:
            return error.code == _DELETED
    else:
        return False
    # Readers may be told that there is none; a writer is told more. This one writes nothing.
    try:
        yield lambda calls: calls.record(session, "-", (), agent, "", False, _NOWHERE)
    except ServerError as error:
        if error.code not in {_STALE, _DELETED, _UNKNOWN_AGENT}:
            raise
        return error.code == _DELETED
    return False


def manifest_of(agent: str) -> str:
    """Return the manifest of an agent that takes no inputs: its sessions are stores."""
    return (
        "apiVersion: agentexecutor.dev/v1\n"
        "kind: Agent\n"
        f"metadata: {{name: {agent.partition('@')[0]}}}\n"
        "spec: {sandbox: process, harness: {type: external}}\n"
    )


def _generation(name: str, number: int) -> str:
    return name if number == 1 else f"{name}~{number}"


def _parts(
    text: str, blobs: Mapping[str, bytes | Blob]
) -> Plan[tuple[list[dict[str, Any]], dict[str, Blob]]]:
    """Put a record into parts; what is long is written first, so that the record is never half."""
    if len(blobs) > BLOBS_MAX:
        raise ValueError(f"a record has at most {BLOBS_MAX} blobs, not {len(blobs)}")
    room = RECORD_BYTES_MAX
    if len(text) <= INLINE_BYTES_MAX:
        body: dict[str, Any] = {"text": text}
        room -= len(text)
    else:
        body = _reference((yield from _write_blob(text.encode())))
    parts = [_part(_DATA, _JSON, body)]
    kept = {}
    for name, given in blobs.items():
        if isinstance(given, Blob) and given.inline is None:
            kept[name] = given
            parts.append(_part(name, _BYTES, _reference(given)))
            continue
        content = given.inline or b"" if isinstance(given, Blob) else bytes(given)
        if len(content) <= min(INLINE_BYTES_MAX, room):
            room -= len(content)
            kept[name] = Blob(len(content), content)
            said = {"text": base64.b64encode(content).decode()}
            parts.append(_part(name, _BASE64, said))
        else:
            kept[name] = yield from _write_blob(content)
            parts.append(_part(name, _BYTES, _reference(kept[name])))
    return parts, kept


def _part(name: str, media_type: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "PART_KIND_DATA", "mediaType": media_type, "name": name, "body": body}


def _write_blob(content: bytes) -> Plan[Blob]:
    written = yield lambda calls: calls.write_blob(content)
    return Blob(written.bytes, None, written.id)


def _reference(blob: Blob) -> dict[str, Any]:
    digest = bytes.fromhex(blob.id.removeprefix("blob_"))
    return {"blob": {"hash": base64.b64encode(digest).decode(), "bytes": str(blob.bytes)}}


def _record(event: Event) -> Plan[Record]:
    """Read a record. Its JSON value is the first part; if it is kept apart, it is fetched."""
    said = event.data
    parts = list(said.get("parts", ()))
    data = None
    if parts and parts[0].get("mediaType") == _JSON and parts[0].get("name", "") == _DATA:
        data = json.loads((yield from _blob(parts.pop(0)).content()))
    blobs = {str(part.get("name", "")): _blob(part) for part in parts}
    replaces = said.get("replaces") is True
    return Record(event.seq, event.at_millis, replaces, str(said.get("key", "")), data, blobs)


def _blob(part: Mapping[str, Any]) -> Blob:
    body = part.get("body", {})
    reference = body.get("blob")
    if reference is not None:
        digest = base64.b64decode(reference["hash"])
        return Blob(int(reference.get("bytes", 0)), None, f"blob_{digest.hex()}")
    text = str(body.get("text", ""))
    encoded = part.get("mediaType") == _BASE64
    content = base64.b64decode(text) if encoded else text.encode()
    return Blob(len(content), content)
