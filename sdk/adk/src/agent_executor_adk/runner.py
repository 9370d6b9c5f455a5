"""Runs an ADK app as an agent of Agent Executor: it survives ``kill -9``, and so do its effects.

    @ax.agent
    async def main(ctx: ax.AsyncContext) -> str:
        return await run(ctx, app, effects={"look_up": "read", "notify": "once"})

A process that dies is started again. It runs the app from the input again, on the session as it was
when the input came, and what was done is answered from the journal: model calls and MCP tools by
the gateway, functions by the steps that this module makes of them. So the app gets to where it was
without paying a model call or having an effect a second time, and goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import agent_executor as ax
from agent_executor.steps import Effect
from google.adk.apps.app import App
from google.adk.artifacts.base_artifact_service import BaseArtifactService
from google.adk.events.event import Event
from google.adk.memory.base_memory_service import BaseMemoryService
from google.adk.runners import Runner
from google.genai import types

from .steps import StepPlugin
from .workspace import WorkspaceSessions

USER = "user"
SESSION = "session"
# What ADK calls to have a tool call confirmed.
CONFIRMATION = "adk_request_confirmation"
# How much of a call's arguments is shown in a question; the details have all of it.
PROMPT_CHARS = 400


@dataclass(frozen=True)
class Waiting:
    """A tool call that waits for somebody.

    Attributes:
        name: The tool.
        args: Its arguments.
        said: What it has said so far; empty if a person has to confirm the call.
    """

    name: str
    args: Mapping[str, Any]
    said: Mapping[str, Any] = field(default_factory=dict)


Asking = Callable[[ax.AsyncContext, Waiting], Awaitable[dict[str, Any]]]


async def approve(ctx: ax.AsyncContext, waiting: Waiting) -> dict[str, Any]:
    """Ask a person about a long-running tool; return what the tool answers in the end.

    That is what it has said so far, and ``"status": "approved"`` or ``"denied"``.
    """
    details = {"tool": waiting.name, "arguments": dict(waiting.args), "said": dict(waiting.said)}
    yes = await ctx.ask_approval(f"{waiting.name}: go on?", details=details)
    return {**waiting.said, "status": "approved" if yes else "denied"}


async def run(
    ctx: ax.AsyncContext,
    app: App,
    *,
    effects: Mapping[str, Effect] | None = None,
    asking: Asking = approve,
    artifacts: BaseArtifactService | None = None,
    memory: BaseMemoryService | None = None,
) -> str:
    """Answer the input with an app; return the last text that it said.

    Calls that need a confirmation, and long-running tools, become questions of the session. The
    process may be let go while they are open.

    Args:
        ctx: The context of the agent.
        app: The app. What its events change is kept in the session's workspace.
        effects: What carrying a function tool out a second time means, by its name;
            ``"idempotent"`` if it is not there, so name each that must not run twice as ``"once"``.
        asking: How somebody is asked what a long-running tool waits for.
        artifacts: Where artifacts are kept, such as an ``AxArtifactService``.
        memory: Where memories are kept.
    """
    sessions = await WorkspaceSessions.open(ctx, app.name, USER, SESSION)
    steps = StepPlugin(ctx, effects or {})
    runner = Runner(
        app=app.model_copy(update={"plugins": [*app.plugins, steps]}),
        session_service=sessions,
        artifact_service=artifacts,
        memory_service=memory,
    )
    last = ""
    message = _message(ctx)
    async with runner:
        while True:
            open_calls: dict[str, types.FunctionCall] = {}
            said: dict[str, dict[str, Any]] = {}
            async for event in _events(runner, message):
                if text := _text(event):
                    last = text
                    ctx.output(text)
                _collect(event, open_calls, said)
            if not open_calls:
                break
            parts = [
                await _answer(ctx, call, said.get(id_, {}), asking)
                for id_, call in open_calls.items()
            ]
            message = types.Content(role="user", parts=parts)
    sessions.end()
    return last


async def _events(runner: Runner, message: types.Content) -> AsyncIterator[Event]:
    running = runner.run_async(user_id=USER, session_id=SESSION, new_message=message)
    async with aclosing(running) as events:
        async for event in events:
            yield event


def _message(ctx: ax.AsyncContext) -> types.Content:
    parts = []
    for part in ctx.input.parts:
        if part.kind == "text":
            parts.append(types.Part(text=part.text))
        else:
            blob = types.Blob(mime_type=part.media_type, data=part.read())
            parts.append(types.Part(inline_data=blob))
    return types.Content(role="user", parts=parts)


def _text(event: Event) -> str:
    """Return what the app says to the user with an event."""
    if event.partial or event.content is None or event.author == "user":
        return ""
    parts = event.content.parts or []
    return "".join(part.text for part in parts if part.text and not part.thought)


def _collect(
    event: Event, open_calls: dict[str, types.FunctionCall], said: dict[str, dict[str, Any]]
) -> None:
    """Note which calls wait for somebody, and what they have said so far."""
    if event.partial:
        return
    waiting = event.long_running_tool_ids or set()
    for call in event.get_function_calls():
        if call.id in waiting:
            open_calls[call.id] = call
    for response in event.get_function_responses():
        if response.id in open_calls:
            said[response.id] = dict(response.response or {})


async def _answer(
    ctx: ax.AsyncContext, call: types.FunctionCall, said: dict[str, Any], asking: Asking
) -> types.Part:
    """Let somebody answer a call."""
    args = dict(call.args or {})
    if call.name == CONFIRMATION:
        asked = args.get("originalFunctionCall", {})
        hint = args.get("toolConfirmation", {}).get("hint", "")
        details = {"tool": asked.get("name"), "arguments": asked.get("args", {})}
        # What ADK says if the tool says nothing is meant for programs.
        prompt = hint if hint and "ToolConfirmation" not in hint else _call(asked)
        response: dict[str, Any] = {"confirmed": await ctx.ask_approval(prompt, details=details)}
    else:
        response = await asking(ctx, Waiting(str(call.name), args, said))
    answer = types.FunctionResponse(id=call.id, name=call.name, response=response)
    return types.Part(function_response=answer)


def _call(asked: Mapping[str, Any]) -> str:
    args = ", ".join(f"{name}={value!r}" for name, value in asked.get("args", {}).items())
    return f"Carry out {asked.get('name')}({args[:PROMPT_CHARS]})?"
