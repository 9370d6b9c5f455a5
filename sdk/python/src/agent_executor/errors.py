"""What can go wrong, and who is meant to catch it.

Errors that an agent may handle derive from :class:`Error`, an ordinary ``Exception``. What ends an
attempt (:class:`Canceled`, :class:`Divergence`) does not, so that a broad ``except Exception`` in
an agent or in a framework cannot swallow it.
"""

from __future__ import annotations

import asyncio


class Error(Exception):
    """Base of the errors that an agent may catch."""


class StepFailed(Error):
    """A step failed; raised when it fails and again, from the journal, in every later attempt.

    ``code`` is the class name of the exception that the step's function raised, ``message`` its
    text. The exception itself is the ``__cause__`` only in the attempt in which it was raised, so
    decide by ``code``::

        try:
            ctx.step("charge", charge, card, effect="once")
        except ax.StepFailed as failed:
            if not failed.caused_by(CardDeclined):
                raise
    """

    def __init__(self, key: str, name: str, code: str, message: str) -> None:
        super().__init__(f"step {name!r} ({key}) failed: {code}: {message}")
        self.key = key
        self.name = name
        self.code = code
        self.message = message

    def caused_by(self, *kinds: type[BaseException]) -> bool:
        """Tell whether the step's function raised an exception of one of these very classes.

        Classes are compared by name, since that is all the journal keeps; subclasses do not match.
        """
        return any(self.code == kind.__name__ for kind in kinds)


class NotSerializable(Error, TypeError):
    """A value that must be recorded has no JSON form."""


class FrameTooLarge(Error):
    """A frame would be larger than the runtime takes."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(
            f"{what} is {size} bytes, the runtime takes at most {limit}; "
            "write large content to a file of the workspace and record its path"
        )
        self.size = size
        self.limit = limit


class Refused(Error):
    """The runtime refused what was said under a key."""

    def __init__(self, key: str, code: str, message: str, hint: str) -> None:
        super().__init__(f"{key}: {code}: {message}" + (f" (hint: {hint})" if hint else ""))
        self.key = key
        self.code = code
        self.message = message
        self.hint = hint


class KeyRequired(Error):
    """A key cannot be derived here, because the order of calls is not the same in every attempt."""


class KeyReused(Error):
    """Two things in one execution were given the same key."""


class NestedStep(Error):
    """Something durable was begun inside the function of a step."""


class Expired(Error):
    """Nobody answered a question in time."""


class Denied(Error):
    """A person declined to answer a choice or a text question."""


class Fail(Error):
    """Raise this to fail the execution with a code of your own.

    Args:
        code: A short code for programs, such as ``"no_such_order"``.
        message: What happened, for a person.
        retry: Whether another attempt may help.
    """

    def __init__(self, code: str, message: str = "", *, retry: bool = False) -> None:
        super().__init__(message or code)
        self.code = code
        self.message = message or code
        self.retry = retry


class ProtocolError(Error):
    """The runtime sent something that the protocol does not allow."""


class Finished(Error):
    """The agent's main function has returned; nothing more can be recorded."""


class Canceled(asyncio.CancelledError):
    """The execution was canceled. Clean up and let it pass; ``reason`` says why (may be empty).

    It is an :class:`asyncio.CancelledError`, so tasks and task groups treat it as one.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "canceled")
        self.reason = reason


class Divergence(BaseException):
    """This attempt did something else than what an earlier one recorded; the execution fails.

    Attributes:
        key: The key of the step (or question, sleep, ...).
        expected: What is recorded.
        found: What this attempt was about to do.
    """

    def __init__(self, key: str, expected: str, found: str) -> None:
        super().__init__(f"diverged at {key!r}: recorded was {expected}, found {found}")
        self.key = key
        self.expected = expected
        self.found = found
