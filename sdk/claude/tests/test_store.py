"""The store against the law of the SDK, and what the law does not say."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Callable
from typing import Any, cast

import pytest
from agent_executor.client import AsyncClient, ServerError
from claude_agent_sdk import list_sessions_from_store, project_key_for_directory
from claude_agent_sdk.testing import run_session_store_conformance
from claude_agent_sdk.types import SessionKey, SessionStoreEntry

from agent_executor_claude import AxSessionStore
from real import Server

PROJECT = "-home-ann-shop"
NUMBERS = itertools.count()


def entry(text: str, name: str = "") -> SessionStoreEntry:
    """Return an entry with a uuid that its name, or text, decides."""
    made = str(uuid.uuid5(uuid.NAMESPACE_URL, name or text))
    message = {"role": "user", "content": text}
    time = "2026-01-02T03:04:05.678Z"
    said = {"type": "user", "uuid": made, "timestamp": time, "message": message}
    return cast(SessionStoreEntry, said)


def fresh_key() -> SessionKey:
    return {"project_key": PROJECT, "session_id": str(uuid.uuid4())}


def sub(key: SessionKey, subpath: str) -> SessionKey:
    return {**key, "subpath": subpath}


def make_store(server: Server) -> AxSessionStore:
    """Return a store that shares nothing with others."""
    number = next(NUMBERS)
    return AxSessionStore(AsyncClient(server.url), agent=f"claude-{number}", prefix=f"c{number}")


def again(store: AxSessionStore, server: Server) -> AxSessionStore:
    """Return the same store as another process sees it."""
    return AxSessionStore(AsyncClient(server.url), agent=store._agent, prefix=store._prefix)


async def records(store: AxSessionStore, key: SessionKey, collection: str) -> list[Any]:
    name = f"{store._prefix}/{key['project_key']}/{key['session_id']}"
    page = await store._client.records(name, collection)
    assert not page.events or page.events[-1].seq == page.last, "it is short enough for one page"
    return [event.data for event in page.events]


def test_the_fourteen_contracts_of_the_sdk_hold(server: Server) -> None:
    asyncio.run(run_session_store_conformance(lambda: make_store(server)))


def test_an_entry_is_kept_once_whoever_appends_it_again(server: Server) -> None:
    async def main() -> None:
        store, key = make_store(server), fresh_key()
        one, two, three = entry("one"), entry("two"), entry("three")
        await store.append(key, [one, two, one])
        await store.append(key, [one, two])
        assert len(await records(store, key, "main")) == 1, "nothing new, nothing written"
        await again(store, server).append(key, [two, three])
        await store.append(key, [three, two, one])
        for reader in (store, again(store, server)):
            assert await reader.load(key) == [one, two, three]
        assert len(await records(store, key, "main")) == 2

    asyncio.run(main())


def test_entries_without_a_uuid_are_kept_as_often_as_they_come(server: Server) -> None:
    async def main() -> None:
        store, key = make_store(server), fresh_key()
        mode = cast(SessionStoreEntry, {"type": "mode", "mode": "plan"})
        await store.append(key, [mode])
        await store.append(key, [mode, mode])
        assert await again(store, server).load(key) == [mode] * 3

    asyncio.run(main())


def test_an_append_that_nobody_heard_the_end_of_is_kept_once(server: Server) -> None:
    """The SDK makes a call again that failed; its entries need not have a uuid."""

    class Deaf(AsyncClient):
        async def carry(self, plan: Any) -> Any:
            result = await super().carry(plan)
            if isinstance(result, int) and not self.heard:
                self.heard = True
                raise ServerError("AX3001", "the connection broke before the answer")
            return result

        heard = True

    async def main() -> None:
        store = make_store(server)
        client = Deaf(server.url)
        deaf, key = AxSessionStore(client, agent=store._agent, prefix=store._prefix), fresh_key()
        mode = cast(SessionStoreEntry, {"type": "mode", "mode": "plan"})
        await deaf.append(key, [mode])
        deaf._held.clear()
        await deaf.load(key)
        transcript = next(iter(deaf._held.values())).transcripts["main"]
        last, client.heard = transcript.view._last, False
        with pytest.raises(ServerError):
            await deaf.append(key, [mode])
        # What was written is not known here, as after a broken connection.
        transcript.view._last = last
        await deaf.append(key, [mode])
        assert await store.load(key) == [mode, mode]

    asyncio.run(main())


def test_writers_at_the_same_time_lose_nothing_and_keep_their_order(server: Server) -> None:
    async def main() -> None:
        key = fresh_key()
        store = make_store(server)
        stores = [store, again(store, server), again(store, server)]
        both = entry("both")

        async def write(number: int, writer: AxSessionStore) -> None:
            for count in range(10):
                await writer.append(key, [entry(f"{number} {count}"), both])
                await writer.append(sub(key, f"subagents/agent-{number}"), [entry(f"s {count}")])

        await asyncio.gather(*(write(number, one) for number, one in enumerate(stores)))
        loaded = await again(store, server).load(key)
        assert loaded is not None
        texts = [cast(Any, one)["message"]["content"] for one in loaded]
        assert sorted(texts) == sorted([f"{n} {c}" for n in range(3) for c in range(10)] + ["both"])
        for number in range(3):
            own = [text for text in texts if text.startswith(f"{number} ")]
            assert own == [f"{number} {count}" for count in range(10)]
        assert sorted(await store.list_subkeys(cast(Any, key))) == [
            f"subagents/agent-{number}" for number in range(3)
        ]

    asyncio.run(main())


def test_many_subagents_are_kept_apart(server: Server) -> None:
    async def main() -> None:
        store, key = make_store(server), fresh_key()
        names = [f"subagents/agent-{number}" for number in range(100)]
        await store.append(key, [entry("go")])
        for name in names:
            await store.append(sub(key, name), [entry("the same"), entry(f"of {name}")])
        reader = again(store, server)
        assert await reader.list_subkeys(cast(Any, key)) == names
        for name in names:
            assert await reader.load(sub(key, name)) == [entry("the same"), entry(f"of {name}")]
        await reader.delete(sub(key, names[3]))
        assert await store.load(sub(key, names[3])) is None
        assert await store.list_subkeys(cast(Any, key)) == names[:3] + names[4:]
        # Another process that still remembers it begins it anew.
        await store.append(sub(key, names[3]), [entry("the same")])
        assert await reader.load(sub(key, names[3])) == [entry("the same")]
        assert names[3] in await reader.list_subkeys(cast(Any, key))

    asyncio.run(main())


def test_what_was_deleted_is_gone_and_begins_anew(server: Server) -> None:
    async def main() -> None:
        store, key = make_store(server), fresh_key()
        reader = again(store, server)
        for text in ("one", "two", "three"):
            await store.append(key, [entry(text)])
            assert await reader.load(key) == [entry(text)]
            assert [one["session_id"] for one in await reader.list_sessions(PROJECT)] == [
                key["session_id"]
            ]
            await reader.delete(key)
            assert await reader.load(key) is None
            assert await store.load(key) is None
            assert await reader.list_sessions(PROJECT) == []

    asyncio.run(main())


def test_who_looked_before_it_began_finds_its_second_life(server: Server) -> None:
    async def main() -> None:
        store, key = make_store(server), fresh_key()
        loads, lists = again(store, server), again(store, server)
        name = "subagents/agent-1"
        assert await loads.load(key) is None
        assert await lists.list_subkeys(cast(Any, key)) == []
        await store.append(key, [entry("one")])
        await store.delete(key)
        await store.append(key, [entry("two")])
        await store.append(sub(key, name), [entry("three")])
        assert await loads.load(key) == [entry("two")]
        assert await lists.list_subkeys(cast(Any, key)) == [name]

    asyncio.run(main())


def test_a_summary_that_was_left_behind_is_made_up_for(server: Server) -> None:
    async def main() -> None:
        store, key = make_store(server), fresh_key()
        await store.append(key, [entry("the first prompt")])
        transcript = next(iter(store._held.values())).transcripts["main"]

        async def die(client: AsyncClient) -> None:
            raise KeyError("the process ends between the entries and the summary")

        transcript._summarize = die  # type: ignore[method-assign]
        title = cast(SessionStoreEntry, {"type": "custom-title", "customTitle": "Boxes"})
        with pytest.raises(KeyError):
            await store.append(key, [title])
        [summary] = await again(store, server).list_session_summaries(PROJECT)
        assert summary["data"]["custom_title"] == "Boxes"
        assert summary["data"]["first_prompt"] == "the first prompt"

    asyncio.run(main())


def test_the_lists_of_the_sdk_show_it(server: Server) -> None:
    async def main() -> None:
        store = make_store(server)
        directory = "/" + "a/very/long/path/" * 30
        project = project_key_for_directory(directory)
        ids = [str(uuid.uuid4()) for _ in range(3)]
        for number, session in enumerate(ids):
            key: SessionKey = {"project_key": project, "session_id": session}
            await store.append(key, [entry(f"prompt {number}", session)])
        listed = await list_sessions_from_store(again(store, server), directory=directory)
        assert {(one.session_id, one.first_prompt) for one in listed} == {
            (session, f"prompt {number}") for number, session in enumerate(ids)
        }

    asyncio.run(main())


@pytest.mark.parametrize("eager", [True, False])
def test_storage_is_linear_in_what_is_new(server: Server, eager: bool) -> None:
    async def main() -> None:
        store, key = make_store(server), fresh_key()
        kept: list[SessionStoreEntry] = []
        sizes = []
        for number in range(160):
            kept.append(entry(f"{number} " + "x" * 400))
            # What came before comes again, as after a resume.
            await store.append(key, kept if not eager else kept[-3:])
            if number in {79, 159}:
                said = [*await pages(store, key, "main"), *await pages(store, key, "summary")]
                sizes.append(sum(len(str(one)) for one in said))
        assert await store.load(key) == kept
        assert sizes[1] - sizes[0] < 1.2 * sizes[0], sizes
        assert sizes[1] < 2 * sum(len(str(one)) for one in kept), sizes

    asyncio.run(main())


async def pages(store: AxSessionStore, key: SessionKey, collection: str) -> list[Any]:
    """Return all records of a collection that were ever written, also those replaced since."""
    name = f"{store._prefix}/{key['project_key']}/{key['session_id']}"
    found: list[Any] = []
    after = 0
    while True:
        page = await store._client.events(name, after=after)
        for event in page.events:
            if event.kind == "record.written" and event.data["collection"] == collection:
                found.append(event.data)
        if not page.events or page.events[-1].seq == page.last:
            return found
        after = page.events[-1].seq


def test_a_large_entry_comes_back(server: Server) -> None:
    async def main() -> None:
        store, key = make_store(server), fresh_key()
        large = entry("ü\u2028\ud83d" + "x" * (9 << 20), "large")
        await store.append(key, [entry("small"), large])
        assert await again(store, server).load(key) == [entry("small"), large]

    asyncio.run(main())


def test_a_server_that_is_killed_has_kept_what_it_acknowledged(
    own_server: Callable[[], Server],
) -> None:
    async def main() -> None:
        server = own_server()
        store, key = make_store(server), fresh_key()
        kept = [entry(f"{number}") for number in range(20)]
        for one in kept:
            await store.append(key, [one])
        server.kill()
        assert await again(store, own_server()).load(key) == kept

    asyncio.run(main())
