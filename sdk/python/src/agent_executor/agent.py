"""Running an agent: from the first frame to the last."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, overload

from . import current, ops, values
from .aio import AsyncContext
from .context import Context
from .drive import Driver
from .errors import Canceled, Divergence, Fail, Finished, ProtocolError, StepFailed
from .journal import Flow, flow_now, whoami
from .session import Session
from .wire import Frame, Wire, guard_stdio

Main = Callable[[Context], Any] | Callable[[AsyncContext], Awaitable[Any]]
M = TypeVar("M", bound=Callable[..., Any])

HEARTBEAT_SECONDS = 10.0

_USAGE = """\
This is an agent for Agent Executor: it speaks a protocol on its standard input and output.
Put its command into a manifest (harness: {type: process, protocol: jsonl, command: [...]})
and run it with:  ax run --agent NAME "input"
"""


class Agent(Generic[M]):
    """A main function that can be run as an agent. Calling it calls the function."""

    def __init__(self, main: M) -> None:
        self.main: M = main
        self.__name__ = getattr(main, "__name__", "agent")
        self.__doc__ = main.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the main function."""
        return self.main(*args, **kwargs)

    def run(self, *, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        """Run it; see :func:`run`."""
        run(self.main, heartbeat=heartbeat)


@overload
def agent(main: Callable[[Context], Any], /) -> Agent[Callable[[Context], Any]]: ...


@overload
def agent(
    main: Callable[[AsyncContext], Awaitable[Any]], /
) -> Agent[Callable[[AsyncContext], Awaitable[Any]]]: ...


def agent(main: Any, /) -> Any:
    """Make a main function an agent::

        @ax.agent
        def main(ctx: ax.Context) -> str:
            return ctx.input.text.upper()

        if __name__ == "__main__":
            main.run()

    An ``async def`` is given an :class:`AsyncContext`.
    """
    return Agent(main)


def run(main: Main | Agent[Any], *, heartbeat: float = HEARTBEAT_SECONDS) -> None:
    """Run an agent under the runtime that started this process, and return when it has ended.

    What the function returns becomes the result of the execution; what it raises becomes its
    failure, which is tried again unless it is a :class:`StepFailed` (recorded, so it would only
    fail again) or a :class:`Fail` that says otherwise.

    Args:
        main: The main function, taking a :class:`Context` (or, if it is asynchronous, an
            :class:`AsyncContext`).
        heartbeat: How often to say that the agent lives, in seconds.
    """
    function: Any = main.main if isinstance(main, Agent) else main
    if os.isatty(0):
        sys.stderr.write(_USAGE)
        sys.exit(2)
    session = Session(Wire(*guard_stdio()))
    driver = Driver(session)
    try:
        session.begin(heartbeat)
    except ProtocolError as error:
        reason = _fail(session, error)
    else:
        flows = {"": Flow()}
        current.active = (driver, flows)
        if inspect.iscoroutinefunction(function):
            reason = asyncio.run(_run_async(function, driver, flows))
        else:
            reason = _run_blocking(function, driver, flows)
    current.active = None
    session.finish()
    session.run_hooks(reason)
    sys.stdout.flush()


def _run_blocking(main: Callable[[Context], Any], driver: Driver, flows: dict[str, Flow]) -> str:
    session = driver.session
    driver.interrupt.watch_thread()
    flows[""].owner = whoami()
    token = flow_now.set(flows[""])
    try:
        driver.interrupt.check()
        frame = _end(main(Context(driver, flows)))
        driver.blocking(ops.flush(session, canceled=True))
        driver.interrupt.disarm()
        return _say_end(session, frame)
    except BaseException as error:
        driver.interrupt.disarm()
        return _fail(session, error)
    finally:
        flow_now.reset(token)


async def _run_async(
    main: Callable[[AsyncContext], Awaitable[Any]], driver: Driver, flows: dict[str, Flow]
) -> str:
    session = driver.session
    driver.interrupt.watch_task()
    flows[""].owner = whoami()
    flow_now.set(flows[""])
    try:
        driver.interrupt.check()
        frame = _end(await main(AsyncContext(driver, flows)))
        await driver.awaiting(ops.flush(session, canceled=True))
        return _say_end(session, frame)
    except BaseException as error:
        return _fail(session, error)


def _end(result: object) -> Frame:
    return {"type": "end", "result": values.dump(result, at="what the agent returned")}


def _say_end(session: Session, frame: Frame) -> str:
    if session.divergence is not None:
        raise session.divergence
    for entry in session.journal.unused():
        print(  # noqa: T201
            f"agent_executor: {entry.key} was recorded by an earlier attempt, but not come to",
            file=sys.stderr,
        )
    session.say_last(frame)
    return "end"


def _fail(session: Session, error: BaseException) -> str:
    """Say that the attempt has failed, and why; return the reason for the hooks."""
    if session.divergence is not None:
        error = session.divergence
    elif session.canceled is not None and isinstance(error, asyncio.CancelledError):
        error = session.canceled
    traceback.print_exception(type(error), error, error.__traceback__)
    if isinstance(error, Divergence):
        return "diverged"
    retry = True
    if isinstance(error, Canceled):
        code, message, retry = "canceled", error.reason or "canceled", False
    elif isinstance(error, Fail):
        code, message, retry = error.code, error.message, error.retry
    elif isinstance(error, StepFailed):
        code, message, retry = error.code, str(error), False
    elif isinstance(error, ProtocolError):
        code, message = "protocol", str(error)
    else:
        code, message = type(error).__name__, str(error)
    failure = {"code": code, "message": message[:16_384]}
    with contextlib.suppress(Finished):
        session.say_last({"type": "fail", "failure": failure, "retry": retry})
    return "cancel" if isinstance(error, Canceled) else "fail"
