"""What ADK expects of a memory service, and what this one adds. Against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from typing import Any

import pytest
from google.adk.events.event import Event
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions.session import Session
from google.genai import types

from agent_executor_adk import AxMemoryService
from conftest import Server

USER = "user"


def said(text: str, name: str = "", author: str = "user", **more: Any) -> Event:
    content = types.Content(role="user", parts=[types.Part(text=text)]) if text else None
    event = Event(author=author, invocation_id="inv", content=content, **more)
    event.id = name or event.id
    return event


def session(app: str, *events: Event, name: str = "s", user: str = USER) -> Session:
    return Session(id=name, app_name=app, user_id=user, events=list(events))


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


async def found(memory: AxMemoryService, app: str, query: str, user: str = USER) -> list[str]:
    answer = await memory.search_memory(app_name=app, user_id=user, query=query)
    return [str((entry.content.parts or [])[0].text) for entry in answer.memories]


def test_what_was_said_is_found_by_its_words_by_the_same_user_of_the_same_app(
    memory: AxMemoryService, server: Server, app: str
) -> None:
    async def main() -> None:
        events = [said("The kettle is BLUE.", "e1", timestamp=1000.0), said("I like tea.", "e2")]
        await memory.add_session_to_memory(session(app, *events))
        for service in (memory, AxMemoryService(server.uri)):
            assert await found(service, app, "blue?") == ["The kettle is BLUE."]
            assert await found(service, app, "coffee") == []
            assert await found(service, app, "") == []
            assert await found(service, app, "lik") == [], "only whole words"
            assert await found(service, app, "tea", "other") == []
            assert await found(service, f"{app}x", "tea") == []
        (entry,) = (await memory.search_memory(app_name=app, user_id=USER, query="kettle")).memories
        assert (entry.id, entry.author) == ("e1", "user")
        assert datetime.fromisoformat(str(entry.timestamp)).timestamp() == 1000.0

    run(main())


def test_events_without_words_are_not_found(memory: AxMemoryService, app: str) -> None:
    async def main() -> None:
        call = types.Part(function_call=types.FunctionCall(name="look", args={"at": "kettle"}))
        image = types.Part(inline_data=types.Blob(mime_type="image/png", data=b"\x00\xff"))
        mixed = types.Content(role="user", parts=[types.Part(text="a kettle"), image])
        events = [
            said(""),
            Event(author="a", content=types.Content(role="model", parts=[call])),
            Event(author="a", content=mixed),
        ]
        await memory.add_session_to_memory(session(app, *events))
        answer = await memory.search_memory(app_name=app, user_id=USER, query="kettle")
        assert [entry.content for entry in answer.memories] == [mixed]

    run(main())


def test_those_with_the_most_words_come_first_then_the_newest_and_ten_at_most(
    memory: AxMemoryService, app: str
) -> None:
    async def main() -> None:
        events = [said(f"red number {n}", timestamp=1000.0 + n) for n in range(15)]
        events += [said("red blue green", timestamp=1.0), said("blue red", timestamp=2.0)]
        await memory.add_session_to_memory(session(app, *events))
        answer = await found(memory, app, "Red GREEN blue red")
        assert answer[:4] == ["red blue green", "blue red", "red number 14", "red number 13"]
        assert len(answer) == 10

    run(main())


@pytest.mark.parametrize(
    ("text", "query", "is_found"),
    [
        ("私はPythonを使う", "python", True),
        ("私はPythonを使う", "pyth", False),
        ("私はPythonを使う", "使う", True),
        ("Das Café über dem Fluss", "café ÜBER", True),
        ("Das Café", "Cafe\u0301", True),
        ("привет мир", "ПРИВЕТ", True),
        ("snake_case", "snake", False),
    ],
)
def test_words_of_all_scripts_are_found(
    memory: AxMemoryService, app: str, text: str, query: str, is_found: bool
) -> None:
    async def main() -> None:
        await memory.add_session_to_memory(session(app, said(text)))
        assert bool(await found(memory, app, query)) == is_found

    run(main())


def test_a_session_that_is_added_again_is_there_as_it_is_now(
    memory: AxMemoryService, server: Server, app: str
) -> None:
    async def main() -> None:
        one, two, three = said("tea one"), said("tea two"), said("tea three")
        await memory.add_session_to_memory(session(app, one, two))
        await memory.add_session_to_memory(session(app, one, two))
        await AxMemoryService(server.uri).add_session_to_memory(session(app, one, two, three))
        assert sorted(await found(memory, app, "tea")) == ["tea one", "tea three", "tea two"]
        await memory.add_session_to_memory(session(app, three))
        assert await found(memory, app, "tea") == ["tea three"]
        await memory.add_session_to_memory(session(app, said("tea of t"), name="t"))
        assert len(await found(memory, app, "tea")) == 2

    run(main())


def test_events_are_added_to_what_is_known(memory: AxMemoryService, app: str) -> None:
    async def main() -> None:
        ids: dict[str, Any] = {"app_name": app, "user_id": USER}
        one, two = said("tea one", "1"), said("tea two", "2")
        await memory.add_events_to_memory(**ids, events=[one], session_id="s")
        metadata = {"from": "test"}
        await memory.add_events_to_memory(
            **ids, events=[one, two, said("")], session_id="s", custom_metadata=metadata
        )
        await memory.add_events_to_memory(**ids, events=[said("tea of none", "3")])
        answer = await memory.search_memory(**ids, query="tea")
        by_id = {entry.id: entry for entry in answer.memories}
        assert by_id.keys() == {"1", "2", "3"}
        assert by_id["2"].custom_metadata == metadata
        assert by_id["1"].custom_metadata == {}

    run(main())


def test_what_is_added_directly_is_found(memory: AxMemoryService, app: str) -> None:
    async def main() -> None:
        ids: dict[str, Any] = {"app_name": app, "user_id": USER}
        content = types.Content(role="user", parts=[types.Part(text="likes tea")])
        given = MemoryEntry(content=content, author="me", custom_metadata={"own": 1})
        named = MemoryEntry(id="mine", content=content, timestamp="2026-01-01T00:00:00")
        await memory.add_memory(**ids, memories=[given, named], custom_metadata={"all": 2})
        await memory.add_memory(**ids, memories=[named])
        answer = (await memory.search_memory(**ids, query="tea")).memories
        assert len(answer) == 2
        assert all(entry.id and entry.timestamp for entry in answer)
        (mine,) = [entry for entry in answer if entry.id == "mine"]
        assert mine.timestamp == named.timestamp
        (made,) = [entry for entry in answer if entry.id != "mine"]
        assert (made.author, made.custom_metadata) == ("me", {"own": 1, "all": 2})

    run(main())


def test_a_deleted_memory_does_not_come_back(
    memory: AxMemoryService, server: Server, app: str
) -> None:
    async def main() -> None:
        ids: dict[str, Any] = {"app_name": app, "user_id": USER}
        one, two = said("tea one", "1"), said("tea two", "2")
        await memory.add_session_to_memory(session(app, one, two))
        await memory.delete_memory(**ids, memory_id="1")
        await memory.delete_memory(**ids, memory_id="1")
        await memory.delete_memory(**ids, memory_id="unknown")
        await memory.delete_memory(**ids)
        for service in (memory, AxMemoryService(server.uri)):
            assert await found(service, app, "tea") == ["tea two"]
            await service.add_session_to_memory(session(app, one, two))
            await service.add_events_to_memory(**ids, events=[one], session_id="s")
            assert await found(service, app, "tea") == ["tea two"]

    run(main())


def test_what_is_rewritten_after_many_deletions_is_the_same(
    memory: AxMemoryService, server: Server, app: str
) -> None:
    async def main() -> None:
        ids: dict[str, Any] = {"app_name": app, "user_id": USER}
        events = [said(f"tea {n}", str(n), timestamp=float(n)) for n in range(80)]
        await memory.add_session_to_memory(session(app, *events))
        for n in range(75):
            await memory.delete_memory(**ids, memory_id=str(n))
        fresh = AxMemoryService(server.uri)
        left = [f"tea {n}" for n in range(79, 74, -1)]
        assert await found(memory, app, "tea") == left
        assert await found(fresh, app, "tea") == left
        await fresh.add_session_to_memory(session(app, *events))
        assert await found(memory, app, "tea") == left

    run(main())


def test_of_many_that_add_at_once_nothing_is_lost_and_nothing_is_there_twice(
    server: Server, app: str
) -> None:
    async def main() -> None:
        shared = said("tea shared", "shared")
        adds = [
            AxMemoryService(server.uri).add_events_to_memory(
                app_name=app, user_id=USER, events=[shared, said(f"tea {n}")], session_id="s"
            )
            for n in range(8)
        ]
        await asyncio.gather(*adds)
        answer = await found(AxMemoryService(server.uri), app, "tea")
        assert sorted(answer) == sorted(["tea shared", *(f"tea {n}" for n in range(8))])

    run(main())
