"""A LangGraph graph as an agent: interrupts are questions, and each input continues the thread.

    from agent_executor.langgraph import durable_model, durable_tools
    from agent_executor_langgraph import run

    run(builder.compile())

The runtime starts the program for each input, and again after a crash or when a question has been
answered. Each attempt runs the graph from where the last execution left the thread; the journal of
the SDK answers what durable models and tools were asked before, and people were.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.pregel import Pregel
from langgraph.types import Command, Interrupt, StateSnapshot

import agent_executor as ax
from agent_executor.client import Credentials
from agent_executor.journal import escape, fit
from agent_executor.values import describe

from .questions import Inquiry, Question, inquiry
from .saver import AxSaver
from .state import FileStore, SessionStore, Store, newest, replay

Graph = Any
_SERVER = "LANGGRAPH_AX_SERVER"


class Runner:
    """A graph and how it is run; see :func:`run`."""

    def __init__(
        self,
        graph: Graph | Callable[[], Graph],
        *,
        read: Callable[[ax.AsyncContext], Any] | None = None,
        write: Callable[[Any], str] | None = None,
        ask: Callable[[Any], Question] | None = None,
        server: str | None = None,
        credentials: Credentials | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self._graph = graph
        self._read = read
        self._write = write or text_of
        self._ask = ask
        self._server = server or os.environ.get(_SERVER, "")
        self._credentials = credentials
        self._config = dict(config or {})

    async def main(self, ctx: ax.AsyncContext) -> Any:
        """Run the graph for one input."""
        graph = self._graph if isinstance(self._graph, Pregel) else self._graph()
        memory = InMemorySaver()
        store = self._store(ctx, memory)
        thread = ctx.session
        before = await store.load(ctx.input.seq)
        await replay(before, memory, thread)
        graph = graph.copy(update={"checkpointer": memory})
        configurable = {**self._config.get("configurable", {}), "thread_id": thread}
        config: Any = {**self._config, "configurable": configurable}
        given = self._read(ctx) if self._read else input_of(ctx, graph, is_new=not before)
        rounds: dict[str, int] = {}
        while True:
            await graph.ainvoke(given, config)
            state = await graph.aget_state(config, subgraphs=True)
            places = dict(_places(state))
            if not places and not state.next:
                break
            given = await self._answers(ctx, state, places, rounds)
        await store.save(ctx.input.seq, await newest(memory, thread))
        said = self._write(state.values)
        if said:
            ctx.output(said, key="answer")
        return describe(state.values if not said else {"answer": said})[0]

    def _store(self, ctx: ax.AsyncContext, memory: InMemorySaver) -> Store:
        if not self._server:
            return FileStore(ctx.workspace, memory)
        # The thread is the session itself; the agent is there already.
        saver = AxSaver(
            self._server,
            credentials=self._credentials,
            namespace=ctx.namespace,
            agent="",
            prefix="",
            forks=True,
        )
        return SessionStore(saver, ctx.session)

    async def _answers(
        self,
        ctx: ax.AsyncContext,
        state: StateSnapshot,
        places: dict[str, Interrupt],
        rounds: dict[str, int],
    ) -> Any:
        """Ask all that the graph waits for, and return what it is to go on with."""
        if not places:
            # It stands at a breakpoint.
            nodes = ", ".join(state.next)
            key = _next(rounds, f"breakpoint/{escape(nodes)}")
            if not await ctx.ask_approval(f"Go on with {nodes}?", key=key):
                raise ax.Denied(f"declined: go on with {nodes}")
            return None
        asked = [
            self._inquire(ctx, _next(rounds, f"interrupt/{place}"), one.value)
            for place, one in places.items()
        ]
        results = await _all(asked)
        ids = [one.id for one in places.values()]
        return Command(resume=dict(zip(ids, results, strict=True)))

    async def _inquire(self, ctx: ax.AsyncContext, key: str, value: Any) -> Any:
        if self._ask is not None:
            asked = Inquiry([self._ask(value)], lambda results: results[0])
        else:
            asked = inquiry(value)
        numbered = enumerate(asked.questions, 1)
        return asked.join(await _all([_one(ctx, f"{key}-{n}", one) for n, one in numbered]))


def run(
    graph: Graph | Callable[[], Graph],
    *,
    read: Callable[[ax.AsyncContext], Any] | None = None,
    write: Callable[[Any], str] | None = None,
    ask: Callable[[Any], Question] | None = None,
    server: str | None = None,
    credentials: Credentials | None = None,
    config: dict[str, Any] | None = None,
) -> None:
    """Run a graph as an agent under the runtime that started this process.

    Args:
        graph: The compiled graph, or a function that makes it. Its own checkpointer is not used.
        read: Makes the graph's input out of the session's. If left out, a JSON object is the
            input, and a text is a message of the user.
        write: Makes what is said out of the graph's state. If left out, the last message of the
            agent, or the state as JSON.
        ask: Makes a question out of an interrupt's value; see :func:`inquiry` for what is asked
            if it is left out.
        server: A server whose sessions keep the thread: the session's own log then has it, so
            that branches continue it. If neither it nor ``LANGGRAPH_AX_SERVER`` is given, a file
            in the session's workspace has it.
        credentials: What that server is shown.
        config: The graph's configuration, such as ``{"recursion_limit": 100}``.
    """
    runner = Runner(
        graph,
        read=read,
        write=write,
        ask=ask,
        server=server,
        credentials=credentials,
        config=config,
    )
    ax.run(runner.main)


def input_of(ctx: ax.AsyncContext, graph: Graph, *, is_new: bool) -> Any:
    """Return what a graph is given for an input."""
    if any(part.kind == "data" for part in ctx.input.parts):
        return ctx.input.json()
    text = ctx.input.text
    if "messages" not in graph.channels:
        try:
            return json.loads(text)
        except ValueError as error:
            raise ax.Fail("bad_input", "the graph takes a JSON object, no text") from error
    # A branch, for one, has the messages, but not the files.
    kinds: dict[str, type[BaseMessage]] = {"user": HumanMessage, "agent": AIMessage}
    earlier = [kinds[one.role](one.text) for one in ctx.history if is_new and one.text]
    return {"messages": [*earlier, HumanMessage(text)]}


def text_of(state: Any) -> str:
    """Return what is said when a graph has ended."""
    messages = state.get("messages") if isinstance(state, dict) else None
    if isinstance(messages, list):
        last = next((one for one in reversed(messages) if isinstance(one, AIMessage)), None)
        return str(last.text) if last is not None else ""
    return json.dumps(describe(state)[0], ensure_ascii=False)


async def _one(ctx: ax.AsyncContext, key: str, question: Question) -> Any:
    prompt, tries = question.prompt, 0
    while True:
        tries += 1
        answer = await ctx.ask(
            prompt,
            question.kind,
            question.choices or None,
            details=question.details,
            key=key if tries == 1 else f"{key}-again-{tries}",
        )
        try:
            return question.result(answer)
        except ValueError as error:
            if answer.kind == "deny":
                raise ax.Denied(f"declined: {question.prompt}") from error
            prompt = f"{question.prompt} (that was no answer: {error})"


async def _all(asked: list[Any]) -> list[Any]:
    """Wait for all questions, which are open at the same time."""
    return list(await asyncio.gather(*asked))


def _places(state: StateSnapshot, outer: str = "") -> Iterator[tuple[str, Interrupt]]:
    """Name the interrupts by their places in the graph, which are the same in every attempt.

    Their own ids are not: they come from the ids of checkpoints, which are random.
    """
    step = (state.metadata or {}).get("step", 0)
    within: set[str] = set()
    for task in state.tasks:
        path = ".".join(str(part) for part in task.path[1:] if isinstance(part, (str, int)))
        place = f"{outer}{escape(task.name)}.{step}.{escape(path)}"
        if isinstance(task.state, StateSnapshot):
            for name, one in _places(task.state, f"{place}/"):
                within.add(one.id)
                yield name, one
        for number, one in enumerate(each for each in task.interrupts if each.id not in within):
            yield f"{place}.{number}", one


def _next(rounds: dict[str, int], place: str) -> str:
    """Return the key of the next question at a place: a node may ask one after the other."""
    rounds[place] = rounds.get(place, 0) + 1
    return fit(place, f"-{rounds[place]}")
