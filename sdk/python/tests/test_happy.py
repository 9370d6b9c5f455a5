"""What an agent can do when nothing goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_runtime import Runtime, text_part

Make = Callable[..., Runtime]


def test_an_agent_does_everything_once(agent: Make) -> None:
    runtime = agent(
        """
        import datetime, uuid
        @ax.agent
        def main(ctx: ax.Context):
            total = ctx.step("add", lambda a, b: a + b, 2, 3)
            ctx.sleep(minutes=5)
            ctx.sleep_until(datetime.datetime(2030, 1, 1, tzinfo=datetime.timezone.utc))
            ok = ctx.ask_approval("Send it?", details={"total": total}, expires=60)
            color = ctx.ask_choice("Color?", ["red", "blue"])
            why = ctx.ask_text("Why?")
            paid = ctx.signal("paid")
            ctx.emit("progress", {"done": 1})
            ctx.output("so far")
            with ctx.stream() as out:
                out.write("hel"); out.write("lo")
            seq = ctx.checkpoint("before-send")
            assert isinstance(ctx.now(), datetime.datetime)
            assert 0 <= ctx.random() < 1 and isinstance(ctx.uuid(), uuid.UUID)
            return [ctx.input.text, total, ok, color, why, paid, seq > 0]
        main.run()
        """,
        input="hi",
        answers={
            "ask#1": {"kind": "approve"},
            "ask#2": {"kind": "choice", "choice": "blue"},
            "ask#3": {"kind": "text", "text": "because"},
        },
        signals={"paid": {"amount": 7}},
    )
    first = runtime.attempt()
    assert first.result == ["hi", 5, True, "blue", "because", {"amount": 7}, True]
    assert first.status == 0
    assert [frame["text"] for frame in first.of("delta")] == ["hel", "lo"]
    assert first.last("ask")["kind"] == "text"
    assert first.of("ask")[0]["expires_ms"] == 60_000
    assert first.begun() == ["add#1", "now#1", "random#1", "uuid#1"]
    assert first.of("step_begin")[0]["request"]["args"] == [2, 3]

    again = runtime.attempt()
    assert again.result == first.result
    assert {frame["type"] for frame in again.frames} <= {"hello", "end", "heartbeat"}
    assert again.stderr == ""


def test_an_agent_knows_where_it_is(agent: Make, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes("größe".encode())
    big = {"id": "blob_1", "bytes": 7, "path": str(blob)}
    parts: list[dict[str, Any]] = [
        text_part("one"),
        {"kind": "document", "media_type": "text/plain", "name": "f", "blob": big},
        text_part("two"),
    ]
    runtime = agent(
        """
        import os
        def main(ctx: ax.Context):
            document = ctx.input.parts[1]
            with document.open() as file:
                size = len(file.read())
            earlier = [[m.role, m.text] for m in ctx.history]
            here = [ctx.session, ctx.execution, ctx.namespace, ctx.attempt, ctx.agent.name]
            assert ctx.workspace.samefile(os.getcwd())
            return [ctx.input.text, document.text, size, ctx.config, earlier, here]
        ax.run(main)
        """,
        input=parts,
        config={"depth": 2},
        history=[{"role": "user", "parts": [text_part("before")]}],
    )
    assert runtime.attempt().result == [
        "one\ntwo",
        "größe",
        7,
        {"depth": 2},
        [["user", "before"]],
        ["ses_1", "exec_1", "default", 1, "test"],
    ]


def test_results_come_back_as_what_they_were(agent: Make) -> None:
    runtime = agent(
        """
        from dataclasses import dataclass
        from datetime import datetime, timezone
        from pydantic import BaseModel
        @dataclass
        class Item:
            name: str
            tags: tuple[str, ...]
        @dataclass
        class Order:
            items: list[Item]
            note: Item | None = None
        class Money(BaseModel):
            amount: int
        def order() -> Order:
            return Order([Item("a", ("x", "y"))], Item("b", ()))
        def money() -> Money:
            return Money(amount=3)
        def when() -> datetime:
            return datetime(2026, 1, 2, tzinfo=timezone.utc)
        @ax.agent
        def main(ctx: ax.Context):
            assert ctx.step("order", order) == order()
            assert ctx.step("money", money) == Money(amount=3)
            assert ctx.step("when", when) == when()
            assert ctx.step("typed", lambda: Money(amount=4), returns=Money).amount == 4
            assert ctx.step("tuple", lambda: (1, 2)) == [1, 2]
            hooked = ctx.step("set", lambda: {2, 1}, to_json=sorted, from_json=set)
            assert hooked == {1, 2}
            return order()
        main.run()
        """
    )
    first, again = runtime.attempt(), runtime.attempt()
    note = {"name": "b", "tags": []}
    assert first.result == {"items": [{"name": "a", "tags": ["x", "y"]}], "note": note}
    assert again.result == first.result
    assert again.begun() == []


def test_usage_and_limits_are_said(agent: Make) -> None:
    runtime = agent(
        """
        @ax.model(usage=lambda r: ax.Usage(output_tokens=r["out"]))
        def think(prompt: str):
            ax.report_usage(input_tokens=5)
            return {"out": 9}
        @ax.tool(name="search", effect="read")
        def find(what):
            return what
        @ax.agent
        def main(ctx: ax.Context):
            think("why")
            find(what="x")
            ctx.step("slow", lambda: 1, limit=1.5)
        main.run()
        """
    )
    said = runtime.attempt()
    think, search, slow = said.of("step_begin")
    assert (think["kind"], search["kind"], slow["kind"]) == ("model", "tool", "user")
    assert search["request"] == {"args": [], "kwargs": {"what": "x"}}
    assert (search["effect"], slow["effect"], slow["limit_ms"]) == ("read", "idempotent", 1500)
    usages = [frame["usage"] for frame in said.of("step_end")]
    assert usages[0] == {"input_tokens": 5, "output_tokens": 9, "model_calls": 1}
    assert usages[1:] == [{"tool_calls": 1}, {}]


def test_a_decorated_function_is_just_a_function_where_no_agent_runs() -> None:
    import agent_executor as ax

    @ax.step(effect="once", key=lambda amount: f"charge-{amount}")
    def charge(amount: int) -> int:
        ax.report_usage(tool_calls=1)
        return amount * 2

    assert charge(4) == 8


def test_print_and_child_processes_do_not_disturb_the_protocol(agent: Make) -> None:
    runtime = agent(
        """
        import os, subprocess, sys, warnings
        warnings.simplefilter("ignore")
        print("while importing")
        @ax.agent
        def main(ctx: ax.Context):
            print("to nobody")
            sys.stdout.write("no line feed")
            os.write(1, b"raw bytes")
            subprocess.run(["echo", "from a child"], check=True)
            left = sys.stdin.read()
            if os.fork() == 0:
                try:
                    ctx.emit("from a fork")
                except ax.Finished:
                    os._exit(7)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
            return left
        main.run()
        """
    )
    said = runtime.attempt()
    assert said.result == ""
    for text in ("while importing", "to nobody", "no line feed", "raw bytes", "from a child"):
        assert text in said.stderr


def test_guard_stdio_protects_from_what_is_printed_before_run(agent: Make) -> None:
    runtime = agent(
        """
        ax.guard_stdio()
        print("a banner")
        ax.run(lambda ctx: 1)
        """,
        env={"PYTHONUNBUFFERED": "1"},
    )
    said = runtime.attempt()
    assert said.result == 1
    assert "a banner" in said.stderr


def test_heartbeats_come_while_the_agent_works(agent: Make) -> None:
    runtime = agent(
        """
        @ax.agent
        def main(ctx: ax.Context):
            ctx.signal("go")
        main.run(heartbeat=0.01)
        """
    )
    beats = []

    def on_frame(attempt: Any, frame: dict[str, Any]) -> bool:
        if frame["type"] == "heartbeat":
            beats.append(frame)
            if len(beats) == 3:
                attempt.tell({"type": "signaled", "key": "signal:go#1", "name": "go", "payload": 1})
        return False

    assert runtime.attempt(on_frame=on_frame).result is None
    assert len(beats) >= 3
