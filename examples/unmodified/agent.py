"""A LangGraph agent that has never heard of Agent Executor: input on stdin, answer on stdout.

Where its model and its tools are, it learns from the environment, as it would anywhere.
"""

import asyncio
import os
import sys

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_mcp_adapters.client import MultiServerMCPClient
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

INSTRUCTIONS = "You look after a warehouse. Do one thing at a time."


def build_graph(tools):
    """Build the graph."""
    chat = ChatAnthropic(model="claude-sonnet-4-5", max_tokens=1024, streaming=True)
    model = chat.bind_tools(tools)

    async def assistant(state: MessagesState) -> dict:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("assistant", assistant)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "assistant")
    graph.add_conditional_edges("assistant", tools_condition)
    graph.add_edge("tools", "assistant")
    return graph.compile()


async def main() -> None:
    """Do what is asked for."""
    url = os.environ["AX_MCP_WAREHOUSE_URL"]
    client = MultiServerMCPClient({"warehouse": {"transport": "streamable_http", "url": url}})
    graph = build_graph(await client.get_tools())
    messages = [SystemMessage(INSTRUCTIONS), HumanMessage(sys.stdin.read())]
    state = await graph.ainvoke({"messages": messages}, {"recursion_limit": 100})
    print(state["messages"][-1].text)


if __name__ == "__main__":
    asyncio.run(main())
