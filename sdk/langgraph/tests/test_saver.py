"""The checkpointer against a real server: what graphs see, what is stored, who is refused."""

from __future__ import annotations

import asyncio
import operator
import os
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, TypedDict
from uuid import uuid4

import pytest
from langgraph.checkpoint.base.id import uuid6
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from agent_executor.client import Client
from agent_executor.records import Collection
from agent_executor_langgraph import AxSaver, Overtaken, keeper


class State(TypedDict):
    said: Annotated[list[str], operator.add]


def thread(name: str | None = None, **more) -> dict:
    return {"configurable": {"thread_id": name or str(uuid4()), **more}}


def later(read) -> dict:
    """Return a checkpoint that comes after one that was read."""
    return {**read.checkpoint, "id": str(uuid6())}


def counter(saver, *, steps: int = 1):
    builder = StateGraph(State)
    before = START
    for number in range(steps):
        builder.add_node(f"n{number}", lambda state, n=number: {"said": [f"n{n}"]})
        builder.add_edge(before, f"n{number}")
        before = f"n{number}"
    builder.add_edge(before, END)
    return builder.compile(checkpointer=saver)


def ids(saver, config) -> list[str]:
    return [one.config["configurable"]["checkpoint_id"] for one in saver.list(config)]


@pytest.fixture
def saver(server):
    return AxSaver(server.url)


def test_a_graph_goes_on_where_another_process_left_it(server, saver) -> None:
    config = thread()
    assert counter(saver).invoke({"said": ["a"]}, config)["said"] == ["a", "n0"]
    other = AxSaver(server.url)
    assert counter(other).invoke({"said": ["b"]}, config)["said"] == ["a", "n0", "b", "n0"]
    history = [one.values.get("said") for one in counter(saver).get_state_history(config)]
    assert history[0] == ["a", "n0", "b", "n0"]
    assert len(history) == 6


def test_waiting_and_awaiting_see_the_same(server, saver) -> None:
    config = thread()
    asyncio.run(counter(saver, steps=3).ainvoke({"said": ["a"]}, config))
    waited = list(saver.list(config))

    async def awaited():
        return [one async for one in AxSaver(server.url).alist(config)]

    assert asyncio.run(awaited()) == waited
    assert saver.get_tuple(config) == waited[0]
    assert counter(saver).invoke({"said": ["b"]}, config)["said"][-2:] == ["b", "n0"]


def test_a_fork_of_the_past_leaves_the_rest_as_it_was(saver) -> None:
    config = thread()
    graph = counter(saver, steps=2)
    graph.invoke({"said": ["a"]}, config)
    past = next(one for one in graph.get_state_history(config) if one.next == ("n1",))
    forked = graph.update_state(past.config, {"said": ["instead"]})
    assert graph.invoke(None, forked)["said"] == ["a", "n0", "instead", "n1"]
    assert graph.get_state(past.config).values["said"] == ["a", "n0"]
    # From the past itself, without a change of it.
    assert graph.invoke(None, past.config)["said"] == ["a", "n0", "n1"]


def test_parallel_tasks_and_subgraphs_write_at_the_same_time(saver) -> None:
    inner = StateGraph(State)
    inner.add_node("deep", lambda state: {"said": [interrupt("go on?") or "no"]})
    inner.add_edge(START, "deep")
    outer = StateGraph(State)
    outer.add_node("inner", inner.compile(checkpointer=True))
    outer.add_node("flat", lambda state: {"said": [state["said"][0]]})
    outer.add_conditional_edges(
        START, lambda _: ["inner", *(Send("flat", {"said": [str(n)]}) for n in range(20))]
    )
    graph = outer.compile(checkpointer=saver)
    config = thread()
    paused = graph.invoke({"said": []}, config)
    assert len(paused["__interrupt__"]) == 1
    done = graph.invoke(Command(resume="yes"), config)
    assert sorted(done["said"]) == sorted([*(str(n) for n in range(20)), "yes"])


def test_the_run_that_was_overtaken_is_told_and_changes_nothing(server) -> None:
    config = thread()
    slow, fast = AxSaver(server.url), AxSaver(server.url)
    counter(slow).invoke({"said": ["a"]}, config)
    read = slow.get_tuple(config)
    counter(fast).invoke({"said": ["b"]}, config)
    before = ids(fast, config)
    late = later(read)
    with pytest.raises(Overtaken, match="another run"):
        slow.put(read.config, late, {"source": "loop", "step": 9}, {})
    assert ids(fast, config) == before
    # It may go on when it has read what the other one did.
    assert counter(slow).invoke({"said": ["c"]}, config)["said"][-3:] == ["n0", "c", "n0"]


