"""A process that is killed: what it does is said on its command line.

writer.py count URI APP          appends events that count, and says which were acknowledged
writer.py run URI APP EFFECTS    runs an app whose tool dies after its effect, the first time
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import sys
from collections.abc import AsyncGenerator
from typing import Any

from google.adk.agents.llm_agent import LlmAgent
from google.adk.apps.app import App, ResumabilityConfig
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.genai import types

from agent_executor_adk import AxSessionService

IDS: dict[str, Any] = {"user_id": "user", "session_id": "one"}


async def count(sessions: AxSessionService, app: str) -> None:
    session = await sessions.get_session(app_name=app, **IDS)
    assert session is not None
    while True:
        number = session.state.get("n", 0) + 1
        delta = {"n": number, "app:n": number, "user:n": number}
        event = Event(author="writer", actions=EventActions(state_delta=delta))
        await sessions.append_event(session, event)
        print(number, flush=True)


class Model(BaseLlm):  # type: ignore[misc,unused-ignore]
    """Calls the tool once, then speaks."""

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        parts = [part for content in llm_request.contents for part in content.parts or []]
        if any(part.function_response for part in parts):
            part = types.Part(text="it is done")
        else:
            part = types.Part(function_call=types.FunctionCall(id="c", name="work", args={}))
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


async def run(sessions: AxSessionService, app: str, effects: pathlib.Path) -> None:
    def work() -> str:
        """Have an effect, and die if it is the first."""
        is_first = not effects.exists()
        with effects.open("a") as file:
            file.write("effect\n")
        if is_first:
            os._exit(9)
        return "worked"

    agent = LlmAgent(name="worker", model=Model(model="none"), tools=[work])
    resumable = ResumabilityConfig(is_resumable=True)
    runner = Runner(
        app=App(name=app, root_agent=agent, resumability_config=resumable),
        session_service=sessions,
    )
    session = await sessions.get_session(app_name=app, **IDS)
    if session is None:
        session = await sessions.create_session(app_name=app, **IDS)
    how: dict[str, Any] = {"new_message": types.UserContent("go")}
    if session.events:
        how = {"invocation_id": session.events[-1].invocation_id}
    async for event in runner.run_async(**IDS, **how):
        for part in event.content.parts if event.content and event.content.parts else []:
            if part.text:
                print(part.text, flush=True)


if __name__ == "__main__":
    what, uri, app_name, *rest = sys.argv[1:]
    service = AxSessionService(uri)
    if what == "count":
        asyncio.run(count(service, app_name))
    else:
        asyncio.run(run(service, app_name, pathlib.Path(rest[0])))
