"""What is left of a thread when checkpoints are dropped, and the records that hold just that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_executor.records import Blob

from .contents import Fresh, Ref, Writer, within
from .thread import Contents, Entry, Place, Thread


def keep_latest(state: Thread, deltas: Mapping[Place, set[str]]) -> list[Entry]:
    """Return the newest checkpoint of each namespace, and the ancestors that it rests on.

    The value of a delta channel is what was written to it since an ancestor that has the value.

    Args:
        state: The thread.
        deltas: The delta channels of each checkpoint that were written since they were whole.
    """
    kept: dict[Place, Entry] = {}
    for ns in list(state.entries):
        entry = state.find(ns, None)
        if entry is None:
            continue
        kept[entry.place] = entry
        wanted = _without_value(entry, deltas[entry.place])
        while wanted and entry is not None and entry.parent:
            entry = state.find(ns, entry.parent)
            if entry is not None:
                kept[entry.place] = entry
                wanted = _without_value(entry, wanted)
    return list(kept.values())


def _without_value(entry: Entry, channels: set[str]) -> set[str]:
    values = entry.values
    return {one for one in channels if one not in values or values[one].ref is None}


def checkpoints_left(
    state: Thread, kept: list[Entry]
) -> tuple[dict[str, Any], dict[str, bytes | Blob]] | None:
    """Return a record that holds some checkpoints; None if they have too many large values."""
    mover = _Mover(state.values)
    said = []
    for entry in sorted(kept, key=lambda one: one.seq):
        numbers = {ref: mover.move(ref) for ref in entry.refs()}
        if None in numbers.values():
            return None
        values = {
            channel: [value.version, None if value.ref is None else numbers[value.ref]]
            for channel, value in entry.values.items()
        }
        said.append(
            {
                "at": entry.at,
                "ns": entry.ns,
                "id": entry.id,
                "parent": entry.parent,
                "run": entry.run,
                "head": numbers[entry.head],
                "metadata": numbers[entry.metadata],
                "values": values,
            }
        )
    return {"put": said, "contents": mover.writer.contents}, mover.writer.finish()


def writes_left(state: Thread) -> tuple[dict[str, Any], dict[str, bytes | Blob]] | None:
    """Return a record that holds what was written upon the checkpoints that are there."""
    mover = _Mover(state.written)
    said: list[dict[str, Any]] = []
    for (ns, checkpoint), writes in state.written_upon():
        for write in writes:
            number = mover.move(write.ref)
            if number is None:
                return None
            one = {"ns": ns, "id": checkpoint, "task": write.task, "path": write.path}
            said.append({**one, "writes": [[write.index, write.channel, number]]})
    return {"put": said, "contents": mover.writer.contents}, mover.writer.finish()


class _Mover:
    """Moves contents into a new record, with what they are made from."""

    def __init__(self, contents: Contents) -> None:
        self.writer = Writer()
        self._contents = contents
        self._moved: dict[Ref, int | None] = {}

    def move(self, ref: Ref) -> int | None:
        # The oldest first, without recursion: a delta names what comes before it.
        chain = [ref]
        while (base := self._contents[chain[-1]].base) is not None:
            chain.append(base)
        for at in reversed(chain):
            if at not in self._moved:
                self._moved[at] = self._move_one(at)
            if self._moved[at] is None:
                return None
        return self._moved[ref]

    def _move_one(self, ref: Ref) -> int | None:
        content = self._contents[ref]
        base = None
        if content.base is not None:
            number = self._moved[content.base]
            base = None if number is None else within(number)
        if content.blob.inline is None:
            return self.writer.keep(content, base)
        data = content.blob.inline[content.offset : content.offset + content.length]
        return self.writer.add(
            Fresh(content.kind, data, base, content.ops, content.size, content.depth, content.cost)
        )
