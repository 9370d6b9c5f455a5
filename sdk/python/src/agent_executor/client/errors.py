"""What a request can fail with."""

from __future__ import annotations

import json
from typing import Any

from ..errors import Error

UNAVAILABLE = "AX3001"
STOPPING = "AX3002"
UNTRUSTED = "AX4007"


class ServerError(Error):
    """A request was refused, or nobody answered it.

    Attributes:
        code: ``AX`` and four digits; ``docs/errors`` has a page for each.
        message: What is wrong, in words.
        hint: What may help; may be empty.
        retryable: Whether the same request may succeed later.
        causes: What caused it, outermost first.
        status: The HTTP status, or 0 if there was no answer.
        retry_after: How long the server asks to wait, in seconds.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str = "",
        retryable: bool = False,
        causes: tuple[str, ...] = (),
        status: int = 0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}" + (f" (hint: {hint})" if hint else ""))
        self.code = code
        self.message = message
        self.hint = hint
        self.retryable = retryable
        self.causes = causes
        self.status = status
        self.retry_after = retry_after

    @property
    def broken(self) -> bool:
        """Whether there is no server, or no more: what became of the request is not known."""
        return self.code in {UNAVAILABLE, STOPPING}

    @property
    def passes(self) -> bool:
        """Whether it passes by itself: it is broken, or the server says when to come back."""
        return self.broken or (self.retryable and self.retry_after is not None)

    @property
    def refused(self) -> bool:
        """Whether it is certain that the request was not carried out."""
        return self.code != UNAVAILABLE

    def given_up(self, seconds: float) -> ServerError:
        """Return the error of an outage that was not waited for any longer."""
        message = f"{self.message}, and has not for {seconds:.0f} s" if seconds else self.message
        return ServerError(
            self.code,
            message,
            hint=self.hint,
            retryable=self.retryable,
            causes=self.causes,
            status=self.status,
            retry_after=self.retry_after,
        )


class Disconnected(ServerError):
    """There is no connection, it broke, or what came over it makes no sense."""

    def __init__(self, message: str, cause: str = "") -> None:
        super().__init__(UNAVAILABLE, message, retryable=True, causes=(cause,) if cause else ())


def of_answer(status: int, headers: dict[str, str], body: bytes) -> ServerError:
    """Return the error that an answer stands for."""
    retry_after = _seconds(headers.get("retry-after", ""))
    try:
        said: Any = json.loads(body)
    except ValueError:
        said = None
    if isinstance(said, dict) and isinstance(said.get("error"), dict):
        said = said["error"]
    if isinstance(said, dict) and isinstance(said.get("code"), str):
        return ServerError(
            said["code"],
            str(said.get("message", "")),
            hint=str(said.get("hint", "")),
            retryable=said.get("retryable") is True,
            causes=tuple(str(cause) for cause in said.get("causes", ())),
            status=status,
            retry_after=retry_after,
        )
    # Nobody of ours said that: a proxy, most likely.
    text = body[:200].decode("utf-8", "replace").strip()
    message = f"the answer is {status}" + (f": {text}" if text else "")
    if status in {408, 425, 429} or status >= 500:
        return ServerError(
            UNAVAILABLE, message, retryable=True, status=status, retry_after=retry_after
        )
    return ServerError("AX1001", message, status=status)


def _seconds(text: str) -> float | None:
    """Read whole seconds (RFC 9110, section 10.2.3); dates are not waited for."""
    return float(text) if text.isascii() and text.isdigit() else None
