"""Server-sent events, as they come in pieces (HTML Living Standard, section 9.2)."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

# A line that is longer is no event of ours, in characters.
LINE_MAX = 64 << 20
# The type of what has an id and no data: a page is not told of it, and goes on after that id.
ALIVE = "alive"


@dataclass(frozen=True)
class Message:
    """A message: the last id so far, its type, and its data."""

    id: str
    event: str
    data: str


class Reader:
    """Puts messages together from pieces of a stream that may end anywhere, even in a character."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line = ""
        self._began = False
        self._after_return = False
        self._id = ""
        self._moved = False
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Message]:
        """Take in a piece; return the messages that are complete with it.

        Raises:
            ValueError: A line has no end.
        """
        text = self._decoder.decode(chunk)
        if text and not self._began:
            self._began = True
            text = text.removeprefix("\ufeff")
        if self._after_return and text:
            # The line feed of a pair whose carriage return was the end of the piece before.
            text = text.removeprefix("\n")
            self._after_return = False
        self._after_return = self._after_return or text.endswith("\r")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines = (self._line + text).split("\n")
        self._line = lines.pop()
        if len(self._line) > LINE_MAX:
            raise ValueError("a line of the stream has no end")
        return [message for line in lines if (message := self._take(line)) is not None]

    def _take(self, line: str) -> Message | None:
        if not line:
            return self._dispatch()
        name, colon, value = line.partition(":")
        if not colon or name:
            value = value.removeprefix(" ")
            if name == "data":
                self._data.append(value)
            elif name == "event":
                self._event = value
            elif name == "id" and "\0" not in value:
                self._id = value
                self._moved = True
        return None

    def _dispatch(self) -> Message | None:
        data, event, moved = self._data, self._event, self._moved
        self._data, self._event, self._moved = [], "", False
        if data:
            return Message(self._id, event or "message", "\n".join(data))
        return Message(self._id, ALIVE, "") if moved and self._id else None
