"""What the client reads and writes: HTTP, server-sent events, errors, events, texts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_executor.client import RecordWritten, http1, sse, text_part
from agent_executor.client.address import Address, Credentials
from agent_executor.client.calls import Calls
from agent_executor.client.errors import of_answer
from agent_executor.client.events import Event, Text

STREAM = (
    '\ufeffretry: 500\r\nid: 1\ndata: {"a":\r\ndata: "ü€😀"}\r\r: a comment\n\nevent: end\n'
    "data\nid: 7\0\n\nid: 2\nid\nevent: x\n\ndata:  two \n\n"
).encode()
MESSAGES = [
    sse.Message("1", "message", '{"a":\n"ü€😀"}'),
    sse.Message("1", "end", ""),
    sse.Message("", "message", " two "),
]


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 1000])
def test_messages_are_the_same_however_the_stream_is_cut(size: int) -> None:
    reader = sse.Reader()
    read = [message for piece in pieces(STREAM, size) for message in reader.feed(piece)]
    assert read == MESSAGES


def test_a_message_without_its_end_is_none() -> None:
    reader = sse.Reader()
    assert reader.feed(b"id: 1\ndata: x\n") == []
    assert reader.feed(b"\n") == [sse.Message("1", "message", "x")]


def test_a_sign_of_life_says_how_far_the_stream_is() -> None:
    reader = sse.Reader()
    assert reader.feed(b": still here\nid: 7\n\n: and here\n\n") == [
        sse.Message("7", sse.ALIVE, "")
    ]
    assert reader.feed(b"data: x\n\n") == [sse.Message("7", "message", "x")]


ANSWERS = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 \r\n\r\n", 204, b""),
    (
        b"HTTP/1.1 429 Slow\r\nTransfer-Encoding: chunked\r\nA: 1\r\na: 2\r\n\r\n"
        b"3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nT: 1\r\n\r\n",
        429,
        b"hello",
    ),
    (b"HTTP/1.0 200 OK\r\n\r\nhello", 200, b"hello"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_the_same_however_it_is_cut(
    answer: tuple[bytes, int, bytes], size: int
) -> None:
    data, status, body = answer
    response = http1.Response()
    read = b"".join(response.feed(piece) for piece in pieces(data, size))
    if not response.done:
        response.end()
    assert response.head is not None
    assert (response.head.status, read, response.done) == (status, body, True)


def test_headers_of_the_same_name_are_joined() -> None:
    response = http1.Response()
    response.feed(ANSWERS[2][0])
    assert response.head is not None
    assert response.head.headers["a"] == "1, 2"


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200\r\nno header\r\n\r\n",
        b"HTTP/1.1 200\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"x" * (http1.HEAD_BYTES_MAX + 1),
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(http1.Malformed):
        http1.Response().feed(data)


def test_an_answer_that_ends_too_early_is_none() -> None:
    for data in [b"", b"HTTP/1.1 200", b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhell"]:
        response = http1.Response()
        response.feed(data)
        with pytest.raises(http1.Malformed):
            response.end()


def test_nothing_can_be_smuggled_into_a_request() -> None:
    for target in ["/a b", "/a\r\nX: 1", "/ü"]:
        with pytest.raises(ValueError, match="no target"):
            http1.request("GET", target, {}, None)
    for headers in [{"a": "1\r\nb: 2"}, {"a b": "1"}, {"a": "\n"}]:
        with pytest.raises(ValueError, match="malformed"):
            http1.request("GET", "/", headers, None)


def test_an_error_is_read_as_the_server_said_it() -> None:
    body = b'{"code":"AX1007","message":"full","hint":"wait","retryable":true,"causes":["x"]}'
    error = of_answer(429, {"retry-after": "3"}, body)
    assert (error.code, error.message, error.hint) == ("AX1007", "full", "wait")
    assert (error.causes, error.status, error.retry_after) == (("x",), 429, 3.0)
    assert error.passes
    assert not error.broken


@pytest.mark.parametrize(
    ("status", "broken"), [(400, False), (404, False), (429, True), (502, True), (503, True)]
)
def test_the_answer_of_a_proxy_is_broken_if_it_may_pass(status: int, broken: bool) -> None:
    assert of_answer(status, {}, b"<html>").broken is broken


@pytest.mark.parametrize(
    ("text", "address", "authority"),
    [
        ("http://a:1", Address(host="a", port=1), "a:1"),
        ("http://[::1]:1/", Address(host="::1", port=1), "[::1]:1"),
        ("https://a", Address(host="a", port=443, tls=True), "a:443"),
        ("unix:/a", Address(path="/a"), "localhost"),
        ("unix:///a", Address(path="/a"), "localhost"),
        ("/a", Address(path="/a"), "localhost"),
    ],
)
def test_a_server_is_named_by_a_socket_or_by_a_host_and_a_port(
    text: str, address: Address, authority: str
) -> None:
    assert Address.parse(text) == address
    assert address.authority == authority


@pytest.mark.parametrize("text", ["", "unix:", "ftp://a", "http://", "http://a/b", "http://u@a"])
def test_what_names_no_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Address.parse(text)


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Credentials(token="secret"))


def test_the_kind_of_an_event_is_found_and_named() -> None:
    raw = {"seq": "5", "atMillis": "7", "execution": 1, "executionTimedOut": {"limitMillis": "9"}}
    event = Event.of_json(raw)
    assert (event.seq, event.kind, event.at_millis) == (5, "execution.timed_out", 7)
    assert event.data == {"limitMillis": "9"}
    assert event.ends_execution
    assert Event.of_json({"seq": 1, "note": {}}).kind == "note"
    with pytest.raises(ValueError, match="malformed"):
        Event.of_json({"note": {}})


def said(*events: dict[str, Any]) -> str:
    text = Text()
    for seq, fields in enumerate(events, 1):
        text.add(Event.of_json({"seq": seq, "execution": 1, **fields}))
    return str(text)


def delta(block: str, words: str, attempt: int = 1) -> dict[str, Any]:
    return {"attempt": attempt, "outputDelta": {"block": block, "text": words}}


def test_a_text_is_put_together_in_the_order_in_which_its_blocks_began() -> None:
    whole = {"parts": [{"body": {"text": "4"}}]}
    assert (
        said(
            delta("a", "1"),
            delta("b", "3"),
            {"outputMessage": {"block": "b"}},
            delta("a", "2"),
            {"outputMessage": {"block": "a"}},
            {"outputMessage": whole},
            delta("a", "5"),
        )
        == "12345"
    )


def test_what_a_lost_attempt_left_unfinished_is_void() -> None:
    assert (
        said(
            delta("a", "kept "),
            {"outputMessage": {"block": "a"}},
            delta("b", "void"),
            {"attemptLost": {"superseded": ["b"]}},
            delta("b", "said again", attempt=2),
            {"outputMessage": {"block": "b"}},
            {"executionCompleted": {}},
        )
        == "kept said again"
    )


def test_what_the_next_attempt_says_again_is_there_once() -> None:
    assert (
        said(
            {"attemptStarted": {}},
            {"outputMessage": {"parts": [{"body": {"text": "earlier "}}]}},
            {"executionCompleted": {}},
            {"executionStarted": {}},
            {"attemptStarted": {}},
            {"outputMessage": {"parts": [{"body": {"text": "with a key "}}], "key": "k"}},
            {"outputMessage": {"parts": [{"body": {"text": "without"}}]}},
            {"attemptLost": {}},
            {"attemptStarted": {}},
            {"outputMessage": {"parts": [{"body": {"text": "without"}}]}},
        )
        == "earlier with a key without"
    )


def test_what_was_said_before_a_cancellation_stays() -> None:
    assert said(delta("a", "half"), {"executionCanceled": {}}, delta("a", "!")) == "half!"


def test_a_record_is_sent_as_it_is_and_its_position_is_read() -> None:
    prepared = Calls("host", "", "").record("lg/a", "notes", [text_part("x")], "a", "k", False, 0)
    call = prepared.call
    assert (call.method, call.target) == ("POST", "/v1/sessions/lg%2Fa/records")
    assert json.loads(call.body or b"") == {
        "agent": "a",
        "collection": "notes",
        "key": "k",
        "parts": [text_part("x")],
        "replaces": False,
        "after": "0",
    }
    written = prepared.read(b'{"session": "ses_1", "seq": "18", "created": true}')
    assert written == RecordWritten("ses_1", 18, created=True)


def test_a_record_without_a_condition_has_none_and_always_a_key() -> None:
    prepared = Calls("host", "", "").record("s", "notes", [], "", "", True, None)
    sent = json.loads(prepared.call.body or b"")
    assert "after" not in sent
    assert sent["key"].startswith("sent-")
    assert sent["replaces"] is True


def test_a_page_of_records_is_read() -> None:
    prepared = Calls("host", "", "").records("s", "my notes", 7, 3)
    assert prepared.call.target == "/v1/sessions/s/records?collection=my+notes&after=7&limit=3"
    event = {"seq": "9", "recordWritten": {"collection": "my notes", "key": "k"}}
    page = prepared.read(json.dumps({"events": [event], "last": "9"}).encode())
    assert (page.last, page.base, page.events[0].kind) == (9, 0, "record.written")
