"""What an agent is given: the input, the history, and the parts they are made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

from .errors import ProtocolError
from .wire import Frame, field

PartKind = Literal[
    "text", "thought", "image", "audio", "document", "video", "tool_call", "tool_result", "data"
]


@dataclass(frozen=True)
class Blob:
    """Large or binary content that is kept in a file.

    Attributes:
        id: The content's name in the blob store.
        bytes: Its size in bytes.
        path: The file to read.
    """

    id: str
    bytes: int
    path: Path


@dataclass(frozen=True)
class Part:
    """A part of a message. Content in a file is read only when it is asked for."""

    kind: PartKind
    media_type: str
    name: str
    inline: str | None
    blob: Blob | None

    @classmethod
    def parse(cls, raw: Any) -> Part:
        """Return the part of a frame."""
        if not isinstance(raw, dict):
            raise ProtocolError(f"a part that is not an object: {str(raw)[:80]}")
        frame: Frame = {"type": "part", **raw}
        blob = None
        if raw.get("blob") is not None:
            said: Frame = {"type": "blob", **field(frame, "blob", dict)}
            path = Path(field(said, "path", str))
            blob = Blob(field(said, "id", str), field(said, "bytes", int), path)
        inline = None if blob else field(frame, "text", str)
        kind: Any = field(frame, "kind", str)
        return cls(kind, raw.get("media_type") or "", raw.get("name") or "", inline, blob)

    @cached_property
    def text(self) -> str:
        """The content as text (UTF-8)."""
        return self.inline if self.inline is not None else self.read().decode("utf-8")

    def read(self) -> bytes:
        """Return the content as bytes."""
        if self.blob is not None:
            return self.blob.path.read_bytes()
        return (self.inline or "").encode("utf-8")

    def open(self) -> BinaryIO:
        """Open the content as a stream; only for content in a file."""
        if self.blob is None:
            raise ValueError("this part is not in a file; use .text")
        return self.blob.path.open("rb")

    def json(self) -> Any:
        """Return the content, which must be JSON, as a value."""
        return json.loads(self.text)


class Parts(list[Part]):
    """The parts of a message, in order."""

    @classmethod
    def parse(cls, raw: list[Any]) -> Parts:
        """Return the parts of a frame."""
        return cls(Part.parse(part) for part in raw)

    @property
    def text(self) -> str:
        """The texts of the parts, joined by line feeds; only parts of kind ``text``."""
        return "\n".join(part.text for part in self if part.kind == "text")


@dataclass(frozen=True)
class Input:
    """What the agent has to do.

    Attributes:
        seq: The position of the input in the session's log.
        parts: What was said.
    """

    seq: int
    parts: Parts

    @property
    def text(self) -> str:
        """The texts of the input, joined by line feeds."""
        return self.parts.text

    def json(self) -> Any:
        """Return the input as a value: its first ``data`` part, else its text."""
        data = [part for part in self.parts if part.kind == "data"]
        return data[0].json() if data else json.loads(self.text)


@dataclass(frozen=True)
class Message:
    """A message of an earlier execution of the session.

    Attributes:
        role: Who said it.
        parts: What was said.
    """

    role: Literal["user", "agent"]
    parts: Parts

    @property
    def text(self) -> str:
        """The texts of the message, joined by line feeds."""
        return self.parts.text


@dataclass(frozen=True)
class AgentInfo:
    """Which agent this is.

    Attributes:
        name: Its name.
        version: The version of its manifest.
    """

    name: str
    version: Any


@dataclass(frozen=True)
class Answer:
    """What a person answered.

    Attributes:
        kind: What kind of answer it is.
        choice: The choice, if it is one.
        text: The text, or what was said with the answer; may be empty.
    """

    kind: Literal["approve", "deny", "choice", "text"]
    choice: str = ""
    text: str = ""

    @property
    def approved(self) -> bool:
        """Whether the answer is yes."""
        return self.kind == "approve"
