"""An agent that waits for a person, however long, without a process.

    python3 agent.py start NAME "Send what lies on shelf 3."
    python3 agent.py list
    python3 agent.py approve NAME
    python3 agent.py reject NAME
"""

import asyncio
import os
import sys
from pathlib import Path

from agent_executor_openai import AxRunStates, AxSession, StateConflict
from agents import Agent, Runner, RunResult, function_tool, set_tracing_disabled


@function_tool(needs_approval=True)
def send_goods(shelf: int) -> str:
    """Send what lies on a shelf to the customer. It cannot be taken back."""
    with Path(os.environ.get("EFFECTS", "effects.txt")).open("a") as file:
        file.write(f"send {shelf}\n")
    return f"shelf {shelf} is on its way"


AGENT = Agent(name="warehouse", instructions="You look after a warehouse.", tools=[send_goods])


async def start(states: AxRunStates, name: str, prompt: str) -> None:
    """Begin; what was said in earlier runs under this name is known."""
    await keep(states, name, await Runner.run(AGENT, prompt, session=AxSession(name)))


async def decide(states: AxRunStates, name: str, approve: bool) -> None:
    """Approve or reject what it waits for, and go on."""
    saved = await states.load(name, AGENT)
    for item in saved.state.get_interruptions():
        if approve:
            saved.state.approve(item)
        else:
            saved.state.reject(item)
    try:
        # Whoever saves first goes on; a second one must not run the tools, too.
        await states.save(name, saved.state)
    except StateConflict:
        print(f"somebody else has decided on {name}")
        return
    await keep(states, name, await Runner.run(AGENT, saved.state, session=AxSession(name)))


async def keep(states: AxRunStates, name: str, result: RunResult) -> None:
    """Save what waits for a person; say what is done."""
    if not result.interruptions:
        await states.delete(name)
        print(result.final_output)
        return
    await states.save(name, result.to_state())
    for item in result.interruptions:
        print(f"{name} waits for: {item.name} {item.arguments}")


async def main() -> None:
    """Do what the command line says."""
    set_tracing_disabled(True)
    states = AxRunStates()
    match sys.argv[1:]:
        case ["start", name, prompt]:
            await start(states, name, prompt)
        case ["approve" | "reject" as verb, name]:
            await decide(states, name, verb == "approve")
        case ["list"]:
            for listed in await states.list():
                print(listed.name)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    asyncio.run(main())
