"""The driver that waits: sockets that block."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from typing import TypeVar

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

    def run(self, course: Course[_T]) -> _T:
        """Carry a course out that shows nothing; return its result."""
        connection = _Connection(self._address, self._context)
        try:
            command = next(course)
            while True:
                command = _advance(course, connection, command)
        except StopIteration as stop:
            result: _T = stop.value
            return result
        finally:
            connection.close()

    def show(self, course: Course[None]) -> Iterator[Item]:
        """Carry a course out; yield what it shows."""
        connection = _Connection(self._address, self._context)
        try:
            command = next(course)
            while True:
                if isinstance(command, Show):
                    yield command.item
                    command = course.send(None)
                else:
                    command = _advance(course, connection, command)
        except StopIteration:
            return
        finally:
            connection.close()


def _advance(course: Course[_T], connection: _Connection, command: Command) -> Command:
    try:
        done = connection.do(command)
    except OSError as error:
        return course.throw(error)
    return course.send(done)


class _Connection:
    def __init__(self, address: Address, context: ssl.SSLContext | None) -> None:
        self._address = address
        self._context = context
        self._socket: socket.socket | None = None

    def do(self, command: Command) -> bytes | None:
        if isinstance(command, Connect):
            self.close()
            self._socket = self._connect(command.timeout)
        elif isinstance(command, Send):
            self._open.settimeout(command.timeout)
            self._open.sendall(command.data)
        elif isinstance(command, Receive):
            self._open.settimeout(command.timeout)
            return self._open.recv(_CHUNK_BYTES)
        elif isinstance(command, Sleep):
            time.sleep(command.seconds)
        elif isinstance(command, Close):
            self.close()
        return None

    @property
    def _open(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionError("there is no connection")
        return self._socket

    def _connect(self, timeout: float) -> socket.socket:
        address = self._address
        if address.path:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(timeout)
                connection.connect(address.path)
            except BaseException:
                connection.close()
                raise
            return connection
        connection = socket.create_connection((address.host, address.port), timeout)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                return self._context.wrap_socket(connection, server_hostname=address.host)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
