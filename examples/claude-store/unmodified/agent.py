"""A program of the Claude Agent SDK that has never heard of Agent Executor.

Prompt on stdin, answer on stdout. Where model and tools are, it learns from the environment.
"""

import asyncio
import os
import sys
import tempfile

from claude_agent_sdk import ClaudeAgentOptions, ResultMessage, query


async def main() -> None:
    """Do what is asked for."""
    with tempfile.TemporaryDirectory() as home:
        options = ClaudeAgentOptions(
            mcp_servers={"warehouse": {"type": "http", "url": os.environ["AX_MCP_WAREHOUSE_URL"]}},
            # Only those of the tool server: what others do, would be done again.
            tools=[],
            allowed_tools=["mcp__warehouse__*"],
            env={"CLAUDE_CONFIG_DIR": home, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"},
        )
        async for message in query(prompt=sys.stdin.read(), options=options):
            if isinstance(message, ResultMessage):
                print(message.result)


if __name__ == "__main__":
    asyncio.run(main())
