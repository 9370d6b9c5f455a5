"""LangGraph's own law of checkpointers, against a real server."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability

from agent_executor_langgraph import AxSaver


def test_every_capability_is_there_and_full(server) -> None:
    @checkpointer_test(name="AxSaver")
    async def savers():
        # A prefix of its own for each part: nothing of another one is found.
        yield AxSaver(server.url, prefix=f"lg-{uuid4()}")

    report = asyncio.run(validate(savers))
    report.print_report()
    assert set(report.results) == {one.value for one in Capability}
    failures = [failure for one in report.results.values() for failure in one.failures]
    assert failures == []
    assert all(one.passed for one in report.results.values())
    assert sum(one.tests_passed for one in report.results.values()) == 81
