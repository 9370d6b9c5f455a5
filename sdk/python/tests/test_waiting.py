"""Asks, sleeps and signals across attempts; parking, cancel, and the end of the runtime."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from fake_runtime import Attempt, Frame, Runtime

Make = Callable[..., Runtime]

WAITS = {
    "ask": 'ctx.ask_text("?")',
    "sleep": "ctx.sleep(days=2)",
    "signal": 'ctx.signal("paid")',
}
BLOCKING = """
    @ax.agent
    def main(ctx: ax.Context):
        ctx.on_exit(lambda reason: ctx.workspace.joinpath("left.txt").write_text(reason))
        ctx.step("before", lambda: open("effects.txt", "a").write("before "))
        try:
            return [{wait}]
        finally:
            open("finally.txt", "w").close()
    main.run()
"""
ASYNC = BLOCKING.replace("def main(ctx: ax.Context)", "async def main(ctx: ax.AsyncContext)")
ASYNC = ASYNC.replace("ctx.step", "await ctx.step").replace("[{wait}]", "[await {wait}]")
BOTH = pytest.mark.parametrize("source", [BLOCKING, ASYNC], ids=["blocking", "async"])


def park(attempt: Attempt, frame: Frame) -> bool:
    """Record the wait, do not answer, and park the agent."""
    if frame["type"] in WAITS:
        attempt.runtime.journal[frame["key"]] = {
            "entry": frame["type"],
            **{name: frame[name] for name in ("key", "name", "due_ms") if name in frame},
        }
        attempt.tell({"type": "park", "grace_ms": 5000})
    return frame["type"] in WAITS


@BOTH
@pytest.mark.parametrize("kind", WAITS)
def test_a_parked_agent_is_run_again_when_it_may_go_on(agent: Make, source: str, kind: str) -> None:
    runtime = agent(source.format(wait=WAITS[kind]))
    parked = runtime.attempt(on_frame=park)
    assert parked.status == 0
    assert parked.frames[-1]["type"] == kind
    assert (runtime.workspace / "left.txt").read_text() == "park"
    assert not (runtime.workspace / "finally.txt").exists(), "a parked agent does not unwind"

    waiting = runtime.attempt(on_frame=park)
    assert waiting.frames[-1]["key"] == parked.frames[-1]["key"]
    assert waiting.frames[-1].get("due_ms") == parked.frames[-1].get("due_ms")

    entry = runtime.journal[parked.frames[-1]["key"]]
    came: dict[str, Frame] = {
        "ask": {"answer": {"kind": "text", "text": "well"}},
        "sleep": {"fired": True},
        "signal": {"payload": None},
    }
    entry |= came[kind]
    done = runtime.attempt()
    assert done.result == [{"ask": "well", "sleep": None, "signal": None}[kind]]
    assert [frame["type"] for frame in done.frames] == ["hello", "end"]
    assert runtime.effects() == ["before"]
    assert (runtime.workspace / "left.txt").read_text() == "end"


def test_an_answer_that_comes_before_the_question_is_reached_is_kept(agent: Make) -> None:
    runtime = agent(
        """
        @ax.agent
        def main(ctx: ax.Context):
            ctx.step("slow", lambda: None)
            return [ctx.ask_text("?"), ctx.signal("s")]
        main.run()
        """
    )

    def on_frame(attempt: Attempt, frame: Frame) -> bool:
        if frame["type"] == "step_begin":
            answer = {"kind": "text", "text": "early"}
            attempt.tell({"type": "answered", "key": "ask#1", "answer": answer})
            attempt.tell({"type": "signaled", "key": "signal:s#1", "name": "s", "payload": 2})
        return frame["type"] in ("ask", "signal")

    assert runtime.attempt(on_frame=on_frame).result == ["early", 2]


def test_a_question_can_be_declined_or_expire(agent: Make) -> None:
    runtime = agent(
        """
        @ax.agent
        def main(ctx: ax.Context):
            got = []
            for ask in (lambda: ctx.ask_choice("Which?", ["a"]), lambda: ctx.ask_text("Why?"),
                        lambda: ctx.ask("Ok?", "approval")):
                try:
                    got.append(ask().text)
                except ax.Denied as error:
                    got.append(str(error))
                except ax.Expired as error:
                    got.append(str(error))
            return got
        main.run()
        """,
        answers={
            "ask#1": {"kind": "deny", "text": "neither"},
            "ask#2": {"expired": True},
            "ask#3": {"kind": "deny", "text": "too dear"},
        },
    )
    expected = ["declined: Which? (neither)", "nobody answered in time: Why?", "too dear"]
    assert runtime.attempt().result == expected
    assert runtime.attempt().result == expected


def test_an_agent_with_an_open_step_is_parked_when_the_step_is_recorded(agent: Make) -> None:
    runtime = agent(
        """
        import asyncio
        async def work():
            await asyncio.sleep(0.2)
            return 1
        @ax.agent
        async def main(ctx: ax.AsyncContext):
            step = asyncio.create_task(ctx.step("work", work))
            await asyncio.sleep(0)
            await ctx.ask_text("?")
        main.run()
        """
    )
    parked = runtime.attempt(on_frame=park)
    assert parked.status == 0
    assert parked.frames[-1]["type"] == "step_end"
    assert "work#1" in runtime.journal


def cancel_at(kind: str, grace_ms: int = 20_000) -> Callable[[Attempt, Frame], bool]:
    def on_frame(attempt: Attempt, frame: Frame) -> bool:
        if frame["type"] == kind:
            attempt.tell({"type": "cancel", "grace_ms": grace_ms, "reason": "enough"})
        return frame["type"] == kind and kind in WAITS

    return on_frame


@BOTH
@pytest.mark.parametrize("kind", WAITS)
def test_cancel_reaches_an_agent_that_waits(agent: Make, source: str, kind: str) -> None:
    runtime = agent(source.format(wait=WAITS[kind]))
    said = runtime.attempt(on_frame=cancel_at(kind))
    assert said.failure == {"code": "canceled", "message": "enough"}
    assert said.last("fail")["retry"] is False
    assert (runtime.workspace / "finally.txt").exists()
    assert (runtime.workspace / "left.txt").read_text() == "cancel"


CLEANUP = 'ctx.step("cleanup", lambda: open("effects.txt", "w").write("enough"))'
AT_WORK = {
    "step": """
        import time
        def busy(ctx):
            ctx.emit("busy")
            time.sleep(60)
        @ax.agent
        def main(ctx: ax.Context):
            try:
                ctx.step("busy", busy, ctx)
            except Exception:
                pass
            except ax.Canceled as canceled:
                assert ctx.canceled and canceled.reason == "enough"
                {cleanup}
                raise
        main.run()
        """,
    "between": """
        import time
        @ax.agent
        def main(ctx: ax.Context):
            try:
                ctx.emit("busy")
                time.sleep(60)
            finally:
                {cleanup}
        main.run()
        """,
    "thread": """
        import time
        def busy(ctx):
            ctx.emit("busy", key="k")
            ctx.signal("never", key="n")
        @ax.agent
        def main(ctx: ax.Context):
            from concurrent.futures import ThreadPoolExecutor
            with ThreadPoolExecutor() as pool:
                try:
                    pool.submit(busy, ctx).result()
                finally:
                    ctx.flush()
                    {cleanup}
        main.run()
        """,
    "async-step": """
        import asyncio
        async def busy(ctx):
            ctx.emit("busy")
            await asyncio.sleep(60)
        @ax.agent
        async def main(ctx: ax.AsyncContext):
            try:
                await ctx.step("busy", busy, ctx)
            except asyncio.CancelledError:
                await {cleanup}
                raise
        main.run()
        """,
    "async-gather": """
        import asyncio
        @ax.agent
        async def main(ctx: ax.AsyncContext):
            ctx.emit("busy")
            try:
                await asyncio.gather(asyncio.sleep(60), ctx.signal("never"))
            finally:
                await {cleanup}
        main.run()
        """,
}


AT_WORK["own-signal"] = AT_WORK["thread"].replace(
    "import time", "import signal; signal.signal(signal.SIGUSR1, lambda *_: None)"
)


@pytest.mark.parametrize("where", AT_WORK)
def test_cancel_reaches_an_agent_at_work_and_lets_it_clean_up(agent: Make, where: str) -> None:
    runtime = agent(AT_WORK[where].format(cleanup=CLEANUP))
    began = time.monotonic()
    said = runtime.attempt(on_frame=cancel_at("emit"))
    assert said.failure["code"] == "canceled", said.stderr
    assert runtime.effects() == ["enough"]
    assert "cleanup#1" not in said.begun(), "nothing is recorded after a cancel"
    assert time.monotonic() - began < 20


FLUSHES = """
    @ax.agent
    def main(ctx: ax.Context):
        try:
            ctx.emit("said", 1)
            ctx.flush()
            ctx.step("work", lambda: open("effects.txt", "w").write("went on"))
        finally:
            ctx.flush()
            ctx.emit("bye", 2)
            ctx.flush()
            open("finally.txt", "w").write("yes")
    main.run()
