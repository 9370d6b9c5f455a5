"""An ADK agent."""

from . import agent

__all__ = ["agent"]
