"""A client of the AX wire, made of the proto files alone, against `ax serve`."""

from __future__ import annotations

import pathlib
import sys
import threading

import grpc
import pytest
from conftest import content, pb, pb_grpc, text, texts, wait_for
from grpc_health.v1 import health_pb2, health_pb2_grpc

TALKER = str(pathlib.Path(__file__).with_name("talker.py"))
SECONDS = 120


@pytest.fixture
def talker(server):
    harness = {"type": "process", "command": [sys.executable, TALKER]}
    server.apply("talker", harness, retry={"backoffMin": "10ms", "backoffMax": "50ms"})
    return server


def exec_request(conversation: str, words: str = "", after: int = 0, **more):
    inputs = [text(words)] if words else []
    return pb.ExecRequest(conversation_id=conversation, inputs=inputs, last_step=after, **more)


def run(server, request) -> list:
    stub = pb_grpc.ExecutionServiceStub(server.channel())
    return list(stub.Exec(request, timeout=SECONDS))


def refused(call) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def executions(server, conversation: str) -> int:
    events = server.events(conversation)
    return sum("execution.started" in str(event) for event in events)


def test_the_three_names_do_the_same(talker):
    channel = talker.channel()
    health = health_pb2_grpc.HealthStub(channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service="AX"), timeout=SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    expected = ["number 1", "number 2"]
    assert texts(run(talker, exec_request("one", "count 2"))) == expected
    stub = pb_grpc.ControllerServiceStub(channel)
    request = exec_request("two", "count 2", harness_id="talker")
    assert texts(stub.Exec(request, timeout=SECONDS)) == expected
    stub = pb_grpc.InteractionsServiceStub(channel)
    request = pb.CreateInteractionRequest(conversation_id="three", inputs=[text("count 2")])
    responses = list(stub.CreateInteraction(request, timeout=SECONDS))
    assert texts(responses) == expected
    steps = [response.step for response in responses]
    assert steps == sorted(set(steps)) and steps[0] > 0


def test_a_client_that_is_cut_hears_the_rest_once(talker):
    count = 40
    stub = pb_grpc.ExecutionServiceStub(talker.channel())
    heard, last, inputs = [], 0, "count 40 0.05"
    calls = 0
    while len(heard) < count:
        calls += 1
        assert calls < 40
        call = stub.Exec(exec_request("talk", inputs, last), timeout=SECONDS)
        inputs = ""
        for response in call:
            heard.append(response)
            last = response.step
            if len(heard) % 7 == 3:
                # In the middle of it.
                call.cancel()
                break
    assert calls > 4
    assert texts(heard) == [f"number {number}" for number in range(1, count + 1)]
    steps = [response.step for response in heard]
    assert steps == sorted(set(steps))
    # From every step on, what is recorded is what was heard.
    for at in (1, 5, 17, count):
        rest = run(talker, exec_request("talk", after=heard[at - 1].step))
        assert [response.step for response in rest] == steps[at:]
        assert texts(rest) == texts(heard[at:])
    # A position within a message: all of it comes.
    rest = run(talker, exec_request("talk", after=heard[4].step + 1))
    assert texts(rest)[0] == "number 6"
    assert texts(run(talker, exec_request("talk"))) == texts(heard)
    assert executions(talker, "talk") == 1


def test_a_server_that_is_killed_goes_on_where_its_client_was(talker):
    stub = pb_grpc.ExecutionServiceStub(talker.channel())
    heard = []
    with pytest.raises(grpc.RpcError):
        for response in stub.Exec(exec_request("talk", "count 12 0.1"), timeout=SECONDS):
            heard.append(response)
            if len(heard) == 4:
                talker.kill()
    talker.start()
    heard += run(talker, exec_request("talk", after=heard[-1].step))
    assert texts(heard) == [f"number {number}" for number in range(1, 13)]
    assert executions(talker, "talk") == 1


