"""An order that a person has to approve: begun by one process, finished by another.

    python3 order.py ORDER            begins, or goes on
    python3 order.py ORDER yes        answers

The server is named by AX_SERVER. To see that nothing is lost, kill it: KILL_IN=pay dies in the
middle of that node, and the next call goes on there.
"""

import operator
import os
import signal
import sys
from typing import Annotated, TypedDict

from agent_executor_langgraph import AxSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt


class Order(TypedDict):
    """An order."""

    log: Annotated[list[str], operator.add]
    approved: bool


def node(name: str, done: str):
    """Return a node that only says what it has done."""

    def run(_order: Order) -> dict:
        print(f"  {name} ...", flush=True)
        if os.environ.get("KILL_IN") == name:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"log": [done]}

    return run


def approve(order: Order) -> dict:
    """Wait for a person, in whatever process they answer."""
    return {"approved": interrupt(f"{', '.join(order['log'])}. Pay?") == "yes"}


def build(checkpointer: AxSaver):
    """Build the graph; only its checkpointer knows of Agent Executor."""
    graph = StateGraph(Order)
    graph.add_node("reserve", node("reserve", "reserved"))
    graph.add_node("approve", approve)
    graph.add_node("pay", node("pay", "paid"))
    graph.add_node("cancel", node("cancel", "canceled"))
    graph.add_edge(START, "reserve")
    graph.add_edge("reserve", "approve")
    graph.add_conditional_edges("approve", lambda order: "pay" if order["approved"] else "cancel")
    graph.add_edge("pay", END)
    graph.add_edge("cancel", END)
    return graph.compile(checkpointer=checkpointer)


def main() -> None:
    """Begin an order, go on with it, or answer its question."""
    graph = build(AxSaver())
    config = {"configurable": {"thread_id": sys.argv[1]}}
    state = graph.get_state(config)
    if len(sys.argv) > 2:
        given = Command(resume=sys.argv[2])
    else:
        given = None if state.next else {"log": []}
    # Each step is durable before the next one begins.
    order = graph.invoke(given, config, durability="sync")
    for question in order.get("__interrupt__", ()):
        print(question.value)
    print(f"so far: {', '.join(order['log'])}")


if __name__ == "__main__":
    main()
