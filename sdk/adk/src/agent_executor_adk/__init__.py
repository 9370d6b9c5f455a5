"""Sessions, artifacts and memory of Google's ADK, kept by Agent Executor; and a durable runner.

    sessions = AxSessionService("ax://127.0.0.1:7700")
    runner = Runner(app=app, session_service=sessions)

See ``docs/adk.md``.
"""

from .artifacts import AxArtifactService
from .memory import AxMemoryService
from .sessions import AxSessionService

__all__ = ["AxArtifactService", "AxMemoryService", "AxSessionService"]
