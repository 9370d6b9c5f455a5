"""Where things are kept: the server, and the names of sessions.

======================  ============================  ==========================================
what                    session                       collections
======================  ============================  ==========================================
an ADK session          ``adk/APP/USER/SESSION``      ``events``, ``state``, ``artifacts``
what a user has         ``adk/APP/USER``              ``shared``, ``artifacts``, ``memory``
what an app has         ``adk/APP``                   ``shared``
======================  ============================  ==========================================
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from agent_executor.client import AsyncClient, ServerError
from agent_executor.errors import Error
from agent_executor.records import Deleted, forget, is_deleted, living, session_name

AGENT = "adk"
# How many sessions are remembered: under which names they live, and what their state was.
REMEMBERED_MAX = 4096

UNKNOWN_SESSION = "AX1002"
UNKNOWN_AGENT = "AX1003"
DELETED = "AX1011"
STALE = "AX1021"

_T = TypeVar("_T")
_R = TypeVar("_R")


class Missing(Error):
    """There is no such session."""


class Lately(Generic[_T]):
    """What was used lately, under its key. Threads may share it."""

    def __init__(self, most: int = REMEMBERED_MAX) -> None:
        self._most = most
        self._kept: OrderedDict[str, _T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> _T | None:
        """Return what is there, if it is."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, value: _T) -> None:
        """Keep something, and forget what was not used for the longest time."""
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)


class Place:
    """A server, and the names of the sessions in which an app's things are kept there."""

    def __init__(self, uri: str, client: AsyncClient | None, agent: str) -> None:
        """Look at a server.

        Args:
            uri: ``ax://HOST:PORT``, ``axs://HOST:PORT`` for TLS, ``ax:///PATH`` for a socket, or
                ``ax://`` for the server of ``AX_SERVER``; ``?namespace=`` and ``?agent=`` may
                follow.
            client: To use instead of that server.
            agent: The agent of the sessions, unless the address names one.

        Raises:
            ValueError: The address names no server.
        """
        parts = urlsplit(uri or "ax://")
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.scheme not in {"ax", "axs"} or query.keys() - {"namespace", "agent"}:
            raise ValueError(
                f"{uri!r} is no address of Agent Executor: it is like ax://HOST:PORT, and "
                "?namespace= and ?agent= may follow"
            )
        self.agent = query.get("agent", agent)
        self.client = client or AsyncClient(
            _server(parts.scheme, parts.netloc, unquote(parts.path)),
            namespace=query.get("namespace", ""),
        )
        self._names: Lately[str] = Lately()

    async def at(self, base: str, work: Callable[[str], Awaitable[_T]]) -> _T:
        """Do something to the session that lives under a name.

        A name that was deleted is not free again; the session that is made under it afterwards
        has another generation of the name.

        Raises:
            Missing: There is no such session; the work raised it.
        """
        name = self._names.get(base) or base
        while True:
            try:
                return await work(name)
            except (Deleted, Missing):
                current = await self.client.carry(living(base, self.agent))
                if current == name:
                    raise
                name = current
                self._names.put(base, name)

    async def check(self, name: str) -> None:
        """See whether a name is deleted.

        Raises:
            Deleted: It is.
        """
        try:
            await self.client.session(name)
        except ServerError as error:
            if error.code not in {UNKNOWN_SESSION, DELETED}:
                raise
            if await self.client.carry(is_deleted(name, self.agent)):
                raise Deleted(f"session {name!r} was deleted") from error

    async def delete(self, base: str) -> None:
        """Delete the session that lives under a name, if there is one."""
        await self.client.carry(forget(base, self.agent))


class Views(Generic[_T]):
    """Views of sessions, such as their state, that are kept and brought up to date."""

    def __init__(self, place: Place, make: Callable[[AsyncClient, str, str], _T]) -> None:
        """Make views with the client, the session's name and its agent."""
        self._place = place
        self._make = make
        self._kept: Lately[_T] = Lately()

    async def do(self, base: str, work: Callable[[_T], Awaitable[_R]]) -> _R:
        """Do something with the view of the session that lives under a name."""

        async def with_view(name: str) -> _R:
            # A view that was read before its session was deleted is not to be believed.
            await self._place.check(name)
            return await work(self._of(name))

        return await self._place.at(base, with_view)

    def _of(self, name: str) -> _T:
        view = self._kept.get(name)
        if view is None:
            view = self._make(self._place.client, name, self._place.agent)
            self._kept.put(name, view)
        return view


def app_name(app: str) -> str:
    """Return the name of the session of an app."""
    return session_name("adk", app)


def user_name(app: str, user: str) -> str:
    """Return the name of the session of a user."""
    return session_name("adk", app, user)


def adk_name(app: str, user: str, session: str) -> str:
    """Return the name of an ADK session."""
    return session_name("adk", app, user, session)


def read_name(name: str) -> tuple[str, str, str] | None:
    """Return app, user and session if the name is that of an ADK session, and is readable."""
    first, *ids = name.split("/")
    if first != "adk" or len(ids) != 3:
        return None
    app, user, session = ids
    return unquote(app), unquote(user), unquote(session.partition("~")[0])


def is_hashed(name: str) -> bool:
    """Tell whether a name was too long to be readable."""
    return name.startswith("adk/%") and name.count("/") == 1


def _server(scheme: str, authority: str, path: str) -> str | None:
    if authority and path in {"", "/"}:
        return f"{'https' if scheme == 'axs' else 'http'}://{authority}"
    if authority:
        raise ValueError("an address with a host has no path")
    return f"unix:{path}" if path not in {"", "/"} else None
