"""A harness that is a server of the AX wire, under `ax serve`."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import grpc
import pytest
from conftest import CACHE, content, pb, text, texts, wait_for
from test_serving import exec_request, executions, refused, run

HARNESS = str(pathlib.Path(__file__).with_name("harness.py"))
QUICK = {"backoffMin": "10ms", "backoffMax": "50ms"}


@pytest.fixture
def harness(server):
    command = [sys.executable, HARNESS, "unix:{socket}"]
    section = {"type": "ax1", "command": command, "config": {"a": [1]}, "id": "mine"}
    section["env"] = CACHE
    server.apply("small", section, retry=QUICK)
    return server


def test_a_turn_is_said_and_the_next_one_knows_it(harness):
    assert texts(run(harness, exec_request("talk", "hello"))) == ["you said: hello"]
    told = texts(run(harness, exec_request("talk", "history")))
    assert told == ["user: hello; assistant: you said: hello"]
    config = texts(run(harness, exec_request("talk", "config")))
    assert json.loads(config[0]) == {"a": [1]} and config[1] == "mine"


def test_contents_pass_through_as_they_are(harness):
    responses = run(harness, exec_request("talk", "thought"))
    thought, call, image = [m.content for r in responses for m in r.outputs]
    assert thought.thought.summary[0].text.text == "hm"
    assert (call.tool_call.id, call.tool_call.function_call.name) == ("c1", "look")
    assert dict(call.tool_call.function_call.arguments) == {"at": "it"}
    assert (image.image.mime_type, image.image.data) == (1, b"\x89PNG\xff")
    # Forth as well: what is no text goes by way of the blob store.
    picture = content.ImageContent(mime_type=1, data=b"\x89PNG\xff" * 30_000)
    message = pb.Message(role="user", content=content.Content(image=picture))
    request = pb.ExecRequest(conversation_id="talk", inputs=[message, text("hello")])
    assert texts(run(harness, request)) == ["you said: hello"]


def test_a_server_that_dies_is_started_again(harness):
    # What the lost attempt said is void.
    assert texts(run(harness, exec_request("talk", "crash"))) == ["attempt 2"]
    events = str(harness.events("talk"))
    assert "attempt.lost" in events and "exited with status 3" in events
    assert executions(harness, "talk") == 1


def test_a_question_is_answered_over_the_wire(harness):
    asked = run(harness, exec_request("talk", "ask"))
    assert texts(asked) == ["one moment"]
    question = asked[-1].outputs[0].content.confirmation
    assert question.question == "May I?"
    harness.kill()
    harness.start()
    answer = content.ConfirmationContent(id=question.id)
    answer.decline.declined = True
    message = pb.Message(role="user", content=content.Content(confirmation=answer))
    request = pb.ExecRequest(
        conversation_id="talk", inputs=[message], last_step=asked[-1].step
    )
    assert texts(run(harness, request))[-1] == "call-1: decline"


def test_what_breaks_the_contract_fails_with_its_reason(server):
    command = [sys.executable, HARNESS, "unix:{socket}"]
    section = {"type": "ax1", "command": command, "env": CACHE}
    server.apply("small", section, retry={**QUICK, "attempts": 2})
    cases = {
        "fail": (grpc.StatusCode.FAILED_PRECONDITION, "there is no agent"),
        "other": (grpc.StatusCode.INTERNAL, "another conversation"),
    }
    for words, (code, reason) in cases.items():
        error = refused(lambda: run(server, exec_request(words, words)))
        assert error.code() == code and reason in error.details(), words


def test_a_server_that_never_serves_is_given_up(server):
    section = {"type": "ax1", "command": ["sleep", "600"], "ready_ms": 300}
    server.apply("deaf", section, retry={**QUICK, "attempts": 1})
    error = refused(lambda: run(server, exec_request("talk", "hello")))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "does not serve after 300 ms" in error.details()
    section = {"type": "ax1", "command": ["false"]}
    server.apply("short", section, retry={**QUICK, "attempts": 1})
    error = refused(lambda: run(server, exec_request("short", "hello", harness_id="short")))
    assert "exited with status 1" in error.details()


def test_a_cancellation_reaches_the_server_and_nothing_is_left(harness):
    run(harness, exec_request("talk", "hello"))
    state = next((harness.data / "workspaces" / "default").iterdir()) / ".ax/ax1"
    harness.ax("run", "--detach", "--session", "talk", "wait")
    wait_for("turn", lambda: (state / "waiting").exists())
    harness.ax("cancel", "talk")
    wait_for("end", lambda: not processes(str(state)))
    assert "execution.canceled" in str(harness.events("talk"))
    assert texts(run(harness, exec_request("talk", "hello again"))) == ["you said: hello again"]


def processes(mark: str) -> list[str]:
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if HARNESS in command and mark in command:
            found.append(command)
    return found


def test_a_server_may_be_there_already_or_be_told_a_port(server):
    command = [sys.executable, HARNESS, "127.0.0.1:{port}"]
    server.apply("port", {"type": "ax1", "command": command, "env": CACHE}, retry=QUICK)
    request = exec_request("one", "hello", harness_id="port")
    assert texts(run(server, request)) == ["you said: hello"]
    socket = server.dir / "there.sock"
    env = dict(os.environ, AX_HARNESS_STATE=str(server.dir))
    there = subprocess.Popen([sys.executable, HARNESS, f"unix:{socket}"], env=env)
    try:
        section = {"type": "ax1", "address": f"unix://{socket}"}
        server.apply("there", section, retry=QUICK)
        request = exec_request("two", "hello", harness_id="there")
        assert texts(run(server, request)) == ["you said: hello"]
    finally:
        there.kill()
        there.wait()
