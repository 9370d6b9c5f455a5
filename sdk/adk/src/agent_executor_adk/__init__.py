"""Google's ADK on Agent Executor: its sessions, artifacts and memory, and apps that go on.

    sessions = AxSessionService("ax://127.0.0.1:7700")
    runner = Runner(app=app, session_service=sessions)

``agent_executor_adk.runner`` runs an app as an agent of Agent Executor. See ``docs/adk.md``.
"""

from .artifacts import AxArtifactService
from .memory import AxMemoryService
from .sessions import AxSessionService

__all__ = ["AxArtifactService", "AxMemoryService", "AxSessionService"]
