"""Carries out the generators of ``ops.py``: blocking in threads, or in an event loop."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from . import ops
from .errors import Canceled
from .journal import InStep, flow_now, whoami
from .session import Session
from .steps import Step, call_async, is_async


class Interrupt:
    """Brings a cancel into the main flow: at its next call of the SDK, or in the midst of its work.

    A blocking main function is interrupted by a signal, whose handler raises :class:`Canceled`
    unless the SDK itself is at work. A main task is canceled. It happens once: what the main flow
    does after that is its cleanup.
    """

    SIGNAL = signal.SIGUSR1

    def __init__(self, session: Session) -> None:
        self._session = session
        self._main: object = None
        self._depth = 0
        self._delivered = False

    def watch_thread(self) -> None:
        """Take the current thread, which must be Python's main thread to be interrupted."""
        self._main = threading.get_ident()
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(self.SIGNAL) not in (signal.SIG_DFL, signal.SIG_IGN):
            return  # the agent uses the signal itself
        signal.signal(self.SIGNAL, self._on_signal)
        main = threading.get_ident()
        self._session.on_cancel = lambda: signal.pthread_kill(main, self.SIGNAL)

    def watch_task(self) -> None:
        """Take the current task."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None, "called by the main task"  # noqa: S101
        self._main = task

        def cancel() -> None:
            if not self._delivered:
                self._delivered = True
                task.cancel()

        self._session.on_cancel = lambda: _ignore_closed(loop, cancel)

    def _on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        self._raise_pending()

    def _raise_once(self, canceled: Canceled) -> None:
        if self._delivered:
            return
        self._delivered = True
        handled = sys.exc_info()[1]
        while handled is not None:  # it has come in by another way, through a future of a thread
            if handled is canceled:
                return
            handled = handled.__context__
        raise canceled

    def disarm(self) -> None:
        """Bring no cancel from now on: the main flow has ended."""
        self._delivered = True

    def check(self) -> bool:
        """Raise if the attempt must end; return whether this flow is cleaning up after a cancel."""
        if self._session.divergence is not None:
            raise self._session.divergence
        canceled = self._session.canceled
        if canceled is not None:
            if whoami() != self._main:
                raise canceled
            self._raise_once(canceled)
        return canceled is not None

    def note(self) -> None:
        """Note that a reply brought the cancel."""
        if whoami() == self._main:
            self._delivered = True

    @contextmanager
    def depth(self, change: int) -> Iterator[None]:
        """Enter the SDK (+1), or leave it for the agent's own code (-1), in the main thread."""
        if threading.get_ident() != self._main:
            yield
            return
        self._depth += change
        try:
            self._raise_pending()
            yield
        finally:
            self._depth -= change
        self._raise_pending()

    def _raise_pending(self) -> None:
        """Raise what came while the SDK was at work, when the agent's own code is next."""
        if self._depth == 0 and self._session.canceled is not None:
            self._raise_once(self._session.canceled)


def _ignore_closed(loop: asyncio.AbstractEventLoop, callback: Any) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)


class Driver:
    """Carries out durable calls of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.interrupt = Interrupt(session)

    def blocking(self, op: ops.Op) -> Any:
        """Carry out a call in this thread."""
        with self.interrupt.depth(+1):
            outcome: Any = None
            failed: BaseException | None = None
            while True:
                try:
                    action = op.send(outcome) if failed is None else op.throw(failed)
                except StopIteration as stop:
                    return stop.value
                outcome, failed = None, None
                try:
                    outcome = self._perform(action)
                except BaseException as error:
                    failed = error

    def _perform(self, action: ops.Wait | ops.Call | ops.Pause) -> Any:
        if isinstance(action, ops.Wait):
            try:
                return action.future.result()
            except Canceled:
                self.interrupt.note()
                raise
        if isinstance(action, ops.Pause):
            self.session.cancel_event.wait(action.seconds)
            self.interrupt.check()
            return None
        token = flow_now.set(action.inside)
        try:
            with self.interrupt.depth(-1):
                return action.step.call()
        finally:
            flow_now.reset(token)

    async def awaiting(self, op: ops.Op) -> Any:
        """Carry out a call in the event loop."""
        outcome: Any = None
        failed: BaseException | None = None
        while True:
            try:
                action = op.send(outcome) if failed is None else op.throw(failed)
            except StopIteration as stop:
                return stop.value
            outcome, failed = None, None
            try:
                outcome = await self._perform_async(action)
            except GeneratorExit:
                op.close()
                raise
            except BaseException as error:
                failed = error

    async def _perform_async(self, action: ops.Wait | ops.Call | ops.Pause) -> Any:
        if isinstance(action, ops.Call):
            return await self._call_async(action.step, action.inside)
        if isinstance(action, ops.Pause):
            await asyncio.sleep(action.seconds)
            return None
        try:
            return await asyncio.wrap_future(action.future)
        except asyncio.CancelledError:
            if self.session.canceled is None:
                raise
            self.interrupt.note()
            raise self.session.canceled from None

    async def _call_async(self, step: Step, inside: InStep) -> Any:
        token = flow_now.set(inside)
        try:
            return await call_async(step.call, is_async(step.fn), step.limit)
        finally:
            flow_now.reset(token)
