"""Serialized values of a record: how they are packed, found again, and told apart from another.

The JSON value of a record lists its contents. Content ``n`` is one of::

    {"t": "msgpack", "b": "pack", "o": 12, "n": 34}     34 bytes of the blob "pack", from 12 on
    {"t": "msgpack", "b": "0", "n": 70000}              the blob "0"
    {"t": "msgpack", "b": "pack", "o": 46, "n": 9, "of": [17, 0], "ops": [[0, 70000], 9],
     "size": 70009, "depth": 1, "cost": 9}              the first 70000 bytes of content 0 of the
                                                        record at 17, then these 9 bytes

``of`` names a content by the position of its record, or by -1 for the record that it is itself in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from agent_executor.records import BLOBS_MAX, Blob, Record

# What names a content: the position of its record, and its number there.
Ref: TypeAlias = tuple[int, int]
# A copy of some bytes of the base, or how many come from the delta itself.
Op: TypeAlias = "tuple[int, int] | int"

# Contents from this length on have a blob of their own.
OWN_BYTES_MIN = 32 << 10
# Contents from this length on are told apart from what they follow.
DELTA_BYTES_MIN = 2 << 10
# Reading a content reads so many others at most.
DEPTH_MAX = 128
_OPS_MAX = 16
_MATCH_BYTES_MIN = 32
_ANCHORS = (0, 2, 4, 8, 16, 64, 256, 1024)
_PACK = "pack"
_SELF = -1


@dataclass(frozen=True)
class Content:
    """A serialized value, or what makes one out of another.

    Attributes:
        kind: What the serializer calls it.
        blob: The bytes that hold it.
        offset: Where it begins there.
        length: How many bytes it has there.
        base: What it was made from, if it is a delta.
        ops: How.
        size: The length of the value.
        depth: How many others are read to read it.
        cost: How many bytes the deltas have in all since the last whole one.
    """

    kind: str
    blob: Blob
    offset: int
    length: int
    base: Ref | None = None
    ops: tuple[Op, ...] = ()
    size: int = 0
    depth: int = 0
    cost: int = 0


@dataclass(frozen=True)
class Fresh:
    """A value to be written: all of it, or a delta."""

    kind: str
    data: bytes
    base: Ref | None = None
    ops: tuple[Op, ...] = ()
    size: int = 0
    depth: int = 0
    cost: int = 0


@dataclass
class Writer:
    """Collects the contents of a record."""

    contents: list[dict[str, Any]] = field(default_factory=list)
    blobs: dict[str, bytes | Blob] = field(default_factory=dict)
    _pack: bytearray = field(default_factory=bytearray)

    def add(self, fresh: Fresh) -> int:
        """Add a content; return its number."""
        said: dict[str, Any] = {"t": fresh.kind, "n": len(fresh.data)}
        # One part is for the pack.
        if len(fresh.data) >= OWN_BYTES_MIN and len(self.blobs) < BLOBS_MAX - 1:
            said["b"] = str(len(self.blobs))
            self.blobs[said["b"]] = fresh.data
        else:
            said |= {"b": _PACK, "o": len(self._pack)}
            self._pack += fresh.data
        return self._list(said, fresh)

    def keep(self, content: Content, base: Ref | None) -> int | None:
        """Add a content whose blob is in the store; None if there is no room for the blob."""
        known = next((name for name, blob in self.blobs.items() if blob == content.blob), None)
        if known is None:
            if len(self.blobs) >= BLOBS_MAX - 1:
                return None
            known = str(len(self.blobs))
            self.blobs[known] = content.blob
        said = {"t": content.kind, "n": content.length, "b": known, "o": content.offset}
        return self._list(said, replace(content, base=base))

    def _list(self, said: dict[str, Any], delta: Fresh | Content) -> int:
        if delta.base is not None:
            said |= {"of": list(delta.base), "ops": delta.ops, "size": delta.size}
            said |= {"depth": delta.depth, "cost": delta.cost}
        self.contents.append(said)
        return len(self.contents) - 1

    def finish(self) -> dict[str, bytes | Blob]:
        """Return the blobs of the record."""
        if self._pack:
            self.blobs[_PACK] = bytes(self._pack)
        return self.blobs


def read_contents(record: Record) -> Iterator[tuple[Ref, Content]]:
    """Yield what a record holds."""
    data = record.data if isinstance(record.data, dict) else {}
    for number, said in enumerate(data.get("contents", ())):
        blob = record.blobs.get(said["b"]) or Blob(0, b"")
        content = Content(said["t"], blob, said.get("o", 0), said["n"], size=said["n"])
        if "of" in said:
            seq, index = said["of"]
            ops = tuple(op if isinstance(op, int) else (op[0], op[1]) for op in said["ops"])
            content = replace(
                content,
                base=(record.seq if seq == _SELF else seq, index),
                ops=ops,
                size=said["size"],
                depth=said["depth"],
                cost=said["cost"],
            )
        yield (record.seq, number), content


def within(number: int) -> Ref:
    """Name a content of the record that is being written."""
    return (_SELF, number)


def tell_apart(base: Content, ref: Ref, old: bytes, kind: str, new: bytes) -> Fresh:
    """Return a delta if one is worth it, else the whole value.

    What the deltas have in all stays below what the last whole value has, so that what is stored
    is proportional to what is new, and what is read to what the value has.
    """
    whole = Fresh(kind, new, size=len(new))
    if kind != base.kind or len(new) < DELTA_BYTES_MIN or base.depth + 1 > DEPTH_MAX:
        return whole
    ops, data = diff(old, new)
    cost = base.cost + len(data)
    if len(ops) > _OPS_MAX or cost > len(new) // 2:
        return whole
    return Fresh(kind, data, ref, ops, len(new), base.depth + 1, cost)


def diff(old: bytes, new: bytes) -> tuple[tuple[Op, ...], bytes]:
    """Return how a value is made from another one: copies, and the bytes that are new.

    It finds what was added, removed or changed at a few places; that is how states grow.
    """
    tail = _common_suffix(old, new)
    if tail < _MATCH_BYTES_MIN:
        tail = 0
    at_old, at_new, end = 0, 0, len(new) - tail
    ops: list[Op] = []
    data = bytearray()
    while at_new < end and len(ops) <= _OPS_MAX:
        skipped, found = _resume(old, new, at_old, at_new, end)
        if skipped:
            ops.append(skipped)
            data += new[at_new : at_new + skipped]
            at_new += skipped
        if found is None:
            break
        length = _common_prefix(old, found, new, at_new, end)
        ops.append((found, length))
        at_old, at_new = found + length, at_new + length
    if tail:
        ops.append((len(old) - tail, tail))
    return tuple(ops), bytes(data)


def apply(old: bytes, ops: Sequence[Op], data: bytes) -> bytes:
    """Make a value from another one."""
    pieces, at = [], 0
    for op in ops:
        if isinstance(op, int):
            pieces.append(data[at : at + op])
            at += op
        else:
            pieces.append(old[op[0] : op[0] + op[1]])
    return b"".join(pieces)


def _resume(old: bytes, new: bytes, at_old: int, at_new: int, end: int) -> tuple[int, int | None]:
    """Return how many bytes are new, and where in the old value what comes then is found."""
    for skip in _ANCHORS:
        start = at_new + skip
        anchor = new[start : min(start + _MATCH_BYTES_MIN, end)]
        if len(anchor) < _MATCH_BYTES_MIN:
            break
        found = old.find(anchor, at_old)
        if found < 0:
            continue
        # It may have begun earlier.
        while skip and found > at_old and old[found - 1] == new[at_new + skip - 1]:
            found, skip = found - 1, skip - 1  # noqa: PLW2901
        return skip, found
    return end - at_new, None


def _common_prefix(old: bytes, at_old: int, new: bytes, at_new: int, end: int) -> int:
    low, high = 0, min(len(old) - at_old, end - at_new)
    # The first `low` bytes are the same; comparing slices is faster than bytes in a loop.
    while low < high:
        middle = (low + high + 1) // 2
        if old[at_old + low : at_old + middle] == new[at_new + low : at_new + middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_suffix(old: bytes, new: bytes) -> int:
    low, high = 0, min(len(old), len(new))
    while low < high:
        middle = (low + high + 1) // 2
        if old[len(old) - middle : len(old) - low] == new[len(new) - middle : len(new) - low]:
            low = middle
        else:
            high = middle - 1
    return low
