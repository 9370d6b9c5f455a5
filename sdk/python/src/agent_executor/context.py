"""The blocking interface of an agent."""

from __future__ import annotations

import random as random_numbers
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

from . import ops
from .base import BaseContext, due_at, due_in
from .content import Answer
from .errors import Denied

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .steps import StepOptions

T = TypeVar("T")
A = TypeVar("A")


class Context(BaseContext):
    """What a blocking agent is given. Every call that waits, waits in the calling thread."""

    def step(
        self, name: str, fn: Callable[..., T], /, *args: Any, **options: Unpack[StepOptions]
    ) -> T:
        """Carry out ``fn(*args)`` once and record what it returns or raises.

        In later attempts the recorded result is returned, or :class:`StepFailed` raised, and the
        function is not called. What it returns must have a JSON form::

            receipt = ctx.step("charge", charge_card, order.amount, effect="once")

        Args:
            name: The step's name.
            fn: What to carry out.
            *args: Its arguments; a later attempt must pass the same.
            **options: See :class:`StepOptions`.
        """
        step = self._new_step(name, fn, args, options)
        result: T = self._driver.blocking(ops.step(self._session, step))
        return result

    def map(
        self,
        name: str,
        fn: Callable[[A], T],
        items: Iterable[A],
        *,
        workers: int = 8,
        **options: Unpack[StepOptions],
    ) -> list[T]:
        """Carry out a step for each item, several at a time; return the results in order.

        If some fail, the error of the first of them is raised when all have ended.

        Args:
            name: The name of the steps.
            fn: What to carry out, in threads.
            items: One argument for each step.
            workers: How many run at the same time.
            **options: See :class:`StepOptions`.
        """
        made = [self._new_step(name, fn, (item,), options) for item in items]
        with ThreadPoolExecutor(max(1, workers), "ax-map") as pool:
            running = [
                pool.submit(copy_context().run, self._driver.blocking, ops.step(self._session, it))
                for it in made
            ]
        return [each.result() for each in running]

    def sleep(
        self,
        seconds: float | timedelta = 0,
        *,
        minutes: float = 0,
        hours: float = 0,
        days: float = 0,
        key: str | None = None,
    ) -> None:
        """Sleep durably, for milliseconds or months; the process may be let go meanwhile."""
        self._driver.blocking(self._sleep(due_in(seconds, minutes, hours, days), key))

    def sleep_until(self, when: datetime, *, key: str | None = None) -> None:
        """Sleep durably until a time, which must have a time zone."""
        self._driver.blocking(self._sleep(due_at(when), key))

    def ask_approval(
        self,
        prompt: str,
        *,
        details: Any = None,
        expires: float | timedelta | None = None,
        key: str | None = None,
    ) -> bool:
        """Ask a person for a yes or no.

        Args:
            prompt: The question.
            details: More to decide by; any value with a JSON form.
            expires: After how long :class:`Expired` is raised; never if left out.
            key: The question's key; derived if left out.
        """
        return self.ask(prompt, "approval", details=details, expires=expires, key=key).approved

    def ask_choice(
        self,
        prompt: str,
        choices: Sequence[str],
        *,
        details: Any = None,
        expires: float | timedelta | None = None,
        key: str | None = None,
    ) -> str:
        """Ask a person to choose; raise :class:`Denied` if they decline."""
        asked = self.ask(prompt, "choice", choices, details=details, expires=expires, key=key)
        return accepted(asked, prompt).choice

    def ask_text(
        self,
        prompt: str,
        *,
        details: Any = None,
        expires: float | timedelta | None = None,
        key: str | None = None,
    ) -> str:
        """Ask a person for a text; raise :class:`Denied` if they decline."""
        asked = self.ask(prompt, "text", details=details, expires=expires, key=key)
        return accepted(asked, prompt).text

    def ask(
        self,
        prompt: str,
        kind: str,
        choices: Sequence[str] | None = None,
        *,
        details: Any = None,
        expires: float | timedelta | None = None,
        key: str | None = None,
    ) -> Answer:
        """Ask a person and return the whole answer; ``kind`` is approval, choice or text."""
        given = None if choices is None else list(choices)
        op = self._ask(kind, prompt, given, details, expires, key)
        answer: Answer = self._driver.blocking(op)
        return answer

    def signal(self, name: str, *, key: str | None = None) -> Any:
        """Wait for a signal from outside; return its payload."""
        return self._driver.blocking(self._signal(name, key))

    def checkpoint(self, name: str = "", *, key: str | None = None) -> int:
        """Name this position of the log, as a point to branch from; return its seq."""
        seq: int = self._driver.blocking(self._checkpoint(name, key))
        return seq

    def flush(self) -> None:
        """Wait until every note and output so far is durable."""
        self._driver.blocking(self._flush())

    def now(self, *, key: str | None = None) -> datetime:
        """Return the time in UTC; the same in every attempt."""
        return from_micros(self.step("now", _now_micros, **reading(key)))

    def random(self, *, key: str | None = None) -> float:
        """Return a random number in [0, 1); the same in every attempt."""
        return self.step("random", _random_bits, **reading(key)) / 2**53

    def rng(self, *, key: str | None = None) -> random_numbers.Random:
        """Return a random number generator with a recorded seed: one step, any many numbers."""
        seed = self.step("rng", _random_bits, **reading(key))
        return random_numbers.Random(seed)  # noqa: S311

    def uuid(self, *, key: str | None = None) -> UUID:
        """Return a random UUID; the same in every attempt."""
        return UUID(self.step("uuid", _new_uuid, **reading(key)))


def accepted(answer: Answer, prompt: str) -> Answer:
    """Return the answer unless the person declined."""
    if answer.kind == "deny":
        raise Denied(f"declined: {prompt}" + (f" ({answer.text})" if answer.text else ""))
    return answer


def reading(key: str | None) -> StepOptions:
    """Return the options of a step that changes nothing, with this key if there is one."""
    return {"effect": "read"} if key is None else {"effect": "read", "key": key}


def from_micros(micros: int) -> datetime:
    """Return the time of so many microseconds since the Unix epoch."""
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=micros)


def _now_micros() -> int:
    return time.time_ns() // 1000


def _random_bits() -> int:
    return random_numbers.SystemRandom().getrandbits(53)


def _new_uuid() -> str:
    return str(uuid4())
