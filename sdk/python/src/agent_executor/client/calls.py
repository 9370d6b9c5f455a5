"""The requests: what is sent, and what is read from the answer. See ``docs/clients.md``."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import quote, urlencode

from .drive import Call
from .errors import Disconnected
from .events import Event
from .machine import Repeat

_T = TypeVar("_T")


@dataclass(frozen=True)
class Submitted:
    """What became of an input.

    Attributes:
        session: The id of the session.
        seq: The position of the input.
        duplicate: It was recorded before.
        created: The session was made for it.
        branched: It went to a new branch; ``session`` is the branch then.
    """

    session: str
    seq: int
    duplicate: bool = False
    created: bool = False
    branched: bool = False


@dataclass(frozen=True)
class Recorded:
    """Where something was recorded, and whether it had been before."""

    seq: int
    duplicate: bool = False


@dataclass(frozen=True)
class Branched:
    """Branches that were made, and the last position that they share with their parent."""

    sessions: tuple[str, ...]
    at: int


@dataclass(frozen=True)
class EventPage:
    """Some events, and the position of the session's last one."""

    events: tuple[Event, ...]
    last: int


@dataclass(frozen=True)
class RecordWritten:
    """What became of a record.

    Attributes:
        session: The id of the session.
        seq: The position of the record.
        duplicate: It was written before.
        created: The session was made for it.
    """

    session: str
    seq: int
    duplicate: bool = False
    created: bool = False


@dataclass(frozen=True)
class RecordPage:
    """Some records of a collection.

    Attributes:
        events: Of the kind ``record.written``.
        last: The position of the collection's newest record; 0 if there is none.
        base: The position of the newest record that stands for all earlier ones; 0 if there is
            none. Nothing before it is ever in a page.
    """

    events: tuple[Event, ...]
    last: int
    base: int


@dataclass(frozen=True)
class Session:
    """What is known of a session.

    Attributes:
        state: Such as ``ready``, ``running``, ``waiting_ask`` or ``failed``.
        waiting: What it waits for, for a person.
        last: The position of its last event.
        raw: All of it, as it was sent.
    """

    id: str
    name: str
    title: str
    agent: str
    state: str
    waiting: tuple[str, ...]
    last: int
    raw: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class SessionPage:
    """Some sessions, and what to ask the next page for; empty if this is the last one."""

    sessions: tuple[Session, ...]
    cursor: str


@dataclass(frozen=True)
class Agent:
    """A version of an agent."""

    name: str
    version: int
    manifest: str


@dataclass(frozen=True)
class BlobId:
    """A content in the store: its id and its length in bytes."""

    id: str
    bytes: int


