"""Sessions of the Claude Agent SDK, kept by Agent Executor.

    from agent_executor_claude import AxSessionStore

    options = ClaudeAgentOptions(session_store=AxSessionStore(), session_store_flush="eager")

Every session of Claude is a session of Agent Executor; see :class:`AxSessionStore`.
"""

from .store import AxSessionStore

__all__ = ["AxSessionStore"]
