"""A shop assistant: a LangGraph agent whose model and tool calls survive ``kill -9``."""

import os
import time
from pathlib import Path

import agent_executor as ax
from agent_executor.langgraph import durable_model, durable_tools
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import tools_condition

WORKSPACE = Path(os.environ.get("AX_WORKSPACE", "."))
EFFECTS = Path(os.environ.get("EFFECTS_FILE", WORKSPACE / "effects.txt"))
TOOL_SECONDS = {"refund": 0.0, "notify_customer": 0.0}
TOOL_SECONDS[os.environ.get("SLOW_TOOL", "")] = float(os.environ.get("TOOL_SECONDS", "20"))
INSTRUCTIONS = "You help the customers of a shop. Look an order up before you refund it."


def effect(line: str) -> None:
    """Do something that the world can see: append a line to a file."""
    with EFFECTS.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


@tool
def lookup_order(order_id: str) -> str:
    """Look up what an order was about and what it cost."""
    return f"order {order_id}: a blue kettle, 40 EUR, delivered"


@tool
def refund(order_id: str, amount: int) -> str:
    """Refund an order, in whole euros."""
    key = ax.idempotency_key()
    done = EFFECTS.read_text(encoding="utf-8") if EFFECTS.exists() else ""
    if key not in done:  # a payment service would look at the key itself
        effect(f"refund {order_id} {amount} {key}")
    time.sleep(TOOL_SECONDS["refund"])  # the worst moment to die: done, but not recorded
    return f"refunded {amount} EUR for order {order_id}"


@tool
def notify_customer(order_id: str, text: str) -> str:
    """Send the customer of an order a message. It cannot be taken back."""
    effect(f"notify {order_id} {text}")
    time.sleep(TOOL_SECONDS["notify_customer"])
    return "sent"


def build_graph():
    """Build the graph; only the two calls of ``durable_…`` know of Agent Executor."""
    chat = ChatAnthropic(
        model=os.environ.get("MODEL", "claude-sonnet-4-5"),
        base_url=os.environ.get("MODEL_BASE_URL", "https://api.anthropic.com"),
        api_key=os.environ.get("ANTHROPIC_API_KEY", "none"),
        max_tokens=1024,
    )
    tools = [lookup_order, refund, notify_customer]
    model = durable_model(chat).bind_tools(tools)

    def assistant(state: MessagesState) -> dict:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("assistant", assistant)
    effects = {"lookup_order": "read", "notify_customer": "once"}
    graph.add_node("tools", durable_tools(tools, effects=effects))
    graph.add_edge(START, "assistant")
    graph.add_conditional_edges("assistant", tools_condition)
    graph.add_edge("tools", "assistant")
    return graph.compile()


def main(ctx: ax.Context) -> dict:
    """Answer one message of a customer."""
    kinds = {"user": HumanMessage, "agent": AIMessage}
    earlier = [kinds[message.role](message.text) for message in ctx.history]
    messages = [SystemMessage(INSTRUCTIONS), *earlier, HumanMessage(ctx.input.text)]
    state = build_graph().invoke({"messages": messages})
    answer = state["messages"][-1].text
    ctx.output(answer)
    return {"answer": answer, "messages": len(state["messages"])}


if __name__ == "__main__":
    ax.run(main)
