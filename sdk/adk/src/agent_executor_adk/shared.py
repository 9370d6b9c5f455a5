"""The state that sessions share: that of an app, and that of a user."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from agent_executor.client import AsyncClient
from agent_executor.records import AsyncCollection, Record, Stale

COLLECTION = "shared"


class SharedState:
    """A state that many write to: of each value, the last one counts.

    A record holds changes. An event is written before the changes that it makes here, so a process
    that dies between the two leaves an event without them. Who reads that session next finds that
    out and makes up for it (:meth:`mend`): a change that comes late counts as made when its event
    was, and changes nothing that was written since.
    """

    def __init__(self, client: AsyncClient, name: str, agent: str) -> None:
        self._values: dict[str, Any] = {}
        self._times: dict[str, int] = {}
        self._records = AsyncCollection(client, name, COLLECTION, agent=agent, take=self._take)

    async def read(self) -> dict[str, Any]:
        """Return the state as it is now."""
        await self._records.refresh()
        if self._records.is_worn(1):
            # If somebody else writes meanwhile, the next one does it.
            with suppress(Stale):
                await self._records.replace({"values": self._values, "times": self._times})
        return copy.deepcopy(self._values)

    async def write(self, delta: Mapping[str, Any], key: str) -> None:
        """Change the state, once under a key."""
        await self._records.append({"delta": dict(delta)}, key=key, if_unchanged=False)

    async def mend(self, delta: Mapping[str, Any], at_millis: int) -> None:
        """Make changes that belong to that time, as far as they were not made."""
        await self._records.refresh()
        late = {
            key: value
            for key, value in delta.items()
            if self._times.get(key, 0) < at_millis and self._values.get(key) != value
        }
        if late:
            await self._records.append({"delta": late, "at": at_millis}, if_unchanged=False)

    def _take(self, record: Record) -> None:
        data = record.data
        if record.replaces:
            self._values, self._times = dict(data["values"]), dict(data["times"])
            return
        at_millis = int(data.get("at", 0)) or record.at_millis
        is_late = "at" in data
        for key, value in data["delta"].items():
            if is_late and self._times.get(key, 0) >= at_millis:
                continue
            self._values[key] = value
            self._times[key] = at_millis
