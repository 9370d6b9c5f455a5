"""An agent of Google's ADK that knows nothing of Agent Executor: input on stdin, answer on stdout.

Where its model and its tools are, it learns from the environment, as it would anywhere.
"""

import asyncio
import os
import sys

from google.adk.agents import LlmAgent
from google.adk.agents.run_config import RunConfig, StreamingMode
from google.adk.models.google_llm import Gemini
from google.adk.runners import InMemoryRunner
from google.adk.tools.mcp_tool import McpToolset, StreamableHTTPConnectionParams
from google.genai import types

INSTRUCTIONS = "You look after a warehouse. Do one thing at a time."


def build_agent() -> LlmAgent:
    """Build the agent."""
    url = os.environ["AX_MCP_WAREHOUSE_URL"]
    tools = McpToolset(connection_params=StreamableHTTPConnectionParams(url=url))
    model = Gemini(model="gemini-2.5-flash", base_url=os.environ["GOOGLE_GEMINI_BASE_URL"])
    return LlmAgent(name="keeper", model=model, instruction=INSTRUCTIONS, tools=[tools])


async def main() -> None:
    """Do what is asked for."""
    runner = InMemoryRunner(build_agent(), app_name="warehouse")
    session = await runner.session_service.create_session(app_name="warehouse", user_id="user")
    question = types.Content(role="user", parts=[types.Part(text=sys.stdin.read())])
    answer = ""
    config = RunConfig(streaming_mode=StreamingMode.SSE)
    async for event in runner.run_async(
        user_id="user", session_id=session.id, new_message=question, run_config=config
    ):
        if event.is_final_response() and event.content:
            answer = "".join(part.text or "" for part in event.content.parts or [])
    print(answer)
    await runner.close()


if __name__ == "__main__":
    asyncio.run(main())
