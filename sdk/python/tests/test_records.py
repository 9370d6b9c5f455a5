"""Collections of records: what is written, what is read, and what happens in between."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agent_executor.client import ServerError
from agent_executor.client.calls import Calls
from agent_executor.client.drive import Call
from agent_executor.records import (
    BLOBS_MAX,
    INLINE_BYTES_MAX,
    WORN_MIN,
    AsyncCollection,
    Collection,
    Deleted,
    Record,
    Stale,
    View,
    forget,
    living,
    manifest_of,
    session_name,
)
from fake_store import Store


class Awaiting:
    """The store, for those who await; others come in between."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def carry(self, plan: Any) -> Any:
        await asyncio.sleep(0)
        return self.store.carry(plan)


def notes(store: Any, **options: Any) -> Collection:
    return Collection(store, "s", "notes", agent="keeper", **options)


def test_what_one_appends_another_reads_in_order_and_once() -> None:
    store = Store()
    one, other = notes(store), notes(store)
    assert one.refresh() == []
    positions = [one.append({"n": n}) for n in range(10)]
    assert positions == sorted(positions)
    assert [record.data["n"] for record in other.refresh()] == list(range(10))
    assert other.refresh() == []
    assert one.refresh() == [], "what was appended here is known here"
    other.append({"n": 10})
    assert [record.data["n"] for record in one.refresh()] == [10]


def test_an_agent_that_is_not_there_is_applied_and_the_record_is_written_once() -> None:
    store = Store()
    notes(store).append("first")
    assert store.agents == {"keeper": manifest_of("keeper")}
    log = store.sessions["s"]
    assert log is not None and len(log) == 2
    keyless = [request for request in store.requests if request == "POST agents"]
    assert len(keyless) == 1


def test_bytes_of_some_size_are_kept_apart_and_read_when_asked_for() -> None:
    store = Store()
    blobs = {"": b"", "short": b"\0\xff" * 4, "long": b"x" * (INLINE_BYTES_MAX + 1)}
    notes(store).append(None, blobs)
    reader = notes(store)
    (record,) = reader.refresh()
    assert {name: reader.read(blob) for name, blob in record.blobs.items()} == blobs
    assert [record.blobs[name].inline is None for name in blobs] == [False, False, True]
    assert len([request for request in store.requests if "GET blobs" in request]) == 1


def test_many_short_bytes_do_not_make_a_request_too_large() -> None:
    store = Store()
    blobs = {str(n): bytes([n]) * INLINE_BYTES_MAX for n in range(BLOBS_MAX)}
    notes(store).append(None, blobs)
    log = store.sessions["s"]
    assert log is not None and len(json.dumps(log)) < 4 << 20
    reader = notes(store)
    (record,) = reader.refresh()
    assert all(reader.read(record.blobs[name]) == blobs[name] for name in blobs)
    with pytest.raises(ValueError, match="255"):
        notes(store).append(None, {**blobs, "more": b""})


def test_bytes_that_are_kept_are_not_sent_again() -> None:
    store = Store()
    writer = notes(store)
    blobs = {"short": b"abc", "long": b"x" * (INLINE_BYTES_MAX + 1)}
    writer.append(None, blobs)
    (record,) = notes(store).refresh()
    writer.replace("again", record.blobs)
    reader = notes(store)
    (again,) = reader.refresh()
    assert {name: reader.read(blob) for name, blob in again.blobs.items()} == blobs
    assert store.requests.count("POST blobs") == 1


@pytest.mark.parametrize("data", [0, None, "", [], {"a": [1.5, "ü\ud800"]}, "x" * 100_000])
def test_any_json_value_comes_back(data: Any) -> None:
    store = Store()
    writer = notes(store)
    taken: list[Record] = []
    notes(store, take=taken.append).append(data)
    (record,) = writer.refresh()
    assert record.data == data
    assert taken[0].data == data


def test_who_has_not_read_what_another_wrote_is_refused() -> None:
    store = Store()
    one, other = notes(store), notes(store)
    one.append("a")
    with pytest.raises(Stale):
        other.append("b")
    assert [record.data for record in other.refresh()] == ["a"]
    other.append("b")
    one.append("c", if_unchanged=False)
    assert [record.data for record in one.refresh()] == ["b", "c"]


def test_the_same_key_is_written_once_even_after_others_wrote() -> None:
    store = Store()
    one, other = notes(store), notes(store)
    seq = one.append("a", key="k")
    other.refresh()
    other.append("b")
    assert one.append("a", key="k") == seq
    assert [record.data for record in one.refresh()] == ["b"]