def test_the_same_request_again_is_the_same_input(talker):
    first = run(talker, exec_request("talk", "count 2"))
    assert texts(run(talker, exec_request("talk", "count 2"))) == texts(first)
    assert executions(talker, "talk") == 1
    # Said after another step, it is another input.
    after = exec_request("talk", "count 2", first[-1].step)
    assert texts(run(talker, after)) == texts(first)
    assert texts(run(talker, after)) == texts(first)
    assert executions(talker, "talk") == 2
    # Who says nothing of steps is taken by the word from the second turn on.
    assert texts(run(talker, exec_request("talk", "count 2"))) == texts(first)
    assert executions(talker, "talk") == 3


def test_a_busy_conversation_refuses_another_input_but_not_a_listener(talker):
    stub = pb_grpc.ExecutionServiceStub(talker.channel())
    call = stub.Exec(exec_request("talk", "count 20 0.1"), timeout=SECONDS)
    first = next(call)
    error = refused(lambda: run(talker, exec_request("talk", "count 1")))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    error = refused(lambda: delete(talker, "talk"))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    # The same request, after the first try was cut: it goes on, and nothing begins anew.
    call.cancel()
    again = run(talker, exec_request("talk", "count 20 0.1"))
    assert texts([first]) == texts(again)[:1] and len(again) == 20
    assert executions(talker, "talk") == 1


def test_a_question_is_asked_and_answered(talker):
    asked = run(talker, exec_request("talk", "ask"))
    question = asked[-1].outputs[0].content.confirmation
    assert (question.question, question.WhichOneof("decision")) == ("May I?", None)
    # Asking again without an answer repeats the question.
    again = run(talker, exec_request("talk", after=asked[-1].step))
    assert again[-1].outputs[0].content.confirmation == question
    error = refused(lambda: run(talker, exec_request("talk", "well?", asked[-1].step)))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    talker.kill()
    talker.start()
    answer = content.ConfirmationContent(id=question.id)
    answer.approval.approved = True
    message = pb.Message(role="user", content=content.Content(confirmation=answer))
    request = pb.ExecRequest(
        conversation_id="talk", inputs=[message], last_step=asked[-1].step
    )
    assert texts(run(talker, request)) == ["answer: approve"]
    # The answer came through twice: it counts once.
    assert texts(run(talker, request)) == ["answer: approve"]


def test_what_is_void_is_not_said(talker):
    responses = run(talker, exec_request("talk", "loose"))
    assert texts(responses) == ["first words", "last words"]
    assert "attempt.lost" in str(talker.events("talk"))


def test_a_failure_is_the_status_of_the_stream(talker):
    error = refused(lambda: run(talker, exec_request("talk", "fail")))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert "I do not know" in error.details()
    # It spoils nothing: the next input works.
    assert texts(run(talker, exec_request("talk", "count 1"))) == ["number 1"]


def test_what_makes_no_sense_has_a_code(talker):
    def code(request):
        return refused(lambda: run(talker, request)).code()

    run(talker, exec_request("talk", "count 1"))
    assert code(exec_request("nobody")) == grpc.StatusCode.NOT_FOUND
    assert code(exec_request("nobody", "x", 3)) == grpc.StatusCode.NOT_FOUND
    assert code(exec_request("talk", after=10_000)) == grpc.StatusCode.OUT_OF_RANGE
    assert code(exec_request("talk", after=-1)) == grpc.StatusCode.INVALID_ARGUMENT
    assert code(exec_request("", "x")) == grpc.StatusCode.INVALID_ARGUMENT
    assert code(exec_request("new", "x", harness_id="none")) == grpc.StatusCode.NOT_FOUND
    other = exec_request("talk", "x", harness_id="other")
    assert code(other) == grpc.StatusCode.FAILED_PRECONDITION
    configured = exec_request("new", "x", harness_config=b'{"api_key": "secret"}')
    assert code(configured) == grpc.StatusCode.INVALID_ARGUMENT


def fork(server, source: str, at: int, to: str):
    stub = pb_grpc.ConversationServiceStub(server.channel())
    request = pb.ForkConversationRequest(
        src_conversation_id=source, src_seq=at, dest_conversation_id=to
    )
    return stub.ForkConversation(request, timeout=SECONDS).conversation_id


def delete(server, conversation: str):
    stub = pb_grpc.ConversationServiceStub(server.channel())
    request = pb.DeleteConversationRequest(conversation_id=conversation)
    stub.DeleteConversation(request, timeout=SECONDS)


