"""Killed at any frame and run again, nothing that was recorded happens twice."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fake_runtime import Attempt, Frame, Runtime

Make = Callable[..., Runtime]

BLOCKING = """
    import random
    def effect(name):
        with open("effects.txt", "a+") as file:
            file.seek(0)
            if name not in file.read().split():
                file.write(name + "\\n")
        return name
    def blind(name):
        with open("effects.txt", "a") as file:
            file.write(name + "\\n")
        return name
    def fails():
        raise LookupError("nothing there")
    @ax.agent
    def main(ctx: ax.Context):
        got = [ctx.step("first", effect, "a")]
        ctx.output("began")
        got.append(ctx.step("pay", blind, "b", effect="once"))
        try:
            ctx.step("look", fails)
        except ax.StepFailed as failed:
            got.append([failed.code, failed.message, failed.caused_by(LookupError)])
        ctx.emit("progress", 1)
        ctx.sleep(1)
        got.append(ctx.rng().random())
        with ctx.stream() as out:
            out.write("half "); out.write("whole")
        got.append(ctx.ask_approval("go on?"))
        got.append(ctx.signal("paid"))
        ctx.checkpoint()
        got.append(ctx.step("last", effect, "c"))
        return got
    main.run()
"""
ASYNC = """
    import asyncio
    def effect(name):
        with open("effects.txt", "a+") as file:
            file.seek(0)
            if name not in file.read().split():
                file.write(name + "\\n")
        return name
    async def slow(name):
        await asyncio.sleep(0)
        return effect(name)
    async def worker(ctx, name):
        with ctx.scope(name):
            one = await ctx.step("one", slow, name + "1")
            return [one, await ctx.step("two", effect, name + "2")]
    @ax.agent
    async def main(ctx: ax.AsyncContext):
        pair = await asyncio.gather(ctx.step("e", slow, "x"), ctx.step("e", slow, "y"))
        many = await asyncio.gather(worker(ctx, "p"), worker(ctx, "q"))
        await ctx.sleep(1)
        mapped = await ctx.map("m", slow, ["m1", "m2", "m3"], workers=2)
        ok, _ = await asyncio.gather(ctx.ask_approval("go on?"), ctx.checkpoint())
        return [pair, many, mapped, ok]
    main.run()
