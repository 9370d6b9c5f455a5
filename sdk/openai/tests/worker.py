"""A program that is killed: an agent whose tool needs an approval.

    python3 worker.py start|go-on|talk SERVER NAME EFFECTS [PROMPT]

`start` runs until the approval is needed, saves the state, and stays. `go-on` approves, saves, and
runs on; with a second writer, one of the two gives up. `talk` uses a conversation.
"""

import asyncio
import sys
from pathlib import Path

from agent_executor.client import AsyncClient
from agents import Agent, Runner, function_tool, set_tracing_disabled

from agent_executor_openai import AxRunStates, AxSession, StateConflict

ROLE, SERVER, NAME, EFFECTS, *PROMPT = sys.argv[1:]


@function_tool(needs_approval=True)
def send_goods(shelf: int) -> str:
    """Send what lies on a shelf."""
    with Path(EFFECTS).open("a") as file:
        file.write(f"send {shelf}\n")
    return f"shelf {shelf} is on its way"


AGENT = Agent(name="warehouse", instructions="You look after a warehouse.", tools=[send_goods])


async def start() -> None:
    result = await Runner.run(AGENT, "Send shelf 3.")
    assert result.interruptions
    await AxRunStates(AsyncClient(SERVER)).save(NAME, result.to_state())
    print("saved", flush=True)
    await asyncio.Event().wait()


async def go_on() -> None:
    states = AxRunStates(AsyncClient(SERVER))
    saved = await states.load(NAME, AGENT)
    for item in saved.state.get_interruptions():
        saved.state.approve(item)
    print("loaded", flush=True)
    sys.stdin.readline()
    try:
        await states.save(NAME, saved.state)
    except StateConflict:
        print("conflict")
        return
    result = await Runner.run(AGENT, saved.state)
    await states.delete(NAME)
    print(result.final_output)


async def talk() -> None:
    session = AxSession(NAME, AsyncClient(SERVER))
    agent = Agent(name="warehouse", instructions="You look after a warehouse.")
    result = await Runner.run(agent, PROMPT[0], session=session)
    print(result.final_output, flush=True)


set_tracing_disabled(True)
asyncio.run({"start": start, "go-on": go_on, "talk": talk}[ROLE]())
