"""What a checkpointer does, as plans: generators of requests, without any I/O of their own."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from langgraph.checkpoint.base import WRITES_IDX_MAP

from agent_executor import Error
from agent_executor.client import Plan, SessionPage
from agent_executor.client.calls import Calls, Prepared
from agent_executor.records import Deleted, Stale, forget, living, manifest_of, session_name

from .compact import checkpoints_left, keep_latest, writes_left
from .contents import Fresh, Writer, tell_apart
from .thread import GONE, Cache, Entry, Reads, Thread, Value, Version

# Threads that are remembered, and bytes of their values.
THREADS_MAX = 256
READS_MAX = 1 << 16
CACHE_BYTES_MAX = 64 << 20
_THREAD_BYTES_MAX = 200
_TRIES_MAX = 100


class Overtaken(Error):
    """Another run has gone on with the thread, or deleted it, since this one read it.

    Nothing was written.

    Two runs of one thread at the same time would each lose what the other one did. Read the thread
    again (invoke the graph again), or let one run wait for the other.
    """


@dataclass(frozen=True)
class Put:
    """A checkpoint to be written, serialized but for its values."""

    ns: str
    id: str
    parent: str | None
    run: str | None
    head: tuple[str, bytes]
    metadata: tuple[str, bytes]
    versions: Mapping[str, Version]
    fresh: Mapping[str, Version]
    dump: Callable[[str], tuple[str, bytes] | None]


@dataclass(frozen=True)
class Found:
    """A checkpoint that was read: its parts, serialized."""

    thread: str
    entry: Entry
    head: tuple[str, bytes]
    metadata: tuple[str, bytes]
    values: Mapping[str, tuple[str, bytes]]
    writes: Sequence[tuple[str, str, tuple[str, bytes]]]


@dataclass
class History:
    """What was written to a delta channel since it had a value, oldest first, and that value."""

    writes: list[tuple[str, str, tuple[str, bytes]]] = field(default_factory=list)
    seed: tuple[str, bytes] | None = None


class Keeper:
    """Keeps threads in sessions. It may be used by several threads and event loops at once."""

    def __init__(self, agent: str, prefix: str, *, forks: bool) -> None:
        """Keep the threads of an agent; without a prefix a thread is the session of that name."""
        self._agent = agent
        self._manifest = manifest_of(agent)
        self._prefix = prefix
        self._forks = forks
        self._cache = Cache(CACHE_BYTES_MAX)
        self._lock = threading.Lock()
        self._threads: OrderedDict[str, Thread] = OrderedDict()
        # What was read of threads, for longer than the threads: a run that pauses is still fenced.
        # With the session that it was read in: another one is what follows a deleted thread.
        self._reads: OrderedDict[str, tuple[str, Reads]] = OrderedDict()

    def find(self, thread: str, ns: str, checkpoint: str | None) -> Plan[Found | None]:
        """Plan to read a checkpoint, the newest one if no id is given."""
        state = yield from self._current(thread)
        last = state.checkpoints.last
        entry = state.find(ns, checkpoint)
        if entry is None:
            if checkpoint is None:
                state.note_read(ns, None, last)
            return None
        note = state.note_read if checkpoint is None else state.note_named
        note(ns, entry.id, max(last, entry.seq))
        return (yield from self.load(state, entry))

    def load(self, state: Thread, entry: Entry) -> Plan[Found]:
        """Plan to read the parts of a checkpoint."""
        head = yield from state.values.value(entry.head)
        metadata = yield from state.values.value(entry.metadata)
        values = {}
        for channel, value in entry.values.items():
            if value.ref is not None:
                values[channel] = yield from state.values.value(value.ref)
        writes = []
        for write in state.pending(entry.place):
            content = yield from state.written.value(write.ref)
            writes.append((write.task, write.channel, content))
        return Found(state.id, entry, head, metadata, values, writes)

    def entries(
        self, thread: str, ns: str | None, checkpoint: str | None, before: str | None
    ) -> Plan[list[tuple[Thread, Entry]]]:
        """Plan to list checkpoints of a thread, newest first."""
        state = yield from self._current(thread)
        return [
            (state, entry)
            for entry in state.all(ns)
            if (not checkpoint or entry.id == checkpoint) and (not before or entry.id < before)
        ]

    def metadata(self, state: Thread, entry: Entry) -> Plan[tuple[str, bytes]]:
        """Plan to read the metadata of a checkpoint."""
        return state.values.value(entry.metadata)

    def history(
        self, thread: str, ns: str, checkpoint: str | None, channels: Sequence[str]
    ) -> Plan[dict[str, History]]:
        """Plan to read what delta channels are made from, up to a checkpoint: see :class:`History`.

        Of each channel all that was written upon ancestors of the checkpoint, back to the nearest
        one that has the value.
        """
        state = yield from self._current(thread)
        found = {channel: History() for channel in channels}
        entry = state.find(ns, checkpoint)
        wanted = set(channels)
        while wanted and entry is not None and entry.parent:
            entry = state.find(ns, entry.parent)
            if entry is None:
                break
            for write in reversed(state.pending(entry.place)):
                if write.channel in wanted:
                    content = yield from state.written.value(write.ref)
                    found[write.channel].writes.append((write.task, write.channel, content))
            for channel in sorted(wanted):
                value = entry.values.get(channel)
                if value is not None and value.ref is not None:
                    found[channel].seed = yield from state.values.value(value.ref)
                    wanted.discard(channel)
        for history in found.values():
            history.writes.reverse()
        return found

    def threads(self) -> Plan[list[str]]:
        """Plan to list all threads."""
        found: list[str] = []
        cursor = ""

        def ask(calls: Calls) -> Prepared[SessionPage]:
            return calls.sessions(cursor, 0, [], self._agent)

        while True:
            page: SessionPage = yield ask
            names = [session.name for session in page.sessions]
            found += [thread for name in names if (thread := self._thread_of(name)) is not None]
            cursor = page.cursor
            if not cursor:
                return found

    def put(self, thread: str, put: Put) -> Plan[None]:
        """Plan to write a checkpoint.

        Raises:
            Overtaken: Another run has written one since its parent was read, or the thread was
                deleted.
        """

        def append(state: Thread) -> Plan[None]:
            try:
                yield from self._put(state, put)
            except Deleted:
                if put.parent is not None:
                    raise _gone(thread) from None
                raise

        yield from self._upon(thread, append)

    def _put(self, state: Thread, put: Put) -> Plan[None]:
        if state.is_gone(put.ns, put.parent):
            raise _gone(state.id)
        if not self._forks and state.is_overtaken(put.ns, put.parent):
            raise Overtaken(
                f"another run has gone on with thread {state.id!r} since this one read it "
                "(hint: let runs of a thread wait for each other, or read the thread again)"
            )
        writer = Writer()
        fresh: list[tuple[int, bytes]] = []
        parent = state.find(put.ns, put.parent) if put.parent else None
        values = {}
        for channel, version in put.versions.items():
            known = state.known(parent, put.ns, channel, version)
            if known is not None and channel not in put.fresh:
                values[channel] = [version, known.ref]
                continue
            dumped = put.dump(channel)
            number = None
            if dumped is not None:
                base = parent.values.get(channel) if parent else None
                number = writer.add(self._tell_apart(state, base, dumped))
                fresh.append((number, dumped[1]))
            values[channel] = [version, number]
        said = {
            "ns": put.ns,
            "id": put.id,
            "parent": put.parent,
            "run": put.run,
            "head": writer.add(Fresh(put.head[0], put.head[1])),
            "metadata": writer.add(Fresh(put.metadata[0], put.metadata[1])),
            "values": values,
        }
        blobs = writer.finish()
        data = {"put": [said], "contents": writer.contents}
        seq = yield from state.checkpoints.append(data, blobs)
        state.note_left(put.ns, put.parent)
        state.note_read(put.ns, put.id, seq)
        for number, content in fresh:
            state.values.remember((seq, number), content)

    def _tell_apart(self, state: Thread, base: Value | None, dumped: tuple[str, bytes]) -> Fresh:
        kind, new = dumped
        old = state.values.remembered(base.ref) if base and base.ref else None
        if base is None or base.ref is None or old is None:
            return Fresh(kind, new)
        return tell_apart(state.values[base.ref], base.ref, old, kind, new)

    def put_writes(
        self,
        place: tuple[str, str, str],
        writes: Iterable[tuple[str, tuple[str, bytes]]],
        task: str,
        path: str,
    ) -> Plan[None]:
        """Plan to write what a task wrote upon a checkpoint.

        Raises:
            Overtaken: The thread was deleted.
        """
        thread, ns, checkpoint = place
        writer = Writer()
        listed = [
            [WRITES_IDX_MAP.get(channel, index), channel, writer.add(Fresh(kind, content))]
            for index, (channel, (kind, content)) in enumerate(writes)
        ]
        said = {"ns": ns, "id": checkpoint, "task": task, "path": path, "writes": listed}
        data = {"put": [said], "contents": writer.contents}
        blobs = writer.finish()

        def append(state: Thread) -> Plan[None]:
            if state.is_gone(ns, checkpoint):
                raise _gone(thread)
            try:
                yield from state.writes.append(data, blobs, if_unchanged=False)
            except Deleted:
                raise _gone(thread) from None

        yield from self._upon(thread, append)

    def delete(self, thread: str) -> Plan[None]:
        """Plan to delete a thread, with everything in it."""
        self._drop(thread)
        yield from forget(self._session(thread), self._agent)

    def copy(self, source: str, target: str) -> Plan[None]:
        """Plan to copy a thread: a branch of its session, if the target is new.

        Raises:
            ValueError: The target has something in it.
        """
        if source == target:
            return
        old = yield from self._current(source)
        new = yield from self._current(target)
        if not old.entries:
            return
        if new.checkpoints.last or new.writes.last:
            raise ValueError(f"thread {target!r} is not empty")
        self._drop(target)
        names = [new.session]
        yield lambda calls: calls.branch(old.session, 0, "", 1, False, names)

    def prune(self, thread: str, counters: Callable[[tuple[str, bytes]], set[str]]) -> Plan[None]:
        """Plan to drop all checkpoints but the newest of each namespace, and what these need."""

        def drop(state: Thread) -> Plan[None]:
            deltas = {}
            for entry in state.all(None):
                deltas[entry.place] = counters((yield from self.metadata(state, entry)))
            yield from self._keep(state, keep_latest(state, deltas))

        yield from self._upon(thread, drop, fresh=True)

    def delete_for_runs(self, thread: str, runs: set[str]) -> Plan[None]:
        """Plan to drop the checkpoints that some runs made."""

        def drop(state: Thread) -> Plan[None]:
            entries = state.all(None)
            yield from self._keep(state, [one for one in entries if one.run not in runs])

        yield from self._upon(thread, drop, fresh=True)

    def _keep(self, state: Thread, kept: list[Entry]) -> Plan[None]:
        places = {entry.place for entry in kept}
        dropped = [entry.place for entry in state.all(None) if entry.place not in places]
        if not dropped:
            return
        # What is dropped must not come back by a part of it: first what counts, then the rest.
        whole = checkpoints_left(state, kept) if state.checkpoints.is_worn(len(kept)) else None
        if whole is not None:
            yield from state.checkpoints.append(*whole, replaces=True)
        else:
            yield from state.checkpoints.append({"drop": [list(place) for place in dropped]})
        if state.writes.is_worn(sum(len(writes) for _, writes in state.written_upon())):
            left = writes_left(state)
            if left is not None:
                yield from state.writes.append(*left, replaces=True)

    def _upon(
        self, thread: str, plan: Callable[[Thread], Plan[None]], *, fresh: bool = False
    ) -> Plan[None]:
        """Plan to do something that writes, again whenever somebody else wrote meanwhile."""
        state = yield from (self._current(thread) if fresh else self._open(thread))
        for _ in range(_TRIES_MAX):
            try:
                yield from plan(state)
            except Stale:
                yield from self._refresh(state)
            except Deleted:
                self._drop(thread)
                state = yield from self._open(thread)
            else:
                return
        raise Stale(f"others write to thread {thread!r} all the time")

    def _current(self, thread: str) -> Plan[Thread]:
        """Plan to read what is new in a thread."""
        state = yield from self._open(thread, read=False)
        try:
            yield from state.refresh()
        except Deleted:
            self._drop(thread)
            state = yield from self._open(thread)
        return state

    def _refresh(self, state: Thread) -> Plan[None]:
        try:
            yield from state.refresh()
        except Deleted:
            self._drop(state.id)

    def _open(self, thread: str, *, read: bool = True) -> Plan[Thread]:
        """Plan to find the session of a thread."""
        with self._lock:
            state = self._threads.get(thread)
            if state is not None:
                self._threads.move_to_end(thread)
                return state
        session = yield from living(self._session(thread), self._agent)
        with self._lock:
            known, reads = self._reads.get(thread, (session, {}))
            if known != session:
                reads = dict.fromkeys(reads, GONE)
            self._reads[thread] = (session, reads)
            while len(self._reads) > READS_MAX:
                self._reads.popitem(last=False)
        state = Thread(thread, session, self._agent, self._manifest, self._cache, reads)
        if read:
            yield from self._refresh(state)
        with self._lock:
            # Another one may have been faster; then that is the one.
            state = self._threads.setdefault(thread, state)
            while len(self._threads) > THREADS_MAX:
                self._threads.popitem(last=False)
        return state

    def _drop(self, thread: str) -> None:
        with self._lock:
            self._threads.pop(thread, None)

    def _session(self, thread: str) -> str:
        if not self._prefix:
            return thread
        name = session_name(self._prefix, thread)
        if not thread or len(name.encode()) > _THREAD_BYTES_MAX or self._thread_of(name) != thread:
            raise ValueError(f"no thread can have the id {thread[:80]!r}: it is empty or too long")
        return name

    def _thread_of(self, name: str) -> str | None:
        prefix, _, rest = name.rpartition("/")
        return unquote(rest.partition("~")[0]) if prefix == self._prefix else None


def _gone(thread: str) -> Overtaken:
    return Overtaken(
        f"thread {thread!r} was deleted since this run read it (hint: invoke the graph again)"
    )
