"""Runs that wait for a person, under names, fenced against a second writer."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from agent_executor.client import AsyncClient, Plan, Session
from agent_executor.errors import Error
from agent_executor.records import Deleted, Record, Stale, View, forget, living, session_name
from agents import Agent, RunState

from .delta import apply, difference

# What is remembered of so many runs, those that were used last; others are read again.
HELD_MAX = 64
# Of so many names the version is remembered that was loaded or saved last; others count as new.
VERSIONS_MAX = 10_000
# So many saves whose answer was lost are remembered; others count as somebody else's.
LOST_MAX = 64
# How often a name may begin anew under the hands of one call.
LIVES_MAX = 8
# A page of a list, at most what the server gives.
PAGE = 1000

_COLLECTION = "state"
_NAME_BYTES_MAX = 150
_GENERATION = re.compile(r"~(\d+)$")
# A version is a position, and above so many bits, how often the name has begun anew.
_POSITION_BITS = 40


class StateConflict(Error):
    """Somebody else has saved a state under this name, or deleted it, since it was loaded.

    Nothing was saved. Load it again to see what became of it.

    Attributes:
        name: The name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"the state {name!r} was changed since it was loaded here")
        self.name = name


class UnknownState(Error):
    """There is no state of this name.

    Attributes:
        name: The name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no state {name!r}")
        self.name = name


@dataclass(frozen=True)
class Saved:
    """A state that was loaded.

    Attributes:
        name: Its name.
        version: Grows with each state that is saved under the name.
        state: What to approve, reject, and hand to ``Runner.run``.
    """

    name: str
    version: int
    state: RunState[Any, Agent[Any]]


@dataclass(frozen=True)
class Listed:
    """A state of which only the name was read.

    Attributes:
        name: Its name.
        saved_at_millis: When it was saved, in milliseconds since the Unix epoch.
    """

    name: str
    saved_at_millis: int


class AxRunStates:
    """Keeps states of runs on an Agent Executor server.

        states = AxRunStates()
        result = await Runner.run(agent, "Send the goods.")
        if result.interruptions:
            await states.save("order-7", result.to_state())

        # Days later, anywhere:
        saved = await states.load("order-7", agent)
        for item in saved.state.get_interruptions():
            saved.state.approve(item)
        # Who is second gets StateConflict.
        await states.save("order-7", saved.state, after=saved.version)
        result = await Runner.run(agent, saved.state)

    Saving is fenced: a state is saved only in the place of the version that it was loaded from or
    saved as, and durable when the call returns. What did not change is not stored again.

    It is to be used in one event loop of asyncio.
    """

    def __init__(
        self,
        client: AsyncClient | None = None,
        *,
        agent: str = "openai-agents",
        prefix: str = "openai/runs",
    ) -> None:
        """Keep states on a server.

        Args:
            client: Where; the server that ``AX_SERVER`` names if it is left out.
            agent: The agent of the sessions. It is made if there is none; lists show its states.
            prefix: How the names of the sessions begin, 32 bytes at most.

        Raises:
            ValueError: The prefix is too long.
        """
        if len(prefix.encode()) > 32:
            raise ValueError(f"a prefix has at most 32 bytes, not {prefix!r}")
        self._client = client or AsyncClient()
        self._agent = agent
        self._prefix = prefix
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._versions: OrderedDict[str, int] = OrderedDict()
        self._seen: dict[int, _Seen] = {}
        self._lost: OrderedDict[tuple[str, int, str], _Sent] = OrderedDict()

    async def save(
        self,
        name: str,
        state: RunState[Any, Any],
        *,
        after: int | None = None,
        **options: Any,
    ) -> int:
        """Save a state; return its version.

        If the call fails in another way than with :class:`StateConflict`, the state may be saved
        or not: call it again.

        Args:
            name: Its name, up to 150 bytes.
            state: The state.
            after: The version that it takes the place of, 0 if there must be none; if left out,
                the one that this state was loaded from, or saved as; for a state that is new, the
                one that was loaded or saved here last under the name.
            **options: Of ``RunState.to_json``, such as ``context_serializer``.

        Raises:
            StateConflict: There is another version by now.
            ValueError: The name is too long.
        """
        # What is sent again must be what was sent, whatever becomes of the state.
        value = json.loads(json.dumps(state.to_json(**options)))
        expected = after if after is not None else self._expected(name, state)
        for _ in range(LIVES_MAX):
            held = await self._hold(name)
            try:
                version = await self._save(held, value, expected)
            except Stale as error:
                raise StateConflict(name) from error
            except Deleted as error:
                self._held.pop(name, None)
                if expected:
                    raise StateConflict(name) from error
            else:
                self._bind(name, state, version, loaded=False)
                return self._know(name, version)
        raise StateConflict(name)

    async def load(self, name: str, agent: Agent[Any], **options: Any) -> Saved:
        """Load the state of a name.

        Args:
            name: Its name.
            agent: The agent with which the run began.
            **options: Of ``RunState.from_json``, such as ``context_override``.

        Raises:
            UnknownState: There is none.
        """
        value, version = await self._read(name)
        state = await RunState.from_json(agent, value, **options)
        self._bind(name, state, version, loaded=True)
        return Saved(name, version, state)

    async def list(self) -> list[Listed]:
        """Return what there is, the one that was saved last first."""
        listed = [Listed(name, _saved_at(row)) async for name, row in self._rows()]
        return sorted(listed, key=lambda one: (-one.saved_at_millis, one.name))

    async def latest(self, agent: Agent[Any], **options: Any) -> Saved | None:
        """Load the state that was saved last of all names; None if there is none."""
        for listed in await self.list():
            try:
                return await self.load(listed.name, agent, **options)
            except UnknownState:
                continue
        return None

    async def delete(self, name: str) -> bool:
        """Delete the state of a name; tell whether there was one."""
        self._forget(name)
        return await self._client.carry(forget(self._name(name), self._agent))

    async def _read(self, name: str) -> tuple[Any, int]:
        held = await self._hold(name)
        try:
            await self._client.carry(held.view.refresh())
        except Deleted as error:
            self._forget(name)
            raise UnknownState(name) from error
        if not held.view.last:
            self._forget(name)
            raise UnknownState(name)
        # The copy belongs to the caller.
        return json.loads(json.dumps(held.value)), self._know(name, held.version)

    async def _save(self, held: _Held, value: Any, expected: int) -> int:
        if expected and expected >> _POSITION_BITS != held.born >> _POSITION_BITS:
            raise Stale("the name has begun anew")
        position = expected - held.born if expected else 0
        # A save whose answer was lost is sent again as it was, and the server knows it by its key.
        # The key is nobody else's: of two who save the same, one is told.
        digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
        name = (held.view.session, position, digest)
        sent = self._lost.pop(name, None)
        if sent is None:
            if held.view.last < position:
                await self._client.carry(held.view.refresh())
            if held.view.last != position:
                raise Stale("there is another version")
            sent = held.prepare(value)
        try:
            return held.born + await self._client.carry(held.append(sent, position))
        except (Stale, Deleted):
            raise
        except BaseException:
            self._lost[name] = sent
            if len(self._lost) > LOST_MAX:
                self._lost.popitem(last=False)
            raise

    def _expected(self, name: str, state: RunState[Any, Any]) -> int:
        seen = self._seen.get(id(state))
        if seen is not None and name in seen.versions:
            return seen.versions[name]
        return self._versions.get(name, 0)

    def _bind(self, name: str, state: RunState[Any, Any], version: int, *, loaded: bool) -> None:
        number = id(state)
        if number not in self._seen:
            # States cannot be hashed.
            weakref.finalize(state, self._seen.pop, number, None).atexit = False
            self._seen[number] = _Seen({}, set())
        self._seen[number].versions[name] = version
        if loaded:
            self._seen[number].loaded.add(name)

    def _forget(self, name: str) -> None:
        """Forget a name that is no more; states that were loaded from it stay refused."""
        self._held.pop(name, None)
        self._versions.pop(name, None)
        for seen in self._seen.values():
            if name not in seen.loaded:
                seen.versions.pop(name, None)

    def _know(self, name: str, version: int) -> int:
        self._versions[name] = version
        self._versions.move_to_end(name)
        if len(self._versions) > VERSIONS_MAX:
            self._versions.popitem(last=False)
        return version

    async def _hold(self, name: str) -> _Held:
        held = self._held.get(name)
        # One of which nothing was read may have come and gone unseen.
        if held is None or not held.view.last:
            session = await self._client.carry(living(self._name(name), self._agent))
            held = self._held.get(name)
            if held is None or held.view.session != session:
                held = self._held[name] = _Held(session, self._agent)
        self._held.move_to_end(name)
        if len(self._held) > HELD_MAX:
            self._held.popitem(last=False)
        return held

    async def _rows(self) -> AsyncIterator[tuple[str, Session]]:
        start, cursor = f"{self._prefix}/", ""
        while True:
            page = await self._client.sessions(cursor=cursor, limit=PAGE, agent=self._agent)
            for row in page.sessions:
                if row.name.startswith(start):
                    yield unquote(_GENERATION.sub("", row.name.removeprefix(start))), row
            cursor = page.cursor
            if not cursor:
                return

    def _name(self, name: str) -> str:
        escaped = session_name("", name)
        if not name or len(escaped) > _NAME_BYTES_MAX:
            raise ValueError(f"a state's name has 1 to {_NAME_BYTES_MAX} bytes, not {name!r}")
        return self._prefix + escaped


@dataclass(frozen=True)
class _Seen:
    """Of a state: the versions that it was loaded from or saved as, and the names of the former."""

    versions: dict[str, int]
    loaded: set[str]


@dataclass(frozen=True)
class _Sent:
    """A record as it was sent."""

    key: str
    data: Any
    replaces: bool


class _Held:
    """What is remembered of a run: its state, and how much was stored since it was stored whole.

    A record is ``{"state": …}``, which stands for all before it, or ``{"delta": …}``.
    """

    def __init__(self, session: str, agent: str) -> None:
        self.view = View(session, _COLLECTION, agent=agent, take=self._take)
        self.value: Any = None
        self._delta_bytes = 0
        self._agent = agent
        generation = _GENERATION.search(session)
        self.born = (int(generation[1]) - 1 if generation else 0) << _POSITION_BITS

    @property
    def version(self) -> int:
        """The version that was read."""
        return self.born + self.view.last

    def prepare(self, value: Any) -> _Sent:
        """Return how to write a state: whole, or as what differs, if that is less in the end."""
        key = f"sent-{secrets.token_hex(16)}"
        whole = {"state": value}
        delta = {"delta": difference(self.value, value)}
        size = len(json.dumps(whole))
        if not self.view.last or len(json.dumps(delta)) + self._delta_bytes > 2 * size:
            return _Sent(key, whole, replaces=True)
        return _Sent(key, delta, replaces=False)

    def append(self, sent: _Sent, after: int) -> Plan[int]:
        """Plan to write a state after the version upon which it was prepared."""
        view = self.view
        if view.last != after:
            view = View(view.session, _COLLECTION, agent=self._agent, after=after)
        return (yield from view.append(sent.data, key=sent.key, replaces=sent.replaces))

    def _take(self, record: Record) -> None:
        if "state" in record.data:
            self.value, self._delta_bytes = record.data["state"], 0
        else:
            self.value = apply(self.value, record.data["delta"])
            self._delta_bytes += len(json.dumps(record.data))


def _saved_at(row: Session) -> int:
    return int(row.raw.get("updatedAtMillis", 0))
