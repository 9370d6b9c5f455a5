"""What a request and a follower do, step by step, for drivers that wait and for those that await.

Both are generators: they yield what is to be done with the connection and are sent what came of it.
So there is one course of things, and two small drivers for it (``wait.py`` and ``aio.py``), which
close the connection when the course is over or left.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from . import http1, machine, sse
from .errors import UNTRUSTED, Disconnected, ServerError, of_answer
from .events import Event
from .items import CaughtUp, End, Item

# The longest answer that is taken, in bytes.
ANSWER_BYTES_MAX = 256 << 20


@dataclass(frozen=True)
class Connect:
    """Open a connection, or fail with OSError."""

    timeout: float


@dataclass(frozen=True)
class Send:
    """Send these bytes, or fail with OSError."""

    data: bytes
    timeout: float


@dataclass(frozen=True)
class Receive:
    """Answer with the bytes that come next; none if the connection was closed. May fail."""

    timeout: float


@dataclass(frozen=True)
class Close:
    """Close the connection, if there is one."""


@dataclass(frozen=True)
class Sleep:
    """Wait, in seconds."""

    seconds: float


@dataclass(frozen=True)
class Show:
    """Hand an item out to the caller."""

    item: Item


Command: TypeAlias = Connect | Send | Receive | Close | Sleep | Show
_T = TypeVar("_T")
Course: TypeAlias = Generator[Command, Any, _T]


@dataclass(frozen=True)
class Call:
    """A request.

    Attributes:
        method: Of HTTP.
        target: Path and query.
        headers: All but those of the body's length.
        body: Or None.
        repeat: When it is sent again.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None
    repeat: machine.Repeat


@dataclass(frozen=True)
class World:
    """What a course needs besides the connection."""

    patience: machine.Patience
    now: Callable[[], float]
    chance: Callable[[], float]


def carry_out(call: Call, world: World) -> Course[bytes]:
    """Send a request until it is known what became of it; return the body of the answer.

    Raises:
        ServerError: It was refused, or nobody answered for too long.
    """
    request = machine.Request(call.repeat, world.patience, world.chance)
    while True:
        try:
            return (yield from _once(call, world))
        except ServerError as error:
            pause = request.fail(world.now(), error)
        yield Sleep(pause)


def _once(call: Call, world: World) -> Course[bytes]:
    data = http1.request(call.method, call.target, call.headers, call.body)
    answer = http1.Response()
    body = bytearray()
    timeout = world.patience.silence
    try:
        yield Connect(world.patience.connect)
        yield Send(data, timeout)
        while not answer.done:
            chunk: bytes = yield Receive(timeout)
            if not chunk:
                answer.end()
                break
            body += answer.feed(chunk)
            if len(body) > ANSWER_BYTES_MAX:
                raise ServerError("AX1013", "the answer is too large")
    except (OSError, http1.Malformed) as error:
        yield Close()
        raise _failure(error) from error
    yield Close()
    head = answer.head
    if head is None:
        raise Disconnected("no server answers", "the connection was closed")
    if not 200 <= head.status < 300:
        raise of_answer(head.status, head.headers, bytes(body))
    return bytes(body)


def follow(
    target: Callable[[int], str], headers: dict[str, str], follower: machine.Follower, world: World
) -> Course[None]:
    """Do what a follower wants until it is over. ``target`` names the stream after a position.

    Raises:
        ServerError: It is over: a refusal, or nobody answered for too long.
    """
    stream = _Stream(headers, world)
    while True:
        want = follower.want()
        if isinstance(want, machine.Nothing):
            return
        given: machine.Input
        if isinstance(want, machine.Open):
            given = yield from stream.open(target(want.after))
        elif isinstance(want, machine.Read):
            given = yield from stream.read()
        else:
            yield Close()
            yield Sleep(max(0.0, want.until - world.now()))
            given = machine.Due()
        item = follower.handle(world.now(), given)
        if item is not None:
            yield Show(item)


class _Stream:
    """A stream of server-sent events."""

    def __init__(self, headers: dict[str, str], world: World) -> None:
        self._headers = {**headers, "accept": "text/event-stream", "cache-control": "no-store"}
        self._world = world
        self._answer = http1.Response()
        self._reader = sse.Reader()
        self._messages: list[sse.Message] = []

    def open(self, target: str) -> Course[machine.Input]:
        patience = self._world.patience
        answer, self._messages = http1.Response(), []
        self._answer, self._reader = answer, sse.Reader()
        body = bytearray()
        try:
            yield Connect(patience.connect)
            yield Send(http1.request("GET", target, self._headers, None), patience.connect)
            while answer.head is None:
                body += yield from self._more(patience.connect)
            if answer.head.status == 200:
                self._messages = self._reader.feed(bytes(body))
                return machine.Opened()
            while not answer.done:
                body += yield from self._more(patience.connect)
        except (OSError, http1.Malformed, ValueError) as error:
            return machine.Failed(_failure(error))
        return machine.Failed(of_answer(answer.head.status, answer.head.headers, bytes(body)))

    def _more(self, timeout: float) -> Course[bytes]:
        chunk: bytes = yield Receive(timeout)
        if chunk:
            return self._answer.feed(chunk)
        self._answer.end()
        return b""

    def read(self) -> Course[machine.Input]:
        try:
            while not self._messages:
                if self._answer.done:
                    return machine.Failed(Disconnected("the stream ended too early"))
                body = yield from self._more(self._world.patience.silence)
                self._messages = self._reader.feed(body)
            return _input(self._messages.pop(0))
        except (OSError, http1.Malformed) as error:
            return machine.Failed(Disconnected("the connection broke", _words(error)))
        except ValueError as error:
            return machine.Failed(Disconnected("the server sent something unknown", str(error)))


def _input(message: sse.Message) -> machine.Input:
    """Return what a message stands for.

    Raises:
        ValueError: It is none of ours.
    """
    if message.event == sse.ALIVE and not message.data:
        return machine.Alive(int(message.id))
    said = json.loads(message.data)
    if not isinstance(said, dict):
        raise ValueError("a message is no object")
    if message.event == "caught-up":
        return CaughtUp(int(said.get("last", 0)))
    if message.event == "end":
        reason = str(said.get("reason", "")).removeprefix("REASON_").lower()
        return machine.Ended(End(reason, int(said.get("last", 0)), said.get("status") or {}))
    if message.event == "failure":
        return machine.Failed(of_answer(500, {}, message.data.encode()))
    return machine.Came(Event.of_json(said))


def _failure(error: Exception) -> ServerError:
    """Return what it means that there is no answer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        # Asking again does not change who answers.
        return ServerError(
            UNTRUSTED,
            "the certificate of the server is not believed",
            hint="AX_CA names the file of the authority that vouches for it",
            causes=(_words(error),),
        )
    return Disconnected("no server answers", _words(error))


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
