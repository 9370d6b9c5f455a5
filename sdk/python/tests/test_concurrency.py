"""Threads and tasks: keys stay the same in every attempt, frames stay whole."""

from __future__ import annotations

from collections.abc import Callable

from fake_runtime import Runtime

Make = Callable[..., Runtime]


def test_gathered_calls_get_their_keys_in_the_order_of_the_calls(agent: Make) -> None:
    runtime = agent(
        """
        import asyncio
        async def wait(seconds):
            await asyncio.sleep(seconds)
            return seconds
        @ax.agent
        async def main(ctx: ax.AsyncContext):
            times = [0.03, 0.0, 0.01]
            got = await asyncio.gather(*(ctx.step("wait", wait, each) for each in times))
            number, ident, when = await asyncio.gather(ctx.random(), ctx.uuid(), ctx.now())
            rng = await ctx.rng()
            assert rng.random() < 1
            assert await ctx.step("block", lambda: "in a thread") == "in a thread"
            return got
        main.run()
        """
    )
    first = runtime.attempt()
    assert first.result == [0.03, 0.0, 0.01]
    results = {key: entry["result"] for key, entry in runtime.journal.items() if "wait" in key}
    assert results == {"wait#1": 0.03, "wait#2": 0.0, "wait#3": 0.01}
    assert runtime.attempt().begun() == []


def test_threads_need_keys_or_scopes(agent: Make) -> None:
    runtime = agent(
        """
        import threading
        from concurrent.futures import ThreadPoolExecutor
        def work(ctx, number):
            with ctx.scope(f"worker-{number}"):
                one = ctx.step("one", lambda: number)
                two = ctx.step("two", lambda: number * 2)
            return one + two + ctx.step("three", lambda: number, key=f"three-{number}")
        def bare(ctx):
            try:
                ctx.step("bare", print)
            except ax.KeyRequired as error:
                return str(error)
        @ax.agent
        def main(ctx: ax.Context):
            with ThreadPoolExecutor(8) as pool:
                sums = list(pool.map(lambda number: work(ctx, number), range(20)))
                refused = pool.submit(bare, ctx).result()
            assert "ctx.scope" in refused
            with ctx.scope("here"), ctx.scope("deeper"):
                ctx.step("s", print)
            with ctx.scope("here"):
                ctx.step("s", print)
            return [sums, ctx.map("double", lambda n: n + n, range(30), workers=5)]
        main.run()
        """
    )
    first = runtime.attempt()
    assert first.result == [[4 * number for number in range(20)], [2 * n for n in range(30)]]
    assert {"worker-3/one#1", "here/deeper/s#1", "here/s#1", "double#30"} <= set(first.begun())
    again = runtime.attempt()
    assert again.begun() == []
    assert again.result == first.result


def test_tasks_need_keys_or_scopes(agent: Make) -> None:
    runtime = agent(
        """
        import asyncio
        async def bare(ctx):
            await ctx.step("bare", print)
        async def clash(ctx):
            with ctx.scope("same"):
                await asyncio.sleep(0)
        async def blocked(ctx):
            return await asyncio.to_thread(ctx.blocking.step, "b", lambda: 2, key="b")
        @ax.agent
        async def main(ctx: ax.AsyncContext):
            both = await asyncio.gather(bare(ctx), blocked(ctx), return_exceptions=True)
            clashed = await asyncio.gather(clash(ctx), clash(ctx), return_exceptions=True)
            return [type(both[0]).__name__, both[1], str(clashed[1])]
        main.run()
        """
    )
    name, blocked, clashed = runtime.attempt().result
    assert (name, blocked) == ("KeyRequired", 2)
    assert "in use by another" in clashed


def test_decorated_functions_work_in_tasks_and_threads(agent: Make) -> None:
    runtime = agent(
        """
        import asyncio
        @ax.tool(key=lambda number: f"square-{number}")
        def square(number):
            return number * number
        @ax.step
        async def later(number):
            await asyncio.sleep(0)
            return ax.idempotency_key()
        async def task(number):
            return await asyncio.to_thread(square, number)
        @ax.agent
        async def main(ctx: ax.AsyncContext):
            return [await later(1), await asyncio.gather(*(task(n) for n in range(5)))]
        main.run()
        """
    )
    assert runtime.attempt().result == ["ses_1/exec_1/later#1", [0, 1, 4, 9, 16]]
    assert runtime.attempt().begun() == []


def test_frames_of_many_threads_stay_whole(agent: Make) -> None:
    workers = 16
    runtime = agent(
        """
        from concurrent.futures import ThreadPoolExecutor
        def talk(ctx, number):
            for count in range(20):
                ctx.emit("noise", "x" * 5000, key=f"{number}-{count}")
            with ctx.stream(key=f"s-{number}") as out:
                for _ in range(20):
                    out.write(str(number) * 100)
            return number
        @ax.agent
        def main(ctx: ax.Context):
            with ThreadPoolExecutor(16) as pool:
                return sum(pool.map(lambda number: talk(ctx, number), range(16)))
        main.run(heartbeat=0.001)
        """
    )
    said = runtime.attempt()
    assert said.result == sum(range(workers))
    assert len(said.of("emit")) == workers * 20
    for number in range(workers):
        assert runtime.journal[f"s-{number}"]["text"] == str(number) * 2000
