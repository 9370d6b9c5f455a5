"""LangGraph's threads, kept in an Agent Executor server, and its graphs, run by one.

A checkpointer, for graphs that run anywhere::

    from agent_executor_langgraph import AxSaver

    graph = builder.compile(checkpointer=AxSaver("http://127.0.0.1:7700"))

A program that the runtime runs, whose interrupts are questions to people::

    from agent_executor_langgraph import run

    run(builder.compile())

``run`` needs ``agent-executor-langgraph[run]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .keeper import Overtaken
from .saver import AxSaver

if TYPE_CHECKING:
    from .questions import Inquiry, Question, inquiry
    from .runner import Runner, run

__all__ = ["AxSaver", "Inquiry", "Overtaken", "Question", "Runner", "inquiry", "run"]
_RUN = {"Runner": "runner", "run": "runner"}
_QUESTIONS = {"Inquiry": "questions", "Question": "questions", "inquiry": "questions"}


def __getattr__(name: str) -> Any:
    # A checkpointer needs no more than langgraph-checkpoint.
    module = {**_RUN, **_QUESTIONS}.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f".{module}", __name__), name)
