"""Graphs for the tests, as programs: ``python graphs.py NAME``."""

from __future__ import annotations

import json
import operator
import os
import pathlib
import signal
import sys
from typing import Annotated, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import tools_condition
from langgraph.types import interrupt

import agent_executor as ax
from agent_executor.langgraph import durable_model, durable_tools
from agent_executor_langgraph import run


def parrot():
    def say(state: MessagesState) -> dict:
        people = [one.text for one in state["messages"] if isinstance(one, HumanMessage)]
        if people[-1] == "fail":
            raise ax.Fail("asked", "it was asked to fail")
        return {"messages": [AIMessage(f"{len(state['messages'])}: {', '.join(people)}")]}

    builder = StateGraph(MessagesState)
    builder.add_node("say", say)
    builder.add_edge(START, "say")
    return builder.compile()


class Answers(MessagesState):
    found: Annotated[list[str], operator.add]


def asks():
    def colour(_state: Answers) -> dict:
        chosen = interrupt({"question": "Which colour?", "choices": ["red", "blue"]})
        shade = interrupt(f"Which shade of {chosen}?")
        return {"found": [f"colour={shade} {chosen}"]}

    def sure(_state: Answers) -> dict:
        return {"found": [f"sure={interrupt({'ask': 'approval', 'prompt': 'Really?'})}"]}

    def count(_state: Answers) -> dict:
        return {"found": [f"count={interrupt('How many?')}"]}

    inner = StateGraph(Answers)
    inner.add_node("count", count)
    inner.add_edge(START, "count")
    builder = StateGraph(Answers)
    builder.add_node("colour", colour)
    builder.add_node("sure", sure)
    builder.add_node("inner", inner.compile())
    builder.add_node(
        "say", lambda state: {"messages": [AIMessage(", ".join(sorted(state["found"])))]}
    )
    builder.add_edge(START, "colour")
    builder.add_edge(START, "sure")
    builder.add_edge(START, "inner")
    builder.add_edge(["colour", "sure", "inner"], "say")
    builder.add_edge("say", END)
    return builder.compile()


def review():
    def node(_state: MessagesState) -> dict:
        actions = [{"name": "send", "args": {"to": "al"}}, {"name": "drop", "args": {}}]
        reviews = [
            {"action_name": "send", "allowed_decisions": ["approve", "edit", "reject"]},
            {"action_name": "drop", "allowed_decisions": ["approve", "reject"]},
        ]
        decided = interrupt({"action_requests": actions, "review_configs": reviews})
        return {"messages": [AIMessage(json.dumps(decided))]}

    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    return builder.compile()


class Paid(BaseChatModel):
    """A model whose calls are lines of a file; the second one kills once."""

    @property
    def _llm_type(self) -> str:
        return "paid"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        path = pathlib.Path(os.environ["PAID"])
        turn = messages[-1].text
        with path.open("a") as file:
            file.write(f"{turn}\n")
        dies = any(one.text == "die" for one in messages)
        if dies and turn == "2" and not path.with_suffix(".killed").exists():
            path.with_suffix(".killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(f"answer {turn}"))])


def pays():
    model = durable_model(Paid())
    builder = StateGraph(MessagesState)

    def node(number: int):
        def call(state: MessagesState) -> dict:
            asked = [*state["messages"], HumanMessage(str(number))]
            return {"messages": [model.invoke(asked)]}

        return call

    for number in (1, 2, 3):
        builder.add_node(f"n{number}", node(number))
    builder.add_edge(START, "n1")
    builder.add_edge("n1", "n2")
    builder.add_edge("n2", "n3")
    builder.add_edge("n3", "say")
    builder.add_node(
        "say", lambda state: {"messages": [AIMessage(f"{len(state['messages'])} messages")]}
    )
    return builder.compile()


def tools():
    """Two tools in one node: one counts its calls, one asks a person."""

    def effect() -> str:
        """Do something that the world can see."""
        with pathlib.Path(os.environ["PAID"]).open("a") as file:
            file.write("effect\n")
        return "done"

    def human(question: str) -> str:
        """Ask a person."""
        return f"{interrupt(question)} {interrupt('Sure?')}"

    def call(state: MessagesState) -> dict:
        if isinstance(state["messages"][-1], HumanMessage):
            calls = [
                {"name": "effect", "args": {}, "id": "call_1"},
                {"name": "human", "args": {"question": "Who?"}, "id": "call_2"},
            ]
            return {"messages": [AIMessage("", tool_calls=calls)]}
        return {"messages": [AIMessage(", ".join(one.text for one in state["messages"][-2:]))]}

    builder = StateGraph(MessagesState)
    builder.add_node("call", call)
    builder.add_node("tools", durable_tools([effect, human], effects={"effect": "once"}))
    builder.add_edge(START, "call")
    builder.add_conditional_edges("call", tools_condition)
    builder.add_edge("tools", "call")
    return builder.compile()


class Said(TypedDict):
    said: Annotated[list[str], operator.add]


def breakpoint():  # noqa: A001
    builder = StateGraph(Said)
    builder.add_node("first", lambda state: {"said": ["first"]})
    builder.add_node("second", lambda state: {"said": ["second"]})
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    return builder.compile(interrupt_before=["second"])


if __name__ == "__main__":
    name = sys.argv[1]
    if name == "breakpoint":
        run(
            breakpoint,
            read=lambda ctx: {"said": [ctx.input.text]},
            write=lambda state: ", ".join(state["said"]),
        )
    else:
        run(globals()[name])
