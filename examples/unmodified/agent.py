"""A LangGraph agent that has never heard of Agent Executor: input on stdin, answer on stdout."""

import sys

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

INSTRUCTIONS = "You look after a warehouse. Look every shelf up before you answer."


@tool
def count_shelf(shelf: int) -> str:
    """Count what lies on a shelf."""
    return f"shelf {shelf}: {shelf * 7 % 11} boxes"


def build_graph():
    """Build the graph. Where the model is, and the key for it, is in the environment."""
    chat = ChatAnthropic(model="claude-sonnet-4-5", max_tokens=1024, streaming=True)
    tools = [count_shelf]
    model = chat.bind_tools(tools)

    def assistant(state: MessagesState) -> dict:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("assistant", assistant)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "assistant")
    graph.add_conditional_edges("assistant", tools_condition)
    graph.add_edge("tools", "assistant")
    return graph.compile()


if __name__ == "__main__":
    question = sys.stdin.read()
    messages = [SystemMessage(INSTRUCTIONS), HumanMessage(question)]
    state = build_graph().invoke({"messages": messages}, {"recursion_limit": 100})
    print(state["messages"][-1].text)