def test_who_looks_at_the_history_of_a_thread_lets_no_stale_run_pass(server) -> None:
    config = thread()
    slow, fast = AxSaver(server.url), AxSaver(server.url)
    counter(slow).invoke({"said": ["a"]}, config)
    read = slow.get_tuple(config)
    counter(fast).invoke({"said": ["b"]}, config)
    before = ids(fast, config)
    # As a user interface in the same process does.
    assert len(list(counter(slow).get_state_history(config))) == 6
    with pytest.raises(Overtaken):
        slow.put(read.config, later(read), {"source": "loop", "step": 9}, {})
    assert counter(slow).get_state(read.config).values["said"] == ["a", "n0"]
    with pytest.raises(Overtaken):
        slow.put(read.config, later(read), {"source": "loop", "step": 9}, {})
    assert ids(fast, config) == before


def test_a_checkpoint_of_the_past_can_be_named_whoever_went_on_from_it(server) -> None:
    config = thread()
    here, other = AxSaver(server.url), AxSaver(server.url)
    counter(here).invoke({"said": ["a"]}, config)
    past = next(one for one in counter(here).get_state_history(config) if one.next == ("n0",))
    # Looked at, long before somebody goes on from it.
    for saver in (here, other):
        assert counter(saver).get_state(past.config).values["said"] == ["a"]
    for number in range(2):
        for saver in (here, other):
            counter(other).invoke({"said": [str(number)]}, config)
            forked = counter(saver).update_state(past.config, {"said": ["x"]}, as_node="__start__")
            assert counter(saver).invoke(None, forked)["said"] == ["a", "x", "n0"]


def test_a_run_is_fenced_however_many_threads_came_between(server, monkeypatch) -> None:
    monkeypatch.setattr(keeper, "THREADS_MAX", 2)
    config = thread()
    slow, fast = AxSaver(server.url), AxSaver(server.url)
    counter(slow).invoke({"said": ["a"]}, config)
    read = slow.get_tuple(config)
    for _ in range(4):
        counter(slow).invoke({"said": ["a"]}, thread())
    counter(fast).invoke({"said": ["b"]}, config)
    with pytest.raises(Overtaken):
        slow.put(read.config, later(read), {"source": "loop", "step": 9}, {})


def test_pruning_hides_no_conflict_and_makes_none(server) -> None:
    config = thread()
    slow, fast = AxSaver(server.url), AxSaver(server.url)
    for _ in range(30):
        counter(fast).invoke({"said": ["a"]}, config)
    current, overtaken = AxSaver(server.url), slow.get_tuple(config)
    counter(fast).invoke({"said": ["b"]}, config)
    read = current.get_tuple(config)
    fast.prune([config["configurable"]["thread_id"]])
    with pytest.raises(Overtaken):
        slow.put(overtaken.config, later(overtaken), {"source": "loop", "step": 9}, {})
    current.put(read.config, later(read), {"source": "loop", "step": 9}, {})


def test_two_runs_of_one_process_do_not_lose_each_others_steps(saver) -> None:
    config = thread()
    graph = counter(saver)
    graph.invoke({"said": ["a"]}, config)
    one, other = saver.get_tuple(config), saver.get_tuple(config)
    first = later(one)
    saver.put(one.config, first, {"source": "loop", "step": 9}, {})
    second = later(other)
    with pytest.raises(Overtaken):
        saver.put(other.config, second, {"source": "loop", "step": 9}, {})


def test_a_graph_that_was_overtaken_fails_with_that(server) -> None:
    config = thread()
    other = counter(AxSaver(server.url))
    other.invoke({"said": ["a"]}, config)

    def slow(_state: State) -> dict:
        # As if this process had stood still, and another one had been started in its place.
        other.invoke({"said": ["b"]}, config)
        return {"said": ["slow"]}

    builder = StateGraph(State)
    builder.add_node("slow", slow)
    builder.add_edge(START, "slow")
    graph = builder.compile(checkpointer=AxSaver(server.url))
    with pytest.raises(Overtaken):
        graph.invoke({"said": ["c"]}, config)
    with pytest.raises(Overtaken):
        asyncio.run(graph.ainvoke({"said": ["c"]}, config))
    assert "slow" not in other.get_state(config).values["said"]


def test_forks_can_be_allowed(server) -> None:
    config = thread()
    slow, fast = AxSaver(server.url, forks=True), AxSaver(server.url)
    counter(slow).invoke({"said": ["a"]}, config)
    read = slow.get_tuple(config)
    counter(fast).invoke({"said": ["b"]}, config)
    late = later(read)
    slow.put(read.config, late, {"source": "loop", "step": 9}, {})
    assert late["id"] in ids(fast, config)


