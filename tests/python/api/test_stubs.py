"""Clients that know the proto files only."""

from __future__ import annotations

import json
import urllib.request

import grpc
import pytest
from google.protobuf import descriptor_pool, json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICES = ["Agents", "Server", "Sessions"]


def text(event_pb2, words):
    body = event_pb2.Body(text=words)
    kind = event_pb2.PART_KIND_TEXT
    return event_pb2.Part(kind=kind, media_type="text/plain", body=body)


def submit(stubs, session, words="Hi", **more):
    event_pb2, service_pb2, _ = stubs
    parts = [text(event_pb2, words)]
    return service_pb2.SubmitRequest(session=session, agent="hello", parts=parts, **more)


def test_generated_stubs_submit_and_follow(stubs, channel):
    _, service_pb2, service_pb2_grpc = stubs
    sessions = service_pb2_grpc.SessionsStub(channel)
    sent = sessions.Submit(submit(stubs, "stubs", key="once"))
    again = sessions.Submit(submit(stubs, "stubs", key="once"))
    assert (sent.created, sent.duplicate, again.duplicate) == (True, False, True)
    assert again.seq == sent.seq
    request = service_pb2.FollowRequest(session="stubs", until_input=sent.seq)
    items = list(sessions.Follow(request))
    events = [item.event for item in items if item.HasField("event")]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    kinds = [event.WhichOneof("kind") for event in events]
    assert kinds[0] == "session_created" and kinds[-1] == "execution_completed"
    assert items[-1].end.reason == service_pb2.FollowEnd.REASON_REACHED
    # Going on in the middle gives the rest, and nothing else.
    for at in range(len(events)):
        request.after = at
        rest = [item.event for item in sessions.Follow(request) if item.HasField("event")]
        assert rest == events[at:]


def test_a_stream_of_inputs_is_answered_in_order(stubs, channel):
    _, service_pb2, service_pb2_grpc = stubs
    sessions = service_pb2_grpc.SessionsStub(channel)
    request = service_pb2.SubmitStreamRequest
    requests = [request(id=n, submit=submit(stubs, f"many-{n % 5}", f"{n}")) for n in range(200)]
    requests[100] = request(id=100, submit=submit(stubs, "ses_nonsense"))
    answers = list(sessions.SubmitStream(iter(requests)))
    assert [answer.id for answer in answers] == list(range(200))
    refused = [answer.id for answer in answers if answer.HasField("error")]
    assert refused == [100] and answers[100].error.code == "AX1001"
    for session in range(5):
        seqs = [a.done.seq for a in answers if a.id % 5 == session and a.HasField("done")]
        assert seqs == sorted(seqs)
        name = f"many-{session}"
        page = sessions.ListEvents(service_pb2.ListEventsRequest(session=name))
        inputs = [e.input_received for e in page.events if e.HasField("input_received")]
        words = [int(one.parts[0].body.text) for one in inputs]
        assert words == sorted(words) and len(words) >= 39


def test_an_error_has_the_same_details_in_both_protocols(stubs, channel, server):
    _, service_pb2, service_pb2_grpc = stubs
    sessions = service_pb2_grpc.SessionsStub(channel)
    with pytest.raises(grpc.RpcError) as raised:
        sessions.GetSession(service_pb2.GetSessionRequest(session="nowhere"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    metadata = dict(raised.value.trailing_metadata())
    error = service_pb2.Error.FromString(metadata["ax-error-bin"])
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.ask("GET", "/v1/sessions/nowhere")
    body = json.load(refused.value)
    assert refused.value.code == 404
    expect = json_format.MessageToDict(error, always_print_fields_with_no_presence=True)
    assert body == expect and body["code"] == "AX1002"


def test_events_look_the_same_in_both_protocols(stubs, channel, server):
    _, service_pb2, service_pb2_grpc = stubs
    sessions = service_pb2_grpc.SessionsStub(channel)
    sent = sessions.Submit(submit(stubs, "both", "ä\n\r\u2028 x"))
    request = service_pb2.FollowRequest(session="both", until_input=sent.seq)
    events = [item.event for item in sessions.Follow(request) if item.HasField("event")]
    page = server.ask("GET", "/v1/sessions/both/events")
    assert page["events"] == [json_format.MessageToDict(event) for event in events]


def test_reflection_describes_what_is_there(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    names = database.get_services()
    assert {f"agentexecutor.v1.{name}" for name in SERVICES} <= set(names)
    assert "grpc.health.v1.Health" in names
    pool = descriptor_pool.DescriptorPool(database)
    sessions = pool.FindServiceByName("agentexecutor.v1.Sessions")
    assert sessions.methods_by_name["Follow"].server_streaming
    event = pool.FindMessageTypeByName("agentexecutor.v1.Event")
    assert event.fields_by_name["seq"].number == 1


def test_the_server_says_that_it_serves(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for name in ["", *(f"agentexecutor.v1.{name}" for name in SERVICES)]:
        answer = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
