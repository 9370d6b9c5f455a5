"""The words of a step: its options, retries, usage."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from . import values
from .errors import StepFailed
from .values import JsonValue

if TYPE_CHECKING:
    from .journal import Entry, Flow

Kind = Literal["model", "tool", "user"]
Effect = Literal["read", "idempotent", "once"]
Span = float | timedelta
"""A span of time: seconds, or a ``timedelta``."""


class StepOptions(TypedDict, total=False):
    """The options of a step; all may be left out.

    Attributes:
        key: The step's key; derived from name and occurrence if left out.
        kind: ``"user"`` (default), ``"tool"`` or ``"model"``.
        effect: ``"idempotent"`` (default): may be carried out again if the attempt dies within
            it. ``"read"``: changes nothing. ``"once"``: must not happen twice.
        limit: How long it may take, in seconds or as a ``timedelta``.
        retry: How often the function is tried before the step fails.
        usage: Computes what the step consumed from what the function returned.
        returns: The type of the result, if the function is not annotated.
        to_json, from_json: How the result is recorded, and how it comes back.
        request: What is shown as the step's request and hashed, in place of the arguments.
        kwargs: Keyword arguments for the function.
    """

    key: str
    kind: Kind
    effect: Effect
    limit: Span
    retry: Retry
    usage: Callable[[Any], Usage | None]
    returns: Any
    to_json: Callable[[Any], JsonValue]
    from_json: Callable[[JsonValue], Any]
    request: JsonValue
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Usage:
    """What a step consumed.

    Attributes:
        input_tokens: Tokens sent to models, cached ones included.
        cached_tokens: Of these, tokens read from the provider's cache.
        output_tokens: Tokens received from models.
        cost_micros: Cost in millionths of a US dollar.
        model_calls: Model calls that were paid.
        tool_calls: Tool calls that were carried out.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
    model_calls: int = 0
    tool_calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
        return Usage(*(a + b for a, b in zip(mine, others, strict=True)))


@dataclass(frozen=True)
class Retry:
    """Tries a step's function again, within the step: only the last outcome is recorded.

    Attributes:
        attempts: How often it is tried in all.
        backoff: The pause before the second try, in seconds.
        factor: How much longer each further pause is.
        backoff_max: The longest pause, in seconds.
        jitter: The random share of a pause, from 0 to 1.
        on: The exceptions after which another try is made.
    """

    attempts: int = 3
    backoff: float = 0.5
    factor: float = 2.0
    backoff_max: float = 60.0
    jitter: float = 0.2
    on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("a step is tried at least once")

    def pauses(self) -> Iterator[float]:
        """Yield the pauses between the tries, in seconds."""
        for retry in range(self.attempts - 1):
            pause = min(self.backoff_max, self.backoff * self.factor**retry)
            yield pause * (1 - self.jitter * random.random())  # noqa: S311


def seconds(span: Span) -> float:
    """Return a span in seconds."""
    return span.total_seconds() if isinstance(span, timedelta) else float(span)


def millis(span: Span) -> int:
    """Return a span in whole milliseconds, rounded up."""
    return -int(-seconds(span) * 1000 // 1)


@dataclass(frozen=True)
class Step:
    """A step that is about to be carried out or replayed."""

    name: str
    key: str
    kind: Kind
    effect: Effect
    digest: str
    request: JsonValue
    fn: Callable[..., Any]
    call: Callable[[], Any]
    codec: values.Codec
    limit: float | None
    retry: Retry | None
    usage: Callable[[Any], Usage | None] | None
    flow: Flow | None
    entry: Entry | None
    cleanup: bool
    """It is of the cleanup after a cancel."""

    def identity(self) -> str:
        """Return what a replay must find again, in words."""
        return f"{self.kind} step {self.name!r} with digest {self.digest[:12]}"

    def failure(self, raw: Mapping[str, Any]) -> StepFailed:
        """Return the error that was recorded."""
        code, message = str(raw.get("code") or "error"), str(raw.get("message") or "")
        return StepFailed(self.key, self.name, code, message)


def check_options(name: str, options: StepOptions) -> None:
    """Raise if the options of a step make no sense."""
    known = StepOptions.__annotations__.keys()
    if unknown := sorted(set(options) - set(known)):
        raise TypeError(f"step {name!r} has no option {unknown[0]!r}; there are {sorted(known)}")
    if not isinstance(name, str) or not name:
        raise TypeError("the first argument of a step is its name, a string")
    for option, allowed in (("kind", Kind), ("effect", Effect)):
        value = options.get(option)
        choices: tuple[str, ...] = allowed.__args__  # type: ignore[attr-defined]
        if value is not None and value not in choices:
            raise ValueError(f"{option}={value!r} is none of {', '.join(choices)}")
    if options.get("effect") == "once" and options.get("retry") is not None:
        raise ValueError(f"step {name!r} must happen once, so it cannot be retried")


def codec_of(fn: Callable[..., Any], options: StepOptions) -> values.Codec:
    """Return how the results of a function are recorded."""
    shape = options.get("returns")
    if shape is None and "from_json" not in options:
        shape = values.returned_shape(fn)
    return values.Codec(shape, options.get("to_json"), options.get("from_json"))


def request_of(
    name: str, fn: Callable[..., Any], args: tuple[Any, ...], options: StepOptions
) -> tuple[str, JsonValue, bool]:
    """Return the digest of a call, its JSON form, and whether that form says all of it."""
    if "request" in options:
        form, whole = values.describe(options["request"])
        return values.digest(name, form, {}), form, whole
    kwargs = dict(options.get("kwargs") or {})
    while isinstance(fn, functools.partial):
        args, kwargs, fn = (*fn.args, *args), {**fn.keywords, **kwargs}, fn.func
    args_form, args_whole = values.describe(args)
    kwargs_form, kwargs_whole = values.describe(kwargs)
    request: dict[str, JsonValue] = {"args": args_form}
    if kwargs_form:
        request["kwargs"] = kwargs_form
    digest = values.digest(name, args_form, kwargs_form)
    return digest, request, args_whole and kwargs_whole


def is_async(fn: Callable[..., Any]) -> bool:
    """Tell whether calling this returns something to await."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    called: Any = type(fn).__call__
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(called)


async def call_async(call: Callable[[], Any], fn_is_async: bool, limit: float | None) -> Any:
    """Run a step's function in an event loop; a blocking one runs in a thread."""

    async def run() -> Any:
        result = call() if fn_is_async else await asyncio.to_thread(call)
        return await result if inspect.isawaitable(result) else result

    return await (run() if limit is None else asyncio.wait_for(run(), limit))
