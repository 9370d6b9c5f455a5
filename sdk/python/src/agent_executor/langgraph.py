"""Makes a LangGraph agent durable: each model call and each tool call becomes a step.

    model = axlg.durable_model(ChatAnthropic(model="..."))
    tools = axlg.durable_tools([search, send_mail], effects={"send_mail": "once"})
    graph = create_react_agent(model, tools)

Nothing else of the graph changes. After a kill the graph runs again from its beginning, and its
calls are answered from the journal until the first one that was not recorded. Keys come from the
place of a call in the graph (superstep, node, tool call id), so parallel nodes may finish in any
order. Needs ``agent-executor[langgraph]``; does not keep LangGraph's own checkpoints.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ToolMessage,
    message_to_dict,
    messages_from_dict,
)
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest
from pydantic import PrivateAttr

from . import current
from .aio import AsyncContext
from .context import Context
from .errors import Error, StepFailed
from .journal import fit
from .steps import Effect, StepOptions, Usage
from .values import describe, encode

# What a step returns whose tool asked a question.
_INTERRUPTED = object()


class DurableChatModel(BaseChatModel):
    """A chat model whose every call is a step of kind ``model``."""

    inner: BaseChatModel
    _counts: dict[str, int] = PrivateAttr(default_factory=dict)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @property
    def _llm_type(self) -> str:
        return f"durable-{self.inner._llm_type}"

    @property
    def name_of_model(self) -> str:
        """The name under which its calls appear."""
        return str(getattr(self.inner, "model", None) or self.inner._llm_type)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[LanguageModelInput, Any]:
        """Bind tools in the form of the inner model's provider."""
        bound = self.inner.bind_tools(tools, **kwargs)
        if not isinstance(bound, RunnableBinding):
            raise TypeError(f"{type(self.inner).__name__}.bind_tools returns no binding")
        return self.bind(**bound.kwargs)

    def _options(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> StepOptions:
        place = f"{_place()}/model"
        with self._lock:
            count = self._counts[place] = self._counts.get(place, 0) + 1
        request = {
            "messages": [{"role": each.type, **_content(each)} for each in messages],
            "options": describe({**kwargs, "stop": stop})[0],
        }
        return {
            "kind": "model",
            "key": fit(place, f"-{count}"),
            "request": request,
            "to_json": message_to_dict,
            "from_json": _message,
            "usage": _usage,
        }

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        def call() -> BaseMessage:
            return self.inner.invoke(messages, stop=stop, **kwargs)

        options = self._options(messages, stop, kwargs)
        return _result(Context(*_active()).step(self.name_of_model, call, **options))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        async def call() -> BaseMessage:
            return await self.inner.ainvoke(messages, stop=stop, **kwargs)

        options = self._options(messages, stop, kwargs)
        return _result(await AsyncContext(*_active()).step(self.name_of_model, call, **options))


def durable_model(model: BaseChatModel) -> DurableChatModel:
    """Return a chat model that calls this one, each call a step."""
    return DurableChatModel(inner=model)


def durable_tools(
    tools: Sequence[BaseTool | Callable[..., Any]],
    *,
    effects: Mapping[str, Effect] | None = None,
    **options: Any,
) -> ToolNode:
    """Return a tool node each of whose calls is a step of kind ``tool``.

    A tool that raises has failed for good: LangGraph sees a :class:`StepFailed`, now and in every
    later attempt, and handles it as ``handle_tool_errors`` says.

    A tool may call ``interrupt()``. When the graph goes on, it is carried out again from its
    beginning, as a step of its own; the other calls of the same node are not.

    Args:
        tools: The tools.
        effects: What carrying a tool out a second time means, by its name; ``"idempotent"`` if
            it is not there, so name each tool that must not run twice as ``"once"``.
        **options: Further options of the :class:`ToolNode`.
    """
    by_name: Mapping[str, Effect] = effects or {}
    # What came of calls in this attempt; a node whose interrupt was answered makes them again.
    results: dict[str, Any] = {}

    def step(request: ToolCallRequest) -> tuple[str, StepOptions]:
        call = request.tool_call
        key = fit(f"{_place()}/{call['name']}", f"-{call['id']}")
        rounds = 1
        while results.get(key) is _INTERRUPTED:
            rounds += 1
            key = fit(f"{_place()}/{call['name']}", f"-{call['id']}-{rounds}")
        return call["name"], {
            "kind": "tool",
            "effect": by_name.get(call["name"], "idempotent"),
            "key": key,
            "request": call["args"],
            "to_json": _dump_tool_message,
            "from_json": lambda form: _load_tool_message(form, call["name"], str(call["id"])),
        }

    def wrap(request: ToolCallRequest, execute: Callable[[ToolCallRequest], Any]) -> Any:
        name, given = step(request)
        raised: list[GraphBubbleUp] = []

        def call() -> Any:
            try:
                return execute(request)
            except GraphBubbleUp as error:
                raised.append(error)
                return _INTERRUPTED

        if given["key"] not in results:
            with _noting(results, given["key"]) as note:
                note(Context(*_active()).step(name, call, **given))
        result = _outcome(results[given["key"]])
        if result is not _INTERRUPTED:
            return result
        if raised:
            raise raised[0]
        # An earlier attempt came to the question; this one has to come to it, too.
        return execute(request)

    async def awrap(
        request: ToolCallRequest, execute: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        name, given = step(request)
        raised: list[GraphBubbleUp] = []

        async def call() -> Any:
            try:
                return await execute(request)
            except GraphBubbleUp as error:
                raised.append(error)
                return _INTERRUPTED

        if given["key"] not in results:
            with _noting(results, given["key"]) as note:
                note(await AsyncContext(*_active()).step(name, call, **given))
        result = _outcome(results[given["key"]])
        if result is not _INTERRUPTED:
            return result
        if raised:
            raise raised[0]
        return await execute(request)

    return ToolNode(list(tools), wrap_tool_call=wrap, awrap_tool_call=awrap, **options)


@contextmanager
def _noting(results: dict[str, Any], key: str) -> Iterator[Callable[[Any], None]]:
    """Note what a step returns or, if it fails, that it failed."""
    try:
        yield lambda result: results.__setitem__(key, result)
    except StepFailed as failed:
        results[key] = failed


def _outcome(noted: Any) -> Any:
    if isinstance(noted, StepFailed):
        raise noted
    return noted


def _active() -> Any:
    if current.active is None:
        raise Error("no agent runs here: build the graph within ax.run(main)")
    return current.active


def _place() -> str:
    """Return the place in the graph that runs now, the same in every attempt."""
    said = ensure_config().get("metadata", {})
    spaces = str(said.get("langgraph_checkpoint_ns", "")).split("|")
    nodes = "|".join(space.split(":")[0] for space in spaces)
    path = ".".join(str(part) for part in said.get("langgraph_path", ()) if part is not None)
    return f"graph/{nodes}/{said.get('langgraph_step', 0)}/{path}"


def _content(message: BaseMessage) -> dict[str, Any]:
    content: dict[str, Any] = {"content": describe(message.content)[0]}
    if isinstance(message, AIMessage) and message.tool_calls:
        content["tool_calls"] = describe(message.tool_calls)[0]
    if isinstance(message, ToolMessage):
        content["tool_call_id"] = message.tool_call_id
    return content


def _dump_tool_message(message: object) -> Any:
    if message is _INTERRUPTED:
        return {"interrupted": True}
    if not isinstance(message, ToolMessage):
        raise TypeError(f"a durable tool returns content, not a {type(message).__name__}")
    return message_to_dict(message.model_copy(update={"artifact": None}))


def _load_tool_message(form: Any, name: str, call_id: str) -> Any:
    """Return what a tool answered, or what a person said it did, in their own words."""
    if form == {"interrupted": True}:
        return _INTERRUPTED
    if isinstance(form, dict) and form.keys() == {"type", "data"}:
        return _message(form)
    content = form if isinstance(form, str) else "done" if form is None else encode(form)
    return ToolMessage(content=content, name=name, tool_call_id=call_id)


def _message(form: Any) -> BaseMessage:
    return messages_from_dict([form])[0]


def _result(message: BaseMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])


def _usage(message: object) -> Usage:
    spent = getattr(message, "usage_metadata", None) or {}
    cached = (spent.get("input_token_details") or {}).get("cache_read") or 0
    return Usage(
        input_tokens=spent.get("input_tokens") or 0,
        cached_tokens=cached,
        output_tokens=spent.get("output_tokens") or 0,
        model_calls=1,
    )
