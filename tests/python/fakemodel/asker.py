"""A program that asks models by the vendors' own clients, and writes down what came.

It is the harness of test_gateway.py. It knows addresses and keys from its environment, as the
clients do, and nothing of Agent Executor. `ASKER_OUT` names a file that gets one line of JSON a
call; with `ASKER_DIES` the process kills itself in the middle of the call of that name, if the file
is not there yet. `ASKER_FORMS` names the formats, separated by spaces, if not all are wanted.
"""

from __future__ import annotations

import base64
import json
import os
import pathlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import httpcore2
import httpx2

# What belongs to a connection and not to an answer, and what is measured by a clock.
OF_THE_CONNECTION = {"connection", "content-length", "date", "transfer-encoding"}
# How many events are heard before the process dies.
EVENTS_BEFORE_DEATH = 3

QUESTIONS = ["refuse 400", "rich", "unicode", "large", "pieces", "hello"]
# What is refused for a while is not recorded: a new attempt asks it anew.
REFUSALS = ["refuse 429", "refuse 529"]
TOOL = 'CALL shell {"command": "ls", "n": [1, 2]}'
SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}}

heard = bytearray()


class Stream(httpcore2.NetworkStream):
    """A connection whose bytes are written down as they come."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self.stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self.stream.read(max_bytes, timeout)
        heard.extend(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.stream.write(buffer, timeout)

    def close(self) -> None:
        self.stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self.stream.get_extra_info(info)


class Network(httpcore2.NetworkBackend):
    """The network, listened to."""

    def __init__(self) -> None:
        self.network = httpcore2.SyncBackend()

    def connect_tcp(self, *args: Any, **more: Any) -> httpcore2.NetworkStream:
        return Stream(self.network.connect_tcp(*args, **more))


def transport() -> httpx2.HTTPTransport:
    """httpx offers no way to name the network of its pool."""
    made = httpx2.HTTPTransport()
    assert isinstance(made._pool, httpcore2.ConnectionPool)
    made._pool = httpcore2.ConnectionPool(network_backend=Network())
    return made


def split(raw: bytes) -> dict[str, Any]:
    """Takes an answer apart as it came over the wire: status, headers, pieces of the body."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    headers = {name.lower(): value for name, value in pairs}
    pieces = []
    if headers.get("transfer-encoding") == "chunked":
        while rest and not rest.startswith(b"0\r\n"):
            size, _, rest = rest.partition(b"\r\n")
            pieces.append(rest[: int(size, 16)])
            rest = rest[int(size, 16) + 2 :]
    else:
        assert len(rest) == int(headers["content-length"])
        pieces.append(rest)
    kept = sorted(pair for pair in headers.items() if pair[0] not in OF_THE_CONNECTION)
    encoded = [base64.b64encode(piece).decode() for piece in pieces]
    return {"status": first.split(" ")[1], "headers": kept, "pieces": encoded}


def plain(value: Any) -> Any:
    """What a client made of an answer or an event, as JSON."""
    told = {}
    if request_id := getattr(value, "_request_id", None):
        told["request_id"] = request_id
    made = value.model_dump(mode="json") if hasattr(value, "model_dump") else repr(value)
    if isinstance(made, dict) and (response := made.get("sdk_http_response")):
        headers = response["headers"].items()
        response["headers"] = [pair for pair in headers if pair[0] not in OF_THE_CONNECTION]
    return {**told, "type": type(value).__name__, "value": made}


def failed(error: Exception) -> dict[str, Any]:
    """What a client made of a refusal."""
    names = ["status_code", "code", "status", "message", "body", "details", "request_id"]
    said = {name: getattr(error, name) for name in names if hasattr(error, name)}
    return {"error": type(error).__name__, "said": json.loads(json.dumps(said, default=repr))}


class Asker:
    """Asks, listens and writes down."""

    def __init__(self) -> None:
        self.out = pathlib.Path(os.environ["ASKER_OUT"])
        self.dies = None if self.out.exists() else os.environ.get("ASKER_DIES")
        self.out.touch()

    def ask(self, name: str, call: Callable[[], Any]) -> Any:
        """Makes a call; a stream is heard to its end. Returns what the client made of it."""
        heard.clear()
        events, answer = [], None
        try:
            answer = call()
            if isinstance(answer, Iterator):
                for event in answer:
                    events.append(plain(event))
                    if name == self.dies and len(events) == EVENTS_BEFORE_DEATH:
                        self.note(name, events)
                        os.kill(os.getpid(), signal.SIGKILL)
            else:
                events.append(plain(answer))
        except Exception as error:
            # The errors of the clients have nothing else in common.
            if not isinstance(getattr(error, "status_code", getattr(error, "code", None)), int):
                raise
            events.append(failed(error))
        self.note(name, events)
        return answer

    def note(self, name: str, events: list[Any]) -> None:
        attempt = os.environ.get("AX_ATTEMPT")
        line = {"name": name, "attempt": attempt, "events": events, **split(bytes(heard))}
        with self.out.open("a") as out:
            out.write(json.dumps(line) + "\n")
            out.flush()


Ask = Callable[[str, bool], Any]


def all_of(asker: Asker, form: str, questions: list[str], ask: Ask) -> None:
    """Asks questions, whole and streamed."""
    for question in questions:
        for stream in (False, True):
            way = "streamed" if stream else "whole"
            name = f"{form}-{question.replace(' ', '-')}-{way}"
            asker.ask(name, lambda: ask(question, stream))


# A client takes seconds to load: only those that are wanted are.


