"""The asynchronous interface of an agent."""

from __future__ import annotations

import asyncio
import random as random_numbers
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload
from uuid import UUID

from . import ops
from .base import BaseContext, due_at, due_in
from .content import Answer
from .context import Context, _new_uuid, _now_micros, _random_bits, accepted, from_micros, reading

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .steps import StepOptions

T = TypeVar("T")
A = TypeVar("A")


class AsyncContext(BaseContext):
    """What an asynchronous agent is given.

    A call gets its key when it is *called*, not when it is awaited, so calls can be gathered::

        a, b = await asyncio.gather(ctx.step("fetch", fetch, 1), ctx.step("fetch", fetch, 2))
    """

    @property
    def blocking(self) -> Context:
        """The same context for code that blocks, such as a tool that runs in a thread."""
        return Context(self._driver, self._flows)

    @overload
    def step(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        **options: Unpack[StepOptions],
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def step(
        self, name: str, fn: Callable[..., T], /, *args: Any, **options: Unpack[StepOptions]
    ) -> Coroutine[Any, Any, T]: ...

    def step(
        self, name: str, fn: Callable[..., Any], /, *args: Any, **options: Unpack[StepOptions]
    ) -> Coroutine[Any, Any, Any]:
        """Carry out ``fn(*args)`` once and record what it returns or raises.

        A function that is not asynchronous runs in a thread. Otherwise as :meth:`Context.step`.
        """
        step = self._new_step(name, fn, args, options)
        return self._driver.awaiting(ops.step(self._session, step))

    async def map(
        self,
        name: str,
        fn: Callable[[A], Awaitable[T]] | Callable[[A], T],
        items: Iterable[A],
        *,
        workers: int = 8,
        **options: Unpack[StepOptions],
    ) -> list[T]:
        """Carry out a step for each item, several at a time; return the results in order.

        If some fail, the error of the first of them is raised when all have ended.
        """
        made = [self._new_step(name, fn, (item,), options) for item in items]
        gate = asyncio.Semaphore(max(1, workers))

        async def run(op: ops.Op) -> T:
            async with gate:
                result: T = await self._driver.awaiting(op)
                return result

        running = [run(ops.step(self._session, step)) for step in made]
        results = await asyncio.gather(*running, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results  # type: ignore[return-value]  # none is an exception

    def sleep(
        self,
        seconds: float | timedelta = 0,
        *,
        minutes: float = 0,
        hours: float = 0,
        days: float = 0,
        key: str | None = None,
    ) -> Coroutine[Any, Any, None]:
        """Sleep durably, for milliseconds or months; the process may be let go meanwhile."""
        return self._driver.awaiting(self._sleep(due_in(seconds, minutes, hours, days), key))

    def sleep_until(self, when: datetime, *, key: str | None = None) -> Coroutine[Any, Any, None]:
        """Sleep durably until a time, which must have a time zone."""
        return self._driver.awaiting(self._sleep(due_at(when), key))

    def ask_approval(
        self,
        prompt: str,
        *,
        details: Any = None,
        expires: float | timedelta | None = None,
        key: str | None = None,
    ) -> Coroutine[Any, Any, bool]:
        """Ask a person for a yes or no; see :meth:`Context.ask_approval`."""
        asked = self.ask(prompt, "approval", details=details, expires=expires, key=key)
        return _then(asked, lambda answer: answer.approved)

    def ask_choice(
        self,
        prompt: str,
        choices: Sequence[str],
        *,
        details: Any = None,
        expires: float | timedelta | None = None,
        key: str | None = None,
    ) -> Coroutine[Any, Any, str]:
        """Ask a person to choose; raise :class:`Denied` if they decline."""
        asked = self.ask(prompt, "choice", choices, details=details, expires=expires, key=key)
        return _then(asked, lambda answer: accepted(answer, prompt).choice)

    def ask_text(
        self,
        prompt: str,
        *,
        details: Any = None,
        expires: float | timedelta | None = None,
        key: str | None = None,
    ) -> Coroutine[Any, Any, str]:
        """Ask a person for a text; raise :class:`Denied` if they decline."""
        asked = self.ask(prompt, "text", details=details, expires=expires, key=key)
        return _then(asked, lambda answer: accepted(answer, prompt).text)

    def ask(
        self,
        prompt: str,
        kind: str,
        choices: Sequence[str] | None = None,
        *,
        details: Any = None,
        expires: float | timedelta | None = None,
        key: str | None = None,
    ) -> Coroutine[Any, Any, Answer]:
        """Ask a person and return the whole answer; ``kind`` is approval, choice or text."""
        given = None if choices is None else list(choices)
        return self._driver.awaiting(self._ask(kind, prompt, given, details, expires, key))

    def signal(self, name: str, *, key: str | None = None) -> Coroutine[Any, Any, Any]:
        """Wait for a signal from outside; return its payload."""
        return self._driver.awaiting(self._signal(name, key))

    def checkpoint(self, name: str = "", *, key: str | None = None) -> Coroutine[Any, Any, int]:
        """Name this position of the log, as a point to branch from; return its seq."""
        return self._driver.awaiting(self._checkpoint(name, key))

    def flush(self) -> Coroutine[Any, Any, None]:
        """Wait until every note and output so far is durable."""
        return self._driver.awaiting(self._flush())

    def now(self, *, key: str | None = None) -> Coroutine[Any, Any, datetime]:
        """Return the time in UTC; the same in every attempt."""
        step = self.step("now", _now_micros, **reading(key))
        return _then(step, from_micros)

    def random(self, *, key: str | None = None) -> Coroutine[Any, Any, float]:
        """Return a random number in [0, 1); the same in every attempt."""
        step = self.step("random", _random_bits, **reading(key))
        return _then(step, lambda bits: bits / 2**53)

    def rng(self, *, key: str | None = None) -> Coroutine[Any, Any, random_numbers.Random]:
        """Return a random number generator with a recorded seed: one step, any many numbers."""
        step = self.step("rng", _random_bits, **reading(key))
        return _then(step, random_numbers.Random)

    def uuid(self, *, key: str | None = None) -> Coroutine[Any, Any, UUID]:
        """Return a random UUID; the same in every attempt."""
        return _then(self.step("uuid", _new_uuid, **reading(key)), UUID)


async def _then(step: Coroutine[Any, Any, A], make: Callable[[A], T]) -> T:
    return make(await step)
