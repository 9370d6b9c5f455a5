"""Run states and conversations of the OpenAI Agents SDK, kept by Agent Executor.

    from agent_executor_openai import AxRunStates, AxSession

    result = await Runner.run(agent, "…", session=AxSession("friday"))
    if result.interruptions:
        await AxRunStates().save("order-7", result.to_state())

:class:`AxRunStates` keeps runs that wait for an approval, :class:`AxSession` keeps what was said.
"""

from .session import AxSession
from .states import AxRunStates, Listed, Saved, StateConflict, UnknownState

__all__ = ["AxRunStates", "AxSession", "Listed", "Saved", "StateConflict", "UnknownState"]
