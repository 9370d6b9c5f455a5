"""Delta channels: their values are made from what was written, back to the last whole one."""

from __future__ import annotations

import asyncio
from typing import Annotated, TypedDict
from uuid import uuid4

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Send

from agent_executor_langgraph import AxSaver


def extend(value: list, writes: list) -> list:
    return [*value, *(one for write in writes for one in write)]


class State(TypedDict):
    said: Annotated[list, DeltaChannel(extend, snapshot_frequency=7)]


def build(saver):
    builder = StateGraph(State)
    builder.add_node("many", lambda state: {"said": [f"m{state['said'][-1]}"]})
    builder.add_node("one", lambda state: {"said": ["one"]})
    builder.add_conditional_edges(
        START, lambda _: ["one", *(Send("many", {"said": [n]}) for n in range(12))]
    )
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_their_values_come_back_in_the_order_in_which_they_were_written(
    server, durability
) -> None:
    config = {"configurable": {"thread_id": str(uuid4())}}
    expected = []
    for number in range(12):
        graph = build(AxSaver(server.url))
        done = graph.invoke({"said": [f"in{number}"]}, config, durability=durability)["said"]
        assert done[: len(expected)] == expected
        expected = done
    saver = AxSaver(server.url)
    assert build(saver).get_state(config).values["said"] == expected
    # As LangGraph's own walk over the ancestors says.
    own = BaseCheckpointSaver.get_delta_channel_history(saver, config=config, channels=["said"])
    assert saver.get_delta_channel_history(config=config, channels=["said"]) == own
    awaited = AxSaver(server.url).aget_delta_channel_history(config=config, channels=["said"])
    assert asyncio.run(awaited) == own


def test_pruning_keeps_what_the_newest_checkpoint_rests_on(server) -> None:
    config = {"configurable": {"thread_id": str(uuid4())}}
    saver = AxSaver(server.url)
    for number in range(40):
        build(saver).invoke({"said": [f"in{number}"]}, config)
    expected = build(saver).get_state(config).values
    before = len(list(saver.list(config)))
    saver.prune([config["configurable"]["thread_id"]])
    reader = AxSaver(server.url)
    assert len(list(reader.list(config))) < before / 4
    assert build(reader).get_state(config).values == expected
    more = build(reader).invoke({"said": ["more"]}, config)["said"]
    assert more[: len(expected["said"])] == expected["said"]
