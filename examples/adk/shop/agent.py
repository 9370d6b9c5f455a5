"""A shop assistant: an ADK agent with functions and the tools of an MCP server.

It knows nothing of Agent Executor. Where its model and its tool server are, it learns from the
environment, as it would anywhere.
"""

import os
import time
from pathlib import Path

from google.adk.agents.llm_agent import LlmAgent
from google.adk.apps.app import App, ResumabilityConfig
from google.adk.tools.function_tool import FunctionTool
from google.adk.tools.long_running_tool import LongRunningFunctionTool
from google.adk.tools.mcp_tool.mcp_session_manager import StreamableHTTPConnectionParams
from google.adk.tools.mcp_tool.mcp_toolset import McpToolset
from google.adk.tools.tool_context import ToolContext

EFFECTS = Path(os.environ.get("EFFECTS", "effects.txt")).resolve()
DEADLY = os.environ.get("DEADLY_TOOL", "")


def effect(tool: str, line: str) -> None:
    """Do something that the world can see, and die if that is what the environment wants."""
    done = EFFECTS.read_text(encoding="utf-8") if EFFECTS.exists() else ""
    with EFFECTS.open("a", encoding="utf-8") as file:
        file.write(f"{tool} {line}\n")
    if DEADLY == tool and f"{tool} " not in done:
        os._exit(9)  # the worst moment: it is done, and nobody knows
    time.sleep(float(os.environ.get("TOOL_SECONDS", "0")))


def look_up_order(order: str, tool_context: ToolContext) -> dict:
    """Look up what an order was about and what it cost."""
    tool_context.state["order"] = order
    return {"order": order, "what": "a blue kettle", "euros": 40}


def refund(order: str, euros: int) -> dict:
    """Refund an order. A person has to confirm it, and it cannot be taken back."""
    effect("refund", f"{order} {euros}")
    return {"refunded": euros}


def ask_manager(reason: str) -> dict:
    """Ask the manager for a voucher; the answer takes a while."""
    effect("ask_manager", reason)
    return {"status": "pending", "ticket": 7}


def tools() -> list:
    """Return the functions, and what the tool server offers if there is one."""
    own = [
        look_up_order,
        FunctionTool(refund, require_confirmation=True),
        LongRunningFunctionTool(ask_manager),
    ]
    url = os.environ.get("AX_MCP_POST_URL")
    if url:
        own.append(McpToolset(connection_params=StreamableHTTPConnectionParams(url=url)))
    return own


root_agent = LlmAgent(
    name="shop",
    model=os.environ.get("MODEL", "gemini-2.5-flash"),
    instruction="You help the customers of a shop. Do one thing at a time.",
    tools=tools(),
)
app = App(
    name="shop",
    root_agent=root_agent,
    resumability_config=ResumabilityConfig(is_resumable=True),
)
