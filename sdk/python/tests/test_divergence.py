"""An attempt that does something else than an earlier one is stopped, and told where."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fake_runtime import Runtime

Make = Callable[..., Runtime]

BODY = """
    @ax.agent
    def main(ctx: ax.Context):
        try:
            ctx.step("first", lambda: 1)
            {second}
            ctx.step("third", lambda: 3)
            open("effects.txt", "a").write("went-on")
        except Exception:
            pass
    main.run()
"""
SAME_NAME = 'ctx.step("pay", print, 10, key="second")'


@pytest.mark.parametrize(
    ("before", "after", "key", "expected", "found"),
    [
        (SAME_NAME, 'ctx.step("pay", print, 11, key="second")', "second", "digest", "digest"),
        (SAME_NAME, 'ctx.step("refund", print, 10, key="second")', "second", "'pay'", "'refund'"),
        (
            SAME_NAME,
            'ctx.step("pay", print, 10, key="second", kind="tool")',
            "second",
            "user",
            "to",
        ),
        (SAME_NAME, 'ctx.sleep(1, key="second")', "second", "step 'pay'", "sleep"),
        (SAME_NAME, 'ctx.ask_text("?", key="second")', "second", "step 'pay'", "ask"),
        (SAME_NAME, 'ctx.signal("s", key="second")', "second", "step 'pay'", "signal 's'"),
        (SAME_NAME, 'ctx.output("o", key="second")', "second", "step 'pay'", "output"),
        ('ctx.signal("a", key="s")', 'ctx.signal("b", key="s")', "s", "signal 'a'", "signal 'b'"),
        ('ctx.emit("a", key="e")', 'ctx.emit("b", key="e")', "e", "emit 'a'", "emit 'b'"),
        ('ctx.step("pay", print)', 'ctx.step("refund", print)', "pay#1", "'pay'", "'refund'"),
        ("pass", 'ctx.step("new", print)', "third#1", "step 'third'", "step 'new'"),
        ("pass", "ctx.sleep(1)", "third#1", "step 'third'", "sleep"),
        ("pass", 'ctx.ask_text("really?")', "third#1", "step 'third'", "really?"),
    ],
)
def test_it_names_the_step(
    agent: Make, before: str, after: str, key: str, expected: str, found: str
) -> None:
    runtime = agent(BODY.format(second=before), signals={"a": 1})
    assert runtime.attempt().of("end")
    (runtime.workspace / "effects.txt").unlink()
    runtime.change(BODY.format(second=after))
    said = runtime.attempt()
    diverged = said.last("diverged")
    assert diverged["key"] == key
    assert expected in diverged["expected"]
    assert found in diverged["found"]
    assert not said.of("end")
    assert not said.of("fail")
    assert key in said.stderr
    assert runtime.effects() == []


def test_an_async_agent_diverges_too(agent: Make) -> None:
    body = """
    import asyncio
    @ax.agent
    async def main(ctx: ax.AsyncContext):
        await asyncio.gather(ctx.step("a", {a}), ctx.step("b", print))
        await ctx.step({name!r}, print)
    main.run()
    """
    runtime = agent(body.format(a="print", name="c"))
    assert runtime.attempt().of("end")
    runtime.change(body.format(a="print", name="d"))
    assert runtime.attempt().last("diverged")["key"] == "c#1"
    runtime.change(body.format(a="print, 1", name="c"))
    assert runtime.attempt().last("diverged")["key"] == "a#1"


def test_gathered_steps_of_which_some_are_recorded_do_not_diverge(agent: Make) -> None:
    runtime = agent(
        """
        import asyncio
        @ax.agent
        async def main(ctx: ax.AsyncContext):
            slow = asyncio.create_task(ctx.step("slow", asyncio.sleep, 0.5))
            await ctx.step("fast", asyncio.sleep, 0)
            await ctx.step("faster", asyncio.sleep, 0)
            await slow
            return "ok"
        main.run()
        """
    )
    fields = {"kind": "user", "effect": "idempotent"}
    whole = runtime.attempt()
    assert whole.result == "ok"
    assert fields
    del runtime.journal["slow#1"]
    again = runtime.attempt()
    assert again.result == "ok"
    assert again.begun() == ["slow#1"]


def test_a_step_that_is_left_out_is_reported(agent: Make) -> None:
    runtime = agent(BODY.format(second=SAME_NAME))
    runtime.attempt()
    runtime.change(BODY.format(second="pass"))
    said = runtime.attempt()
    assert said.of("end")
    assert "second was recorded by an earlier attempt" in said.stderr


def test_another_text_is_reported_but_does_not_diverge(agent: Make) -> None:
    body = """
    @ax.agent
    def main(ctx: ax.Context):
        ctx.output({text!r})
        with ctx.stream() as out:
            out.write({text!r})
    main.run()
    """
    runtime = agent(body.format(text="1 s"))
    runtime.attempt()
    runtime.change(body.format(text="2 s"))
    said = runtime.attempt()
    assert [frame["type"] for frame in said.frames] == ["hello", "end"]
    assert "output#1 says something else" in said.stderr
    assert "output#2 says something else" in said.stderr