def test_forks_share_their_past_and_nothing_else(talker):
    said = run(talker, exec_request("talk", "count 3"))
    said += run(talker, exec_request("talk", "count 1", said[-1].step))
    assert fork(talker, "talk", said[2].step, "early") == "early"
    assert fork(talker, "talk", 0, "late") == "late"
    assert fork(talker, f"talk:{said[2].step}", 0, "named") == "named"
    assert texts(run(talker, exec_request("early"))) == texts(said[:3])
    assert texts(run(talker, exec_request("named"))) == texts(said[:3])
    assert texts(run(talker, exec_request("late"))) == texts(said)
    # The fork goes on by itself, and its parent does not notice.
    assert texts(run(talker, exec_request("early", "count 2"))) == ["number 1", "number 2"]
    assert texts(run(talker, exec_request("talk"))) == texts(said)
    codes = [
        refused(lambda: fork(talker, "talk", 0, "early")).code(),
        refused(lambda: fork(talker, "talk", 10_000, "other")).code(),
        refused(lambda: fork(talker, "nobody", 0, "other")).code(),
        refused(lambda: fork(talker, "talk", 0, "")).code(),
    ]
    assert codes == [
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
    ]
    # A deleted fork takes nothing of its source with it.
    delete(talker, "early")
    assert refused(lambda: run(talker, exec_request("early"))).code() == grpc.StatusCode.NOT_FOUND
    assert texts(run(talker, exec_request("talk"))) == texts(said)


def test_the_older_names_of_fork_and_delete_work(talker):
    run(talker, exec_request("talk", "count 1"))
    stub = pb_grpc.EventLogServiceStub(talker.channel())
    for at, method in enumerate((stub.Fork, stub.ForkConversation)):
        request = pb.ForkConversationRequest(
            src_conversation_id="talk", dest_conversation_id=f"fork{at}"
        )
        assert method(request, timeout=SECONDS).conversation_id == f"fork{at}"
    for at, method in enumerate((stub.Delete, stub.DeleteConversation)):
        method(pb.DeleteConversationRequest(conversation_id=f"fork{at}"), timeout=SECONDS)
        error = refused(lambda: run(talker, exec_request(f"fork{at}")))
        assert error.code() == grpc.StatusCode.NOT_FOUND


def test_files_of_the_workspace_are_read_and_no_others(talker):
    run(talker, exec_request("talk", "write note.txt some words"))
    stub = pb_grpc.FileServiceStub(talker.channel())

    def read(path: str, conversation: str = "talk") -> bytes:
        request = pb.ReadFileRequest(conversation_id=conversation, path=path)
        return stub.ReadFile(request, timeout=SECONDS).content

    assert read("note.txt") == b"some words"
    for path in ("/etc/passwd", "../../../../etc/passwd", "../", ".", ""):
        error = refused(lambda: read(path))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, path
    workspace = next((talker.data / "workspaces" / "default").iterdir())
    (workspace / "out").symlink_to("/etc/passwd")
    assert refused(lambda: read("out")).code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refused(lambda: read("nothing")).code() == grpc.StatusCode.NOT_FOUND
    assert refused(lambda: read("note.txt", "nobody")).code() == grpc.StatusCode.NOT_FOUND


def test_listeners_hear_all_of_it_whenever_they_come(talker):
    heard: dict[int, list[str]] = {}

    def listen(number: int) -> None:
        wait_for("conversation", lambda: exists(talker, "talk"))
        heard[number] = texts(run(talker, exec_request("talk")))

    threads = [threading.Thread(target=listen, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    said = texts(run(talker, exec_request("talk", "count 10 0.05")))
    for thread in threads:
        thread.join()
    assert all(words == said for words in heard.values()) and len(heard) == 4


def exists(server, conversation: str) -> bool:
    stub = pb_grpc.FileServiceStub(server.channel())
    try:
        stub.ReadFile(pb.ReadFileRequest(conversation_id=conversation, path="x"), timeout=SECONDS)
    except grpc.RpcError as error:
        return "no file" in error.details()
    return True
