"""Exceptions, retries, values that have no JSON form, limits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fake_runtime import Attempt, Frame, Runtime

Make = Callable[..., Runtime]


def test_a_failed_step_fails_the_same_way_again(agent: Make) -> None:
    runtime = agent(
        """
        class CardDeclined(Exception): pass
        def charge():
            raise CardDeclined("no funds")
        @ax.agent
        def main(ctx: ax.Context):
            try:
                ctx.step("charge", charge)
            except ax.StepFailed as failed:
                had_cause = isinstance(failed.__cause__, CardDeclined)
                assert had_cause == (ctx.attempt == 1)
                assert failed.caused_by(CardDeclined) and not failed.caused_by(Exception)
                return [failed.key, failed.name, failed.code, failed.message]
        main.run()
        """
    )
    first, again = runtime.attempt(), runtime.attempt()
    assert first.result == again.result == ["charge#1", "charge", "CardDeclined", "no funds"]
    assert again.begun() == []


@pytest.mark.parametrize(
    ("line", "code", "message", "retry"),
    [
        ("raise ValueError('bad')", "ValueError", "bad", True),
        ("raise ax.Fail('no_order', 'there is no such order')", "no_order", "no such", False),
        ("raise ax.Fail('later', retry=True)", "later", "later", True),
        ("ctx.step('s', lambda: 1 / 0)", "ZeroDivisionError", "step 's' (s#1) failed", False),
        ("return object()", "NotSerializable", "what the agent returned is a", True),
        ("sys.exit(3)", "SystemExit", "3", True),
    ],
)
def test_an_exception_fails_the_attempt(
    agent: Make, line: str, code: str, message: str, retry: bool
) -> None:
    runtime = agent(
        f"""
        import sys
        @ax.agent
        def main(ctx: ax.Context):
            {line}
        main.run()
        """
    )
    said = runtime.attempt()
    assert said.failure["code"] == code
    assert message in said.failure["message"]
    assert said.last("fail")["retry"] is retry
    assert said.status == 0
    assert "Traceback" in said.stderr


def test_a_step_is_retried_within_and_recorded_once(agent: Make) -> None:
    runtime = agent(
        """
        tries = []
        def shaky():
            tries.append(1)
            if len(tries) < 3:
                raise OSError("not yet")
            return len(tries)
        fast = ax.Retry(attempts=3, backoff=0.001)
        @ax.agent
        def main(ctx: ax.Context):
            got = [ctx.step("shaky", shaky, retry=fast)]
            tries.clear()
            for name, retry in [("few", ax.Retry(attempts=2, backoff=0)),
                                ("other", ax.Retry(attempts=9, backoff=0, on=(KeyError,)))]:
                try:
                    ctx.step(name, shaky, retry=retry)
                except ax.StepFailed as failed:
                    got.append([failed.code, len(tries)])
                tries.clear()
            return got
        main.run()
        """
    )
    said = runtime.attempt()
    assert said.result == [3, ["OSError", 2], ["OSError", 1]]
    assert len(said.of("step_end")) == 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("object()", "is a builtins.object, which has no JSON form; pass to_json="),
        ("b'x'", "is a builtins.bytes"),
        ("{'a': [1, {2}]}", "the result['a'][1] is a builtins.set"),
        ("{1: 2}", "has the key 1; the keys of JSON are strings"),
        ("float('nan')", "is nan, which JSON does not have"),
        ("2**64", "integer beyond 64 bits"),
        ("chr(0xd800)", "lone surrogate"),
        ("Data(1)", "would come back as plain JSON; annotate"),
    ],
)
def test_a_result_without_json_form_says_what_to_do(agent: Make, value: str, message: str) -> None:
    runtime = agent(
        f"""
        from dataclasses import dataclass
        @dataclass
        class Data:
            x: int
        @ax.agent
        def main(ctx: ax.Context):
            ctx.step("s", lambda: {value}, effect="once")
        main.run()
        """
    )
    said = runtime.attempt()
    assert said.last("step_end")["failure"]["code"] == "NotSerializable"
    assert message in said.failure["message"]


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("ctx.step('s', print, key='a'); ctx.step('s', print, key='a')", "KeyReused", "'a'"),
        ("ctx.step('s', print, key='a#1')", "ValueError", "ends like a derived one"),
        ("ctx.step('s', print, key='x' * 257)", "ValueError", "1 to 256 bytes"),
        ("ctx.step('s', print, effects='once')", "TypeError", "no option 'effects'"),
        ("ctx.step('s', print, effect='twice')", "ValueError", "'twice' is none of read"),
        ("ctx.step('s', print, effect='once', retry=ax.Retry())", "ValueError", "cannot be retr"),
        ("ctx.step(print, 1)", "TypeError", "first argument of a step is its name"),
        ("ax.Retry(attempts=0)", "ValueError", "at least once"),
        ("ctx.sleep_until(datetime.datetime(2030, 1, 1))", "ValueError", "time zone"),
        ("ctx.step('a', lambda: ctx.step('b', print))", "NestedStep", "do not nest"),
        ("ctx.step('a', lambda: ctx.sleep(1))", "NestedStep", "inside the function of step"),
        ("ctx.report_usage(input_tokens=1)", "Error", "inside the function of a step"),
        ("ax.idempotency_key()", "Error", "inside the function of a step"),
        ("ctx.emit('e', {1, 2})", "NotSerializable", "data is a builtins.set"),
    ],
)
def test_misuse_says_what_is_wrong(agent: Make, line: str, code: str, message: str) -> None:
    runtime = agent(
        f"""
        import datetime
        @ax.agent
        def main(ctx: ax.Context):
            {line}
        main.run()
        """
    )
    said = runtime.attempt()
    assert said.failure["code"] == code
    assert message in said.failure["message"]


def test_long_names_make_short_keys(agent: Make) -> None:
    runtime = agent(
        """
        @ax.agent
        def main(ctx: ax.Context):
            for end in "abba":
                ctx.step("ü" * 300 + end, str)
            ctx.step("a/b>c#1", str)
        main.run()
        """
    )
    keys = runtime.attempt().begun()
    assert len(set(keys)) == 5
    assert keys[4] == "a%2Fb%3Ec#1#1"
    assert runtime.attempt().begun() == []


def test_a_frame_that_is_too_large_is_refused_here(agent: Make) -> None:
    runtime = agent(
        """
        @ax.agent
        def main(ctx: ax.Context):
            with ctx.stream() as out:
                out.write("x" * 200_000)
            try:
                ctx.step("big", lambda: "x" * 200_000)
            except ax.StepFailed as failed:
                ctx.emit("first", failed.code)
            try:
                ctx.output("x" * 200_000)
            except ax.FrameTooLarge as error:
                return [error.limit, str(error)]
        main.run()
        """,
        frame_bytes_max=100_000,
    )
    said = runtime.attempt()
    assert said.last("emit")["data"] == "FrameTooLarge"
    limit, text = said.result
    assert limit == 100_000
    assert "write large content to a file" in text


def test_a_refused_frame_raises_where_it_was_said(agent: Make) -> None:
    runtime = agent(
        """
        @ax.agent
        def main(ctx: ax.Context):
            try:
                ctx.step("s", lambda: 1)
            except ax.Refused as refused:
                got = [refused.key, refused.code, refused.message, refused.hint]
            ctx.emit("e", 1)
            try:
                ctx.flush()
            except ax.Refused as refused:
                return got + [refused.key]
        main.run()
        """
    )

    def on_frame(attempt: Attempt, frame: Frame) -> bool:
        said = {"code": "AX1234", "message": "no", "hint": "less", "key": frame.get("key")}
        if frame["type"] in ("step_end", "emit"):
            attempt.tell({"type": "error", **said})
            return True
        return False

    result = runtime.attempt(on_frame=on_frame).result
    assert result == ["s#1", "AX1234", "no", "less", "emit:e#1"]


def test_an_async_limit_ends_the_step(agent: Make) -> None:
    runtime = agent(
        """
        import asyncio
        @ax.agent
        async def main(ctx: ax.AsyncContext):
            try:
                await ctx.step("slow", asyncio.sleep, 60, limit=0.01)
            except ax.StepFailed as failed:
                code = failed.code
            try:
                await asyncio.wait_for(ctx.step("slower", asyncio.sleep, 60), 0.01)
            except asyncio.TimeoutError:
                return code
        main.run()
        """
    )
    said = runtime.attempt()
    assert said.result == "TimeoutError"
    assert [frame["failure"]["code"] for frame in said.of("step_end")] == [
        "TimeoutError",
        "CancelledError",
    ]


def test_a_bill_that_cannot_be_made_does_not_spoil_the_result(agent: Make) -> None:
    runtime = agent(
        """
        @ax.agent
        def main(ctx: ax.Context):
            return ctx.step("s", lambda: 1, usage=lambda r: r["nothing"])
        main.run()
        """
    )
    said = runtime.attempt()
    assert said.result == 1
    assert "not subscriptable" in said.stderr


def test_arguments_without_json_form_are_hashed_by_their_type(agent: Make) -> None:
    runtime = agent(
        """
        import functools
        class Client:
            pass
        @ax.agent
        def main(ctx: ax.Context):
            fn = functools.partial(lambda *a, **k: None, Client(), deep={"x": Client()})
            ctx.step("call", fn, 1, (2, 3))
            ctx.step("shown", fn, request={"only": "this"})
        main.run()
        """
    )
    call, shown = runtime.attempt().of("step_begin")
    assert "request" not in call
    assert shown["request"] == {"only": "this"}
    assert runtime.attempt().begun() == []
