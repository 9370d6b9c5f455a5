"""Conversations: what was added, taken back, cleared, by one program or several."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from agent_executor.client import AsyncClient
from agents import SessionSettings
from agents.memory import Session

from agent_executor_openai import AxSession
from real import Server

NUMBERS = itertools.count()


def make_session(server: Server, **options: Any) -> AxSession:
    return AxSession(f"talk/{next(NUMBERS)}", AsyncClient(server.url), **options)


def again(session: AxSession, server: Server, **options: Any) -> AxSession:
    """Return the same conversation as another process sees it."""
    return AxSession(session.session_id, AsyncClient(server.url), **options)


def said(text: str) -> Any:
    return {"role": "user", "content": text}


def texts(items: list[Any]) -> list[str]:
    return [item["content"] for item in items]


def test_it_is_a_session_of_the_sdk(server: Server) -> None:
    assert isinstance(make_session(server), Session)


def test_what_is_added_comes_back_in_order(server: Server) -> None:
    async def main() -> None:
        session = make_session(server)
        assert await session.get_items() == []
        await session.add_items([])
        await session.add_items([said("a"), said("b")])
        other = again(session, server)
        await other.add_items([said("c")])
        for one in (session, other, again(session, server)):
            assert texts(await one.get_items()) == ["a", "b", "c"]
            assert texts(await one.get_items(2)) == ["b", "c"]
            assert await one.get_items(0) == []
        few = again(session, server, session_settings=SessionSettings(limit=1))
        assert texts(await few.get_items()) == ["c"]
        assert texts(await few.get_items(5)) == ["a", "b", "c"]
        items: list[Any] = await session.get_items()
        items[0]["content"] = "changed"
        assert texts(await session.get_items()) == ["a", "b", "c"]

    asyncio.run(main())


def test_what_is_taken_back_is_gone(server: Server) -> None:
    async def main() -> None:
        session = make_session(server)
        assert await session.pop_item() is None
        await session.add_items([said("a"), said("b")])
        assert await again(session, server).pop_item() == said("b")
        await session.add_items([said("c")])
        assert texts(await session.get_items()) == ["a", "c"]
        assert await session.pop_item() == said("c")
        assert await session.pop_item() == said("a")
        assert await session.pop_item() is None
        assert await again(session, server).get_items() == []

    asyncio.run(main())


def test_it_is_cleared_and_deleted(server: Server) -> None:
    async def main() -> None:
        session = make_session(server)
        await session.clear_session()
        other = again(session, server)
        for text in ("a", "b", "c"):
            await session.add_items([said(text)])
            assert texts(await other.get_items()) == [text]
            await other.clear_session()
            assert await session.get_items() == []
        for text in ("d", "e", "f"):
            await session.add_items([said(text)])
            assert texts(await other.get_items()) == [text]
            await other.delete()
            assert await session.get_items() == []

    asyncio.run(main())


def test_two_first_uses_at_once_read_it_once(server: Server) -> None:
    async def main() -> None:
        session = make_session(server)
        await session.add_items([said("a"), said("b")])
        other = again(session, server)
        for items in await asyncio.gather(*(other.get_items() for _ in range(4))):
            assert texts(items) == ["a", "b"]
        assert texts(await other.get_items()) == ["a", "b"]

    asyncio.run(main())


def test_who_looked_before_it_began_finds_its_second_life(server: Server) -> None:
    async def main() -> None:
        session = make_session(server)
        other = again(session, server)
        assert await other.get_items() == []
        await session.add_items([said("a")])
        await session.delete()
        await session.add_items([said("b")])
        assert texts(await other.get_items()) == ["b"]

    asyncio.run(main())


def test_programs_at_the_same_time_lose_nothing(server: Server) -> None:
    async def main() -> None:
        session = make_session(server)
        programs = [session, again(session, server), again(session, server)]

        async def add(number: int, program: AxSession) -> None:
            for count in range(10):
                await program.add_items([said(f"{number} {count}")])

        await asyncio.gather(*(add(number, one) for number, one in enumerate(programs)))
        items = texts(await again(session, server).get_items())
        assert sorted(items) == sorted(f"{n} {c}" for n in range(3) for c in range(10))

        async def take(program: AxSession) -> list[Any]:
            return [await program.pop_item() for _ in range(12)]

        taken = itertools.chain(*await asyncio.gather(*(take(one) for one in programs)))
        assert sorted(texts([one for one in taken if one])) == sorted(items), "each once"

    asyncio.run(main())


def test_a_conversation_that_is_taken_back_again_and_again_stays_short(server: Server) -> None:
    async def main() -> None:
        session = make_session(server)
        for count in range(100):
            await session.add_items([said(f"{count}")])
            await session.pop_item()
        await session.add_items([said("last")])
        session_name = session._talk.view.session if session._talk else ""
        page = await session._client.records(session_name, "items")
        assert len(page.events) < 70
        assert texts(await again(session, server).get_items()) == ["last"]

    asyncio.run(main())
