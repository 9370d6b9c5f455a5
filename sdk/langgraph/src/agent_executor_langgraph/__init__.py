"""LangGraph's threads, kept in an Agent Executor server::

from agent_executor_langgraph import AxSaver

graph = builder.compile(checkpointer=AxSaver("http://127.0.0.1:7700"))
"""

from .keeper import Overtaken
from .saver import AxSaver

__all__ = ["AxSaver", "Overtaken"]