@dataclass(frozen=True)
class Prepared(Generic[_T]):
    """A request, and how its answer is read."""

    call: Call
    parse: Callable[[bytes], _T]

    def read(self, body: bytes) -> _T:
        """Read the answer.

        Raises:
            Disconnected: It makes no sense.
        """
        try:
            return self.parse(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Disconnected("the answer makes no sense", repr(error)) from error


def text_part(text: str) -> dict[str, Any]:
    """Return a part of an input that is a text."""
    return {"kind": "PART_KIND_TEXT", "mediaType": "text/plain", "body": {"text": text}}


def only_ask(session: Session) -> int:
    """Return the number of the open question if there is one only, else 0.

    An answer that names its question can be sent again and meets no other one.
    """
    asks = session.raw.get("status", {}).get("asks", [])
    return int(asks[0]["ask"]) if len(asks) == 1 else 0


class Calls:
    """Makes requests for one namespace of one server."""

    def __init__(self, authority: str, token: str, namespace: str) -> None:
        self.headers = {"host": authority, "user-agent": "agent-executor-python"}
        if token:
            self.headers["authorization"] = f"Bearer {token}"
        self._namespace = namespace

    def submit(
        self,
        content: str | Iterable[Mapping[str, Any]],
        session: str,
        agent: str,
        key: str,
        policy: str,
        title: str,
    ) -> Prepared[Submitted]:
        # So that it is recorded once, however often it is sent.
        session = session or (_new_session() if not key else "")
        key = key or f"sent-{secrets.token_hex(16)}"
        parts = [text_part(content)] if isinstance(content, str) else list(content)
        body: dict[str, Any] = {"agent": agent, "key": key, "parts": parts, "title": title}
        if policy:
            body["policy"] = f"SUBMIT_POLICY_{policy.upper()}"
        path = f"/v1/sessions/{_quoted(session)}/inputs" if session else "/v1/inputs"

        def read(said: dict[str, Any]) -> Submitted:
            return Submitted(
                str(said["session"]),
                _number(said, "seq"),
                said.get("duplicate") is True,
                said.get("created") is True,
                said.get("branched") is True,
            )

        return self._send("POST", path, body, Repeat.UNANSWERED, read)

    def signal(self, session: str, name: str, payload: Any, key: str) -> Prepared[Recorded]:
        body = {
            "name": name,
            "key": key or f"sent-{secrets.token_hex(16)}",
            "payload": json.dumps(payload),
        }
        return self._send("POST", _of(session, "signals"), body, Repeat.UNANSWERED, _recorded)

    def answer(
        self, session: str, answer: dict[str, Any], ask: int, via: str
    ) -> Prepared[Recorded]:
        body = {"ask": ask, "answer": answer, "via": via}
        # Sent twice, one that names no question might answer the next one.
        repeat = Repeat.UNANSWERED if ask else Repeat.REFUSED
        return self._send("POST", _of(session, "answers"), body, repeat, _recorded)

    def cancel(self, session: str, execution: int, queued: bool, reason: str) -> Prepared[Recorded]:
        body = {"execution": execution, "queued": queued, "reason": reason}
        return self._send("POST", _of(session, "cancel"), body, Repeat.REFUSED, _recorded)

    def checkpoint(self, session: str, name: str) -> Prepared[Recorded]:
        body = {"name": name}
        return self._send("POST", _of(session, "checkpoints"), body, Repeat.REFUSED, _recorded)

    def branch(
        self, session: str, at: int, checkpoint: str, count: int, carry_on: bool, names: list[str]
    ) -> Prepared[Branched]:
        body = {
            "at": str(at),
            "checkpoint": checkpoint,
            "count": count,
            "carryOn": carry_on,
            "names": names,
        }

        def read(said: dict[str, Any]) -> Branched:
            return Branched(tuple(said.get("sessions", ())), _number(said, "at"))

        return self._send("POST", _of(session, "branches"), body, Repeat.REFUSED, read)

    def rename(self, session: str, title: str) -> Prepared[Recorded]:
        path = f"/v1/sessions/{_quoted(session)}"
        return self._send("PATCH", path, {"title": title}, Repeat.UNANSWERED, _recorded)

    def delete(self, session: str) -> Prepared[None]:
        path = f"/v1/sessions/{_quoted(session)}"
        return self._ask("DELETE", path, {}, Repeat.REFUSED, lambda _said: None)

    def events(self, session: str, after: int, limit: int) -> Prepared[EventPage]:
        def read(said: dict[str, Any]) -> EventPage:
            events = tuple(Event.of_json(event) for event in said.get("events", ()))
            return EventPage(events, _number(said, "last"))

        query = {"after": str(after), "limit": str(limit)}
        return self._ask("GET", _of(session, "events"), query, Repeat.UNANSWERED, read)

    def record(
        self,
        session: str,
        collection: str,
        parts: Iterable[Mapping[str, Any]],
        agent: str,
        key: str,
        replaces: bool,
        after: int | None,
    ) -> Prepared[RecordWritten]:
        body = {
            "agent": agent,
            "collection": collection,
            "key": key or f"sent-{secrets.token_hex(16)}",
            "parts": list(parts),
            "replaces": replaces,
            "after": None if after is None else str(after),
        }

        def read(said: dict[str, Any]) -> RecordWritten:
            return RecordWritten(
                str(said["session"]),
                _number(said, "seq"),
                said.get("duplicate") is True,
                said.get("created") is True,
            )

        return self._send("POST", _of(session, "records"), body, Repeat.UNANSWERED, read)

    def records(
        self, session: str, collection: str, after: int, limit: int
    ) -> Prepared[RecordPage]:
        def read(said: dict[str, Any]) -> RecordPage:
            events = tuple(Event.of_json(event) for event in said.get("events", ()))
            return RecordPage(events, _number(said, "last"), _number(said, "base"))

        query = {"collection": collection, "after": str(after), "limit": str(limit)}
        return self._ask("GET", _of(session, "records"), query, Repeat.UNANSWERED, read)

    def session(self, session: str) -> Prepared[Session]:
        path = f"/v1/sessions/{_quoted(session)}"
        return self._ask("GET", path, {}, Repeat.UNANSWERED, lambda said: _session(said["session"]))

    def sessions(
        self, cursor: str, limit: int, states: list[str], agent: str
    ) -> Prepared[SessionPage]:
        query = {"cursor": cursor, "limit": str(limit), "agent": agent}
        if states:
            query["states"] = ",".join(f"STATE_{state.upper()}" for state in states)

        def read(said: dict[str, Any]) -> SessionPage:
            sessions = tuple(_session(session) for session in said.get("sessions", ()))
            return SessionPage(sessions, str(said.get("cursor", "")))

        return self._ask("GET", "/v1/sessions", query, Repeat.UNANSWERED, read)

    def apply_agent(self, manifest: str, directory: str) -> Prepared[Agent]:
        body = {"manifest": manifest, "dir": directory}
        return self._send("POST", "/v1/agents", body, Repeat.UNANSWERED, _agent)

    def agent(self, agent: str) -> Prepared[Agent]:
        path = f"/v1/agents/{_quoted(agent)}"
        return self._ask("GET", path, {}, Repeat.UNANSWERED, _agent)

    def delete_agent(self, agent: str) -> Prepared[None]:
        path = f"/v1/agents/{_quoted(agent)}"
        return self._ask("DELETE", path, {}, Repeat.REFUSED, lambda _said: None)

    def info(self) -> Prepared[dict[str, Any]]:
        return self._ask("GET", "/v1/info", {}, Repeat.UNANSWERED, lambda said: said)

    def write_blob(self, content: bytes) -> Prepared[BlobId]:
        def read(body: bytes) -> BlobId:
            said = _object(body)
            return BlobId(str(said["id"]), _number(said, "bytes"))

        headers = {**self.headers, "content-type": "application/octet-stream"}
        target = self._target("/v1/blobs", {})
        return Prepared(Call("POST", target, headers, content, Repeat.UNANSWERED), read)

    def read_blob(self, blob: str) -> Prepared[bytes]:
        target = self._target(f"/v1/blobs/{_quoted(blob)}", {})
        return Prepared(Call("GET", target, self.headers, None, Repeat.UNANSWERED), bytes)

    def follow(
        self,
        session: str,
        until_idle: bool,
        until_input: int,
        deltas: bool,
        kinds: list[str],
    ) -> Callable[[int], str]:
        """Return what names the stream after a position."""
        query = {}
        if until_idle:
            query["untilIdle"] = "true"
        if until_input:
            query["untilInput"] = str(until_input)
        if not deltas:
            query["noDeltas"] = "true"
        if kinds:
            query["kinds"] = ",".join(kinds)
        path = _of(session, "follow")
        return lambda after: self._target(path, {**query, "after": str(after)})

    def _send(
        self,
        method: str,
        path: str,
        body: dict[str, Any],
        repeat: Repeat,
        read: Callable[[dict[str, Any]], _T],
    ) -> Prepared[_T]:
        headers = {
            **self.headers,
            "content-type": "application/json",
            "accept": "application/json",
        }
        given = {name: value for name, value in body.items() if value not in ("", None)}
        data = json.dumps(given).encode()
        call = Call(method, self._target(path, {}), headers, data, repeat)
        return Prepared(call, lambda answer: read(_object(answer)))

    def _ask(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        repeat: Repeat,
        read: Callable[[dict[str, Any]], _T],
    ) -> Prepared[_T]:
        headers = {**self.headers, "accept": "application/json"}
        call = Call(method, self._target(path, query), headers, None, repeat)
        return Prepared(call, lambda answer: read(_object(answer)))

    def _target(self, path: str, query: dict[str, str]) -> str:
        given = {name: value for name, value in query.items() if value}
        if self._namespace:
            given["namespace"] = self._namespace
        return f"{path}?{urlencode(given)}" if given else path


# What a plan yields: a request that is made when it is known where to.
Ask: TypeAlias = Callable[[Calls], Prepared[Any]]
# Requests, one after the other: a generator that is sent what each was answered.
Plan: TypeAlias = Generator[Ask, Any, _T]


def _of(session: str, what: str) -> str:
    return f"/v1/sessions/{_quoted(session)}/{what}"


def _quoted(name: str) -> str:
    """Return a name as one segment of a path.

    Raises:
        ValueError: A path cannot hold it.
    """
    if name in {"", ".", ".."}:
        raise ValueError(f"{name!r} names nothing")
    return quote(name, safe="")


def _object(body: bytes) -> dict[str, Any]:
    said = json.loads(body)
    if not isinstance(said, dict):
        raise ValueError("it is no object")
    return said


def _number(said: Mapping[str, Any], name: str) -> int:
    """Read a number; JSON of protocol buffers has large ones as texts, and leaves zeros out."""
    return int(said.get(name, 0))


def _recorded(said: dict[str, Any]) -> Recorded:
    return Recorded(_number(said, "seq"), said.get("duplicate") is True)


def _session(said: dict[str, Any]) -> Session:
    status = said.get("status", {})
    return Session(
        str(said["id"]),
        str(said.get("name", "")),
        str(said.get("title", "")),
        str(said.get("agent", "")),
        str(status.get("state", "")).removeprefix("STATE_").lower(),
        tuple(str(one) for one in status.get("waiting", ())),
        _number(said, "last"),
        said,
    )


def _agent(said: dict[str, Any]) -> Agent:
    agent = said["agent"]
    return Agent(str(agent["name"]), _number(agent, "version"), str(agent.get("manifest", "")))


def _new_session() -> str:
    """Make up the id of a session: milliseconds since the Unix epoch first, then random."""
    return "ses_" + (int(time.time() * 1000).to_bytes(6, "big") + secrets.token_bytes(10)).hex()
