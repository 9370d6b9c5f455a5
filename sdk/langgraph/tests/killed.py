"""A program of its own for the tests: a graph that is killed, or waits for a person.

    python killed.py SERVER THREAD FILE start|go-on|resume|ask

It appends to FILE what its nodes do, a line for each time.
"""

from __future__ import annotations

import itertools
import operator
import os
import pathlib
import signal
import sys
from typing import Annotated, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from agent_executor_langgraph import AxSaver


class State(TypedDict):
    said: Annotated[list[str], operator.add]


SERVER, THREAD, FILE, WHAT = sys.argv[1:]
DIE_IN = os.environ.get("DIE_IN", "")


def node(name: str):
    def run(_state: State) -> dict:
        with pathlib.Path(FILE).open("a") as file:
            file.write(f"{name}\n")
        if name == DIE_IN:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"said": [name]}

    return run


def ask(_state: State) -> dict:
    return {"said": [interrupt("And now?")]}


builder = StateGraph(State)
NAMES = ["one", "two", "three", "four"]
for name in NAMES:
    builder.add_node(name, node(name))
builder.add_node("ask", ask)
builder.add_edge(START, "one")
for before, after in itertools.pairwise(NAMES):
    builder.add_edge(before, after)
builder.add_edge("four", "ask")
builder.add_edge("ask", END)
graph = builder.compile(checkpointer=AxSaver(SERVER))
config = {"configurable": {"thread_id": THREAD}}
given = {"start": {"said": []}, "go-on": None, "resume": Command(resume="done")}[WHAT]
# Each step is durable before the next one begins.
result = graph.invoke(given, config, durability="sync")
print(",".join(result["said"]), len(result.get("__interrupt__", ())))
