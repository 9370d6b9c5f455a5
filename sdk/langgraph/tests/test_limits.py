"""Many and large values, and threads out of which much is taken."""

from __future__ import annotations

import os
from uuid import uuid4

from langgraph.checkpoint.base.id import uuid6

from agent_executor.client import Client
from agent_executor.records import Collection
from agent_executor_langgraph import AxSaver


def checkpoint(values: dict) -> dict:
    return {
        "v": 4,
        "id": str(uuid6()),
        "ts": "2030-01-01T00:00:00+00:00",
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, "1.0"),
        "versions_seen": {},
        "updated_channels": None,
    }


def test_more_large_values_than_a_record_has_parts(server) -> None:
    config = {"configurable": {"thread_id": str(uuid4()), "checkpoint_ns": ""}}
    values = {f"c{number:03}": os.urandom(40_000) for number in range(300)}
    given = checkpoint(values)
    saver = AxSaver(server.url)
    at = saver.put(config, given, {"step": 1}, given["channel_versions"])
    saver.put_writes(at, list(values.items()), "task")
    found = AxSaver(server.url).get_tuple(config)
    assert found.checkpoint == given
    assert found.pending_writes == [("task", name, value) for name, value in values.items()]


def test_a_thread_out_of_which_runs_are_taken_stays_small(server) -> None:
    name = str(uuid4())
    prefix = f"runs-{uuid4().hex[:8]}"
    saver = AxSaver(server.url, prefix=prefix)
    config: dict = {"configurable": {"thread_id": name, "checkpoint_ns": ""}}
    large = os.urandom(100_000)
    at, runs = config, []
    for number in range(90):
        given = checkpoint({"large": large, "small": number})
        given["channel_versions"]["small"] = f"{number}.0"
        runs.append(str(uuid4()))
        new = {"small": f"{number}.0", **({"large": "1.0"} if number == 0 else {})}
        at = saver.put(at, given, {"step": number, "run_id": runs[-1]}, new)
        saver.put_writes(at, [("small", number), ("large", b"x" * 50_000)], f"task-{number}")
    for run in runs[:-5]:
        saver.delete_for_runs([run])
    reader = AxSaver(server.url, prefix=prefix)
    left = list(reader.list(config))
    assert [one.metadata["run_id"] for one in left] == runs[:-6:-1]
    assert [one.checkpoint["channel_values"] for one in left] == [
        {"large": large, "small": number} for number in range(89, 84, -1)
    ]
    assert left[0].pending_writes == [("task-89", "small", 89), ("task-89", "large", b"x" * 50_000)]
    client = Client(server.url)
    for collection in ("checkpoints", "writes"):
        view = Collection(client, f"{prefix}/{name}", collection, agent="langgraph")
        assert len(view.refresh()) < 70, "opening costs what is left, not what there was"
