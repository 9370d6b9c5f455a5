"""The clients: one that waits, one that awaits."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from . import aio, wait
from .address import Address, Credentials
from .calls import (
    Agent,
    BlobId,
    Branched,
    Calls,
    EventPage,
    Plan,
    Prepared,
    Recorded,
    RecordPage,
    RecordWritten,
    Session,
    SessionPage,
    Submitted,
    only_ask,
)
from .drive import Course, World, carry_out, follow
from .errors import ServerError
from .items import Item
from .machine import Follower, Patience

_T = TypeVar("_T")
_Content = str | Iterable[Mapping[str, Any]]
APPROVE: dict[str, Any] = {"approve": {}}


def deny(reason: str = "") -> dict[str, Any]:
    """Return the answer that denies an approval."""
    return {"deny": {"reason": reason}}


def choose(choice: str, text: str = "") -> dict[str, Any]:
    """Return the answer to a choice."""
    return {"choice": {"choice": choice, "text": text}}


class _Base:
    def __init__(
        self,
        server: str | None = None,
        *,
        credentials: Credentials | None = None,
        namespace: str = "",
        patience: Patience | None = None,
    ) -> None:
        """Speak to the server at an address; to that of ``AX_SERVER`` if none is given.

        Args:
            server: ``http://HOST:PORT``, ``https://HOST:PORT``, or the path of a socket.
            credentials: What the server is shown; from the environment if not given.
            namespace: Empty for the one that the server takes for granted.
            patience: How long a server that does not answer is waited for.

        Raises:
            ValueError: The address names no server.
        """
        address = Address.parse(server or os.environ.get("AX_SERVER", ""))
        credentials = credentials or Credentials.of_environment()
        self._calls = Calls(address.authority, credentials.token, namespace)
        self._patience = patience or Patience()
        chance = random.SystemRandom().random
        self._world = World(self._patience, time.monotonic, chance)
        self._where = (address, credentials)

    def _following(
        self,
        session: str,
        after: int,
        until_idle: bool,
        until_input: int,
        deltas: bool,
        kinds: Iterable[str],
    ) -> Course[None]:
        wanted = list(kinds)
        target = self._calls.follow(session, until_idle, until_input, deltas, wanted)
        holes = not deltas or bool(wanted)
        follower = Follower(after, self._patience, self._world.chance, holes=holes)
        return follow(target, self._calls.headers, follower, self._world)


class Client(_Base):
    """A client that waits. It may be used from several threads.

    Every request is sent again until it is known what became of it, as far as that does no harm;
    every method may raise :class:`ServerError`.

        client = Client("http://127.0.0.1:7700")
        sent = client.submit("Book a table for 3", agent="table-booker")
        for item in client.follow(sent.session, until_input=sent.seq):
            if isinstance(item, Event):
                print(item.seq, item.kind)
    """

    def _do(self, prepared: Prepared[_T]) -> _T:
        driver = wait.Driver(*self._where)
        return prepared.read(driver.run(carry_out(prepared.call, self._world)))

    def submit(
        self,
        content: _Content,
        *,
        session: str = "",
        agent: str = "",
        key: str = "",
        policy: str = "",
        title: str = "",
    ) -> Submitted:
        """Record an input. It is recorded once, also if the connection breaks before the answer.

        Args:
            content: A text, or parts as they are in JSON.
            session: Its id or name; empty makes a new one.
            agent: For a new session: ``NAME`` or ``NAME@VERSION``.
            key: The same key with the same content is recorded once; made up if it is empty.
            policy: ``enqueue``, ``reject``, ``interrupt`` or ``branch``, if the agent is at work.
            title: For a new session.
        """
        return self._do(self._calls.submit(content, session, agent, key, policy, title))

    def follow(
        self,
        session: str,
        *,
        after: int = 0,
        until_idle: bool = False,
        until_input: int = 0,
        deltas: bool = True,
        kinds: Iterable[str] = (),
    ) -> Iterator[Item]:
        """Yield what was recorded after a position, then what comes, each event once and in order.

        Args:
            session: Its id or name.
            after: The last position that was seen.
            until_idle: End when nothing runs and nothing is due at once.
            until_input: End when the execution of this input is over or waits for a person.
            deltas: Whether to show ``output.delta`` events.
            kinds: Only these kinds or groups of kinds, such as ``output``; empty for all.
        """
        course = self._following(session, after, until_idle, until_input, deltas, kinds)
        return wait.Driver(*self._where).show(course)

    def events(self, session: str, *, after: int = 0, limit: int = 0) -> EventPage:
        """Read a page of events."""
        return self._do(self._calls.events(session, after, limit))

    def record(
        self,
        session: str,
        collection: str,
        parts: Iterable[Mapping[str, Any]],
        *,
        agent: str = "",
        key: str = "",
        replaces: bool = False,
        after: int | None = None,
    ) -> RecordWritten:
        """Write a record into a collection of a session. It is written once.

        Args:
            session: Its id or name. It is made if it is new.
            collection: The name of the collection.
            parts: As they are in JSON.
            agent: For a new session: ``NAME`` or ``NAME@VERSION``.
            key: The same key with the same content is written once; made up if it is empty.
            replaces: The record stands for all earlier ones of the collection.
            after: Write it only if the collection's newest record is at this position, 0 meaning
                that there is none; else the error is ``AX1021``.
        """
        prepared = self._calls.record(session, collection, parts, agent, key, replaces, after)
        return self._do(prepared)

    def records(
        self, session: str, collection: str, *, after: int = 0, limit: int = 0
    ) -> RecordPage:
        """Read a page of the records of a collection; :mod:`agent_executor.records` reads all."""
        return self._do(self._calls.records(session, collection, after, limit))

    def carry(self, plan: Plan[_T]) -> _T:
        """Carry out a plan, such as those of :mod:`agent_executor.records`."""
        try:
            ask = next(plan)
            while True:
                try:
                    answer = self._do(ask(self._calls))
                except ServerError as error:
                    ask = plan.throw(error)
                else:
                    ask = plan.send(answer)
        except StopIteration as stop:
            result: _T = stop.value
            return result
        finally:
            plan.close()

    def session(self, session: str) -> Session:
        """Return what a session is doing."""
        return self._do(self._calls.session(session))

    def sessions(
        self, *, cursor: str = "", limit: int = 0, states: Iterable[str] = (), agent: str = ""
    ) -> SessionPage:
        """List a page of sessions."""
        return self._do(self._calls.sessions(cursor, limit, list(states), agent))

    def answer(
        self, session: str, answer: dict[str, Any] | str, *, ask: int = 0, via: str = ""
    ) -> Recorded:
        """Answer a question: by a text, ``APPROVE``, :func:`deny` or :func:`choose`."""
        said = {"text": answer} if isinstance(answer, str) else answer
        named = ask or only_ask(self.session(session))
        return self._do(self._calls.answer(session, said, named, via))

    def signal(self, session: str, name: str, payload: Any = None, *, key: str = "") -> Recorded:
        """Send a signal, once."""
        return self._do(self._calls.signal(session, name, payload, key))

    def cancel(
        self, session: str, *, execution: int = 0, queued: bool = False, reason: str = ""
    ) -> Recorded:
        """Stop an execution; take back the inputs that wait, too, if ``queued``."""
        return self._do(self._calls.cancel(session, execution, queued, reason))

    def checkpoint(self, session: str, name: str) -> Recorded:
        """Name the position at which the session is."""
        return self._do(self._calls.checkpoint(session, name))

    def branch(
        self,
        session: str,
        *,
        at: int = 0,
        checkpoint: str = "",
        count: int = 1,
        carry_on: bool = False,
        names: Iterable[str] = (),
    ) -> Branched:
        """Make branches at a position, at a checkpoint, or at the end."""
        prepared = self._calls.branch(session, at, checkpoint, count, carry_on, list(names))
        return self._do(prepared)

    def rename(self, session: str, title: str) -> Recorded:
        """Give a session another title."""
        return self._do(self._calls.rename(session, title))

    def delete(self, session: str) -> None:
        """Delete a session."""
        self._do(self._calls.delete(session))

    def apply_agent(self, manifest: str, *, directory: str = "") -> Agent:
        """Store a manifest (YAML). Relative paths of it begin at ``directory``."""
        return self._do(self._calls.apply_agent(manifest, directory))

    def agent(self, agent: str) -> Agent:
        """Return an agent: ``NAME`` or ``NAME@VERSION``."""
        return self._do(self._calls.agent(agent))

    def delete_agent(self, agent: str) -> None:
        """Delete an agent."""
        self._do(self._calls.delete_agent(agent))

    def write_blob(self, content: bytes) -> BlobId:
        """Store a content."""
        return self._do(self._calls.write_blob(content))

    def read_blob(self, blob: str) -> bytes:
        """Return a content."""
        return self._do(self._calls.read_blob(blob))

    def info(self) -> dict[str, Any]:
        """Return what the server is and does."""
        return self._do(self._calls.info())


class AsyncClient(_Base):
    """A client that awaits: the methods of :class:`Client`, for asyncio."""

    async def _do(self, prepared: Prepared[_T]) -> _T:
        driver = aio.Driver(*self._where)
        return prepared.read(await driver.run(carry_out(prepared.call, self._world)))

    async def submit(
        self,
        content: _Content,
        *,
        session: str = "",
        agent: str = "",
        key: str = "",
        policy: str = "",
        title: str = "",
    ) -> Submitted:
        """Do as :meth:`Client.submit`."""
        return await self._do(self._calls.submit(content, session, agent, key, policy, title))

    def follow(
        self,
        session: str,
        *,
        after: int = 0,
        until_idle: bool = False,
        until_input: int = 0,
        deltas: bool = True,
        kinds: Iterable[str] = (),
    ) -> AsyncIterator[Item]:
        """Do as :meth:`Client.follow`."""
        course = self._following(session, after, until_idle, until_input, deltas, kinds)
        return aio.Driver(*self._where).show(course)

    async def events(self, session: str, *, after: int = 0, limit: int = 0) -> EventPage:
        """Do as :meth:`Client.events`."""
        return await self._do(self._calls.events(session, after, limit))

    async def record(
        self,
        session: str,
        collection: str,
        parts: Iterable[Mapping[str, Any]],
        *,
        agent: str = "",
        key: str = "",
        replaces: bool = False,
        after: int | None = None,
    ) -> RecordWritten:
        """Do as :meth:`Client.record`."""
        prepared = self._calls.record(session, collection, parts, agent, key, replaces, after)
        return await self._do(prepared)

    async def records(
        self, session: str, collection: str, *, after: int = 0, limit: int = 0
    ) -> RecordPage:
        """Do as :meth:`Client.records`."""
        return await self._do(self._calls.records(session, collection, after, limit))

    async def carry(self, plan: Plan[_T]) -> _T:
        """Do as :meth:`Client.carry`."""
        try:
            ask = next(plan)
            while True:
                try:
                    answer = await self._do(ask(self._calls))
                except ServerError as error:
                    ask = plan.throw(error)
                else:
                    ask = plan.send(answer)
        except StopIteration as stop:
            result: _T = stop.value
            return result
        finally:
            plan.close()

    async def session(self, session: str) -> Session:
        """Do as :meth:`Client.session`."""
        return await self._do(self._calls.session(session))

    async def sessions(
        self, *, cursor: str = "", limit: int = 0, states: Iterable[str] = (), agent: str = ""
    ) -> SessionPage:
        """Do as :meth:`Client.sessions`."""
        return await self._do(self._calls.sessions(cursor, limit, list(states), agent))

    async def answer(
        self, session: str, answer: dict[str, Any] | str, *, ask: int = 0, via: str = ""
    ) -> Recorded:
        """Do as :meth:`Client.answer`."""
        said = {"text": answer} if isinstance(answer, str) else answer
        named = ask or only_ask(await self.session(session))
        return await self._do(self._calls.answer(session, said, named, via))

    async def signal(
        self, session: str, name: str, payload: Any = None, *, key: str = ""
    ) -> Recorded:
        """Do as :meth:`Client.signal`."""
        return await self._do(self._calls.signal(session, name, payload, key))

    async def cancel(
        self, session: str, *, execution: int = 0, queued: bool = False, reason: str = ""
    ) -> Recorded:
        """Do as :meth:`Client.cancel`."""
        return await self._do(self._calls.cancel(session, execution, queued, reason))

    async def checkpoint(self, session: str, name: str) -> Recorded:
        """Do as :meth:`Client.checkpoint`."""
        return await self._do(self._calls.checkpoint(session, name))

    async def branch(
        self,
        session: str,
        *,
        at: int = 0,
        checkpoint: str = "",
        count: int = 1,
        carry_on: bool = False,
        names: Iterable[str] = (),
    ) -> Branched:
        """Do as :meth:`Client.branch`."""
        prepared = self._calls.branch(session, at, checkpoint, count, carry_on, list(names))
        return await self._do(prepared)

    async def rename(self, session: str, title: str) -> Recorded:
        """Do as :meth:`Client.rename`."""
        return await self._do(self._calls.rename(session, title))

    async def delete(self, session: str) -> None:
        """Do as :meth:`Client.delete`."""
        await self._do(self._calls.delete(session))

    async def apply_agent(self, manifest: str, *, directory: str = "") -> Agent:
        """Do as :meth:`Client.apply_agent`."""
        return await self._do(self._calls.apply_agent(manifest, directory))

    async def agent(self, agent: str) -> Agent:
        """Do as :meth:`Client.agent`."""
        return await self._do(self._calls.agent(agent))

    async def delete_agent(self, agent: str) -> None:
        """Do as :meth:`Client.delete_agent`."""
        await self._do(self._calls.delete_agent(agent))

    async def write_blob(self, content: bytes) -> BlobId:
        """Do as :meth:`Client.write_blob`."""
        return await self._do(self._calls.write_blob(content))

    async def read_blob(self, blob: str) -> bytes:
        """Do as :meth:`Client.read_blob`."""
        return await self._do(self._calls.read_blob(blob))

    async def info(self) -> dict[str, Any]:
        """Do as :meth:`Client.info`."""
        return await self._do(self._calls.info())
