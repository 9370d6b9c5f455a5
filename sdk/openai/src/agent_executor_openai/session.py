"""What was said in a conversation, for ``Runner.run(…, session=…)``."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any, TypeVar

from agent_executor.client import AsyncClient, Plan
from agent_executor.records import Deleted, Record, Stale, View, forget, living, session_name
from agents import SessionSettings, TResponseInputItem

_T = TypeVar("_T")
_COLLECTION = "items"
# How often a conversation may be deleted under the hands of one call.
_LIVES_MAX = 8


class AxSession:
    """A conversation that an Agent Executor server keeps: a ``Session`` of the OpenAI Agents SDK.

        result = await Runner.run(agent, "How many boxes?", session=AxSession("friday"))

    What is added is durable when the call returns. Several programs may use one conversation at the
    same time: nothing is lost, and an item is taken back once.

    A record is ``{"items": […]}`` or ``{"pop": true}``. It is to be used in one event loop of
    asyncio.
    """

    def __init__(
        self,
        session_id: str,
        client: AsyncClient | None = None,
        *,
        agent: str = "openai-agents",
        prefix: str = "openai/sessions",
        session_settings: SessionSettings | None = None,
    ) -> None:
        """Use a conversation; it begins when something is added.

        Args:
            session_id: Its name.
            client: Where it is kept; the server that ``AX_SERVER`` names if it is left out.
            agent: The agent of the session that keeps it. It is made if there is none.
            prefix: How the name of that session begins.
            session_settings: As for other sessions of the SDK: how many items to read.
        """
        self.session_id = session_id
        self.session_settings: SessionSettings | None = session_settings or SessionSettings()
        self._client = client or AsyncClient()
        self._agent = agent
        self._name = session_name(prefix, session_id)
        self._talk: _Talk | None = None
        self._lock = asyncio.Lock()

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return what was said, oldest first; only the last items if there is a limit."""
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        items = await self._carry(_Talk.read)
        if limit is None:
            return copy.deepcopy(items)
        return copy.deepcopy(items[-limit:]) if limit > 0 else []

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add to what was said."""
        if not items:
            return
        data = {"items": items}
        await self._carry(lambda talk: talk.view.append(data, if_unchanged=False))
        await self._tidy()

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the last item back and return it; None if there is none."""
        return await self._carry(_Talk.pop)

    async def clear_session(self) -> None:
        """Forget what was said.

        It is no longer read, but stays in the log of the server; :meth:`delete` removes it there.
        """
        await self._carry(_Talk.clear)

    async def delete(self) -> None:
        """Delete the conversation; it may begin anew."""
        self._talk = None
        await self._client.carry(forget(self._name, self._agent))

    async def _carry(self, make: Callable[[_Talk], Plan[_T]]) -> _T:
        """Carry out a plan for the conversation as it lives now."""
        for _ in range(_LIVES_MAX):
            talk = await self._find()
            try:
                return await self._client.carry(make(talk))
            except Deleted:
                if self._talk is talk:
                    self._talk = None
        raise Deleted(f"session {self._name!r} is deleted again and again")

    async def _find(self) -> _Talk:
        async with self._lock:
            talk = self._talk
            # One of which nothing was read may have come and gone unseen.
            if talk is None or not talk.view.last:
                session = await self._client.carry(living(self._name, self._agent))
                if talk is None or talk.view.session != session:
                    talk = _Talk(session, self._agent)
                self._talk = talk
            return talk

    async def _tidy(self) -> None:
        """Write what is left, if much was taken back."""
        try:
            await self._carry(_Talk.tidy)
        except Stale:
            # Somebody else is at work, and will do it.
            return


class _Talk:
    """What was read of a conversation."""

    def __init__(self, session: str, agent: str) -> None:
        self.view = View(session, _COLLECTION, agent=agent, take=self._take)
        self.items: list[TResponseInputItem] = []

    def read(self) -> Plan[list[TResponseInputItem]]:
        yield from self.view.refresh()
        return self.items

    def pop(self) -> Plan[TResponseInputItem | None]:
        while True:
            yield from self.view.refresh()
            if not self.items:
                return None
            item = self.items[-1]
            try:
                yield from self.view.append({"pop": True})
            except Stale:
                continue
            return item

    def clear(self) -> Plan[None]:
        while True:
            yield from self.view.refresh()
            if not self.items:
                return
            try:
                yield from self.view.append({"items": []}, replaces=True)
            except Stale:
                continue
            return

    def tidy(self) -> Plan[None]:
        yield from self.view.refresh()
        if self.view.is_worn(len(self.items)):
            yield from self.view.append({"items": list(self.items)}, replaces=True)

    def _take(self, record: Record) -> None:
        said: dict[str, Any] = record.data
        if record.replaces:
            self.items = []
        if said.get("pop"):
            del self.items[-1:]
        self.items += said.get("items", [])