def test_writes_of_many_tasks_from_many_processes_are_all_there(server, saver) -> None:
    config = thread()
    counter(saver).invoke({"said": ["a"]}, config)
    at = saver.get_tuple(config).config

    def write(number: int) -> None:
        own = AxSaver(server.url) if number % 5 == 0 else saver
        own.put_writes(at, [("said", number), ("__error__", "x")], f"task-{number:03}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    # What a task writes again is the same; a special write takes the place of the one before.
    saver.put_writes(at, [("said", "again"), ("__error__", "y")], "task-000")
    writes = AxSaver(server.url).get_tuple(config).pending_writes
    assert [value for _, channel, value in writes if channel == "said"] == list(range(40))
    errors = [value for _, channel, value in writes if channel == "__error__"]
    assert errors == ["y", *["x"] * 39]


def test_a_deleted_thread_can_be_begun_again_and_again(server, saver) -> None:
    config = thread("a thread/with ~2 strange %2F names\n")
    other = AxSaver(server.url)
    for number in range(4):
        assert saver.get_tuple(config) is None
        counter(saver).invoke({"said": [str(number)]}, config)
        assert other.get_tuple(config).checkpoint["channel_values"]["said"][0] == str(number)
        (other if number % 2 else saver).delete_thread(config["configurable"]["thread_id"])
        assert saver.get_tuple(config) is None
        assert ids(other, config) == []


@pytest.mark.parametrize("where", ["here", "elsewhere", "elsewhere, and it was forgotten here"])
@pytest.mark.parametrize("begun", [False, True])
def test_a_run_whose_thread_is_deleted_beneath_it_leaves_nothing_in_the_next(
    server, saver, monkeypatch, where, begun
) -> None:
    config = thread()
    counter(saver).invoke({"said": ["a"]}, config)
    read = saver.get_tuple(config)
    other = AxSaver(server.url)
    if "forgotten" in where:
        monkeypatch.setattr(keeper, "THREADS_MAX", 1)
        saver.get_tuple(thread())
    (saver if where == "here" else other).delete_thread(config["configurable"]["thread_id"])
    if begun:
        counter(other).invoke({"said": ["b"]}, config)
    before = ids(other, config)
    with pytest.raises(Overtaken, match="deleted"):
        saver.put_writes(read.config, [("said", ["late"])], "task")
    with pytest.raises(Overtaken, match="deleted"):
        saver.put(read.config, later(read), {"source": "loop", "step": 9}, {})
    assert ids(other, config) == before
    # It may go on when it has read that the thread is gone.
    said = counter(saver).invoke({"said": ["c"]}, config)["said"]
    assert said == (["b", "n0", "c", "n0"] if begun else ["c", "n0"])


def test_a_first_run_whose_thread_is_deleted_beneath_it_leaves_nothing(server, saver) -> None:
    config, other = thread(), AxSaver(server.url)
    assert saver.get_tuple(config) is None
    counter(other).invoke({"said": ["a"]}, config)
    first = other.get_tuple(config)
    other.delete_thread(config["configurable"]["thread_id"])
    with pytest.raises(Overtaken, match="deleted"):
        saver.put(config, later(first), {"source": "input", "step": -1}, {})
    assert ids(other, config) == []


def test_what_nobody_read_is_written_to_the_thread_after_a_deleted_one(server, saver) -> None:
    config, other = thread(), AxSaver(server.url)
    counter(other).invoke({"said": ["a"]}, config)
    first = other.get_tuple(config)
    assert len(ids(saver, config)) == 3
    other.delete_thread(config["configurable"]["thread_id"])
    late = later(first)
    saver.put(config, late, {"source": "input", "step": -1}, first.checkpoint["channel_versions"])
    assert other.get_tuple(config).checkpoint == late


def test_all_threads_are_listed_but_no_other_sessions(server) -> None:
    saver = AxSaver(server.url, prefix="mine")
    names = [f"t{n}" for n in range(30)]
    for name in names:
        counter(saver).invoke({"said": ["a"]}, thread(name))
    found = [one.config["configurable"]["thread_id"] for one in saver.list(None)]
    assert sorted(set(found)) == sorted(names)
    assert len(list(saver.list(None, filter={"source": "input"}))) == 30
    assert len(list(saver.list(None, limit=7))) == 7


def test_a_copy_is_a_branch_and_goes_its_own_way(server, saver) -> None:
    source, target = str(uuid4()), str(uuid4())
    graph = counter(saver)
    graph.invoke({"said": ["a"]}, thread(source))
    saver.copy_thread(source, target)
    graph.invoke({"said": ["b"]}, thread(target))
    graph.invoke({"said": ["c"]}, thread(source))
    assert graph.get_state(thread(target)).values["said"] == ["a", "n0", "b", "n0"]
    assert graph.get_state(thread(source)).values["said"] == ["a", "n0", "c", "n0"]
    found = Client(server.url).session(f"lg/{target}").raw
    assert found["parent"] == Client(server.url).session(f"lg/{source}").id
    with pytest.raises(ValueError, match="not empty"):
        saver.copy_thread(source, target)


def test_no_thread_has_an_impossible_name(saver) -> None:
    for name in ["", "x" * 300]:
        with pytest.raises(ValueError, match="no thread"):
            saver.get_tuple({"configurable": {"thread_id": name}})


def stored(server, name: str) -> tuple[int, int]:
    """Return how many bytes the records of a thread have, and in how many values."""
    client = Client(server.url)
    collections = [
        Collection(client, f"lg/{name}", which, agent="langgraph")
        for which in ("checkpoints", "writes")
    ]
    blobs = [
        blob
        for collection in collections
        for record in collection.refresh()
        for blob in record.blobs.values()
    ]
    return sum({blob.id or object(): blob.bytes for blob in blobs}.values()), len(blobs)


class Messages(TypedDict):
    messages: Annotated[list[str], operator.add]
    document: str


def test_a_growing_list_of_messages_is_stored_in_proportion_to_what_is_new(server) -> None:
    # Texts that cannot be compressed, so that nothing but the deltas makes it small.
    texts = [random.Random(n).randbytes(5_000).hex() for n in range(100)]
    document = random.Random(0).randbytes(200_000).hex()
    name = str(uuid4())

    def build(saver):
        builder = StateGraph(Messages)
        builder.add_node("say", lambda state: {"messages": [texts[len(state["messages"])]]})
        builder.add_edge(START, "say")
        builder.add_conditional_edges(
            "say", lambda state: END if len(state["messages"]) % 25 == 0 else "say"
        )
        return builder.compile(checkpointer=saver)

    for number in range(4):
        # A new process each time, with nothing in memory.
        graph = build(AxSaver(server.url))
        given = {"messages": [], "document": document} if number == 0 else {"messages": []}
        graph.invoke(given, {**thread(name), "recursion_limit": 1000})
    reader = build(AxSaver(server.url))
    assert reader.get_state(thread(name)).values == {"messages": texts, "document": document}
    new = sum(map(len, texts)) + len(document)
    size, _ = stored(server, name)
    print(f"{size} bytes are stored for {new} new ones")
    # Each message comes as a write and as a part of the list; a list is written whole now and then.
    assert size < 6 * new, f"{size} bytes for {new} new ones"
    history = list(reader.get_state_history(thread(name)))
    lengths = [len(one.values["messages"]) for one in history if one.values.get("messages")]
    assert lengths == sorted(lengths, reverse=True)
    for one in history[::17]:
        messages = one.values.get("messages", [])
        assert messages == texts[: len(messages)]


def test_a_channel_that_does_not_change_is_stored_once(server) -> None:
    name = str(uuid4())
    saver = AxSaver(server.url)
    builder = StateGraph(Messages)
    builder.add_node("say", lambda state: {"messages": ["x"]})
    builder.add_edge(START, "say")
    graph = builder.compile(checkpointer=saver)
    document = os.urandom(500_000).hex()
    graph.invoke({"messages": [], "document": document}, thread(name))
    before, _ = stored(server, name)
    for _ in range(50):
        graph.invoke({"messages": []}, thread(name))
    after, _ = stored(server, name)
    assert after - before < 600_000, "fifty times a million would be fifty million"


def test_what_is_pruned_is_gone_and_opening_costs_what_is_left(server, saver) -> None:
    config = thread()
    name = config["configurable"]["thread_id"]
    graph = counter(saver)
    for number in range(40):
        graph.invoke({"said": [str(number)]}, config)
    values = graph.get_state(config).values
    saver.prune([name])
    assert len(ids(saver, config)) == 1
    reader = AxSaver(server.url)
    assert counter(reader).get_state(config).values == values
    view = Collection(Client(server.url), f"lg/{name}", "checkpoints", agent="langgraph")
    assert len(view.refresh()) == 1
    assert counter(reader).invoke({"said": ["more"]}, config)["said"][-2:] == ["more", "n0"]
    with pytest.raises(ValueError, match="strategy"):
        saver.prune([name], strategy="half")
    saver.prune([name], strategy="delete")
    assert ids(reader, config) == []
