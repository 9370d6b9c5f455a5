"""One attempt's conversation with the runtime: who waits for what, and who must stop."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any

from .content import AgentInfo, Input, Message, Parts
from .errors import Canceled, Divergence, ProtocolError, Refused
from .journal import Entry, Journal
from .version import VERSION
from .wire import Frame, Wire, field

PROTOCOL = 1
Reply = tuple[str, Frame]
"""The type of a frame and the frame; or ``"before"`` and a journal entry's fields."""


@dataclass(frozen=True)
class Start:
    """What an attempt begins with."""

    namespace: str
    session: str
    agent: AgentInfo
    execution: str
    attempt: int
    workspace: str
    config: Any
    history: list[Message]
    input: Input


@dataclass
class _Waiter:
    wanted: frozenset[str]
    future: Future[Reply]


class Session:
    """The SDK's side of the conversation. Methods may be called from any thread."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.journal = Journal()
        self.start: Start = None  # type: ignore[assignment]  # set by begin()
        self.canceled: Canceled | None = None
        self.divergence: Divergence | None = None
        self.cancel_event = threading.Event()
        self.on_cancel: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._waiters: dict[str, _Waiter] = {}
        self._late: dict[str, Reply] = {}
        self._open_steps: set[str] = set()
        self._settled = threading.Condition(self._lock)
        self._parking = False
        self._over = threading.Event()
        self._hooks: list[Callable[[str], object]] = []
        self._unwaited: list[Future[Reply]] = []

    # -- the beginning -----------------------------------------------------------------------

    def begin(self, heartbeat: float) -> None:
        """Say hello, read everything up to ``ready``, and start the background threads."""
        self.wire.send({"type": "hello", "protocol": PROTOCOL, "sdk": f"python/{VERSION}"})
        threading.Thread(target=self._beat, args=(heartbeat,), name="ax-beat", daemon=True).start()
        start, given, history = None, None, []
        while True:
            frame = self.wire.receive()
            if frame is None:
                os._exit(1)
            kind = frame["type"]
            if kind == "start":
                start = frame
                self._check_start(frame)
            elif kind == "history":
                parts = Parts.parse(field(frame, "parts", list))
                role: Any = field(frame, "role", str)
                history.append(Message(role, parts))
            elif kind == "input":
                given = Input(field(frame, "seq", int), Parts.parse(field(frame, "parts", list)))
            elif kind == "journal":
                self.journal.add(Entry.parse(frame))
            elif kind == "ready":
                break
            else:
                self._dispatch(frame)
        if start is None or given is None:
            raise ProtocolError("'ready' came before 'start' and 'input'")
        if field(frame, "journal", int) != len(self.journal):
            raise ProtocolError(
                f"{len(self.journal)} journal entries came, {frame['journal']} were announced"
            )
        self.start = _start(start, history, given)
        threading.Thread(target=self._read, name="ax-read", daemon=True).start()

    def _check_start(self, frame: Frame) -> None:
        if field(frame, "protocol", int) != PROTOCOL:
            raise ProtocolError(
                f"the runtime speaks protocol {frame['protocol']}, this SDK speaks {PROTOCOL}"
            )
        self.wire.frame_bytes_max = field(frame, "frame_bytes_max", int)

    # -- waiting and being answered ------------------------------------------------------------

    def expect(self, key: str, *wanted: str) -> Future[Reply]:
        """Return the future of the first of these frames under a key; call it before sending."""
        future: Future[Reply] = Future()
        with self._lock:
            late = self._late.get(key)
            if late is not None and late[0] in (*wanted, "before"):
                future.set_result(self._late.pop(key))
            else:
                self._waiters[key] = _Waiter(frozenset(wanted), future)
        if self.divergence is not None:
            _settle(future, self.divergence)
        return future

    def open_step(self, key: str) -> None:
        """Note that a step begins. While the attempt is being parked, none does."""
        with self._lock:
            parking = self._parking
            self._open_steps.add(key)
        if parking:
            threading.Event().wait()

    def close_step(self, key: str) -> None:
        """Note that a step is over and recorded."""
        with self._settled:
            self._open_steps.discard(key)
            self._settled.notify_all()

    def track(self, future: Future[Reply]) -> None:
        """Remember something that is recorded while the agent goes on."""
        with self._lock:
            done = [each for each in self._unwaited if each.done() and not each.exception()]
            self._unwaited = [each for each in self._unwaited if each not in done]
            self._unwaited.append(future)

    def untracked(self) -> list[Future[Reply]]:
        """Take what is still to be waited for."""
        with self._lock:
            taken, self._unwaited = self._unwaited, []
        return taken

    def diverge(self, key: str, expected: str, found: str) -> Divergence:
        """Tell the runtime that this attempt does something else; return what to raise."""
        with self._lock:
            if self.divergence is not None:
                return self.divergence
            self.divergence = Divergence(key, expected, found)
        said = {"type": "diverged", "key": key, "expected": expected, "found": found}
        self.say_last(said)
        self._fail_waiters(self.divergence)
        return self.divergence

    def say_last(self, frame: Frame) -> None:
        """Say the last thing: from here on the runtime may close the conversation, too."""
        line = self.wire.encode(frame)
        self._over.set()
        self.wire.send_line(line, last=True)

    def _fail_waiters(self, why: BaseException) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            _settle(waiter.future, why)

    def _answer(self, frame: Frame) -> None:
        key, kind = field(frame, "key", str), frame["type"]
        with self._lock:
            waiter = self._waiters.get(key)
            reply: Reply = (kind, frame)
            if kind == "recorded" and isinstance(frame.get("before"), dict):
                before = Entry.parse({"type": "journal", **frame["before"]})
                if not before.settled:
                    return
                reply = ("before", before.fields)
                kind = "before"
            if waiter is None or (kind != "before" and kind not in waiter.wanted):
                if kind in ("before", "answered", "expired", "fired", "signaled"):
                    self._late[key] = reply
                return
            del self._waiters[key]
        _settle(waiter.future, reply)

    # -- the background threads ------------------------------------------------------------------

    def _beat(self, interval: float) -> None:
        line = self.wire.encode({"type": "heartbeat"})
        while not self._over.wait(interval):
            with contextlib.suppress(Exception):
                self.wire.send_line(line)

    def _read(self) -> None:
        try:
            while (frame := self.wire.receive()) is not None:
                self._dispatch(frame)
        except Exception as error:
            if not self._over.is_set():
                traceback.print_exc()
                failure = {"code": "protocol", "message": str(error)}
                with contextlib.suppress(Exception):
                    self.wire.send({"type": "fail", "failure": failure}, last=True)
        if not self._over.is_set():
            sys.stderr.flush()
            os._exit(1)

    def _dispatch(self, frame: Frame) -> None:
        kind = frame["type"]
        if kind in ("granted", "recorded", "answered", "expired", "fired", "signaled"):
            self._answer(frame)
        elif kind == "park":
            self._in_background(self._park, field(frame, "grace_ms", int) / 1000)
        elif kind == "cancel":
            self._cancel(field(frame, "grace_ms", int) / 1000, str(frame.get("reason") or ""))
        elif kind == "error":
            self._refuse(frame)
        else:  # a later runtime says more than this version knows
            print(f"agent_executor: ignored a {kind!r} frame", file=sys.stderr)  # noqa: T201

    def _refuse(self, frame: Frame) -> None:
        code, message = str(frame.get("code") or "AX????"), str(frame.get("message") or "")
        hint, key = str(frame.get("hint") or ""), frame.get("key")
        if isinstance(key, str):
            with self._lock:
                waiter = self._waiters.pop(key, None)
            if waiter is not None:
                _settle(waiter.future, Refused(key, code, message, hint))
                return
        print(f"agent_executor: {code}: {message} {hint}".rstrip(), file=sys.stderr)  # noqa: T201
        if key is None:
            self.leave("error", 1)

    def _in_background(self, work: Callable[..., None], *args: object) -> None:
        threading.Thread(target=work, args=args, name="ax-stop", daemon=True).start()

    # -- stopping ------------------------------------------------------------------------------

    def add_hook(self, hook: Callable[[str], object]) -> None:
        """Add something to do before the process ends."""
        self._hooks.append(hook)

    def run_hooks(self, reason: str) -> None:
        """Run what is to be done before the process ends, the newest first, each once."""
        while True:
            with self._lock:
                if not self._hooks:
                    return
                hook = self._hooks.pop()
            try:
                hook(reason)
            except Exception:
                traceback.print_exc()

    def leave(self, reason: str, status: int) -> None:
        """End the process now, whatever its threads do."""
        self._over.set()
        self.run_hooks(reason)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)

    def finish(self) -> None:
        """Close the conversation."""
        self._over.set()
        self.wire.close()

    def _park(self, grace: float) -> None:
        deadline = time.monotonic() + max(0.0, grace * 0.9)
        with self._settled:
            self._parking = True
            while self._open_steps and (left := deadline - time.monotonic()) > 0:
                self._settled.wait(left)
        self._in_background(_exit_after, max(0.2, deadline - time.monotonic()), 0)
        self.leave("park", 0)

    def _cancel(self, grace: float, reason: str) -> None:
        if self.canceled is not None:
            return
        self.canceled = Canceled(reason)
        self.cancel_event.set()
        self._in_background(self._leave_unless_over, max(grace * 0.5, grace - 0.5))
        self._fail_waiters(self.canceled)
        self.on_cancel()

    def _leave_unless_over(self, left: float) -> None:
        if not self._over.wait(left):
            self._in_background(_exit_after, 0.4, 1)
            self.leave("cancel", 1)


def _exit_after(left: float, status: int) -> None:
    time.sleep(left)
    os._exit(status)


def _settle(future: Future[Reply], outcome: Reply | BaseException) -> None:
    with contextlib.suppress(InvalidStateError):  # given up by who waited
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _start(frame: Frame, history: list[Message], given: Input) -> Start:
    agent = {"type": "agent", **field(frame, "agent", dict)}
    return Start(
        namespace=field(frame, "namespace", str),
        session=field(frame, "session", str),
        agent=AgentInfo(field(agent, "name", str), agent.get("version")),
        execution=field(frame, "execution", str),
        attempt=field(frame, "attempt", int),
        workspace=field(frame, "workspace", str),
        config=frame.get("config"),
        history=history,
        input=given,
    )
