"""What a follower and a request do when connections break, without doing it.

No socket, no clock, no chance: a driver does what :meth:`Follower.want` says and tells the machine
what came of it. What does not fit the state, such as an event of a connection that was given up,
changes nothing.

=================  ======================  =====================================================
state              input                   then
=================  ======================  =====================================================
apart              ``Opened``              streaming
streaming          ``Came``, ``CaughtUp``  streaming
streaming          ``Alive``               streaming
apart, streaming   ``Failed``              pausing, or over if the error says that nothing helps
pausing            ``Due``                 apart
streaming          ``Ended``               pausing if the server stops, else over
=================  ======================  =====================================================
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from .errors import Disconnected, ServerError
from .events import Event
from .items import Broken, CaughtUp, End, Item


@dataclass(frozen=True)
class Patience:
    """How long a server that does not answer is waited for; all in seconds.

    Attributes:
        outage: From when the connection broke until it is given up.
        pause_min: The pause before the second try. It doubles with every failure, and what is
            waited is drawn between the half and the whole of it.
        pause_max: The longest pause, unless the server asks for a longer one.
        silence: How long a stream may be silent until it counts as broken. The server says
            something at least every 15 s.
        connect: How long it may take to connect, or until an answer begins.
    """

    outage: float = 60.0
    pause_min: float = 0.02
    pause_max: float = 1.0
    silence: float = 40.0
    connect: float = 10.0


class Outage:
    """Since when there is no answer, and how often it was tried."""

    def __init__(self, patience: Patience, chance: Callable[[], float]) -> None:
        self._patience = patience
        self._chance = chance
        self._failures = 0
        self._since: float | None = None

    @property
    def is_on(self) -> bool:
        """Whether there is one."""
        return self._since is not None

    def fail(self, now: float, error: ServerError) -> float | None:
        """Return how long to wait before the next try; None if it has lasted too long."""
        if self._since is None:
            self._since = now
        if now - self._since >= self._patience.outage:
            return None
        # Beyond this, doubling only overflows.
        doubled = self._patience.pause_min * 2.0 ** min(self._failures, 60)
        self._failures += 1
        pause = min(doubled, self._patience.pause_max)
        drawn = pause / 2 + pause / 2 * self._chance()
        return max(drawn, error.retry_after or 0.0)

    def end(self) -> None:
        """Note that there was an answer."""
        self._failures, self._since = 0, None


@dataclass(frozen=True)
class Due:
    """The pause is over."""


@dataclass(frozen=True)
class Opened:
    """The server has taken the request."""


@dataclass(frozen=True)
class Came:
    """An event came."""

    event: Event


@dataclass(frozen=True)
class Alive:
    """Nothing to be shown came for a while, and the stream is this far."""

    last: int


@dataclass(frozen=True)
class Ended:
    """The server says that nothing more comes."""

    end: End


@dataclass(frozen=True)
class Failed:
    """There is no connection, it broke, what came makes no sense; or a refusal."""

    error: ServerError


Input: TypeAlias = Due | Opened | Came | CaughtUp | Alive | Ended | Failed


@dataclass(frozen=True)
class Open:
    """Ask the server for what comes after this position."""

    after: int


@dataclass(frozen=True)
class Wait:
    """Wait until then, by the clock of the driver."""

    until: float


@dataclass(frozen=True)
class Read:
    """Read what the server sends."""


@dataclass(frozen=True)
class Nothing:
    """Do nothing more: it is over."""


Want: TypeAlias = Open | Wait | Read | Nothing


class State(enum.Enum):
    """Where a follower is."""

    APART = "apart"
    PAUSING = "pausing"
    STREAMING = "streaming"
    OVER = "over"


class Follower:
    """Hands every event out once and in order, whatever the connections do."""

    def __init__(
        self, after: int, patience: Patience, chance: Callable[[], float], *, holes: bool = False
    ) -> None:
        """Begin after a position. With ``holes``, positions may be missing: deltas are left out."""
        self.last = after
        self.state = State.APART
        self._until = 0.0
        self._holes = holes
        self._patience = patience
        self._outage = Outage(patience, chance)

    def want(self) -> Want:
        """Return what the driver is to do."""
        if self.state is State.APART:
            return Open(self.last)
        if self.state is State.PAUSING:
            return Wait(self._until)
        if self.state is State.STREAMING:
            return Read()
        return Nothing()

    def handle(self, now: float, given: Input) -> Item | None:
        """Take in what happened; return what the caller is to see of it.

        Raises:
            ServerError: It is over: a refusal, or nobody answered for too long.
        """
        if self.state is State.APART:
            if isinstance(given, Opened):
                self.state = State.STREAMING
            elif isinstance(given, Failed):
                return self._fail(now, given.error)
        elif self.state is State.PAUSING:
            if isinstance(given, Due):
                self.state = State.APART
        elif self.state is State.STREAMING:
            return self._receive(now, given)
        return None

    def _receive(self, now: float, given: Input) -> Item | None:
        if isinstance(given, Came):
            return self._see(now, given.event)
        if isinstance(given, CaughtUp):
            self._outage.end()
            return given
        if isinstance(given, Alive):
            self._outage.end()
            if self._holes:
                self.last = max(self.last, given.last)
            return None
        if isinstance(given, Ended):
            if given.end.reason == "shutdown":
                return self._fail(now, Disconnected("the server is stopping"))
            self.state = State.OVER
            return given.end
        if isinstance(given, Failed):
            return self._fail(now, given.error)
        return None

    def _see(self, now: float, event: Event) -> Item | None:
        if event.seq <= self.last:
            return None
        if event.seq > self.last + 1 and not self._holes:
            message = f"the server sent event {event.seq} after {self.last}"
            return self._fail(now, Disconnected(message))
        self.last = event.seq
        self._outage.end()
        return event

    def _fail(self, now: float, error: ServerError) -> Item | None:
        self.state = State.OVER
        if not error.passes:
            raise error
        first = not self._outage.is_on
        pause = self._outage.fail(now, error)
        if pause is None:
            raise error.given_up(self._patience.outage)
        self.state, self._until = State.PAUSING, now + pause
        return Broken(error) if first else None


class Repeat(enum.Enum):
    """When a request is sent again."""

    UNANSWERED = "whenever it was not answered: carrying it out twice does no harm"
    REFUSED = "when it is certain that it was not carried out"

    def allows(self, error: ServerError) -> bool:
        """Tell whether it is sent again after this error."""
        if self is Repeat.UNANSWERED:
            return error.passes
        return error.passes and error.refused


class Request:
    """A request that is sent until it is known what became of it."""

    def __init__(self, repeat: Repeat, patience: Patience, chance: Callable[[], float]) -> None:
        self._repeat = repeat
        self._patience = patience
        self._outage = Outage(patience, chance)

    def fail(self, now: float, error: ServerError) -> float:
        """Return how long to wait before it is sent again.

        Raises:
            ServerError: It is not sent again.
        """
        if not self._repeat.allows(error):
            raise error
        pause = self._outage.fail(now, error)
        if pause is None:
            raise error.given_up(self._patience.outage)
        return pause
