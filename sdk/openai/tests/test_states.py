"""States of runs: what is saved, found, fenced off and forgotten."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from agent_executor.client import AsyncClient, ServerError
from agents import (
    Agent,
    OpenAIResponsesModel,
    Runner,
    RunState,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

from agent_executor_openai import AxRunStates, StateConflict, UnknownState
from real import Model, Server

NUMBERS = itertools.count()
set_tracing_disabled(True)


@function_tool(needs_approval=True)
def send_goods(shelf: int) -> str:
    """Send what lies on a shelf."""
    return f"shelf {shelf} is on its way"


def make_agent(model: Model) -> Agent[Any]:
    client = AsyncOpenAI(base_url=f"{model.url}/v1", api_key="placeholder")
    chosen = OpenAIResponsesModel("gpt-5", client)
    return Agent(name="warehouse", model=chosen, tools=[send_goods])


async def waiting(agent: Agent[Any], model: Model) -> RunState[Any, Any]:
    """Return the state of a run that waits for an approval before each of its calls."""
    model.script({"calls": [{"tool": "send_goods", "arguments": {"shelf": 3}}]})
    result = await Runner.run(agent, "Send all.", max_turns=100)
    return result.to_state()


def make_states(server: Server) -> AxRunStates:
    """Return a store that shares nothing with others."""
    number = next(NUMBERS)
    return AxRunStates(AsyncClient(server.url), agent=f"openai-{number}", prefix=f"o{number}")


def again(states: AxRunStates, server: Server) -> AxRunStates:
    """Return the same store as another process sees it."""
    return AxRunStates(AsyncClient(server.url), agent=states._agent, prefix=states._prefix)


async def go_on(agent: Agent[Any], state: RunState[Any, Any]) -> RunState[Any, Any]:
    for item in state.get_interruptions():
        state.approve(item)
    return (await Runner.run(agent, state)).to_state()


def test_it_comes_back_as_it_was(server: Server, model: Model) -> None:
    async def main() -> None:
        agent, states = make_agent(model), make_states(server)
        state = await waiting(agent, model)
        version = await states.save("order 7/ä~2", state)
        saved = await again(states, server).load("order 7/ä~2", agent)
        assert (saved.name, saved.version) == ("order 7/ä~2", version)
        assert saved.state.to_json() == state.to_json()
        await go_on(agent, saved.state)
        assert (await states.load("order 7/ä~2", agent)).state.to_json() == state.to_json()

    asyncio.run(main())


def test_whoever_is_second_is_told(server: Server, model: Model) -> None:
    async def main() -> None:
        agent, states = make_agent(model), make_states(server)
        state = await waiting(agent, model)
        other = again(states, server)
        first = await states.save("order", state)
        with pytest.raises(StateConflict, match="order"):
            await other.save("order", state)
        assert (await other.load("order", agent)).version == first
        second = await states.save("order", state)
        assert second > first
        with pytest.raises(StateConflict):
            await other.save("order", state)
        with pytest.raises(StateConflict):
            await states.save("order", state, after=first)
        with pytest.raises(StateConflict):
            await states.save("order", state, after=0)
        third = await other.save("order", state, after=second)
        assert (await states.load("order", agent)).version == third
        await states.delete("order")
        with pytest.raises(StateConflict):
            await other.save("order", state)

    asyncio.run(main())


def test_of_many_writers_one_wins(server: Server, model: Model) -> None:
    async def main() -> None:
        agent, states = make_agent(model), make_states(server)
        state = await waiting(agent, model)
        await states.save("order", state)
        others = [again(states, server) for _ in range(8)]
        for other in others:
            await other.load("order", agent)
        done = await asyncio.gather(
            *(other.save("order", state) for other in others), return_exceptions=True
        )
        assert sum(isinstance(one, int) for one in done) == 1, done
        assert sum(isinstance(one, StateConflict) for one in done) == 7, done

    asyncio.run(main())


def test_of_two_who_loaded_the_same_in_one_process_one_wins(server: Server, model: Model) -> None:
    async def main() -> None:
        agent, states = make_agent(model), make_states(server)
        await states.save("order", await waiting(agent, model))
        one, two = await states.load("order", agent), await states.load("order", agent)
        fourth = await states.save("order", one.state)
        with pytest.raises(StateConflict):
            await states.save("order", two.state)
        with pytest.raises(StateConflict):
            await states.save("order", two.state, after=two.version)
        assert await states.save("order", one.state) > fourth
        new = await waiting(agent, model)
        assert (
            sum(
                isinstance(done, int)
                for done in await asyncio.gather(
                    *(states.save("order", new) for _ in range(4)), return_exceptions=True
                )
            )
            == 1
        )

    asyncio.run(main())


@pytest.mark.parametrize("seen", [False, True])
def test_a_save_that_nobody_heard_the_end_of_is_made_again(
    server: Server, model: Model, seen: bool
) -> None:
    class Deaf(AsyncClient):
        async def carry(self, plan: Any) -> Any:
            result = await super().carry(plan)
            if isinstance(result, int) and not isinstance(result, bool) and not self.heard:
                self.heard = True
                raise ServerError("AX3001", "the connection broke before the answer")
            return result

        heard = True

    async def main() -> None:
        agent, client = make_agent(model), Deaf(server.url)
        like = make_states(server)
        states = AxRunStates(client, agent=like._agent, prefix=like._prefix)
        state = await waiting(agent, model)
        for _ in range(3):
            client.heard = False
            with pytest.raises(ServerError):
                await states.save("order", state)
            if not seen:
                # What was written is not known here, as after a broken connection.
                states._held.clear()
            version = await states.save("order", state)
            assert (await like.load("order", agent)).version == version
        page = await client.records(f"{like._prefix}/order", "state")
        assert len(page.events) <= 3
        # Somebody else who saves the same has no part in it.
        saved = [await one.load("order", agent) for one in (states, like)]
        client.heard = False
        with pytest.raises(ServerError):
            await states.save("order", saved[0].state)
        with pytest.raises(StateConflict):
            await like.save("order", saved[1].state)
        await states.save("order", saved[0].state)

    asyncio.run(main())


def test_a_version_is_of_one_life_of_its_name(server: Server, model: Model) -> None:
    async def main() -> None:
        agent, states = make_agent(model), make_states(server)
        other, state = again(states, server), await waiting(agent, model)
        first = await states.save("order", state)
        old = await other.load("order", agent)
        await states.delete("order")
        second = await states.save("order", state)
        assert second > first
        for _ in range(3):
            with pytest.raises(StateConflict):
                await other.save("order", old.state)
            with pytest.raises(StateConflict):
                await other.save("order", old.state, after=old.version)
            with pytest.raises(StateConflict):
                await other.save("order", state)
        new = await other.load("order", agent)
        assert new.version == second
        assert await other.save("order", new.state) > second
        await other.delete("order")
        with pytest.raises(StateConflict):
            await other.save("order", new.state)
        assert await other.save("order", new.state, after=0) > second

    asyncio.run(main())


def test_who_looked_before_it_began_finds_its_second_life(server: Server, model: Model) -> None:
    async def main() -> None:
        agent, states = make_agent(model), make_states(server)
        other, state = again(states, server), await waiting(agent, model)
        with pytest.raises(UnknownState):
            await other.load("order", agent)
        await states.save("order", state)
        await states.delete("order")
        version = await states.save("order", state)
        assert (await other.load("order", agent)).version == version

    asyncio.run(main())


def test_names_are_listed_the_newest_first(server: Server, model: Model) -> None:
    async def main() -> None:
        agent, states = make_agent(model), make_states(server)
        assert await states.list() == []
        assert await states.latest(agent) is None
        state = await waiting(agent, model)
        for name in ("a", "b", "c"):
            await states.save(name, state)
            await asyncio.sleep(0.01)
        await states.save("a", state)
        listed = await again(states, server).list()
        assert [one.name for one in listed] == ["a", "c", "b"]
        assert listed[0].saved_at_millis > listed[1].saved_at_millis > 1e12
        latest = await states.latest(agent)
        assert latest is not None and latest.name == "a"
        assert await states.delete("a")
        assert not await states.delete("a")
        assert [one.name for one in await states.list()] == ["c", "b"]

    asyncio.run(main())


def test_what_was_deleted_is_unknown_and_may_begin_anew(server: Server, model: Model) -> None:
    async def main() -> None:
        agent, states = make_agent(model), make_states(server)
        state = await waiting(agent, model)
        other = again(states, server)
        for _ in range(3):
            with pytest.raises(UnknownState, match="order"):
                await other.load("order", agent)
            await states.save("order", state)
            assert (await other.load("order", agent)).state.to_json() == state.to_json()
            await states.delete("order")

    asyncio.run(main())


def test_names_that_are_none_are_refused(server: Server, model: Model) -> None:
    async def main() -> None:
        states = make_states(server)
        state = await waiting(make_agent(model), model)
        for name in ("", "x" * 200):
            with pytest.raises(ValueError, match="name"):
                await states.save(name, state)

    asyncio.run(main())


def test_what_did_not_change_is_not_stored_again(server: Server, model: Model) -> None:
    """A run that waits again and again: its state grows, what is stored grows no faster."""

    async def main() -> None:
        agent, states = make_agent(model), make_states(server)
        state = await waiting(agent, model)
        stored = []
        for _ in range(40):
            await states.save("order", state)
            saved = await again(states, server).load("order", agent)
            assert saved.state.to_json() == state.to_json()
            stored.append(await size(states, "order"))
            state = await go_on(agent, saved.state)
        whole = len(state.to_string())
        assert stored[-1] - stored[19] < 1.5 * stored[19], "twice as many saves, twice as much"
        assert stored[-1] < 6 * whole, (stored[-1], whole)

    asyncio.run(main())


async def size(states: AxRunStates, name: str) -> int:
    """Return how many bytes were ever recorded under a name."""
    total, after = 0, 0
    while True:
        page = await states._client.events(states._name(name), after=after)
        for event in page.events:
            for part in event.data.get("parts", ()):
                body = part["body"]
                total += int(body["blob"]["bytes"]) if "blob" in body else len(body["text"])
        if not page.events or page.events[-1].seq == page.last:
            return total
        after = page.events[-1].seq


def test_a_server_that_is_killed_has_kept_what_it_acknowledged(
    own_server: Callable[[], Server], model: Model
) -> None:
    async def main() -> None:
        agent, server = make_agent(model), own_server()
        states, state = make_states(server), await waiting(agent, model)
        await states.save("order", state)
        await states.save("order", state)
        server.kill()
        saved = await again(states, own_server()).load("order", agent)
        assert saved.state.to_json() == state.to_json()

    asyncio.run(main())
