"""Outputs that are said piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from .errors import Finished
from .journal import Entry
from .wire import Frame

if TYPE_CHECKING:
    from .drive import Driver

DELTA_CHARS_MAX = 64 * 1024
"""Longer pieces are sent as several."""


class Stream:
    """A block of output. Leaving the ``with`` closes it; what was recorded is not said again."""

    def __init__(
        self,
        driver: Driver,
        key: str,
        kind: str,
        entry: Entry | None,
        say: Callable[[str, Frame], None],
        compare: Callable[[str, object, str], None],
    ) -> None:
        self._driver = driver
        self._key = key
        self._kind = kind
        self._entry = entry
        self._say = say
        self._compare = compare
        self._pieces: list[str] = []
        self._closed = False

    @property
    def text(self) -> str:
        """What was written so far."""
        return "".join(self._pieces)

    def write(self, text: str) -> None:
        """Say a piece."""
        if self._closed:
            raise Finished("the stream is closed")
        self._driver.interrupt.check()
        if not text:
            return
        self._pieces.append(text)
        if self._entry is not None or self._driver.session.canceled is not None:
            return
        with self._driver.interrupt.depth(+1):
            for start in range(0, len(text), DELTA_CHARS_MAX):
                piece = text[start : start + DELTA_CHARS_MAX]
                frame: Frame = {"type": "delta", "block": self._key, "text": piece}
                if self._kind != "text":
                    frame["kind"] = self._kind
                self._driver.session.wire.send(frame)

    def close(self) -> None:
        """Close the block."""
        if self._closed:
            return
        self._closed = True
        with self._driver.interrupt.depth(+1):
            if self._entry is not None:
                self._compare(self._key, self._entry.fields.get("text"), self.text)
            elif self._pieces and not self._driver.session.wire.closed:
                self._say(self._key, {"type": "output", "block": self._key})

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._driver.session.divergence is None:
            self.close()
