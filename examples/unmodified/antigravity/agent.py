"""An agent of the Antigravity SDK: question on stdin, answer on stdout.

The SDK keeps what it knows in files. An attempt that is killed leaves half of them, so each begins
with none.
"""

import asyncio
import os
import shutil
import sys
import uuid
from pathlib import Path

from google.antigravity import Agent, LocalAgentConfig, types
from google.antigravity.hooks import policy

INSTRUCTIONS = "You look after a warehouse. Do one thing at a time."


def conversation() -> str:
    """Name the conversation the same in each attempt of an execution."""
    name = f"{os.environ['AX_SESSION']}/{os.environ['AX_EXECUTION']}"
    return uuid.uuid5(uuid.NAMESPACE_URL, name).hex


def config(home: Path) -> LocalAgentConfig:
    """Say where its model, its tools and its files are."""
    endpoint = types.GeminiAPIEndpoint(
        base_url=os.environ["GOOGLE_GEMINI_BASE_URL"], api_key=os.environ["GEMINI_API_KEY"]
    )
    kinds = [types.ModelType.TEXT, types.ModelType.IMAGE]
    url = os.environ["AX_MCP_WAREHOUSE_URL"]
    server = types.McpStreamableHttpServer(name="warehouse", url=url, force_all_tools_eager=True)
    return LocalAgentConfig(
        models=[types.ModelTarget(name="gemini-2.5-flash", types=kinds, endpoint=endpoint)],
        system_instructions=INSTRUCTIONS,
        mcp_servers=[server],
        capabilities=types.CapabilitiesConfig(enabled_tools=[]),
        policies=[policy.allow_all()],
        workspaces=[os.environ["AX_WORKSPACE"]],
        conversation_id=conversation(),
        session_continuation_mode=types.SessionContinuationMode.CREATE_ONLY,
        save_dir=str(home),
        app_data_dir=str(home / "app"),
    )


async def main() -> None:
    """Do what is asked for."""
    workspace = Path(os.environ["AX_WORKSPACE"])
    home = workspace.with_name(workspace.name + ".antigravity")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    async with Agent(config(home)) as agent:
        answer = await agent.conversation.chat(sys.stdin.read())
        texts = [chunk.text async for chunk in answer.chunks if isinstance(chunk, types.Text)]
    print("".join(texts))


if __name__ == "__main__":
    asyncio.run(main())
