"""Function tools as steps: what a call returned and changed is recorded, and not done again."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import agent_executor as ax
from agent_executor.steps import Effect
from google.adk.events.event_actions import EventActions
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.function_tool import FunctionTool
from google.adk.tools.tool_context import ToolContext

# How long a tool's name may be within a key.
_NAME_CHARS = 64


class StepPlugin(BasePlugin):  # type: ignore[misc,unused-ignore]
    """Carries the calls of function tools out as steps.

    Tools of other kinds are left alone: those of MCP servers are journaled by the gateway, those
    that are agents make calls of their own.
    """

    def __init__(self, ctx: ax.AsyncContext, effects: Mapping[str, Effect]) -> None:
        super().__init__(name="agent_executor_steps")
        self._ctx = ctx
        self._effects = effects
        self._counts: Counter[str] = Counter()

    async def before_tool_callback(
        self, *, tool: BaseTool, tool_args: dict[str, Any], tool_context: ToolContext
    ) -> dict[str, Any] | None:
        """Carry a call out as a step, and return what it returned now or before."""
        if not isinstance(tool, FunctionTool):
            return None
        was_run = False

        async def call() -> dict[str, Any]:
            nonlocal was_run
            was_run = True
            result = await tool.run_async(args=tool_args, tool_context=tool_context)
            return {"result": _result(result, tool), "actions": _actions(tool_context.actions)}

        recorded = await self._ctx.step(
            tool.name,
            call,
            kind="tool",
            effect=self._effects.get(tool.name, "idempotent"),
            key=self._key(tool.name, tool_args),
            request=tool_args,
        )
        if not isinstance(recorded, dict) or recorded.keys() != {"result", "actions"}:
            # A person has said what became of it, in their own words.
            return recorded if isinstance(recorded, dict) else {"result": recorded}
        if not was_run:
            _repeat(recorded["actions"], tool_context)
        result: dict[str, Any] = recorded["result"]
        return result

    def _key(self, name: str, args: Mapping[str, Any]) -> str:
        """Return the key of a call: what is called, and how often it was.

        Parallel calls may come in any order; equal ones stand for each other.
        """
        text = json.dumps([name, args], sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._counts[digest] += 1
        return f"adk/{name[:_NAME_CHARS]}/{digest}-{self._counts[digest]}"


def _result(result: Any, tool: BaseTool) -> dict[str, Any]:
    """Return a result in the form in which ADK hands it to the model."""
    if isinstance(result, dict):
        return result
    if result is None and tool.is_long_running:
        return {}  # which does not answer the call yet
    return {"result": result}


def _actions(actions: EventActions) -> dict[str, Any]:
    form: dict[str, Any] = actions.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude_none=True
    )
    return form


def _repeat(recorded: Mapping[str, Any], tool_context: ToolContext) -> None:
    """Change what the call has changed."""
    actions = EventActions.model_validate_json(json.dumps(recorded))
    for key, value in actions.state_delta.items():
        tool_context.state[key] = value
    for name in actions.model_fields_set - {"state_delta"}:
        setattr(tool_context.actions, name, getattr(actions, name))
