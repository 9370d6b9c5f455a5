"""The clients in front of a real socket, whose other end misbehaves on purpose."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from agent_executor.client import (
    AsyncClient,
    Broken,
    CaughtUp,
    Client,
    End,
    Event,
    Item,
    Patience,
    Plan,
    ServerError,
)

PATIENCE = Patience(outage=5.0, pause_min=0.001, pause_max=0.01, silence=0.3, connect=2.0)
Script = Callable[[str, socket.socket], None]


class Server:
    """Answers each connection by the next script; notes the requests."""

    def __init__(self, *scripts: Script) -> None:
        self.requests: list[str] = []
        self._scripts = list(scripts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for script in self._scripts:
            connection, _ = self._listener.accept()
            with connection:
                request = _read_request(connection)
                self.requests.append(request)
                script(request, connection)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(5)
        self._listener.close()
        assert not self._thread.is_alive(), "the client has made all its connections"


def _read_request(connection: socket.socket) -> str:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.decode().split("\r\n"):
        if line.lower().startswith("content-length: "):
            while len(body) < int(line.split(": ")[1]):
                body += connection.recv(65536)
    return (head + b"\r\n\r\n" + body).decode()


def answers(status: int, body: Any, **headers: str) -> Script:
    def script(_request: str, connection: socket.socket) -> None:
        data = json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} x", f"content-length: {len(data)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + data)

    return script


def hangs_up(_request: str, connection: socket.socket) -> None:
    # A reset, not a polite end.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def streams(*messages: str, stall: bool = False, cut: int = 0) -> Script:
    def script(_request: str, connection: socket.socket) -> None:
        data = "".join(messages).encode()
        data = data[: len(data) - cut]
        connection.sendall(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nd\r\nretry: 1000\n\n\r\n"
        )
        for at in range(0, len(data), 7):
            piece = data[at : at + 7]
            connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if stall:
            # Until the client has had enough.
            assert connection.recv(1) == b""

    return script


def event(seq: int) -> str:
    data = {"seq": str(seq), "outputDelta": {"block": "b", "text": f"ü{seq}"}}
    return f"event: output.delta\nid: {seq}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def end(reason: str, last: int) -> str:
    return f'event: end\nid: {last}\ndata: {{"reason": "REASON_{reason}", "last": "{last}"}}\n\n'


def wait(url: str, work: Callable[[Any], Any]) -> Any:
    return work(Client(url, patience=PATIENCE))


def wait_all(url: str, work: Callable[[Any], Any]) -> Any:
    async def main() -> Any:
        result = work(AsyncClient(url, patience=PATIENCE))
        if isinstance(result, AsyncIterator):
            return [item async for item in result]
        return await result

    return asyncio.run(main())


both = pytest.mark.parametrize("drive", [wait, wait_all])
Drive = Callable[[str, Callable[[Any], Any]], Any]


@both
def test_an_input_is_sent_again_under_the_same_key_until_it_is_answered(drive: Drive) -> None:
    stopping = {"code": "AX3002", "message": "stopping", "retryable": True}
    limit = {"error": {"code": "AX1301", "message": "much", "retryable": True}}
    done = {"session": "ses_1", "seq": "2", "created": True}
    with Server(
        hangs_up,
        answers(503, stopping),
        answers(429, limit, retry_after="0"),
        answers(200, done),
    ) as server:
        sent = drive(server.url, lambda client: client.submit("hello", agent="a"))
    assert (sent.session, sent.seq, sent.created) == ("ses_1", 2, True)
    bodies = {request.partition("\r\n\r\n")[2] for request in server.requests}
    paths = {request.partition(" HTTP")[0] for request in server.requests}
    assert (len(server.requests), len(bodies), len(paths)) == (4, 1, 1)
    assert json.loads(bodies.pop())["key"].startswith("sent-")
    assert paths.pop().startswith("POST /v1/sessions/ses_")


@both
def test_what_must_not_be_done_twice_is_not_sent_again_when_it_may_have_been_done(
    drive: Drive,
) -> None:
    with Server(hangs_up) as server, pytest.raises(ServerError) as caught:
        drive(server.url, lambda client: client.cancel("s"))
    assert caught.value.broken
    assert len(server.requests) == 1


@both
def test_a_plan_is_told_what_was_answered_and_what_was_refused(drive: Drive) -> None:
    def plan() -> Plan[tuple[int, str]]:
        written = yield lambda calls: calls.write_blob(b"hello")
        try:
            yield lambda calls: calls.read_blob("blob_1")
        except ServerError as error:
            return written.bytes, error.code
        raise AssertionError("it is refused")

    refusal = {"code": "AX1002", "message": "there is none"}
    scripts = [hangs_up, answers(200, {"id": "blob_0", "bytes": "5"}), answers(404, refusal)]
    with Server(*scripts) as server:
        assert drive(server.url, lambda client: client.carry(plan())) == (5, "AX1002")


@both
def test_a_refusal_is_raised_with_its_code_and_hint(drive: Drive) -> None:
    refusal = {"code": "AX1002", "message": "there is none", "hint": "list them", "causes": ["x"]}
    with Server(answers(404, refusal)) as server, pytest.raises(ServerError) as caught:
        drive(server.url, lambda client: client.session("s"))
    error = caught.value
    assert (error.code, error.hint, error.status, error.causes) == (
        "AX1002",
        "list them",
        404,
        ("x",),
    )
    assert not error.passes


@both
def test_a_follower_hands_every_event_out_once_over_all_breaks(drive: Drive) -> None:
    caught_up = 'event: caught-up\nid: 3\ndata: {"last": "3"}\n\n'
    with Server(
        streams(event(1), event(2), event(3), cut=20),
        hangs_up,
        answers(502, "a proxy"),
        streams(": still here\nid: 2\n\n", event(2), event(3), caught_up, stall=True),
        streams(event(4), event(6)),
        streams(event(5), end("SHUTDOWN", 5)),
        streams(event(6), end("REACHED", 6)),
    ) as server:
        items = drive(server.url, lambda client: client.follow("s", until_idle=True))
        items = items if isinstance(items, list) else list(items)
    events = [item for item in items if isinstance(item, Event)]
    assert [event.seq for event in events] == [1, 2, 3, 4, 5, 6]
    assert events[5].data["text"] == "ü6"
    assert [item for item in items if isinstance(item, CaughtUp)] == [CaughtUp(3)]
    assert len([item for item in items if isinstance(item, Broken)]) == 4
    assert isinstance(items[-1], End)
    asked = [request.partition("after=")[2].partition(" ")[0] for request in server.requests]
    assert asked == ["0", "2", "2", "2", "3", "4", "5"]


def test_patience_ends_and_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    patience = Patience(outage=0.05, pause_min=0.01, pause_max=0.01)
    with pytest.raises(ServerError, match="no server answers"):
        Client(url, patience=patience).info()
    with pytest.raises(ServerError, match="no server answers"):
        asyncio.run(AsyncClient(url, patience=patience).info())


def test_a_follower_that_is_left_closes_its_connection() -> None:
    def stays(_request: str, connection: socket.socket) -> None:
        streams(event(1), stall=True)(_request, connection)

    with Server(stays, stays) as server:
        following: Iterator[Item] = Client(server.url, patience=PATIENCE).follow("s")
        first = next(following)
        assert isinstance(first, Event)
        following.close()  # type: ignore[attr-defined]

        async def main() -> None:
            async for item in AsyncClient(server.url, patience=PATIENCE).follow("s"):
                assert isinstance(item, Event)
                break

        asyncio.run(main())
