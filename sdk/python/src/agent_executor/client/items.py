"""What a follower sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .errors import ServerError
from .events import Event


@dataclass(frozen=True)
class CaughtUp:
    """Everything up to ``last`` was recorded before; what follows is live."""

    last: int


@dataclass(frozen=True)
class Broken:
    """The connection broke; it is tried again. Any other item says that there is one again."""

    error: ServerError


@dataclass(frozen=True)
class End:
    """What was to be waited for has come, or the session was deleted. The last item.

    Attributes:
        reason: ``reached``, ``deleted`` or ``shutdown`` (which a follower never shows).
        last: The last position that was sent.
        status: What the session is doing.
    """

    reason: str
    last: int
    status: dict[str, Any] = field(default_factory=dict)


Item: TypeAlias = Event | CaughtUp | Broken | End
