"""Processes that die: a writer between two writes, a writer anywhere, the server."""

from __future__ import annotations

import asyncio
import os
import pathlib
import random
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions

from agent_executor_adk import AxSessionService
from agent_executor_adk.shared import SharedState
from conftest import ROOT, Server

WRITER = pathlib.Path(__file__).parent / "writer.py"
IDS: dict[str, Any] = {"user_id": "user", "session_id": "one"}


class Died(Exception):
    """Stands for the end of a process."""


def changing(**delta: Any) -> Event:
    named = {key.replace("_", ":"): value for key, value in delta.items()}
    return Event(author="a", actions=EventActions(state_delta=named))


def start(*args: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join(str(ROOT / path) for path in ("sdk/python/src", "sdk/adk/src"))
    env = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, str(WRITER), *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)


async def append_and_die(monkeypatch: pytest.MonkeyPatch, uri: str, app: str, event: Event) -> None:
    """Append an event in a process that dies before it changes what is shared."""

    async def die(self: SharedState, delta: Mapping[str, Any], key: str) -> None:
        raise Died

    sessions = AxSessionService(uri)
    session = await sessions.get_session(app_name=app, **IDS)
    assert session is not None
    with monkeypatch.context() as patch:
        patch.setattr(SharedState, "write", die)
        with pytest.raises(Died):
            await sessions.append_event(session, event)


def test_what_a_writer_that_died_did_not_come_to_is_made_up_for(
    server: Server, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        sessions = AxSessionService(server.uri)
        await sessions.create_session(app_name=app, **IDS, state={"app:x": 0, "n": 0})
        event = changing(app_x=1, user_y=2, n=3)
        await append_and_die(monkeypatch, server.uri, app, event)
        for _ in range(2):
            found = await AxSessionService(server.uri).get_session(app_name=app, **IDS)
            assert found is not None
            assert found.state == {"app:x": 1, "user:y": 2, "n": 3}
            assert len(found.events) == 1
        other = await sessions.create_session(app_name=app, user_id="user")
        assert other.state == {"app:x": 1, "user:y": 2}

    asyncio.run(main())


def test_what_is_made_up_for_changes_nothing_that_was_written_since(
    server: Server, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        sessions = AxSessionService(server.uri)
        await sessions.create_session(app_name=app, **IDS)
        await append_and_die(monkeypatch, server.uri, app, changing(app_x="old", app_z="old"))
        await asyncio.sleep(0.01)  # later, on the server's clock
        other = await sessions.create_session(app_name=app, user_id="other")
        for number in range(200):  # more than are kept as they are
            await sessions.append_event(other, changing(app_x=number))
        found = await sessions.get_session(app_name=app, **IDS)
        assert found is not None
        assert found.state == {"app:x": 199, "app:z": "old"}
        fresh = await AxSessionService(server.uri).create_session(app_name=app, user_id="new")
        assert fresh.state == {"app:x": 199, "app:z": "old"}

    asyncio.run(main())


def test_who_tries_again_after_dying_half_way_records_the_event_once(
    server: Server, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        sessions = AxSessionService(server.uri)
        session = await sessions.create_session(app_name=app, **IDS)
        event = changing(app_x=1)

        async def fail(self: SharedState, delta: Mapping[str, Any], key: str) -> None:
            raise Died

        with monkeypatch.context() as patch:
            patch.setattr(SharedState, "write", fail)
            with pytest.raises(Died):
                await sessions.append_event(session, event)
        assert session.events == []
        await sessions.append_event(session, event)
        assert session.events == [event]
        found = await sessions.get_session(app_name=app, **IDS)
        assert found is not None
        assert (found.events, found.state) == ([event], {"app:x": 1})

    asyncio.run(main())


def test_a_writer_that_is_killed_anywhere_leaves_whole_events(server: Server, app: str) -> None:
    dice = random.Random(7)
    acknowledged = 0
    asyncio.run(AxSessionService(server.uri).create_session(app_name=app, **IDS))
    for _ in range(6):
        writer = start("count", server.uri, app)
        assert writer.stdout is not None
        for _ in range(dice.randint(1, 20)):
            acknowledged = int(writer.stdout.readline())
        writer.kill()
        rest = writer.stdout.read().split()
        acknowledged = max([acknowledged, *map(int, rest)])
        writer.wait(timeout=60)
        found = asyncio.run(AxSessionService(server.uri).get_session(app_name=app, **IDS))
        assert found is not None
        number = found.state["n"]
        assert number in {acknowledged, acknowledged + 1}, "what was acknowledged is there"
        assert found.state == {"n": number, "app:n": number, "user:n": number}
        deltas = [event.actions.state_delta["n"] for event in found.events]
        assert deltas == list(range(1, number + 1)), "each event is there once"


def test_a_server_that_is_killed_is_waited_for(tmp_path: pathlib.Path, app: str) -> None:
    own = Server(tmp_path / "data")
    sessions = AxSessionService(own.uri)

    async def main() -> None:
        session = await sessions.create_session(app_name=app, **IDS)

        async def append() -> None:
            for number in range(200):
                await sessions.append_event(session, changing(n=number, app_n=number))

        appending = asyncio.create_task(append())
        for _ in range(3):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(own.kill)
            await asyncio.to_thread(own.start)
        await appending
        found = await sessions.get_session(app_name=app, **IDS)
        assert found is not None
        assert [event.actions.state_delta["n"] for event in found.events] == list(range(200))
        assert found.state == {"n": 199, "app:n": 199}

    try:
        asyncio.run(main())
    finally:
        own.stop()


def test_an_invocation_goes_on_in_another_process_and_adk_by_itself_repeats_the_tool(
    server: Server, app: str, tmp_path: pathlib.Path
) -> None:
    """The services alone make sessions durable, not effects: for those there is the runner."""
    effects = tmp_path / "effects.txt"
    first = start("run", server.uri, app, str(effects))
    assert first.wait(timeout=120) == 9
    second = start("run", server.uri, app, str(effects))
    said, _ = second.communicate(timeout=120)
    assert (second.returncode, said) == (0, "it is done\n")
    assert effects.read_text().splitlines() == ["effect", "effect"]