"""
FLUSHES_ASYNC = FLUSHES.replace("def main(ctx: ax.Context)", "async def main(ctx: ax.AsyncContext)")
for call in ("ctx.flush", "ctx.step"):
    FLUSHES_ASYNC = FLUSHES_ASYNC.replace(call, f"await {call}")


@pytest.mark.parametrize("source", [FLUSHES, FLUSHES_ASYNC], ids=["blocking", "async"])
def test_cancel_reaches_an_agent_that_waits_until_what_it_said_is_kept(
    agent: Make, source: str
) -> None:
    runtime = agent(source)

    def on_frame(attempt: Attempt, frame: Frame) -> bool:
        emits: bool = frame["type"] == "emit"
        if emits:
            attempt.tell({"type": "cancel", "grace_ms": 20_000, "reason": "enough"})
        return emits

    said = runtime.attempt(on_frame=on_frame)
    assert said.failure == {"code": "canceled", "message": "enough"}, said.stderr
    assert runtime.effects() == [], "it goes on as if nothing had happened"
    assert (runtime.workspace / "finally.txt").exists()


def test_a_step_that_was_made_before_a_cancel_is_not_carried_out_after_it(agent: Make) -> None:
    runtime = agent(
        """
        import asyncio
        @ax.agent
        async def main(ctx: ax.AsyncContext):
            made = ctx.step("work", lambda: open("effects.txt", "w").write("done"), effect="once")
            ctx.emit("said")
            while not ctx.canceled:
                pass  # the loop has no time to bring the cancel
            await made
        main.run()
        """
    )
    said = runtime.attempt(on_frame=cancel_at("emit"))
    assert said.failure == {"code": "canceled", "message": "enough"}, said.stderr
    assert runtime.effects() == []
    assert said.begun() == []


def test_an_agent_that_does_not_mind_a_cancel_is_ended_in_time(agent: Make) -> None:
    runtime = agent(
        """
        import time
        @ax.agent
        def main(ctx: ax.Context):
            ctx.on_exit(lambda reason: open("effects.txt", "w").write(reason))
            while True:
                try:
                    ctx.step("busy", time.sleep, 60)
                except ax.Canceled:
                    pass
        main.run()
        """
    )
    said = runtime.attempt(on_frame=cancel_at("step_begin", grace_ms=1000))
    assert said.status == 1
    assert runtime.effects() == ["cancel"]


def test_cancel_that_comes_first_is_seen_at_the_start(agent: Make) -> None:
    runtime = agent(BLOCKING.format(wait="1"))
    opening = runtime.opening()
    cancel = {"type": "cancel", "grace_ms": 9000, "reason": "never mind"}
    said = runtime.attempt(opening=[*opening[:-1], cancel, opening[-1]])
    assert said.failure == {"code": "canceled", "message": "never mind"}
    assert runtime.effects() == []


@BOTH
def test_the_end_of_the_runtime_is_the_end_of_the_agent(agent: Make, source: str) -> None:
    runtime = agent(source.format(wait='ctx.signal("never")'))

    def on_frame(attempt: Attempt, frame: Frame) -> bool:
        if frame["type"] == "signal":
            attempt.close()
        return False

    said = runtime.attempt(on_frame=on_frame)
    assert said.status == 1
    assert said.frames[-1]["type"] == "signal"
    assert not (runtime.workspace / "finally.txt").exists()
