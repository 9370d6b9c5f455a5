"""What ADK expects of a session service, and what this one adds. Against a real server."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import pytest
from agent_executor.client import AsyncClient
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions, EventCompaction
from google.genai import types

from adk_sessions import USER, get, is_there, run, said, texts, there
from agent_executor_adk import AxSessionService
from conftest import Server


def test_a_session_that_was_created_is_found_and_one_that_was_not_is_none(
    sessions: AxSessionService, app: str
) -> None:
    async def main() -> None:
        made = await sessions.create_session(app_name=app, user_id=USER, state={"a": 1})
        assert made.id
        assert (made.app_name, made.user_id, made.state, made.events) == (app, USER, {"a": 1}, [])
        assert made.last_update_time > 0
        found = await get(sessions, made)
        assert found == made
        for other in ({"session_id": "no"}, {"user_id": "other"}, {"app_name": app + "x"}):
            ids: dict[str, Any] = {"app_name": app, "user_id": USER, "session_id": made.id, **other}
            assert await sessions.get_session(**ids) is None

    run(main())


def test_ids_are_given_or_made_up_and_a_given_one_is_trimmed(
    sessions: AxSessionService, app: str
) -> None:
    async def main() -> None:
        ids: dict[str, Any] = {"app_name": app, "user_id": USER}
        assert (await sessions.create_session(**ids, session_id="mine")).id == "mine"
        assert (await sessions.create_session(**ids, session_id="  padded ")).id == "padded"
        assert (await there(sessions, {**ids, "session_id": " padded "})).id == "padded"
        made = {(await sessions.create_session(**ids, session_id=blank)).id for blank in ("", "  ")}
        assert len(made) == 2

    run(main())


@pytest.mark.parametrize(
    "name", ["a/b", "a b", "é~2", "x~2", "%2F", "..", "?#&", "日本", "n" * 300, "@:;"]
)
def test_any_name_is_a_name(sessions: AxSessionService, app: str, name: str) -> None:
    async def main() -> None:
        ids: dict[str, Any] = {"app_name": f"{app}{name}", "user_id": name, "session_id": name}
        made = await sessions.create_session(**ids)
        await sessions.append_event(made, said("here", delta={"user:seen": name}))
        assert texts(await there(sessions, ids)) == ["here"]
        (listed,) = (await sessions.list_sessions(app_name=ids["app_name"])).sessions
        assert (listed.id, listed.user_id) == (name, name)
        await sessions.delete_session(**ids)
        assert await sessions.get_session(**ids) is None

    run(main())


def test_an_id_is_used_once_at_a_time(sessions: AxSessionService, app: str) -> None:
    async def main() -> None:
        ids: dict[str, Any] = {"app_name": app, "user_id": USER, "session_id": "one"}
        first = await sessions.create_session(**ids, state={"of": "first"})
        with pytest.raises(AlreadyExistsError):
            await sessions.create_session(**ids, state={"app:of": "second"})
        assert (await get(sessions, first)).state == {"of": "first"}
        await sessions.delete_session(**ids)
        again = await sessions.create_session(**ids)
        assert (again.state, again.events) == ({}, [])
        with pytest.raises(SessionNotFoundError):
            await sessions.append_event(first, said("to the one that was deleted"))
        await sessions.append_event(again, said("hello"))
        assert texts(await get(sessions, again)) == ["hello"]

    run(main())


def test_of_many_that_create_the_same_session_one_does(server: Server, app: str) -> None:
    async def create(uri: str) -> bool:
        try:
            await AxSessionService(uri).create_session(app_name=app, user_id=USER, session_id="one")
        except AlreadyExistsError:
            return False
        return True

    async def main() -> None:
        assert sum(await asyncio.gather(*(create(server.uri) for _ in range(8)))) == 1

    run(main())


def test_deleting_is_final_and_deleting_nothing_is_no_error(
    sessions: AxSessionService, app: str
) -> None:
    async def main() -> None:
        ids: dict[str, Any] = {"app_name": app, "user_id": USER}
        made = [await sessions.create_session(**ids, session_id=str(n)) for n in range(3)]
        await sessions.delete_session(**ids, session_id="1")
        await sessions.delete_session(**ids, session_id="1")
        await sessions.delete_session(**ids, session_id="never")
        assert not await is_there(sessions, made[1])
        left = (await sessions.list_sessions(**ids)).sessions
        assert [one.id for one in left] == ["0", "2"]
        with pytest.raises(SessionNotFoundError):
            await sessions.append_event(made[1], said("too late"))

    run(main())


def test_an_id_is_found_again_after_many_deletions(server: Server, app: str) -> None:
    async def main() -> None:
        ids: dict[str, Any] = {"app_name": app, "user_id": USER, "session_id": "one"}
        for n in range(5):
            one = AxSessionService(server.uri)  # it remembers nothing
            made = await one.create_session(**ids, state={"n": n})
            assert (await get(one, made)).state == {"n": n}
            await one.delete_session(**ids)
            assert await one.get_session(**ids) is None

    run(main())


def test_sessions_are_listed_without_events_by_user_or_for_all_of_them(
    sessions: AxSessionService, app: str
) -> None:
    async def main() -> None:
        for user, name in [("u1", "a"), ("u2", "b"), ("u1", "c")]:
            state = {"name": name, "user:of": user}
            made = await sessions.create_session(
                app_name=app, user_id=user, session_id=name, state=state
            )
            await sessions.append_event(made, said("hi", delta={"n": 1, "app:last": name}))
        for of, names in [("u1", ["a", "c"]), ("u2", ["b"]), (None, ["a", "b", "c"]), ("x", [])]:
            found = (await sessions.list_sessions(app_name=app, user_id=of)).sessions
            assert [one.id for one in found] == names
            assert all(one.events == [] for one in found)
        assert found == []
        (listed,) = (await sessions.list_sessions(app_name=app, user_id="u2")).sessions
        assert listed.state == {"name": "b", "n": 1, "app:last": "c", "user:of": "u2"}
        assert (await sessions.list_sessions(app_name=f"{app}x")).sessions == []

    run(main())


def test_the_list_knows_what_has_changed_since_the_last_time(
    sessions: AxSessionService, server: Server, app: str
) -> None:
    async def main() -> None:
        made = [
            await sessions.create_session(app_name=app, user_id=USER, session_id=str(n))
            for n in range(3)
        ]
        assert [one.id for one in (await sessions.list_sessions(app_name=app)).sessions] == [
            "0",
            "1",
            "2",
        ]
        other = AxSessionService(server.uri)
        event = said("hi", delta={"n": 7})
        await other.append_event(await get(other, made[0]), event)
        found = (await sessions.list_sessions(app_name=app)).sessions
        assert [one.id for one in found] == ["1", "2", "0"], "the one that changed last is last"
        assert (found[-1].state, found[-1].last_update_time) == ({"n": 7}, event.timestamp)

    run(main())


def test_state_goes_where_its_prefix_says(sessions: AxSessionService, app: str) -> None:
    async def main() -> None:
        given = {"app:a": 1, "user:u": 2, "temp:t": 3, "s": 4}
        made = await sessions.create_session(app_name=app, user_id=USER, state=given)
        kept = {"app:a": 1, "user:u": 2, "s": 4}
        assert made.state == kept
        assert (await get(sessions, made)).state == kept
        mine = await sessions.create_session(app_name=app, user_id=USER)
        assert mine.state == {"app:a": 1, "user:u": 2}
        theirs = await sessions.create_session(app_name=app, user_id="other")
        assert theirs.state == {"app:a": 1}
        foreign = await sessions.create_session(app_name=f"{app}x", user_id=USER)
        assert foreign.state == {}

    run(main())


def test_an_event_changes_the_state_of_all_whom_it_concerns(
    sessions: AxSessionService, app: str
) -> None:
    async def main() -> None:
        ids: dict[str, Any] = {"app_name": app, "user_id": USER}
        one = await sessions.create_session(**ids, state={"app:a": 1, "s": 1, "keep": True})
        two = await sessions.create_session(**ids)
        delta = {"app:a": 2, "user:u": 2, "temp:t": 2, "s": 2, "none": None}
        await sessions.append_event(one, said("hi", delta=delta))
        assert one.state == {**delta, "keep": True}, "what is temporary is there while it works"
        expected = {"app:a": 2, "user:u": 2, "s": 2, "none": None, "keep": True}
        found = await get(sessions, one)
        assert found.state == expected
        assert "temp:t" not in found.events[0].actions.state_delta
        assert (await get(sessions, two)).state == {"app:a": 2, "user:u": 2}

    run(main())


def test_the_state_of_a_user_can_be_read_without_a_session(
    sessions: AxSessionService, app: str
) -> None:
    async def main() -> None:
        ids: dict[str, Any] = {"app_name": app, "user_id": USER}
        assert await sessions.get_user_state(**ids) == {}
        made = await sessions.create_session(**ids, state={"user:a": 1, "app:b": 2, "c": 3})
        await sessions.append_event(made, said("hi", delta={"user:d": [4]}))
        assert await sessions.get_user_state(**ids) == {"a": 1, "d": [4]}
        assert await sessions.get_user_state(app_name=app, user_id="other") == {}
        await sessions.delete_session(**ids, session_id=made.id)
        assert await sessions.get_user_state(**ids) == {"a": 1, "d": [4]}

    run(main())


def test_what_is_done_to_a_session_in_hand_is_done_to_nothing_else(
    sessions: AxSessionService, app: str
) -> None:
    async def main() -> None:
        given: dict[str, Any] = {"app:a": [1], "user:u": [1], "s": [1]}
        made = await sessions.create_session(app_name=app, user_id=USER, state=given)
        for _ in range(2):
            (listed,) = (await sessions.list_sessions(app_name=app)).sessions
            of_user = await sessions.get_user_state(app_name=app, user_id=USER)
            assert of_user == {"u": [1]}
            of_user["u"].append(2)
            for one in (made, await get(sessions, made), listed):
                for key in given:
                    one.state[key].append(2)
        assert (await get(sessions, made)).state == {"app:a": [1], "user:u": [1], "s": [1]}

    run(main())


def test_values_without_a_json_form_are_written_as_text(
    sessions: AxSessionService, app: str
) -> None:
    async def main() -> None:
        day = datetime.date(2026, 1, 2)
        made = await sessions.create_session(
            app_name=app, user_id=USER, state={"day": day, "function": print}
        )
        state = (await get(sessions, made)).state
        assert state["day"] == "2026-01-02"
        assert "print" in state["function"]

    run(main())


def test_events_come_back_whole_and_in_order(sessions: AxSessionService, app: str) -> None:
    event = Event(
        author="agent",
        invocation_id="inv",
        branch="root.child",
        content=types.Content(
            role="model",
            parts=[
                types.Part(text="ünïcödé \U0001f600 \x00\x1f"),
                types.Part(function_call=types.FunctionCall(id="1", name="f", args={"a": [1.5]})),
                types.Part(inline_data=types.Blob(mime_type="image/png", data=b"\x00\xff")),
                types.Part(text="thinking", thought=True, thought_signature=b"\x01\xfe"),
            ],
        ),
        actions=EventActions(
            state_delta={"nested": {"a": [None, {"b": 1}]}},
            artifact_delta={"f": 3},
            transfer_to_agent="child",
            escalate=True,
            compaction=EventCompaction(
                start_timestamp=1.0,
                end_timestamp=2.0,
                compacted_content=types.Content(role="model", parts=[types.Part(text="short")]),
            ),
            agent_state={"step": 2},
        ),
        long_running_tool_ids={"b", "a"},
        turn_complete=True,
        error_code="E",
        error_message="bad",
        custom_metadata={"k": {"v": 1}},
        grounding_metadata=types.GroundingMetadata(web_search_queries=["q"]),
        usage_metadata=types.GenerateContentResponseUsageMetadata(prompt_token_count=7),
    )

    async def main() -> None:
        made = await sessions.create_session(app_name=app, user_id=USER)
        await sessions.append_event(made, event)
        for n in range(30):
            await sessions.append_event(made, said(str(n)))
        found = await get(sessions, made)
        assert found.events[0] == event
        assert texts(found)[1:] == [str(n) for n in range(30)]
        assert found.events == made.events

    run(main())


def test_partial_events_are_not_kept(sessions: AxSessionService, app: str) -> None:
    async def main() -> None:
        made = await sessions.create_session(app_name=app, user_id=USER)
        part = said("par", delta={"x": 1}, partial=True)
        assert await sessions.append_event(made, part) is part
        assert (made.events, made.state) == ([], {})
        found = await get(sessions, made)
        assert (found.events, found.state) == ([], {})
        await sessions.append_event(made, said("partial"))
        assert texts(await get(sessions, made)) == ["partial"]

    run(main())


def test_a_large_event_is_kept(sessions: AxSessionService, app: str) -> None:
    async def main() -> None:
        made = await sessions.create_session(app_name=app, user_id=USER, state={"s": "x" * 100_000})
        large = bytes(range(256)) * (12 << 12)  # 12 MiB, more than a request may have
        blob = types.Blob(mime_type="image/png", data=large)
        event = Event(
            author="user",
            content=types.Content(role="user", parts=[types.Part(inline_data=blob)]),
            actions=EventActions(state_delta={"user:large": "y" * 100_000}),
        )
        await sessions.append_event(made, event)
        found = await get(sessions, made)
        assert found.events[0].content == event.content
        assert found.state == {"s": "x" * 100_000, "user:large": "y" * 100_000}

    run(main())


def test_the_time_of_a_session_is_that_of_its_last_event(
    sessions: AxSessionService, app: str
) -> None:
    async def main() -> None:
        made = await sessions.create_session(app_name=app, user_id=USER)
        assert (await get(sessions, made)).last_update_time == made.last_update_time
        for timestamp in (1_700_000_000.125, 1_800_000_000.5):
            await sessions.append_event(made, said("hi", timestamp=timestamp))
            assert made.last_update_time == timestamp
            found = await get(sessions, made)
            assert (found.last_update_time, found.events[-1].timestamp) == (timestamp, timestamp)

    run(main())


@pytest.mark.parametrize("count", [0, 1, 3, 10, 11])
def test_recent_events_are_the_newest_in_order(
    sessions: AxSessionService, app: str, count: int
) -> None:
    async def main() -> None:
        made = await sessions.create_session(app_name=app, user_id=USER)
        for n in range(10):
            await sessions.append_event(made, said(str(n), delta={"n": n, "app:n": n}))
        found = await get(sessions, made, num_recent_events=count)
        assert texts(found) == [str(n) for n in range(10)][max(0, 10 - count) :]
        assert found.state == {"n": 9, "app:n": 9}, "the state is that of all events"
        await sessions.append_event(found, said("more"))

    run(main())


def test_events_since_a_time_include_those_at_that_time(
    sessions: AxSessionService, app: str
) -> None:
    async def main() -> None:
        made = await sessions.create_session(app_name=app, user_id=USER)
        for n in range(10):
            await sessions.append_event(made, said(str(n), timestamp=1000.0 + n, delta={"n": n}))
        for since, first in [(0, 0), (1000.0, 0), (1003.5, 4), (1007.0, 7), (2000.0, 10)]:
            found = await get(sessions, made, after_timestamp=since)
            assert texts(found) == [str(n) for n in range(first, 10)]
            assert found.state == {"n": 9}
        both = await get(sessions, made, after_timestamp=1004.0, num_recent_events=3)
        assert texts(both) == ["7", "8", "9"]
        both = await get(sessions, made, after_timestamp=1008.0, num_recent_events=5)
        assert texts(both) == ["8", "9"]

    run(main())


def test_of_a_long_session_the_newest_events_and_the_state_are_read_without_the_rest(
    sessions: AxSessionService, server: Server, app: str
) -> None:
    async def main() -> None:
        made = await sessions.create_session(app_name=app, user_id=USER, state={"first": True})
        for n in range(600):
            event = said(str(n), delta={f"k{n % 7}": n}, timestamp=1000.0 + n)
            await sessions.append_event(made, event)
        whole = await get(sessions, made)  # it writes the state down
        assert len(whole.events) == 600
        await sessions.append_event(whole, said("600", delta={"last": True}, timestamp=1600.0))
        fresh = AxSessionService(server.uri)
        state = {**whole.state, "last": True}
        cases: list[tuple[dict[str, Any], int]] = [
            ({"num_recent_events": 0}, 601),
            ({"num_recent_events": 1}, 600),
            ({"num_recent_events": 5}, 596),
            ({"num_recent_events": 200}, 401),
            ({"num_recent_events": 700}, 0),
            ({"after_timestamp": 1590.0}, 590),
            ({"after_timestamp": 1100.0}, 100),
            ({"after_timestamp": 1.0}, 0),
            ({"after_timestamp": 1590.0, "num_recent_events": 300}, 590),
        ]
        for config, first in cases:
            found = await get(fresh, made, **config)
            assert texts(found) == [str(n) for n in range(first, 601)]
            assert found.state == state
        (listed,) = (await fresh.list_sessions(app_name=app)).sessions
        assert (listed.state, listed.last_update_time) == (state, 1600.0)

    run(main())


def test_namespaces_see_nothing_of_each_other(server: Server, app: str) -> None:
    async def main() -> None:
        ids: dict[str, Any] = {"app_name": app, "user_id": USER, "session_id": "one"}
        spaces = [AxSessionService(f"{server.uri}?namespace={space}") for space in ("n1", "n2")]
        for number, space in enumerate(spaces):
            await space.create_session(**ids, state={"user:n": number})
        await spaces[0].delete_session(**ids)
        assert await spaces[0].get_session(**ids) is None
        assert (await there(spaces[1], ids)).state == {"user:n": 1}

    run(main())


def test_a_branch_of_a_session_is_a_session_of_its_own(
    sessions: AxSessionService, server: Server, app: str
) -> None:
    async def main() -> None:
        ids: dict[str, Any] = {"app_name": app, "user_id": USER}
        made = await sessions.create_session(**ids, session_id="one", state={"s": 0})
        await sessions.append_event(made, said("first", delta={"s": 1}))
        names = [f"adk/{app}/{USER}/two"]
        await AsyncClient(server.url).branch(f"adk/{app}/{USER}/one", names=names)
        await sessions.append_event(made, said("of one", delta={"s": 2}))
        two = await there(sessions, {**ids, "session_id": "two"})
        assert (two.id, two.state, texts(two)) == ("two", {"s": 1}, ["first"])
        await sessions.append_event(two, said("of two"))
        assert texts(await get(sessions, two)) == ["first", "of two"]
        assert texts(await get(sessions, made)) == ["first", "of one"]
        listed = (await sessions.list_sessions(**ids)).sessions
        assert {one.id: one.state for one in listed} == {"one": {"s": 2}, "two": {"s": 1}}

    run(main())


def test_flushing_has_nothing_to_do(sessions: AxSessionService) -> None:
    run(sessions.flush())


@pytest.mark.parametrize("uri", ["http://h:1", "ax://h:1/path", "ax://h:1?nonsense=1", "sqlite://"])
def test_what_is_no_address_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="address"):
        AxSessionService(uri)
