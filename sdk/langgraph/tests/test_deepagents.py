"""DeepAgents with the checkpointer: a file that it wrote is there for the next process."""

from __future__ import annotations

from uuid import uuid4

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.types import Command

from agent_executor_langgraph import AxSaver

deepagents = pytest.importorskip("deepagents")


class Scripted(BaseChatModel):
    """A model that says what comes next in its script."""

    replies: list[AIMessage]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools, **kwargs):
        return self

    def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        said = sum(isinstance(one, AIMessage) for one in messages)
        return ChatResult(generations=[ChatGeneration(message=self.replies[said])])


def call(name: str, **args) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": f"call_{uuid4()}"}])


def build(server):
    write = call("write_file", file_path="/plan.md", content="buy milk")
    replies = [write, AIMessage("written"), call("read_file", file_path="/plan.md"), AIMessage("!")]
    return deepagents.create_deep_agent(
        model=Scripted(replies=replies),
        checkpointer=AxSaver(server.url),
        interrupt_on={"write_file": True},
    )


def test_it_waits_for_a_person_and_keeps_its_files(server) -> None:
    config = {"configurable": {"thread_id": str(uuid4())}}
    asked = build(server).invoke({"messages": [("user", "plan")]}, config)
    (interrupt,) = asked["__interrupt__"]
    assert "write_file" in str(interrupt.value)
    resume = Command(resume={"decisions": [{"type": "approve"}]})
    done = build(server).invoke(resume, config)
    assert done["messages"][-1].text == "written"
    again = build(server).invoke({"messages": [("user", "read it")]}, config)
    assert any("buy milk" in str(one.content) for one in again["messages"][-2:])