def test_a_record_that_replaces_is_where_reading_begins() -> None:
    store = Store()
    one, other = notes(store), notes(store)
    for n in range(5):
        one.append(n)
    other.refresh()
    one.replace({"sum": 10})
    one.append(5)
    seen = [(record.replaces, record.data) for record in other.refresh()]
    assert seen == [(True, {"sum": 10}), (False, 5)]
    assert [record.data for record in notes(store).refresh()] == [{"sum": 10}, 5]


def test_rewriting_stays_proportional_to_what_was_written() -> None:
    store = Store()
    collection = notes(store)
    rewritten = 0
    for n in range(2000):
        collection.append(n)
        if collection.is_worn(alive=100):
            collection.replace("all")
            rewritten += 100
    assert rewritten < 2000
    assert len(notes(store).refresh()) <= max(WORN_MIN, 200) + 1


def test_each_record_is_taken_once_and_in_order_however_many_tasks_read() -> None:
    store = Store()
    writer = notes(store)
    taken: list[int] = []

    async def main() -> None:
        reader = AsyncCollection(
            Awaiting(store),  # type: ignore[arg-type]
            "s",
            "notes",
            agent="keeper",
            take=lambda record: taken.append(record.data),
        )
        for n in range(0, 40, 4):
            for m in range(n, n + 4):
                writer.append(m)
            await asyncio.gather(*(reader.refresh() for _ in range(5)))

    asyncio.run(main())
    assert taken == list(range(40))


def test_readers_that_interleave_take_each_record_once() -> None:
    store = Store()
    writer = notes(store)
    for n in range(7):
        writer.append(n)
    taken: list[int] = []
    view = View("s", "notes", agent="keeper", take=lambda record: taken.append(record.data))
    plans = [view.refresh(), view.refresh()]
    calls = Calls("store", "", "")
    asked = [next(plan)(calls) for plan in plans]
    for _ in range(3):
        for n, plan in enumerate(plans):
            answer = asked[n].read(store.answer(asked[n].call))
            try:
                asked[n] = plan.send(answer)(calls)
            except StopIteration:
                continue
    assert taken == list(range(7))


def test_a_name_that_was_deleted_has_a_next_generation() -> None:
    store = Store()
    for number in range(1, 12):
        current = store.carry(living("s"))
        assert current == ("s" if number == 1 else f"s~{number}")
        collection = Collection(store, current, "notes", agent="keeper")  # type: ignore[arg-type]
        collection.append(number)
        assert store.carry(living("s")) == current
        assert store.carry(forget("s"))
        assert not store.carry(forget("s")), "it is not there any more"
        with pytest.raises(Deleted):
            collection.append(number)
        with pytest.raises(Deleted):
            collection.refresh()


def test_a_deleted_name_is_found_where_readers_are_told_that_there_is_none() -> None:
    class Discreet(Store):
        def answer(self, call: Call) -> bytes:
            try:
                return super().answer(call)
            except ServerError as error:
                if error.code == "AX1011" and call.method == "GET":
                    raise ServerError("AX1002", "there is none") from error
                raise

    store = Discreet()
    assert store.carry(living("s", "keeper")) == "s", "there is no such agent yet"
    for name in ("s", "s~2", "s~3", "s~4"):
        assert store.carry(living("s", "keeper")) == name
        assert name not in store.sessions, "to look for it does not make it"
        collection = Collection(store, name, "notes", agent="keeper")  # type: ignore[arg-type]
        collection.append(1)
        assert store.carry(living("s", "keeper")) == name
        assert store.carry(forget("s", "keeper"))
        with pytest.raises(Deleted):
            collection.refresh()


def test_a_view_may_begin_in_the_middle() -> None:
    store = Store()
    collection = notes(store)
    positions = [collection.append(number) for number in range(9)]
    view = View("s", "notes", agent="keeper", after=positions[4])
    assert [record.data for record in store.carry(view.refresh())] == [5, 6, 7, 8]
    assert store.carry(view.append(9)) > positions[8]


def test_names_of_sessions_do_not_meet() -> None:
    ids = ["a", "a~2", "a/b", "a%2Fb", "ü", "x" * 300, "x" * 301, "", "a\n", ".", "A"]
    names = [session_name("lg", one) for one in ids] + [session_name("lg", "a", "b")]
    assert len(set(names)) == len(names)
    assert all(len(name.encode()) < 250 and "~" not in name for name in names)
    assert session_name("lg", "thread-1") == "lg/thread-1"


def test_another_error_is_raised_as_it_is() -> None:
    store = Store()

    def full(*_: Any) -> Any:
        raise ServerError("AX1007", "full")

    store._write = full  # type: ignore[assignment, method-assign]
    with pytest.raises(ServerError, match="AX1007"):
        notes(store).append(1)
