"""A LangGraph graph whose nodes are durable steps: kill it at any line, and it goes on.

Replace the node functions by your own; what calls a model or a tool belongs into a step.
"""

from typing import TypedDict

import agent_executor as ax
from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    """What the nodes hand on."""

    text: str
    summary: str


def summarize(text: str) -> str:
    """Call a model here; this one takes the first words."""
    return " ".join(text.split()[:8])


@ax.agent
def main(ctx: ax.Context) -> dict[str, str]:
    """Run the graph on the input."""

    def summary(state: State) -> dict[str, str]:
        return {"summary": ctx.step("summarize", summarize, state["text"], effect="idempotent")}

    def publish(state: State) -> dict[str, str]:
        ctx.output(state["summary"])
        return {}

    graph = StateGraph(State)
    graph.add_node("summarize", summary)
    graph.add_node("publish", publish)
    graph.add_edge(START, "summarize")
    graph.add_edge("summarize", "publish")
    graph.add_edge("publish", END)
    result = graph.compile().invoke({"text": ctx.input.text, "summary": ""})
    return {"summary": result["summary"]}


if __name__ == "__main__":
    main.run()
