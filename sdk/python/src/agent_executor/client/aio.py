"""The driver that awaits: asyncio's streams."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from .address import Address, Credentials
from .drive import Close, Command, Connect, Course, Receive, Send, Show, Sleep
from .items import Item

_T = TypeVar("_T")
_CHUNK_BYTES = 64 << 10


class Driver:
    """Carries courses out. Each has at most one connection at a time."""

    def __init__(self, address: Address, credentials: Credentials) -> None:
        self._address = address
        self._context = credentials.context() if address.tls else None

    async def run(self, course: Course[_T]) -> _T:
        """Carry a course out that shows nothing; return its result."""
        connection = _Connection(self._address, self._context)
        try:
            command = next(course)
            while True:
                command = await _advance(course, connection, command)
        except _Over as over:
            result: _T = over.value
            return result
        finally:
            connection.close()

    async def show(self, course: Course[None]) -> AsyncIterator[Item]:
        """Carry a course out; yield what it shows."""
        connection = _Connection(self._address, self._context)
        try:
            command = next(course)
            while True:
                if isinstance(command, Show):
                    yield command.item
                    command = _send(course, None)
                else:
                    command = await _advance(course, connection, command)
        except _Over:
            return
        finally:
            connection.close()


class _Over(Exception):
    """The course is over: a coroutine cannot be left by StopIteration."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


def _send(course: Course[_T], done: bytes | None) -> Command:
    try:
        return course.send(done)
    except StopIteration as stop:
        raise _Over(stop.value) from None


async def _advance(course: Course[_T], connection: _Connection, command: Command) -> Command:
    try:
        done = await connection.do(command)
    except (OSError, asyncio.TimeoutError) as error:
        # They are one class only since Python 3.11.
        failure = error if isinstance(error, OSError) else TimeoutError("timed out")
        try:
            return course.throw(failure)
        except StopIteration as stop:
            raise _Over(stop.value) from None
    return _send(course, done)


class _Connection:
    def __init__(self, address: Address, context: ssl.SSLContext | None) -> None:
        self._address = address
        self._context = context
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def do(self, command: Command) -> bytes | None:
        if isinstance(command, Connect):
            self.close()
            opening = self._connect()
            self._reader, self._writer = await asyncio.wait_for(opening, command.timeout)
        elif isinstance(command, Send):
            if self._writer is None:
                raise ConnectionError("there is no connection")
            self._writer.write(command.data)
            await asyncio.wait_for(self._writer.drain(), command.timeout)
        elif isinstance(command, Receive):
            if self._reader is None:
                raise ConnectionError("there is no connection")
            return await asyncio.wait_for(self._reader.read(_CHUNK_BYTES), command.timeout)
        elif isinstance(command, Sleep):
            await asyncio.sleep(command.seconds)
        elif isinstance(command, Close):
            self.close()
        return None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = self._address
        if address.path:
            return await asyncio.open_unix_connection(address.path)
        return await asyncio.open_connection(address.host, address.port, ssl=self._context)

    def close(self) -> None:
        if self._writer is not None:
            # Nothing is left to be sent, and nobody waits for the other side.
            self._writer.transport.abort()
            self._reader = self._writer = None
