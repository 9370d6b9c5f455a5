"""Which sessions there are, and what is known of each without its events."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from agent_executor.client import ServerError, Session

from .history import History, read, read_first, read_recent
from .place import UNKNOWN_SESSION, Lately, Missing, Place, is_hashed, read_name

# How many sessions are looked at at the same time.
AT_A_TIME = 8
PAGE = 1000


@dataclass
class _Known:
    """What was read of a session, and its last position at that time."""

    last: int
    ids: tuple[str, str, str]
    history: History


class Listing:
    """Lists sessions. What has not changed since the last time is not read again."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._known: Lately[_Known] = Lately()

    async def of(self, app: str, user: str | None) -> list[tuple[str, str, History]]:
        """Return user, id and state of the sessions of an app, or of one of its users."""
        rows = [row for row in await self._rows() if _may_be_of(_name(row), app, user)]
        turns = asyncio.Semaphore(AT_A_TIME)

        async def look(row: Session) -> _Known | None:
            async with turns:
                return await self._look(row)

        found = await asyncio.gather(*(look(row) for row in rows))
        return [
            (known.ids[1], known.ids[2], known.history)
            for known in found
            if known and known.ids[0] == app and user in {None, known.ids[1]}
        ]

    async def _rows(self) -> list[Session]:
        rows: list[Session] = []
        cursor = ""
        while True:
            page = await self._place.client.sessions(
                cursor=cursor, limit=PAGE, agent=self._place.agent
            )
            rows += page.sessions
            cursor = page.cursor
            if not cursor:
                return rows

    async def _look(self, row: Session) -> _Known | None:
        known = self._known.get(row.id)
        if known and known.last == row.last:
            return known
        carry = self._place.client.carry
        name = _name(row)
        try:
            if known:
                history = replace(known.history, entries=[], state=dict(known.history.state))
                history.take(await carry(read(name, history.last)))
                ids = known.ids
            else:
                if not row.name and (await self._place.client.session(name)).id != row.id:
                    return None
                history = await carry(read_recent(name))
                first = None if read_name(name) else await carry(read_first(name))
                ids = read_name(name) or (first.ids if first else ("", "", ""))
        except Missing:
            return None
        except ServerError as error:
            if error.code != UNKNOWN_SESSION:
                raise
            return None
        if not history.last:
            return None
        history.entries.clear()
        known = _Known(row.last, ids, history)
        self._known.put(row.id, known)
        return known


def _name(row: Session) -> str:
    """Return the name of a session. That of a branch is its title, unless it was given another."""
    return row.name or row.title


def _may_be_of(name: str, app: str, user: str | None) -> bool:
    """Tell whether a session may be one of an app and a user, as far as its name says."""
    ids = read_name(name)
    return is_hashed(name) or (ids is not None and ids[0] == app and user in {None, ids[1]})
