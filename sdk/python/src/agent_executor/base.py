"""What the blocking and the asynchronous context have in common: everything that does not wait."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from . import ops, steps, values
from .content import AgentInfo, Input, Message
from .drive import Driver
from .errors import Error, KeyRequired
from .journal import Flow, InStep, assign_key, checked_key, escape, fit, flow_now, whoami
from .ops import Place
from .steps import StepOptions, Usage, millis, seconds
from .stream import Stream
from .wire import Frame


class BaseContext:
    """The door between an agent and its runtime; see :class:`Context` and :class:`AsyncContext`."""

    def __init__(self, driver: Driver, flows: dict[str, Flow]) -> None:
        self._driver = driver
        self._session = driver.session
        self._flows = flows

    # -- what the agent was given --------------------------------------------------------------

    @property
    def input(self) -> Input:
        """What to do."""
        return self._session.start.input

    @property
    def history(self) -> list[Message]:
        """The messages of earlier executions of this session, oldest first."""
        return list(self._session.start.history)

    @property
    def config(self) -> Any:
        """The ``config`` of the agent's manifest: any JSON value."""
        return self._session.start.config

    @property
    def agent(self) -> AgentInfo:
        """Which agent this is."""
        return self._session.start.agent

    @property
    def namespace(self) -> str:
        """The tenant."""
        return self._session.start.namespace

    @property
    def session(self) -> str:
        """The id of the session."""
        return self._session.start.session

    @property
    def execution(self) -> str:
        """The id of the execution; the same in every attempt."""
        return self._session.start.execution

    @property
    def attempt(self) -> int:
        """The number of this attempt. For logging; decide nothing by it."""
        return self._session.start.attempt

    @property
    def workspace(self) -> Path:
        """The session's directory."""
        return Path(self._session.start.workspace)

    @property
    def replaying(self) -> bool:
        """Whether something recorded is still ahead. For logging; decide nothing by it."""
        return bool(self._session.journal.unused())

    @property
    def canceled(self) -> bool:
        """Whether the execution was canceled."""
        return self._session.canceled is not None

    # -- what is said on the way ----------------------------------------------------------------

    def emit(self, name: str, data: Any = None, *, key: str | None = None) -> None:
        """Record a note of the agent's own, such as its progress, and go on.

        Within the function of a step the note has no key: it is said again if the step is.

        Args:
            name: The note's name.
            data: Any value with a JSON form.
            key: The note's key; derived if left out.
        """
        form = values.dump(data, at="data")
        self._driver.interrupt.check()
        with self._driver.interrupt.depth(+1):
            if isinstance(flow_now.get(), InStep) and key is None:
                self._session.wire.send({"type": "emit", "name": name, "data": form})
                return
            place = self._place(f"emit:{name}", key)
            if ops.check_kind(self._session, place, "emit", name) is None:
                self._say(place.key, {"type": "emit", "name": name, "data": form})

    def output(self, text: str, *, key: str | None = None) -> None:
        """Say something to whoever follows the session, and go on.

        Args:
            text: What to say.
            key: The output's key; derived if left out.
        """
        self._driver.interrupt.check()
        with self._driver.interrupt.depth(+1):
            place = self._output_place(key, text)
            entry = ops.check_kind(self._session, place, "output")
            if entry is None:
                self._say(place.key, {"type": "output", "text": text})
            else:
                self._compare(place.key, entry.fields.get("text"), text)

    def stream(
        self, kind: Literal["text", "thought"] = "text", *, key: str | None = None
    ) -> Stream:
        """Open an output that is said piece by piece::

            with ctx.stream() as out:
                for token in tokens:
                    out.write(token)

        Args:
            kind: ``"text"``, or ``"thought"`` for what a model thinks on its way.
            key: The output's key; derived if left out.
        """
        self._driver.interrupt.check()
        place = self._output_place(key, None)
        entry = ops.check_kind(self._session, place, "output")
        return Stream(self._driver, place.key, kind, entry, self._say, self._compare)

    def report_usage(self, **spent: int) -> None:
        """Add to what the step that is running consumed; see :class:`Usage` for the names."""
        inside = flow_now.get()
        if not isinstance(inside, InStep):
            raise Error("report_usage belongs inside the function of a step")
        inside.spent = (inside.spent or Usage()) + Usage(**spent)

    # -- flows and the end ------------------------------------------------------------------------

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Give a thread or task a line of keys of its own::

            def work(city: str) -> None:
                with ctx.scope(city):
                    ctx.step("forecast", forecast, city)

        Args:
            name: Its name, unique among those that run at the same time in this flow.
        """
        outer = flow_now.get()
        path = f"{outer.path if isinstance(outer, Flow) else ''}{escape(name)}/"
        flow = self._flows.setdefault(path, Flow(path))
        me = whoami()
        if flow.owner is not None and flow.owner != me:
            raise KeyRequired(f"the scope {name!r} is in use by another thread or task")
        before, flow.owner = flow.owner, me
        token = flow_now.set(flow)
        try:
            yield
        finally:
            flow_now.reset(token)
            flow.owner = before

    def on_exit(self, hook: Callable[[str], object]) -> None:
        """Call something before this process ends in good order.

        It is told why: ``"end"``, ``"fail"``, ``"diverged"``, ``"cancel"``, ``"park"`` or
        ``"error"``. A killed process calls nothing, so nothing may depend on it.
        """
        self._session.add_hook(hook)

    # -- for the subclasses -----------------------------------------------------------------------

    def _flush(self) -> ops.Op:
        return ops.flush(self._session, canceled=self._driver.interrupt.check())

    def _place(self, base: str, key: str | None) -> Place:
        cleanup = self._driver.interrupt.check()
        assigned, flow = assign_key(base, key)
        return Place(assigned, flow, self._session.journal.take(assigned), cleanup)

    def _output_place(self, key: str | None, text: str | None) -> Place:
        inside = flow_now.get()
        if not isinstance(inside, InStep):
            return self._place("output", key)
        if key is not None:
            return Place(checked_key(key), None, self._session.journal.take(key))
        while True:
            inside.outputs += 1
            derived = fit(f"{inside.key}>output", f"#{inside.outputs}")
            entry = self._session.journal.take(derived)
            if entry is None or (text is not None and entry.fields.get("text") == text):
                return Place(derived, None, entry)

    def _say(self, key: str, frame: Frame) -> None:
        if self._session.canceled is not None:
            return
        line = self._session.wire.encode({**frame, "key": key})
        self._session.track(self._session.expect(key, "recorded"))
        self._session.wire.send_line(line)

    def _compare(self, key: str, recorded: object, text: str) -> None:
        if isinstance(recorded, str) and recorded != text:
            print(  # noqa: T201
                f"agent_executor: {key} says something else than it did before; what was said "
                "stays as it was",
                file=sys.stderr,
            )

    def _new_step(
        self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], options: StepOptions
    ) -> steps.Step:
        steps.check_options(name, options)
        digest, request, whole = steps.request_of(name, fn, args, options)
        kwargs = dict(options.get("kwargs") or {})
        limit = options.get("limit")
        codec = steps.codec_of(fn, options)
        place = self._place(name, options.get("key"))
        return steps.Step(
            name=name,
            key=place.key,
            kind=options.get("kind", "user"),
            effect=options.get("effect", "idempotent"),
            digest=digest,
            # A model's request repeats the conversation: it is hashed, but not recorded each time.
            request=request if whole and options.get("kind") != "model" else None,
            fn=fn,
            call=lambda: fn(*args, **kwargs),
            codec=codec,
            limit=None if limit is None else seconds(limit),
            retry=options.get("retry"),
            usage=options.get("usage"),
            flow=place.flow,
            entry=place.entry,
            cleanup=place.cleanup,
        )

    def _ask(
        self,
        kind: str,
        prompt: str,
        choices: list[str] | None,
        details: Any,
        expires: float | timedelta | None,
        key: str | None,
    ) -> ops.Op:
        place = self._place("ask", key)
        frame: Frame = {"type": "ask", "key": place.key, "kind": kind, "prompt": prompt}
        if choices is not None:
            frame["choices"] = choices
        if details is not None:
            frame["details"] = values.dump(details, at="details")
        if expires is not None:
            frame["expires_ms"] = millis(expires)
        return ops.ask(self._session, place, frame)

    def _sleep(self, due: float, key: str | None) -> ops.Op:
        return ops.sleep(self._session, self._place("sleep", key), -int(-due * 1000 // 1))

    def _signal(self, name: str, key: str | None) -> ops.Op:
        return ops.signal(self._session, self._place(f"signal:{name}", key), name)

    def _checkpoint(self, name: str, key: str | None) -> ops.Op:
        place = self._place(f"checkpoint:{name}", key)
        return ops.checkpoint(self._session, place, name)


def due_in(seconds: float | timedelta, minutes: float, hours: float, days: float) -> float:
    """Return the time at which a sleep ends, in seconds since the Unix epoch."""
    span = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
    return time.time() + (span + timedelta(minutes=minutes, hours=hours, days=days)).total_seconds()


def due_at(when: datetime) -> float:
    """Return a time, which must have a time zone, in seconds since the Unix epoch."""
    if when.tzinfo is None:
        raise ValueError("sleep_until needs a time with a time zone, such as datetime.now(utc)")
    return when.timestamp()
