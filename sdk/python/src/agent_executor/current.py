"""Steps by decoration, for functions that are not handed a context."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast, overload

from .aio import AsyncContext
from .context import Context
from .drive import Driver
from .errors import Error
from .journal import Flow, InStep, flow_now
from .steps import Effect, Kind, Retry, Span, StepOptions, Usage, is_async
from .values import JsonValue

if TYPE_CHECKING:
    from typing_extensions import Unpack

F = TypeVar("F", bound=Callable[..., Any])

active: tuple[Driver, dict[str, Flow]] | None = None
"""The agent that runs in this process."""


class DecoratorOptions(TypedDict, total=False):
    """The options of a decorated step; see :class:`StepOptions`.

    Attributes:
        name: The step's name; the function's if left out.
        key: The step's key, or a function that makes it from the arguments.
    """

    name: str
    key: str | Callable[..., str]
    effect: Effect
    limit: Span
    retry: Retry
    usage: Callable[[Any], Usage | None]
    returns: Any
    to_json: Callable[[Any], JsonValue]
    from_json: Callable[[JsonValue], Any]


@overload
def step(fn: F, /) -> F: ...
@overload
def step(**options: Unpack[DecoratorOptions]) -> Callable[[F], F]: ...
def step(fn: Any = None, /, **options: Any) -> Any:
    """Make every call of a function a step of the agent that runs::

        @ax.step(effect="once", key=lambda order, _amount: f"charge-{order}")
        def charge(order: str, amount: int) -> Receipt: ...

    Where no agent runs, as in a unit test, the function is just called.
    """
    return _decorate("user", fn, options)


@overload
def tool(fn: F, /) -> F: ...
@overload
def tool(**options: Unpack[DecoratorOptions]) -> Callable[[F], F]: ...
def tool(fn: Any = None, /, **options: Any) -> Any:
    """Make every call of a function a step of kind ``tool``; as :func:`step`."""
    return _decorate("tool", fn, options)


@overload
def model(fn: F, /) -> F: ...
@overload
def model(**options: Unpack[DecoratorOptions]) -> Callable[[F], F]: ...
def model(fn: Any = None, /, **options: Any) -> Any:
    """Make every call of a function a step of kind ``model``; as :func:`step`."""
    return _decorate("model", fn, options)


def _decorate(kind: Kind, fn: Any, options: dict[str, Any]) -> Any:
    if fn is None:
        return lambda function: _decorate(kind, function, options)
    name = options.pop("name", None) or getattr(fn, "__name__", "step")
    make_key = options.pop("key", None)

    def prepared(kwargs: dict[str, Any], args: tuple[Any, ...]) -> StepOptions:
        own: dict[str, Any] = {"kind": kind, **options}
        if kwargs:
            own["kwargs"] = kwargs
        if make_key is not None:
            own["key"] = make_key(*args, **kwargs) if callable(make_key) else make_key
        return cast("StepOptions", own)

    if is_async(fn):

        @functools.wraps(fn)
        def call_async(*args: Any, **kwargs: Any) -> Any:
            if active is None:
                return fn(*args, **kwargs)
            return AsyncContext(*active).step(name, fn, *args, **prepared(kwargs, args))

        return call_async

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if active is None:
            return fn(*args, **kwargs)
        return Context(*active).step(name, fn, *args, **prepared(kwargs, args))

    return call


def report_usage(**spent: int) -> None:
    """Add to what the step that is running consumed; see :class:`Usage` for the names.

    Where no step runs, as in a unit test, it does nothing.
    """
    if active is not None:
        Context(*active).report_usage(**spent)


def idempotency_key() -> str:
    """Return a name of the step that is running, the same in every attempt and unique elsewhere.

    Hand it to a service that honours such keys, and the step is safe to carry out again::

        def charge(card: str, amount: int) -> dict:
            return payments.charge(card, amount, idempotency_key=ax.idempotency_key())
    """
    inside = flow_now.get()
    if active is None or not isinstance(inside, InStep):
        raise Error("idempotency_key belongs inside the function of a step")
    start = active[0].session.start
    return f"{start.session}/{start.execution}/{inside.key}"