def ask_anthropic(asker: Asker) -> Ask:
    import anthropic

    client = anthropic.Anthropic(http_client=httpx2.Client(transport=transport()), max_retries=0)
    tools: Any = [{"name": "shell", "description": "runs", "input_schema": SCHEMA}]
    common: Any = {"model": "claude-x", "max_tokens": 1000}

    def ask(messages: Any, stream: bool = False, **more: Any) -> Any:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return client.messages.create(messages=messages, stream=stream, **common, **more)

    said: list[Any] = [{"role": "user", "content": TOOL}]
    called = asker.ask("anthropic-tool", lambda: ask(said, tools=tools))
    asker.ask("anthropic-tool-streamed", lambda: ask(said, stream=True, tools=tools))
    result = {"type": "tool_result", "tool_use_id": called.content[0].id, "content": "total 0"}
    said += [{"role": "assistant", "content": called.content}]
    said += [{"role": "user", "content": [result]}]
    asker.ask("anthropic-result", lambda: ask(said, stream=True, tools=tools))
    counted: Any = {"model": "claude-x", "messages": said}
    asker.ask("anthropic-count", lambda: client.messages.count_tokens(**counted))
    return ask


def ask_chat(asker: Asker) -> Ask:
    import openai

    client = openai.OpenAI(http_client=httpx2.Client(transport=transport()), max_retries=0)
    function = {"name": "shell", "description": "runs", "parameters": SCHEMA}
    tools: Any = [{"type": "function", "function": function}]

    def ask(messages: Any, stream: bool = False, **more: Any) -> Any:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if stream:
            more["stream_options"] = {"include_usage": True}
        make: Any = client.chat.completions.create
        return make(model="gpt-x", messages=messages, stream=stream, **more)

    said: list[Any] = [{"role": "user", "content": TOOL}]
    called = asker.ask("chat-tool", lambda: ask(said, tools=tools))
    asker.ask("chat-tool-streamed", lambda: ask(said, stream=True, tools=tools))
    message = called.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "total 0"}
    said += [message, result]
    asker.ask("chat-result", lambda: ask(said, stream=True, tools=tools))
    asker.ask("chat-models", lambda: client.models.list())
    return ask


def ask_responses(asker: Asker) -> Ask:
    import openai

    client = openai.OpenAI(http_client=httpx2.Client(transport=transport()), max_retries=0)
    tools: Any = [{"type": "function", "name": "shell", "parameters": SCHEMA, "strict": False}]

    def ask(asked: Any, stream: bool = False, **more: Any) -> Any:
        make: Any = client.responses.create
        return make(model="gpt-x", input=asked, stream=stream, **more)

    called = asker.ask("responses-tool", lambda: ask(TOOL, tools=tools))
    asker.ask("responses-tool-streamed", lambda: ask(TOOL, stream=True, tools=tools))
    call_id, made = called.output[0].call_id, called.id
    result = {"type": "function_call_output", "call_id": call_id, "output": "total 0"}
    more: Any = {"previous_response_id": made, "tools": tools}
    asker.ask("responses-result", lambda: ask([result], stream=True, **more))
    return ask


def gemini() -> Any:
    from google import genai
    from google.genai import types

    client = httpx2.Client(transport=transport())
    once = types.HttpRetryOptions(attempts=1)
    return genai.Client(http_options=types.HttpOptions(httpx_client=client, retry_options=once))


def ask_gemini(asker: Asker) -> Ask:
    from google.genai import types

    client = gemini()
    declared = types.FunctionDeclaration(name="shell", parameters_json_schema=SCHEMA)
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])

    def ask(contents: Any, stream: bool = False, config: Any = None) -> Any:
        models = client.models
        make: Any = models.generate_content_stream if stream else models.generate_content
        return make(model="gemini-x", contents=contents, config=config)

    said: list[Any] = [types.Content(role="user", parts=[types.Part(text=TOOL)])]
    called = asker.ask("gemini-tool", lambda: ask(said, config=config))
    asker.ask("gemini-tool-streamed", lambda: ask(said, stream=True, config=config))
    answer = types.FunctionResponse(name="shell", response={"output": "total 0"})
    result = types.Content(role="user", parts=[types.Part(function_response=answer)])
    said += [called.candidates[0].content, result]
    asker.ask("gemini-result", lambda: ask(said, stream=True, config=config))
    counted: Any = {"model": "gemini-x", "contents": "how long is this?"}
    asker.ask("gemini-count", lambda: client.models.count_tokens(**counted))
    return ask


def ask_interactions(asker: Asker) -> Ask:
    client = gemini()

    def ask(asked: Any, stream: bool = False, **more: Any) -> Any:
        make: Any = client.interactions.create
        return make(model="gemini-x", input=asked, stream=stream, **more)

    called = asker.ask("interactions-tool", lambda: ask(TOOL))
    asker.ask("interactions-tool-streamed", lambda: ask(TOOL, stream=True))
    result = {"type": "function_result", "call_id": called.steps[0].id, "name": "shell"}
    more: Any = {"previous_interaction_id": called.id}
    asked = [{**result, "result": "total 0"}]
    asker.ask("interactions-result", lambda: ask(asked, stream=True, **more))
    return ask


FORMS = {
    "anthropic": ask_anthropic,
    "chat": ask_chat,
    "responses": ask_responses,
    "gemini": ask_gemini,
    "interactions": ask_interactions,
}


def main() -> None:
    asker = Asker()
    wanted = os.environ.get("ASKER_FORMS", "").split() or list(FORMS)
    asks = {form: FORMS[form](asker) for form in wanted}
    for questions in (QUESTIONS, REFUSALS):
        for form, ask in asks.items():
            all_of(asker, form, questions, ask)
    print("all is asked")


if __name__ == "__main__":
    main()
