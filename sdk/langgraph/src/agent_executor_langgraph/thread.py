"""What is known of a thread: its checkpoints and the writes that wait, as its records say.

A thread is a session with two collections, ``checkpoints`` and ``writes``. Their records hold JSON
and serialized values (see ``contents.py``):

``checkpoints``
    ``put``
        Checkpoints: ``ns``, ``id``, ``parent`` (or null), ``run`` (or null), the numbers of the
        contents ``head`` (the checkpoint without its values) and ``metadata``, and ``values``:
        for each channel its version and the content that holds it, which may be one of an earlier
        record; null if the channel is empty. ``at``, if the record stands for others, is where it
        was put.
    ``drop``
        Checkpoints that are no more: pairs of ``ns`` and ``id``.
``writes``
    ``put``
        What tasks wrote upon a checkpoint: ``ns``, ``id``, ``task``, ``path``, and ``writes``: for
        each its index, its channel, and the content.

A record of ``checkpoints`` is only written upon the one that was read last; a record of ``writes``
at any time, since what different tasks write does not meet, and what the same task writes again is
the same. A checkpoint and its values are one record, so that no half of it is ever seen.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from langgraph.checkpoint.base import writes_sort_key

from agent_executor.client import Plan
from agent_executor.records import Record, View

from .contents import Content, Ref, apply, read_contents

CHECKPOINTS = "checkpoints"
WRITES = "writes"

Version: TypeAlias = "str | int | float"
# A namespace and the id of a checkpoint in it.
Place: TypeAlias = tuple[str, str]


class Mark(NamedTuple):
    """Up to which position a thread was read when a checkpoint, or none, was handed out."""

    seq: int
    # Whether a run may be upon it, which was given it as the newest one, or wrote it.
    held: bool


# Of what was read in a session that was deleted since.
GONE = Mark(-1, held=False)
Reads: TypeAlias = "dict[tuple[str, str | None], Mark]"


@dataclass(frozen=True)
class Value:
    """A channel in a checkpoint: its version, and what holds its value, if it has one."""

    version: Version
    ref: Ref | None


@dataclass(frozen=True)
class Entry:
    """A checkpoint.

    Attributes:
        seq: The position of its record.
        at: The position at which it was put, if this record stands for others.
        parent: The id of the checkpoint that it follows.
        run: The id of the run that made it, if it was said.
        head: What holds all but the values.
        metadata: What holds the metadata.
        values: The channels.
    """

    seq: int
    at: int
    ns: str
    id: str
    parent: str | None
    run: str | None
    head: Ref
    metadata: Ref
    values: Mapping[str, Value]

    @property
    def place(self) -> Place:
        """Where it is."""
        return self.ns, self.id

    def refs(self) -> list[Ref]:
        """Return all contents that it needs."""
        held = [value.ref for value in self.values.values() if value.ref is not None]
        return [self.head, self.metadata, *held]


@dataclass(frozen=True)
class Write:
    """Something that a task wrote."""

    task: str
    path: str
    index: int
    channel: str
    ref: Ref


class Cache:
    """Contents that were read or written lately, up to a number of bytes."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[Any, bytes] = OrderedDict()

    def get(self, key: Any) -> bytes | None:
        """Return a content, if it is there."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: Any, content: bytes) -> None:
        """Keep a content for a while."""
        if len(content) > self._bytes_max:
            return
        with self._lock:
            self._bytes += len(content) - len(self._kept.pop(key, b""))
            self._kept[key] = content
            while self._bytes > self._bytes_max:
                _, old = self._kept.popitem(last=False)
                self._bytes -= len(old)


class Contents:
    """The contents of one collection."""

    def __init__(self, session: str, collection: str, cache: Cache) -> None:
        self._name = (session, collection)
        self._cache = cache
        self._known: dict[Ref, Content] = {}

    def __getitem__(self, ref: Ref) -> Content:
        return self._known[ref]

    def take(self, record: Record) -> None:
        """Note what a record holds."""
        if record.replaces:
            self._known = {}
        self._known.update(read_contents(record))

    def remember(self, ref: Ref, data: bytes) -> None:
        """Keep a value for a while, that it need not be read."""
        self._cache.put((*self._name, ref), data)

    def remembered(self, ref: Ref) -> bytes | None:
        """Return a value if it needs no reading."""
        return self._cache.get((*self._name, ref))

    def own(self, content: Content) -> Plan[bytes]:
        """Plan to read what a content has itself, be it a value or a delta."""
        if content.blob.inline is not None:
            return _cut(content.blob.inline, content)
        data = self._cache.get(content.blob.id)
        if data is None:
            data = yield from content.blob.content()
            # A blob of its own is kept as a value.
            if content.length < content.blob.bytes:
                self._cache.put(content.blob.id, data)
        return _cut(data, content)

    def value(self, ref: Ref) -> Plan[tuple[str, bytes]]:
        """Plan to read a value: what the serializer calls it, and its bytes."""
        deltas: list[Content] = []
        at: Ref = ref
        while True:
            data = self.remembered(at)
            content = self._known[at]
            if data is not None:
                break
            if content.base is None:
                data = yield from self.own(content)
                break
            deltas.append(content)
            at = content.base
        for delta in reversed(deltas):
            data = apply(data, delta.ops, (yield from self.own(delta)))
        self.remember(ref, data)
        return self._known[ref].kind, data


class Thread:
    """A thread, as far as its session was read."""

    def __init__(
        self,
        thread: str,
        session: str,
        agent: str,
        manifest: str,
        cache: Cache,
        reads: Reads,
    ) -> None:
        self.id = thread
        self.session = session
        self.values = Contents(session, CHECKPOINTS, cache)
        self.written = Contents(session, WRITES, cache)
        self.entries: dict[str, dict[str, Entry]] = {}
        self._known: dict[tuple[str, str, Version], Ref | None] = {}
        self._pending: dict[Place, dict[tuple[str, int], Write]] = {}
        self._reads = reads
        self._newest: dict[str, int] = {}

        def view(collection: str, take: Callable[[Record], None]) -> View:
            return View(session, collection, agent=agent, manifest=manifest, take=take)

        self.checkpoints = view(CHECKPOINTS, self._take_checkpoints)
        self.writes = view(WRITES, self._take_writes)

    def refresh(self) -> Plan[None]:
        """Plan to read what is new."""
        # In this order: a checkpoint may rest on what was written upon the one before it.
        yield from self.checkpoints.refresh()
        yield from self.writes.refresh()

    def find(self, ns: str, checkpoint: str | None) -> Entry | None:
        """Return a checkpoint; the newest of its namespace if no id is given."""
        of_ns = self.entries.get(ns, {})
        return of_ns.get(checkpoint or max(of_ns, default=""))

    def all(self, ns: str | None) -> list[Entry]:
        """Return the checkpoints of a namespace, or of all, newest first."""
        wanted = [ns] if ns is not None else list(self.entries)
        found = [entry for one in wanted for entry in list(self.entries.get(one, {}).values())]
        return sorted(found, key=lambda entry: entry.id, reverse=True)

    def pending(self, place: Place) -> list[Write]:
        """Return what was written upon a checkpoint, in the order in which it is applied."""
        writes = list(self._pending.get(place, {}).values())
        return sorted(writes, key=lambda one: writes_sort_key(one.path, one.task, one.index))

    def known(self, entry: Entry | None, ns: str, channel: str, version: Version) -> Value | None:
        """Return what holds a version of a channel, if it was written."""
        if entry is not None:
            value = entry.values.get(channel)
            if value is not None and value.version == version:
                return value
        key = (ns, channel, version)
        return Value(version, self._known[key]) if key in self._known else None

    def note_read(self, ns: str, checkpoint: str | None, seq: int) -> None:
        """Remember up to where the thread was read by a run that goes on from a checkpoint."""
        self._reads[ns, checkpoint] = Mark(seq, held=True)

    def note_named(self, ns: str, checkpoint: str, seq: int) -> None:
        """Do so for a checkpoint that was asked for by its id, unless a run is upon it."""
        mark = self._reads.get((ns, checkpoint))
        if mark is None or not mark.held:
            self._reads[ns, checkpoint] = Mark(seq, held=False)

    def note_left(self, ns: str, checkpoint: str | None) -> None:
        """Remember that the run upon a checkpoint has gone on from it."""
        mark = self._reads.get((ns, checkpoint))
        if mark is not None:
            self._reads[ns, checkpoint] = mark._replace(held=False)

    def is_overtaken(self, ns: str, parent: str | None) -> bool:
        """Tell whether the namespace has newer checkpoints than who goes on from this one saw."""
        mark = self._reads.get((ns, parent))
        return mark is not None and self._newest.get(ns, 0) > mark.seq

    def is_gone(self, ns: str, checkpoint: str | None) -> bool:
        """Tell whether a checkpoint was last read in a session that was deleted since."""
        mark = self._reads.get((ns, checkpoint))
        return mark is not None and mark.seq < 0

    def _take_checkpoints(self, record: Record) -> None:
        if record.replaces:
            self.entries, self._known = {}, {}
        self.values.take(record)
        data = record.data if isinstance(record.data, dict) else {}
        for said in data.get("put", ()):
            entry = _entry(record.seq, said)
            self.entries.setdefault(entry.ns, {})[entry.id] = entry
            for channel, value in entry.values.items():
                self._known[entry.ns, channel, value.version] = value.ref
            self._newest[entry.ns] = max(self._newest.get(entry.ns, 0), entry.at)
        for ns, checkpoint in data.get("drop", ()):
            self.entries.get(ns, {}).pop(checkpoint, None)

    def _take_writes(self, record: Record) -> None:
        if record.replaces:
            self._pending = {}
        self.written.take(record)
        data = record.data if isinstance(record.data, dict) else {}
        for said in data.get("put", ()):
            pending = self._pending.setdefault((said["ns"], said["id"]), {})
            for index, channel, number in said["writes"]:
                ref = (record.seq, number)
                write = Write(said["task"], said["path"], index, channel, ref)
                # An ordinary write of a task is the same each time; of others the last one counts.
                if index < 0 or (write.task, index) not in pending:
                    pending[write.task, index] = write

    def written_upon(self) -> list[tuple[Place, list[Write]]]:
        """Return all that was written upon checkpoints that are still there."""
        places = [place for place in list(self._pending) if self.find(*place)]
        return [(place, self.pending(place)) for place in places]


def _entry(seq: int, said: Mapping[str, Any]) -> Entry:
    def ref(given: Any) -> Ref:
        return (seq, given) if isinstance(given, int) else _absolute(seq, given)

    values = {
        channel: Value(version, None if given is None else ref(given))
        for channel, (version, given) in said["values"].items()
    }
    return Entry(
        seq,
        int(said.get("at", seq)),
        said["ns"],
        said["id"],
        said["parent"],
        said["run"],
        ref(said["head"]),
        ref(said["metadata"]),
        values,
    )


def _absolute(seq: int, given: Any) -> Ref:
    return (int(given[0]) if given[0] >= 0 else seq, int(given[1]))


def _cut(data: bytes, content: Content) -> bytes:
    return data[content.offset : content.offset + content.length]
