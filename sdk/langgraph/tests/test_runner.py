"""Graphs as agents of a real server: interrupts, answers, kills, and conversations that go on."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from uuid import uuid4

import pytest

from agent_executor.client import APPROVE, Client, Event, Text, choose, deny

ROOT = pathlib.Path(__file__).resolve().parents[3]
SOURCES = os.pathsep.join([str(ROOT / "sdk/python/src"), str(ROOT / "sdk/langgraph/src")])
GRAPHS = pathlib.Path(__file__).with_name("graphs.py")


def apply(client: Client, graph: str, **env: str) -> str:
    """Make an agent of a graph of ``graphs.py``; return its name."""
    name = f"{graph}-{uuid4().hex[:8]}"
    env = {"PYTHONPATH": SOURCES, "PYTHONWARNINGS": "ignore", **env}
    harness = {
        "type": "process",
        "protocol": "jsonl",
        "command": [sys.executable, str(GRAPHS), graph],
        "env": env,
    }
    spec = {"sandbox": "process", "harness": harness}
    head = {"apiVersion": "agentexecutor.dev/v1", "kind": "Agent", "metadata": {"name": name}}
    # JSON is YAML.
    client.apply_agent(json.dumps({**head, "spec": spec}))
    return name


def rest(client: Client, sent) -> tuple[list[Event], str]:
    """Follow an input until its execution is over or waits; return what happened and was said."""
    text = Text()
    follow = client.follow(sent.session, until_input=sent.seq)
    events = [item for item in follow if isinstance(item, Event)]
    for event in events:
        text.add(event)
    return [event for event in events if event.seq >= sent.seq], str(text)


def asks(client: Client, session: str, *prompts: str) -> dict[str, int]:
    """Wait until these are what is asked, and nothing else; return their numbers."""
    last = 0
    while True:
        found = client.session(session)
        raised = found.raw["status"].get("asks", [])
        if {one["prompt"] for one in raised} == set(prompts):
            return {one["prompt"]: int(one["ask"]) for one in raised}
        # Until something new happens.
        last = next(
            item.seq
            for item in client.follow(session, after=max(last, found.last))
            if isinstance(item, Event)
        )


@pytest.fixture
def client(server):
    return Client(server.url)


@pytest.fixture(params=["files", "session"])
def env(request, server):
    """Where the thread is kept between executions."""
    return {} if request.param == "files" else {"LANGGRAPH_AX_SERVER": server.url}


def test_a_conversation_goes_on_across_inputs(client, env) -> None:
    agent = apply(client, "parrot", **env)
    first = client.submit("one", agent=agent)
    assert rest(client, first)[1] == "1: one"
    second = client.submit("two", session=first.session)
    assert rest(client, second)[1].endswith("3: one, two")
    third = client.submit("three", session=first.session)
    assert rest(client, third)[1].endswith("5: one, two, three")


def test_a_branch_goes_on_from_where_it_began(client, env) -> None:
    agent = apply(client, "parrot", **env)
    first = client.submit("one", agent=agent)
    rest(client, first)
    at = client.session(first.session).last
    rest(client, client.submit("two", session=first.session))
    branch = client.branch(first.session, at=at).sessions[0]
    said = rest(client, client.submit("other", session=branch))[1]
    assert said.endswith("3: one, other")


def test_several_interrupts_are_asked_at_once_and_answered_in_any_order(client, env) -> None:
    agent = apply(client, "asks", **env)
    sent = client.submit("hello", agent=agent)
    prompts = ["Which colour?", "Really?", "How many?"]
    numbers = asks(client, sent.session, *prompts)
    client.answer(sent.session, "3", ask=numbers["How many?"])
    client.answer(sent.session, APPROVE, ask=numbers["Really?"])
    client.answer(sent.session, choose("red"), ask=numbers["Which colour?"])
    # A node asks again after its first answer.
    asks(client, sent.session, "Which shade of red?")
    client.answer(sent.session, "dark")
    events, said = rest(client, sent)
    assert said == "colour=dark red, count=3, sure=True"
    assert events[-1].kind == "execution.completed"
    client.submit("again", session=sent.session)
    asks(client, sent.session, *prompts)


def test_a_review_of_tool_calls_is_answered_in_its_own_terms(client) -> None:
    agent = apply(client, "review")
    sent = client.submit("go", agent=agent)
    numbers = asks(client, sent.session, "Run send?", "Run drop?")
    client.answer(sent.session, deny("not today"), ask=numbers["Run drop?"])
    client.answer(sent.session, choose("edit", "[]"), ask=numbers["Run send?"])
    asks(client, sent.session, "Run send? (that was no answer: the arguments are no object)")
    client.answer(sent.session, choose("edit", '{"to": "bo"}'))
    decisions = json.loads(rest(client, sent)[1])["decisions"]
    edited = {"type": "edit", "edited_action": {"name": "send", "args": {"to": "bo"}}}
    assert decisions == [edited, {"type": "reject", "message": "not today"}]


def test_a_graph_whose_process_is_killed_pays_each_call_once(client, env, tmp_path) -> None:
    paid = tmp_path / "paid"
    agent = apply(client, "pays", PAID=str(paid), **env)
    first = client.submit("one", agent=agent)
    rest(client, first)
    assert paid.read_text().split() == ["1", "2", "3"]
    second = client.submit("die", session=first.session)
    events, said = rest(client, second)
    assert events[-1].kind == "execution.completed"
    assert [event.kind for event in events].count("attempt.started") == 2
    # The second call was under way, and nobody knows what became of it.
    assert paid.read_text().split() == ["1", "2", "3", "1", "2", "2", "3"]
    assert said.endswith("9 messages")


def test_a_tool_may_ask_and_the_others_of_its_node_run_once(client, tmp_path) -> None:
    paid = tmp_path / "paid"
    agent = apply(client, "tools", PAID=str(paid))
    sent = client.submit("go", agent=agent)
    asks(client, sent.session, "Who?")
    client.answer(sent.session, "Bo")
    asks(client, sent.session, "Sure?")
    client.answer(sent.session, "yes")
    assert rest(client, sent)[1] == "done, Bo yes"
    assert paid.read_text().split() == ["effect"]


def test_a_breakpoint_is_a_question(client) -> None:
    agent = apply(client, "breakpoint")
    sent = client.submit("hello", agent=agent)
    rest(client, sent)
    asks(client, sent.session, "Go on with second?")
    client.answer(sent.session, APPROVE)
    assert rest(client, sent)[1] == "hello, first, second"


def test_a_failed_execution_does_not_spoil_the_thread(client, env) -> None:
    agent = apply(client, "parrot", **env)
    first = client.submit("one", agent=agent)
    rest(client, first)
    failed = client.submit("fail", session=first.session)
    assert rest(client, failed)[0][-1].kind == "execution.failed"
    third = client.submit("three", session=first.session)
    assert rest(client, third)[1].endswith("3: one, three")
