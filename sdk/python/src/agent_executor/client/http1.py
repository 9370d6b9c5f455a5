"""HTTP/1.1, as bytes that come in pieces (RFC 9112). One request a connection."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

# The longest head of an answer, in bytes.
HEAD_BYTES_MAX = 64 << 10
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Malformed(ValueError):
    """What came is no answer."""


@dataclass(frozen=True)
class Head:
    """The head of an answer. The names of headers are in lower case."""

    status: int
    headers: dict[str, str]


def request(method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """Return the bytes of a request.

    Raises:
        ValueError: The target or a header has a character that would end it.
    """
    if not target.isascii() or any(char <= " " or char == "\x7f" for char in target):
        raise ValueError(f"{target!r} is no target")
    lines = [f"{method} {target} HTTP/1.1"]
    all_headers = {**headers, "connection": "close"}
    if body is not None:
        all_headers["content-length"] = str(len(body))
    for name, value in all_headers.items():
        if not set(name) <= _TOKEN or any(char in value for char in "\r\n\0"):
            raise ValueError(f"the header {name!r} is malformed")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


class _Phase(enum.Enum):
    HEAD = enum.auto()
    LENGTH = enum.auto()
    CHUNK_SIZE = enum.auto()
    CHUNK = enum.auto()
    CHUNK_END = enum.auto()
    TRAILER = enum.auto()
    UNTIL_CLOSED = enum.auto()
    DONE = enum.auto()


class Response:
    """Reads an answer. ``head`` is there once it has come, ``done`` is set at the body's end."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self._phase = _Phase.HEAD
        self._buffer = bytearray()
        self._left = 0

    @property
    def done(self) -> bool:
        """Whether all of it has come."""
        return self._phase is _Phase.DONE

    def feed(self, data: bytes) -> bytes:
        """Take in bytes; return those of the body that came with them.

        Raises:
            Malformed: It is no answer.
        """
        self._buffer += data
        body = bytearray()
        while self._step(body):
            pass
        return bytes(body)

    def end(self) -> None:
        """Note that the connection was closed.

        Raises:
            Malformed: That was too early.
        """
        if self._phase is _Phase.UNTIL_CLOSED:
            self._phase = _Phase.DONE
        elif self._phase is not _Phase.DONE:
            raise Malformed("the answer ended too early")

    def _step(self, body: bytearray) -> bool:
        """Do one thing; return whether there may be more to do."""
        phase = self._phase
        if phase is _Phase.DONE:
            return False
        if phase is _Phase.HEAD:
            return self._read_head()
        if phase is _Phase.UNTIL_CLOSED:
            body += self._buffer
            self._buffer.clear()
            return False
        if phase in {_Phase.LENGTH, _Phase.CHUNK}:
            return self._read_counted(body)
        line = self._line()
        if line is None:
            return False
        if phase is _Phase.CHUNK_SIZE:
            self._left = _chunk_size(line)
            self._phase = _Phase.CHUNK if self._left else _Phase.TRAILER
        elif phase is _Phase.CHUNK_END:
            if line:
                raise Malformed("a chunk is longer than it says")
            self._phase = _Phase.CHUNK_SIZE
        elif not line:
            self._phase = _Phase.DONE
        return True

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise Malformed("the head of the answer is too long")
            return False
        head = _head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        if 100 <= head.status < 200:
            return True
        self.head = head
        encoding = head.headers.get("transfer-encoding", "").lower()
        length = head.headers.get("content-length", "")
        if encoding:
            if encoding != "chunked":
                raise Malformed(f"the transfer encoding {encoding!r} is unknown")
            self._phase = _Phase.CHUNK_SIZE
        elif head.status in {204, 304}:
            self._phase = _Phase.DONE
        elif length:
            if not (length.isascii() and length.isdigit()):
                raise Malformed(f"{length!r} is no length")
            self._left = int(length)
            self._phase = _Phase.LENGTH if self._left else _Phase.DONE
        else:
            self._phase = _Phase.UNTIL_CLOSED
        return True

    def _read_counted(self, body: bytearray) -> bool:
        taken = min(self._left, len(self._buffer))
        body += self._buffer[:taken]
        del self._buffer[:taken]
        self._left -= taken
        if self._left:
            return False
        self._phase = _Phase.DONE if self._phase is _Phase.LENGTH else _Phase.CHUNK_END
        return True

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise Malformed("a line of the answer is too long")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


def _head(text: bytes) -> Head:
    first, *lines = text.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest[:3]
    if version not in {"HTTP/1.1", "HTTP/1.0"} or not (status.isascii() and status.isdigit()):
        raise Malformed("that is no HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or not set(name) <= _TOKEN:
            raise Malformed(f"{line[:80]!r} is no header")
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Head(int(status), headers)


def _chunk_size(line: bytes) -> int:
    size = line.partition(b";")[0].strip()
    if not size or len(size) > 15 or any(char not in b"0123456789abcdefABCDEF" for char in size):
        raise Malformed("that is no chunk")
    return int(size, 16)
