"""Claude, whose conversations are kept by an Agent Executor server, not by this machine.

    python3 agent.py "How many files are here?"
    python3 agent.py --resume SESSION "And how many are empty?"
    python3 agent.py --list
"""

import argparse
import asyncio
import os
import uuid

from agent_executor_claude import AxSessionStore
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ResultMessage,
    list_sessions_from_store,
    query,
)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("prompt", nargs="?", default="")
    parser.add_argument("--id", help="the id of a new session")
    parser.add_argument("--resume", help="go on with a session")
    parser.add_argument("--fork", action="store_true", help="go on with a copy of it")
    parser.add_argument("--list", action="store_true", help="show the sessions of this directory")
    return parser.parse_args()


async def main() -> None:
    """Do what is asked for."""
    asked = arguments()
    store = AxSessionStore()
    if asked.list:
        for info in await list_sessions_from_store(store, directory=os.getcwd()):
            print(info.session_id, info.summary)
        return
    options = ClaudeAgentOptions(
        session_store=store,
        # Each entry is kept as soon as it is there, not at the end of a turn.
        session_store_flush="eager",
        session_id=None if asked.resume else asked.id or str(uuid.uuid4()),
        resume=asked.resume,
        fork_session=asked.fork,
        allowed_tools=["Bash", "Read", "Glob", "Grep"],
        permission_mode="acceptEdits",
        cwd=os.getcwd(),
    )
    async for message in query(prompt=asked.prompt, options=options):
        if isinstance(message, ResultMessage):
            print(message.result)
            print(f"session {message.session_id}")


if __name__ == "__main__":
    asyncio.run(main())