"""


DENIED: dict[str, Frame] = {"ask#1": {"kind": "deny"}}


def settle_unknown(runtime: Runtime) -> None:
    """A person says what became of once-steps: it is looked up, and done if it was not."""
    for key, begin in runtime.granted.items():
        if "b" not in runtime.effects():
            (runtime.workspace / "effects.txt").open("a").write("b\n")
        fields = {name: begin[name] for name in ("kind", "name", "effect", "digest")}
        runtime.journal[key] = {"entry": "step", "key": key, **fields, "result": "b"}
    runtime.granted.clear()


def finish(runtime: Runtime) -> Frame:
    settle_unknown(runtime)
    return runtime.attempt().last("end")


def everywhere(folder: Path, frames: int, check: Callable[[Path, int], None]) -> None:
    """Run a check for a kill at each frame, several at a time."""

    def one(kill_at: int) -> None:
        own = folder / f"{kill_at}"
        own.mkdir()
        check(own, kill_at)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(1, frames + 1)))


@pytest.mark.parametrize("when", ["unseen", "recorded", "replied"])
def test_a_blocking_agent_killed_at_every_frame_does_each_effect_once(
    tmp_path: Path, when: str
) -> None:
    whole = Runtime(tmp_path, BLOCKING, answers=DENIED, signals={"paid": None}).attempt()

    def check(folder: Path, kill_at: int) -> None:
        runtime = Runtime(folder, BLOCKING, answers=DENIED, signals={"paid": None})
        killed = runtime.attempt(kill_at=kill_at, when=when)
        assert len(killed.frames) == kill_at
        got = finish(runtime)["result"]
        assert got[:3] == ["a", "b", ["LookupError", "nothing there", True]]
        assert got[4:] == [False, None, "c"]
        assert runtime.effects() == ["a", "b", "c"]
        texts = [each["text"] for each in runtime.journal.values() if each["entry"] == "output"]
        assert texts == ["began", "half whole"]
        again = runtime.attempt()
        assert again.result == got
        assert not again.begun()

    assert whole.of("end")
    everywhere(tmp_path, len(whole.frames), check)


@pytest.mark.parametrize("when", ["unseen", "replied"])
def test_an_async_agent_killed_at_every_frame_does_each_effect_once(
    tmp_path: Path, when: str
) -> None:
    whole = Runtime(tmp_path, ASYNC, answers=DENIED).attempt()

    def check(folder: Path, kill_at: int) -> None:
        runtime = Runtime(folder, ASYNC, answers=DENIED)
        runtime.attempt(kill_at=kill_at, when=when)
        result = finish(runtime)["result"]
        assert result == [["x", "y"], [["p1", "p2"], ["q1", "q2"]], ["m1", "m2", "m3"], False]
        effects = ["m1", "m2", "m3", "p1", "p2", "q1", "q2", "x", "y"]
        assert sorted(runtime.effects()) == effects

    assert whole.of("end")
    everywhere(tmp_path, len(whole.frames), check)


def test_killed_again_and_again_it_still_ends(agent: Make) -> None:
    runtime = agent(BLOCKING, answers={"ask#1": {"kind": "approve"}}, signals={"paid": [1]})
    for _ in range(60):
        settle_unknown(runtime)
        said = runtime.attempt(kill_at=5, when="recorded")
        if said.of("end"):
            break
    assert said.result[-1] == "c"
    assert runtime.effects() == ["a", "b", "c"]


def test_a_once_step_waits_for_its_grant(agent: Make) -> None:
    runtime = agent(BLOCKING)
    waited = runtime.attempt(kill_at=5, when="recorded")
    assert waited.frames[-1]["key"] == "pay#1"
    assert "b" not in runtime.effects()


def test_an_idempotent_step_begins_at_once_but_waits_to_be_recorded(agent: Make) -> None:
    runtime = agent(
        """
        @ax.agent
        def main(ctx: ax.Context):
            open("began.txt", "w").close()
            ctx.step("s", lambda: open("effects.txt", "w").write("did"))
            open("after.txt", "w").close()
        main.run()
        """
    )
    runtime.attempt(kill_at=3, when="recorded")
    assert runtime.effects() == ["did"]
    assert not (runtime.workspace / "after.txt").exists()


def test_the_runtime_may_know_more_than_the_journal_said(agent: Make) -> None:
    runtime = agent(
        """
        @ax.agent
        def main(ctx: ax.Context):
            return [ctx.step("s", lambda: "new"), ctx.step("o", lambda: "new", effect="once")]
        main.run()
        """
    )

    def on_frame(attempt: Attempt, frame: Frame) -> bool:
        if frame["type"] == "step_begin":
            fields = {name: frame[name] for name in ("kind", "name", "effect", "digest")}
            entry = {"entry": "step", "key": frame["key"], **fields, "result": "old"}
            attempt.tell({"type": "recorded", "key": frame["key"], "seq": 3, "before": entry})
        return frame["type"] in ("step_begin", "step_end")

    assert runtime.attempt(on_frame=on_frame).result == ["old", "old"]


def test_the_runtime_may_say_so_before_it_is_asked(agent: Make) -> None:
    runtime = agent(
        """
        @ax.agent
        def main(ctx: ax.Context):
            ctx.step("wait", lambda: None)
            return ctx.step("pay", lambda: "new", effect="once")
        main.run()
        """
    )

    def on_frame(attempt: Attempt, frame: Frame) -> bool:
        if frame["type"] == "step_begin" and frame["name"] == "wait":
            fields = {"kind": "user", "name": "pay", "effect": "once", "digest": None}
            entry = {"entry": "step", "key": "pay#1", **fields, "result": "old"}
            attempt.tell({"type": "recorded", "key": "pay#1", "seq": 3, "before": entry})
        return bool(frame.get("name") == "pay")

    said = runtime.attempt(on_frame=on_frame)
    assert said.result == "old"


def test_an_output_of_a_step_that_runs_again_is_said_again(agent: Make) -> None:
    runtime = agent(
        """
        import time
        def talk(ctx):
            ctx.output("same")
            with ctx.stream("thought") as out:
                out.write(str(ctx.attempt))
            return ctx.attempt
        @ax.agent
        def main(ctx: ax.Context):
            got = ctx.step("talk", talk, ctx)
            ctx.output("done")
            return got
        main.run()
        """
    )
    runtime.attempt(kill_at=6, when="unseen")
    assert runtime.attempt().result == 2
    assert runtime.attempt().result == 2
    said = {key: entry["text"] for key, entry in runtime.journal.items() if "text" in entry}
    assert said == {
        "talk#1>output#1": "same",
        "talk#1>output#2": "1",
        "talk#1>output#3": "2",
        "output#1": "done",
    }
