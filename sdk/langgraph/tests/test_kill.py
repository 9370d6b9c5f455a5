"""Processes that are killed in the middle: their threads go on, and nothing is half there."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from uuid import uuid4

import pytest

from agent_executor.client import Client, ServerError
from agent_executor.client.calls import Calls
from agent_executor_langgraph import AxSaver

PROGRAM = pathlib.Path(__file__).with_name("killed.py")


def program(server, thread: str, file: pathlib.Path, what: str, die_in: str = ""):
    env = {**os.environ, "DIE_IN": die_in}
    args = [sys.executable, str(PROGRAM), server.url, thread, str(file), what]
    return subprocess.run(args, env=env, capture_output=True, text=True, timeout=120, check=False)


def said(done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("die_in", ["one", "three"])
def test_a_graph_that_is_killed_goes_on_from_its_checkpoint(server, tmp_path, die_in) -> None:
    thread, file = str(uuid4()), tmp_path / "done"
    killed = program(server, thread, file, "start", die_in)
    assert killed.returncode == -signal.SIGKILL
    assert said(program(server, thread, file, "go-on")) == "one,two,three,four 1"
    # Only the step that was cut short was carried out again.
    expected = ["one", "two", "three", "four"]
    expected.insert(expected.index(die_in), die_in)
    assert file.read_text().split() == expected
    assert said(program(server, thread, file, "resume")) == "one,two,three,four,done 0"
    assert file.read_text().split() == expected


def test_a_server_that_is_killed_has_what_it_had_acknowledged(own_server, tmp_path) -> None:
    thread, file = str(uuid4()), tmp_path / "done"
    said(program(own_server, thread, file, "start"))
    listen = own_server.url.removeprefix("http://")
    own_server.kill()
    own_server.start(listen)
    assert said(program(own_server, thread, file, "resume")) == "one,two,three,four,done 0"


class Killed(BaseException):
    """The process is gone."""


class DyingCalls:
    """The requests of a process that dies before one of them."""

    def __init__(self, requests: int) -> None:
        self.left = requests

    def before(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


def dying(server, requests: int) -> AxSaver:
    """Return a checkpointer whose process dies before a request that changes something."""
    saver = AxSaver(server.url)
    dying = DyingCalls(requests)
    do = saver._client._do

    def watched(prepared):
        # A question about a name writes nothing: it names a position that there is not.
        if prepared.call.method != "GET" and b'"collection": "-"' not in prepared.call.body:
            dying.before()
        return do(prepared)

    saver._client._do = watched
    return saver


@pytest.mark.parametrize("requests", range(5))
def test_between_any_two_requests_a_checkpoint_is_there_whole_or_not_at_all(
    server, requests
) -> None:
    config = {"configurable": {"thread_id": str(uuid4()), "checkpoint_ns": ""}}
    large = {name: os.urandom(50_000).hex() for name in "ab"}
    first = checkpoint("0", {"a": 1, "b": 1}, {"a": "small", "b": "small"})
    parent = AxSaver(server.url).put(config, first, {"step": 0}, {"a": 1, "b": 1})
    second = checkpoint("1", {"a": 2, "b": 2}, large)
    saver = dying(server, requests)
    try:
        at = saver.put(parent, second, {"step": 1}, {"a": 2, "b": 2})
        # Two values and the record; then what a task writes, as a value and a record.
        saver.put_writes(at, [("a", large["a"]), ("b", "small")], "task")
    except Killed:
        pass
    found = AxSaver(server.url).get_tuple(config)
    if requests < 3:
        assert (found.checkpoint, found.pending_writes) == (first, [])
    else:
        assert found.checkpoint == second
        assert found.parent_config == parent
        whole = [("task", "a", large["a"]), ("task", "b", "small")]
        assert found.pending_writes == (whole if requests > 4 else [])


def test_the_test_above_has_a_case_in_which_nobody_dies(server) -> None:
    saver = dying(server, 5)
    config = {"configurable": {"thread_id": str(uuid4()), "checkpoint_ns": ""}}
    large = os.urandom(50_000).hex()
    at = saver.put(config, checkpoint("1", {"a": 2}, {"a": large}), {"step": 1}, {"a": 2})
    saver.put_writes(at, [("a", large)], "task")
    assert len(AxSaver(server.url).get_tuple(config).pending_writes) == 1


def test_a_request_whose_answer_is_lost_is_written_once(server) -> None:
    config = {"configurable": {"thread_id": str(uuid4()), "checkpoint_ns": ""}}
    saver = AxSaver(server.url)
    at = saver.put(config, checkpoint("1", {}, {}), {"step": 1}, {})
    session = Client(server.url).session(f"lg/{at['configurable']['thread_id']}").id
    calls = Calls(server.url.removeprefix("http://"), "", "")
    prepared = calls.record(session, "checkpoints", [], "langgraph", "key", False, 2)
    client = Client(server.url)
    first, again = client._do(prepared), client._do(prepared)
    assert (again.seq, again.duplicate, first.duplicate) == (first.seq, True, False)
    with pytest.raises(ServerError, match="AX1021"):
        client.record(session, "checkpoints", [], after=2)
    # A record that is none of ours does no harm.
    assert saver.get_tuple(config).checkpoint["id"].endswith("1")


def checkpoint(number: str, versions: dict, values: dict) -> dict:
    return {
        "v": 4,
        "id": f"1f0c0000-0000-6000-8000-00000000000{number}",
        "ts": "2030-01-01T00:00:00+00:00",
        "channel_values": values,
        "channel_versions": versions,
        "versions_seen": {},
        "updated_channels": None,
    }
