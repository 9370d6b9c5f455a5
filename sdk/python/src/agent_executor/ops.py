"""What each durable call does, as a generator that yields what it waits for.

The same generators serve the blocking and the asynchronous interface; ``drive.py`` carries out
what they yield.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from .content import Answer
from .errors import Canceled, Error, Expired, FrameTooLarge, StepFailed
from .journal import Entry, Flow, InStep, whoami
from .session import Reply, Session
from .steps import Step, Usage
from .values import JsonValue, encode
from .wire import Frame, field

REQUEST_BYTES_MAX = 256 * 1024
"""Larger requests are hashed but not shown."""


@dataclass(frozen=True)
class Wait:
    """Wait for a reply."""

    future: Future[Reply]


@dataclass(frozen=True)
class Call:
    """Run the function of a step."""

    step: Step
    inside: InStep


@dataclass(frozen=True)
class Pause:
    """Let time pass, without a record of it; in seconds."""

    seconds: float


Op = Generator[Wait | Call | Pause, Any, Any]


@dataclass(frozen=True)
class Place:
    """Where a durable call stands: its key, and what is recorded under it."""

    key: str
    flow: Flow | None
    entry: Entry | None
    cleanup: bool = False
    """It is of the cleanup after a cancel."""


def step(session: Session, it: Step) -> Op:
    """Carry out a step, or return what is recorded."""
    if it.entry is not None:
        _same_step(session, it, it.entry)
        if it.entry.settled:
            return _outcome(it, it.entry.fields)
    else:
        _check_order(session, it.flow, it.identity())
    if session.canceled is not None:
        if not it.cleanup:  # it was canceled just now
            future: Future[Reply] = Future()
            future.set_exception(session.canceled)
            yield Wait(future)
        return (yield from _unrecorded(it))
    begin: Frame = {"type": "step_begin", "key": it.key, "kind": it.kind, "name": it.name}
    begin |= {"effect": it.effect, "digest": it.digest}
    if it.request is not None and len(encode(it.request)) <= REQUEST_BYTES_MAX:
        begin["request"] = it.request
    if it.limit is not None:
        begin["limit_ms"] = -int(-it.limit * 1000 // 1)
    session.open_step(it.key)
    try:
        once = it.effect == "once"
        future = session.expect(it.key, "granted" if once else "recorded")
        session.wire.send(begin)
        if once:
            reply = yield Wait(future)
            if reply[0] == "before":
                return _before(session, it, reply[1])
            future = session.expect(it.key, "recorded")
        return (yield from _carry_out(session, it, future))
    finally:
        session.close_step(it.key)


def _unrecorded(it: Step) -> Op:
    """Carry out a step of the cleanup after a cancel, when nothing is recorded any more."""
    try:
        _raw, form = yield from _tries(it, InStep(it.key))
    except Exception as error:
        raise StepFailed(it.key, it.name, type(error).__name__, str(error)) from error
    return it.codec.load(form)


def _carry_out(session: Session, it: Step, future: Future[Reply]) -> Op:
    inside = InStep(it.key)
    end: Frame = {"type": "step_end", "key": it.key}
    cause: Exception | None = None
    try:
        raw, form = yield from _tries(it, inside)
        end |= {"result": form, "usage": _usage(it, inside, raw)}
    except Exception as error:
        cause = error
    except asyncio.CancelledError:
        if session.canceled is None:  # the agent's own doing, such as a timeout
            end["failure"] = {"code": "CancelledError", "message": "the agent gave up the step"}
            with contextlib.suppress(Exception):
                session.wire.send(end)
        raise
    if future.done() and not isinstance(future.exception(), Canceled):
        reply = future.result()
    else:
        try:
            line = session.wire.encode(end if cause is None else _failed(it, inside, end, cause))
        except FrameTooLarge as error:
            cause = error
            line = session.wire.encode(_failed(it, inside, end, cause))
        session.wire.send_line(line)
        reply = yield Wait(future)
    if reply[0] == "before":
        return _before(session, it, reply[1])
    if cause is not None:
        raise StepFailed(it.key, it.name, type(cause).__name__, str(cause)) from cause
    return it.codec.load(end["result"])


def _tries(it: Step, inside: InStep) -> Generator[Call | Pause, Any, tuple[Any, JsonValue]]:
    pauses = it.retry.pauses() if it.retry else iter(())
    while True:
        try:
            raw = yield Call(it, inside)
            break
        except Exception as error:
            pause = next(pauses, None)
            if it.retry is None or pause is None or not isinstance(error, it.retry.on):
                raise
        yield Pause(pause)
    return raw, it.codec.dump(raw)


def _failed(it: Step, inside: InStep, end: Frame, cause: Exception) -> Frame:
    failure = {"code": type(cause).__name__, "message": str(cause)[:16_384]}
    return {
        "type": "step_end",
        "key": end["key"],
        "failure": failure,
        "usage": _usage(it, inside, None),
    }


def _usage(it: Step, inside: InStep, raw: object) -> dict[str, int]:
    spent: Usage = inside.spent or Usage()
    if it.usage is not None and raw is not None:
        try:
            spent = spent + (it.usage(raw) or Usage())
        except Exception:  # what was paid for is not thrown away for its bill
            traceback.print_exc()
    if it.kind == "model" and not spent.model_calls:
        spent = spent + Usage(model_calls=1)
    if it.kind == "tool" and not spent.tool_calls:
        spent = spent + Usage(tool_calls=1)
    return {name: count for name, count in vars(spent).items() if count}


def _before(session: Session, it: Step, fields: Frame) -> Any:
    entry = Entry.parse(fields)
    _same_step(session, it, entry)
    return _outcome(it, entry.fields)


def _outcome(it: Step, fields: Frame) -> Any:
    if fields.get("failure") is not None:
        raise it.failure(fields["failure"])
    try:
        return it.codec.load(fields["result"])
    except Exception as error:
        raise Error(f"the recorded result of step {it.name!r} ({it.key}) does not fit") from error


def _same_step(session: Session, it: Step, entry: Entry) -> None:
    said = entry.fields
    if entry.kind == "step":
        digest = said.get("digest") or it.digest
        if (said.get("kind"), said.get("name"), digest) == (it.kind, it.name, it.digest):
            return
    raise session.diverge(it.key, describe(entry), it.identity())


def describe(entry: Entry) -> str:
    """Return what is recorded, in words."""
    said = entry.fields
    if entry.kind == "step":
        return f"{said.get('kind')} step {said.get('name')!r} with digest {said['digest'][:12]}"
    return f"{entry.kind} {said['name']!r}" if said.get("name") else entry.kind


def check_kind(session: Session, place: Place, kind: str, name: str | None = None) -> Entry | None:
    """Return what is recorded at a place, which must be of this kind and name."""
    entry = place.entry
    if entry is not None:
        recorded = entry.fields.get("name") if name is not None else None
        if entry.kind != kind or (recorded is not None and recorded != name):
            found = f"{kind} {name!r}" if name else kind
            raise session.diverge(place.key, describe(entry), found)
    return entry


def _check_order(session: Session, flow: Flow | None, found: str) -> None:
    """Diverge if something new comes where an earlier attempt recorded something else.

    A flow whose owner waits for this very call has done everything before it, so whatever is
    recorded in the flow and has not been come to should have been next.
    """
    if flow is None or flow.owner != whoami():
        return
    missed = session.journal.next_in(flow.path)
    if missed is not None:
        raise session.diverge(missed.key, describe(missed), found)


def _expect(session: Session, place: Place, *wanted: str) -> Future[Reply]:
    """Return the future of a reply, which will not come once the execution is canceled."""
    if session.canceled is not None:
        raise session.canceled
    return session.expect(place.key, *wanted)


def ask(session: Session, place: Place, frame: Frame) -> Op:
    """Ask a person; return the :class:`Answer`, or raise :class:`Expired`."""
    entry = check_kind(session, place, "ask")
    if entry is None:
        _check_order(session, place.flow, f"ask {frame['prompt']!r}")
    if entry is not None and entry.settled:
        fields = entry.fields
    else:
        future = _expect(session, place, "answered", "expired")
        session.wire.send(frame)
        fields = (yield Wait(future))[1]
    if fields.get("answer") is None:
        raise Expired(f"nobody answered in time: {frame['prompt']}")
    answer = {"type": "answer", **field(fields, "answer", dict)}
    kind: Any = field(answer, "kind", str)
    return Answer(kind, answer.get("choice") or "", answer.get("text") or "")


def sleep(session: Session, place: Place, due_ms: int) -> Op:
    """Wait until a time, recorded when the sleep is first begun."""
    entry = check_kind(session, place, "sleep")
    if entry is None:
        _check_order(session, place.flow, "sleep")
    else:
        if entry.settled:
            return
        due_ms = field(entry.fields, "due_ms", int)
    future = _expect(session, place, "fired")
    session.wire.send({"type": "sleep", "key": place.key, "due_ms": due_ms})
    yield Wait(future)


def signal(session: Session, place: Place, name: str) -> Op:
    """Wait for a signal; return its payload."""
    entry = check_kind(session, place, "signal", name)
    if entry is None:
        _check_order(session, place.flow, f"signal {name!r}")
    elif entry.settled:
        return entry.fields["payload"]
    future = _expect(session, place, "signaled")
    session.wire.send({"type": "signal", "key": place.key, "name": name})
    return (yield Wait(future))[1].get("payload")


def checkpoint(session: Session, place: Place, name: str) -> Op:
    """Name this position of the log; return its seq."""
    entry = check_kind(session, place, "checkpoint")
    if entry is not None:
        return field(entry.fields, "seq", int)
    _check_order(session, place.flow, f"checkpoint {name!r}")
    future = _expect(session, place, "recorded")
    session.wire.send({"type": "checkpoint", "key": place.key, "name": name})
    return field((yield Wait(future))[1], "seq", int)


def flush(session: Session, *, canceled: bool) -> Op:
    """Wait until everything that was said is durable.

    A cancel ends the wait, and raises unless the flow knows of it: then it is cleaning up, or over.
    """
    for future in session.untracked():
        try:
            yield Wait(future)
        except Canceled:
            if not canceled:
                raise
