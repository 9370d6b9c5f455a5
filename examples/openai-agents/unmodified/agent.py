"""A program of the OpenAI Agents SDK that has never heard of Agent Executor.

Prompt on stdin, answer on stdout. Where model and tools are, it learns from the environment.
"""

import asyncio
import os
import sys

from agents import Agent, Runner, set_tracing_disabled
from agents.mcp import MCPServerStreamableHttp

# How long a tool may take, in seconds; a person may have to allow it.
PATIENCE = 3600


async def main() -> None:
    """Do what is asked for."""
    # Traces would be sent to the vendor; the gateway knows nothing of them.
    set_tracing_disabled(True)
    url = os.environ["AX_MCP_WAREHOUSE_URL"]
    async with MCPServerStreamableHttp(
        {"url": url, "timeout": PATIENCE}, client_session_timeout_seconds=PATIENCE
    ) as warehouse:
        agent = Agent(
            name="warehouse",
            instructions="You look after a warehouse. Do one thing at a time.",
            mcp_servers=[warehouse],
        )
        result = await Runner.run(agent, sys.stdin.read(), max_turns=100)
        print(result.final_output)


if __name__ == "__main__":
    asyncio.run(main())
