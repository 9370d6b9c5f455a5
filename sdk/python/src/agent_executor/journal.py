"""What earlier attempts recorded, and the keys under which it is found again."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from .errors import KeyRequired, KeyReused, NestedStep
from .wire import Frame
from .wire import field as take

KEY_BYTES_MAX = 256
_DERIVED = re.compile(r"[^/>]*#\d+")
_RESERVED = re.compile(r"#\d+$")


@dataclass
class Entry:
    """One thing that was recorded.

    Attributes:
        kind: ``step``, ``output``, ``ask``, ``sleep``, ``signal``, ``emit``, ``checkpoint``, or
            one that this version does not know.
        key: Its key.
        fields: The fields of the frame.
        used: Whether this attempt has come to it.
    """

    kind: str
    key: str
    fields: Frame
    used: bool = False

    @classmethod
    def parse(cls, frame: Frame) -> Entry:
        """Return the entry of a ``journal`` frame or of a ``before`` field."""
        return cls(take(frame, "entry", str), take(frame, "key", str), frame)

    @property
    def settled(self) -> bool:
        """Whether nothing is to be waited for any more."""
        said = self.fields
        if self.kind == "step":
            return "result" in said or said.get("failure") is not None
        if self.kind == "ask":
            return said.get("answer") is not None or said.get("expired") is True
        if self.kind == "sleep":
            return said.get("fired") is True
        if self.kind == "signal":
            return "payload" in said
        return True


class Journal:
    """The entries by key, in the order of their recording."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Add an entry."""
        self._entries[entry.key] = entry

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def take(self, key: str) -> Entry | None:
        """Claim a key for this attempt; return what is recorded under it."""
        with self._lock:
            if key in self._taken:
                raise KeyReused(f"the key {key!r} is used twice in this execution")
            self._taken.add(key)
        entry = self._entries.get(key)
        if entry is not None:
            entry.used = True
        return entry

    def unused(self) -> list[Entry]:
        """Return what this attempt has not come to."""
        return [entry for entry in self._entries.values() if not entry.used]

    def next_in(self, path: str) -> Entry | None:
        """Return the first entry of a flow that this attempt has not come to."""
        for entry in self._entries.values():
            rest = entry.key.removeprefix(path) if entry.key.startswith(path) else ""
            if not entry.used and _DERIVED.fullmatch(rest):
                return entry
        return None


@dataclass
class Flow:
    """A line of calls that come in the same order in every attempt, and so can be counted.

    The main function is one; each :meth:`Context.scope` is another.
    """

    path: str = ""
    owner: object = None
    counts: dict[str, int] = field(default_factory=dict)

    def derive(self, base: str) -> str:
        """Return the next key for things of this name."""
        count = self.counts[base] = self.counts.get(base, 0) + 1
        return fit(f"{self.path}{escape(base)}", f"#{count}")


@dataclass
class InStep:
    """The function of a step is running: what belongs to it.

    Attributes:
        key: The step's key.
        spent: What it has reported as consumed.
        outputs: How many outputs it has begun.
    """

    key: str
    spent: Any = None
    outputs: int = 0


flow_now: ContextVar[Flow | InStep | None] = ContextVar("agent_executor_flow", default=None)


def fit(text: str, end: str) -> str:
    """Return ``text + end``, or a shorter key that is as unique."""
    if len((text + end).encode()) <= KEY_BYTES_MAX:
        return text + end
    short = text.encode()[:160].decode("utf-8", "ignore")
    return f"{short}~{hashlib.sha256(text.encode()).hexdigest()[:32]}{end}"


def escape(name: str) -> str:
    """Return a name in which nothing reads as a separator of keys."""
    return name.replace("%", "%25").replace("/", "%2F").replace(">", "%3E")


def whoami() -> object:
    """Return what runs now: a task, or else a thread."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return task if task is not None else threading.get_ident()


def checked_key(key: str) -> str:
    """Return an explicit key if it is a legal one."""
    if not isinstance(key, str) or not 0 < len(key.encode()) <= KEY_BYTES_MAX:
        raise ValueError(f"a key is a string of 1 to {KEY_BYTES_MAX} bytes, not {key!r}")
    if _RESERVED.search(key):
        raise ValueError(f"the key {key!r} ends like a derived one; leave out '#' and the number")
    return key


def assign_key(base: str, explicit: str | None) -> tuple[str, Flow | None]:
    """Return the key of the next thing of this name, and the flow it was counted in."""
    flow = flow_now.get()
    if isinstance(flow, InStep):
        raise NestedStep(f"{base!r} inside the function of step {flow.key!r}: steps do not nest")
    if explicit is not None:
        return checked_key(explicit), None
    if flow is None or flow.owner != whoami():
        raise KeyRequired(
            f"{base!r} is called from a thread or task whose order among the others is not the "
            "same in every attempt: pass key=..., or run it within ctx.scope('a-name')"
        )
    return flow.derive(base), flow
