"""Events, and the text that they stream."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Fields of an event that are not its kind.
_HEADER = frozenset(
    [
        "seq",
        "atMillis",
        "actor",
        "principal",
        "request",
        "trace",
        "execution",
        "attempt",
        "keyId",
        "type",
    ]
)
_ENDS = frozenset(
    ["execution.completed", "execution.failed", "execution.canceled", "execution.timed_out"]
)


@dataclass(frozen=True)
class Event:
    """An entry of a session's log.

    Attributes:
        seq: Its position: 1, 2, 3, ... without gaps.
        kind: What happened, such as ``output.delta``; ``docs/formats/events.md`` lists them.
        data: The fields of the kind, as they are in JSON.
        at_millis: When, in milliseconds since the Unix epoch.
        execution: The execution that it belongs to, or 0.
        attempt: The attempt that it belongs to, or 0.
        raw: The whole event, as it was sent.
    """

    seq: int
    kind: str
    data: Mapping[str, Any]
    at_millis: int
    execution: int
    attempt: int
    raw: Mapping[str, Any]

    @property
    def ends_execution(self) -> bool:
        """Whether an execution is over with it, however it ended."""
        return self.kind in _ENDS

    @classmethod
    def of_json(cls, raw: Mapping[str, Any]) -> Event:
        """Read an event.

        Raises:
            ValueError: It is none.
        """
        try:
            seq, at_millis = int(raw["seq"]), int(raw.get("atMillis", 0))
            execution, attempt = int(raw.get("execution", 0)), int(raw.get("attempt", 0))
        except (KeyError, TypeError) as error:
            raise ValueError("the event is malformed") from error
        # A kind that is newer than this client has a field of its own, too.
        field = next((name for name in raw if name not in _HEADER), "")
        data = raw.get(field)
        data = data if isinstance(data, Mapping) else {}
        return cls(seq, _kind(field), data, at_millis, execution, attempt, raw)


def _kind(field: str) -> str:
    """Turn ``executionTimedOut`` into ``execution.timed_out``."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+", field)]
    return words[0] + ("." + "_".join(words[1:]) if words[1:] else "") if words else ""


class Text:
    """Puts together what the agent says.

    A block of output comes in pieces. If the attempt is lost before the block is complete, its
    pieces are void: the next attempt says it again. So are whole blocks without a key. Feed every
    event to :meth:`add`, and ``str()`` is what holds by then::

        text = Text()
        for event in client.follow(session).events():
            text.add(event)
            show(str(text))
    """

    def __init__(self) -> None:
        # Texts by the position at which each began.
        self._texts: dict[int, str] = {}
        # Where blocks that are not complete began, by execution and name.
        self._open: dict[tuple[int, str], int] = {}
        # Where complete blocks without a key began, which the next attempt says again.
        self._loose: set[int] = set()

    def add(self, event: Event) -> None:
        """Take in an event, whatever its kind."""
        block = (event.execution, str(event.data.get("block", "")))
        if event.kind == "output.delta":
            began = self._open.setdefault(block, event.seq)
            self._texts[began] = self._texts.get(began, "") + str(event.data.get("text", ""))
        elif event.kind == "output.message":
            began = self._open.pop(block, event.seq) if block[1] else event.seq
            said = "".join(_text(part) for part in event.data.get("parts", ()))
            self._texts[began] = self._texts.get(began, "") + said
            if not event.data.get("key"):
                self._loose.add(began)
        elif event.kind == "attempt.started":
            for began in self._loose:
                del self._texts[began]
            self._loose.clear()
        elif event.kind == "execution.started" and not event.data.get("continues"):
            self._loose.clear()
        elif event.kind == "attempt.lost" or event.ends_execution:
            for unfinished in [one for one in self._open if one[0] == event.execution]:
                began = self._open.pop(unfinished)
                if event.kind == "attempt.lost":
                    del self._texts[began]

    def __str__(self) -> str:
        return "".join(text for _, text in sorted(self._texts.items()))


def _text(part: Any) -> str:
    body = part.get("body", {}) if isinstance(part, Mapping) else {}
    return str(body.get("text", "")) if isinstance(body, Mapping) else ""
