"""The LangGraph example, killed: each model call is paid once, each effect happens once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_anthropic import call, model_server, text
from fake_runtime import Attempt, Frame, Runtime

pytest.importorskip("langgraph")
pytest.importorskip("langchain_anthropic")

EXAMPLE = Path(__file__).parents[3] / "examples" / "langgraph" / "agent.py"
TURNS = [
    [text("I look."), call("lookup_order", 1, order_id="7"), call("lookup_order", 2, order_id="8")],
    [call("refund", 3, order_id="7", amount=40)],
    [call("notify_customer", 4, order_id="7", text="Refunded.")],
    [text("It is done.")],
]
Shop = tuple[Runtime, list[dict[str, Any]]]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with model_server(TURNS) as (url, paid):
        env = {"MODEL_BASE_URL": url, "PYTHONWARNINGS": "ignore"}
        runtime = Runtime(tmp_path, command=[sys.executable, str(EXAMPLE)], env=env)
        yield runtime, paid


def effects(runtime: Runtime) -> list[str]:
    path = runtime.workspace / "effects.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line.split()[0] for line in lines]


def kinds(runtime: Runtime) -> list[str]:
    entries = runtime.journal.values()
    return [f"{entry['kind']} {entry['name']}" for entry in entries if entry["entry"] == "step"]


def test_it_runs_and_replays_without_a_call(shop: Shop) -> None:
    runtime, paid = shop
    first = runtime.attempt()
    assert first.result == {"answer": "It is done.", "messages": 10}
    assert sorted(kinds(runtime)) == [
        *["model claude-sonnet-4-5"] * 4,
        *["tool lookup_order"] * 2,
        "tool notify_customer",
        "tool refund",
    ]
    usage = {"input_tokens": 10, "output_tokens": 5, "model_calls": 1}
    assert first.of("step_end")[0]["usage"] == usage
    assert "request" not in first.of("step_begin")[0]
    again = runtime.attempt()
    assert again.result == first.result
    assert again.begun() == []
    assert len(paid) == 4


def kill_within(name: str, ready: Callable[[Attempt], bool]) -> Callable[[Attempt, Frame], bool]:
    """Kill the agent while a tool runs: after it began, when something can be seen of it."""

    def on_frame(attempt: Attempt, frame: Frame) -> bool:
        if frame["type"] == "step_begin" and frame["name"] == name:
            if frame["effect"] == "once":
                attempt.runtime.granted[frame["key"]] = frame
                attempt.tell({"type": "granted", "key": frame["key"]})
            while not ready(attempt):
                attempt.process.poll()
            attempt.process.kill()
            return True
        return False

    return on_frame


@pytest.mark.parametrize("name", ["refund", "notify_customer"])
def test_killed_in_the_middle_of_a_tool_call_it_finishes(shop: Shop, name: str) -> None:
    runtime, paid = shop
    runtime.env |= {"SLOW_TOOL": name, "TOOL_SECONDS": "60"}
    short = name.split("_", maxsplit=1)[0]
    killed = runtime.attempt(
        on_frame=kill_within(name, lambda attempt: short in effects(attempt.runtime))
    )
    assert killed.status == -9
    assert not killed.of("end")
    del runtime.env["SLOW_TOOL"]
    for key, begin in runtime.granted.items():  # a person looks it up: the message was sent
        fields = {each: begin[each] for each in ("kind", "name", "effect", "digest")}
        message = {"content": "sent", "tool_call_id": "toolu_4", "name": name}
        result = {"type": "tool", "data": message}
        runtime.journal[key] = {"entry": "step", "key": key, **fields, "result": result}
    done = runtime.attempt()
    assert done.result["answer"] == "It is done."
    assert len(paid) == 4, "each model call is paid once"
    assert effects(runtime) == ["refund", "notify"], "each effect happens once"


@pytest.mark.parametrize("kill_at", [6, 12])
def test_killed_at_a_frame_it_finishes(shop: Shop, kill_at: int) -> None:
    runtime, paid = shop
    runtime.attempt(kill_at=kill_at, when="recorded")
    assert not runtime.granted
    assert runtime.attempt().result["answer"] == "It is done."
    assert len(paid) == 4
    assert effects(runtime) == ["refund", "notify"]


ASYNC = """
import asyncio, operator
from typing import Annotated, TypedDict
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from agent_executor.langgraph import durable_model

class State(TypedDict):
    said: Annotated[list[str], operator.add]

def replies():
    number = 0
    while True:
        number += 1
        yield AIMessage(f"reply {number}", id=f"m{number}")

@ax.agent
async def main(ctx: ax.AsyncContext):
    model = durable_model(GenericFakeChatModel(messages=replies()))
    async def node(state):
        answer = await model.ainvoke(state["topic"])
        return {"said": [state["topic"] + ": " + answer.content]}
    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_conditional_edges(START, lambda _: [Send("node", {"topic": t}) for t in "abc"])
    graph.add_edge("node", END)
    return sorted((await graph.compile().ainvoke({"said": []}))["said"])
main.run()
"""


def test_parallel_nodes_keep_their_keys(agent: Callable[..., Runtime]) -> None:
    runtime = agent(ASYNC, env={"PYTHONWARNINGS": "ignore"})
    first = runtime.attempt()
    assert len(first.result) == 3
    assert len(set(first.begun())) == 3
    for key in list(runtime.journal)[:2]:
        del runtime.journal[key]
        again = runtime.attempt()
        assert again.begun() == [key]
        assert {said[0] for said in again.result} == {"a", "b", "c"}
