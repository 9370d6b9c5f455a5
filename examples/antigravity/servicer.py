"""The Antigravity SDK behind `ax.HarnessService`, so that it runs under Agent Executor."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import pathlib
import re
import signal
import time
from typing import AsyncIterator

import grpc
from google.antigravity import Agent, LocalAgentConfig, types
from google.antigravity.hooks import policy
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

import stubs
from turns import Turn, Turns, once

pb, pb_grpc = stubs.load()

INVALID_ARGUMENT = 3
FAILED_PRECONDITION = 9
INTERNAL = 13
CONFIG = {"model", "base_url", "system_instructions"}


class Refused(Exception):
    """The request cannot be carried out, and would not be if it came again."""


class Harness(pb_grpc.HarnessServiceServicer):
    """One turn of the SDK for each start."""

    def __init__(self, state: pathlib.Path) -> None:
        self._state = state

    async def Connect(self, requests, context):
        responses: asyncio.Queue = asyncio.Queue()
        metadata = dict(context.invocation_metadata())
        reading = asyncio.create_task(self._read(requests, metadata, responses))
        try:
            while (response := await responses.get()) is not None:
                yield response
        finally:
            reading.cancel()

    async def _read(self, requests, metadata, responses) -> None:
        turn: asyncio.Task | None = None
        try:
            async for request in requests:
                kind = request.WhichOneof("type")
                if kind == "cancel" and turn:
                    turn.cancel()
                elif kind == "start" and turn and not turn.done():
                    await responses.put(failed(request, FAILED_PRECONDITION, "a turn is under way"))
                elif kind == "start":
                    turn = asyncio.create_task(self._turn(request, metadata, responses))
            if turn:
                await asyncio.wait([turn])
        finally:
            if turn and not turn.done():
                turn.cancel()
                await asyncio.wait([turn])
            responses.put_nowait(None)

    async def _turn(self, request, metadata, responses) -> None:
        try:
            async for message in self._say(request, metadata):
                outputs = pb.HarnessOutputs(messages=[message])
                await responses.put(response(request, outputs=outputs))
            end = pb.HarnessEnd(state=pb.STATE_COMPLETED)
            await responses.put(response(request, end=end))
        except asyncio.CancelledError:
            responses.put_nowait(response(request, end=pb.HarnessEnd(state=pb.STATE_CANCELED)))
        except Refused as refused:
            await responses.put(failed(request, INVALID_ARGUMENT, str(refused)))
        except Exception as error:
            await responses.put(failed(request, INTERNAL, f"{type(error).__name__}: {error}"))

    async def _say(self, request, metadata) -> AsyncIterator:
        conversation = request.conversation_id
        # What the SDK takes: it makes file names of them.
        if not re.fullmatch(r"[A-Za-z0-9-]{32,128}", conversation):
            raise Refused(f"{conversation!r} is not 32 to 128 of A-Z, a-z, 0-9 and -")
        config = read_config(request.start.harness_config)
        execution = metadata.get("ax-execution") or os.environ.get("AX_EXECUTION") or "exec_0"
        turn = Turns(self._state / conversation).begin(execution)
        if turn.said is not None:
            for encoded in turn.said:
                yield pb.Message.FromString(base64.b64decode(encoded))
            return
        prompt = read_prompt(request.start.messages, turn.is_first)
        said = []
        async for message in chat(conversation, config, turn, prompt):
            said.append(base64.b64encode(message.SerializeToString()).decode())
            yield message
        turn.end(said)


async def chat(conversation: str, config: dict, turn: Turn, prompt: str) -> AsyncIterator:
    """Runs a turn of the SDK; yields whole blocks of what it says."""
    endpoint = types.GeminiAPIEndpoint(
        base_url=config.get("base_url"), api_key=os.environ.get("GEMINI_API_KEY")
    )
    model = types.ModelTarget(
        name=config.get("model"), types=[types.ModelType.TEXT], endpoint=endpoint
    )
    agent_config = LocalAgentConfig(
        models=[model],
        system_instructions=config.get("system_instructions"),
        tools=tools(turn),
        capabilities=types.CapabilitiesConfig(enabled_tools=[]),
        policies=[policy.allow_all()],
        conversation_id=conversation,
        session_continuation_mode=types.SessionContinuationMode.CREATE_OR_RESUME,
        save_dir=str(turn.dir),
        app_data_dir=str(turn.dir / "app"),
    )
    async with Agent(agent_config) as agent:
        reply = await agent.conversation.chat(prompt)
        block: tuple[type, list[str]] | None = None
        async for chunk in reply.chunks:
            if isinstance(chunk, (types.Text, types.Thought)):
                if block and block[0] is not type(chunk):
                    yield block_message(*block)
                    block = None
                block = block or (type(chunk), [])
                block[1].append(chunk.text)
                continue
            if block:
                yield block_message(*block)
                block = None
            yield call_message(chunk)
        if block:
            yield block_message(*block)


def tools(turn: Turn) -> list:
    """The tools of the agent. Their effects have keys, so that another try adds nothing."""
    effects = pathlib.Path(os.environ.get("EFFECTS_FILE") or turn.dir.parent / "notes.txt")

    def linger() -> None:
        time.sleep(float(os.environ.get("LINGER_SECONDS") or 0))

    def write_note(text: str) -> str:
        """Writes a note to the list of the user.

        Args:
            text: The note.
        """
        once(effects, turn.key("write_note", text=text), text, linger)
        return "noted"

    return [write_note]


def read_config(encoded: bytes) -> dict:
    try:
        config = json.loads(encoded or b"{}")
    except ValueError as error:
        raise Refused(f"the configuration is not JSON: {error}") from error
    if not isinstance(config, dict) or set(config) - CONFIG:
        raise Refused(f"the configuration is a map of {', '.join(sorted(CONFIG))}")
    return config


def read_prompt(messages, is_first: bool) -> str:
    """What is said now. What was said before is told only to a state that does not know it."""
    texts = [(m.role, m.content.text.text) for m in messages if m.content.HasField("text")]
    if not messages or not messages[-1].content.HasField("text"):
        raise Refused("the last message is not a text")
    before, now = texts[:-1], texts[-1][1]
    if not is_first or not before:
        return now
    told = "\n".join(f"{role}: {text}" for role, text in before)
    return f"This was said before:\n{told}\n\nGo on with this:\n{now}"


def block_message(kind: type, texts: list[str]):
    text = pb_content().TextContent(text="".join(texts))
    if kind is types.Text:
        return pb.Message(role="assistant", content=pb_content().Content(text=text))
    summary = [pb_content().ThoughtSummaryContent(text=text)]
    thought = pb_content().ThoughtContent(summary=summary)
    return pb.Message(role="model", content=pb_content().Content(thought=thought))


def call_message(call: types.ToolCall):
    name = getattr(call.name, "value", call.name)
    function = pb_content().FunctionCallContent(name=str(name))
    function.arguments.update(call.args or {})
    tool_call = pb_content().ToolCallContent(id=call.id or "", function_call=function)
    return pb.Message(role="model", content=pb_content().Content(tool_call=tool_call))


def pb_content():
    from proto import content_pb2

    return content_pb2


def response(request, **kind):
    return pb.HarnessResponse(conversation_id=request.conversation_id, **kind)


def failed(request, code: int, description: str):
    error = pb.Error(code=code, description=description)
    return response(request, end=pb.HarnessEnd(state=pb.STATE_FAILED, error=error))


async def serve(listen: str, state: pathlib.Path) -> None:
    server = grpc.aio.server()
    pb_grpc.add_HarnessServiceServicer_to_server(Harness(state), server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    if server.add_insecure_port(listen) == 0 and not listen.startswith("unix:"):
        raise SystemExit(f"cannot listen at {listen}")
    await server.start()
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default=os.environ.get("AX_HARNESS_ADDRESS"))
    parser.add_argument("--state", type=pathlib.Path, default=os.environ.get("AX_HARNESS_STATE"))
    arguments = parser.parse_args()
    if not arguments.listen or not arguments.state:
        parser.error("--listen and --state are needed, or the environment of a harness")
    asyncio.run(serve(arguments.listen, pathlib.Path(arguments.state)))


if __name__ == "__main__":
    main()
