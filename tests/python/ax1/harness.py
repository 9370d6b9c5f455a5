"""A small server of `ax.HarnessService` that does what the last text says."""

from __future__ import annotations

import os
import pathlib
import sys
import time
from concurrent import futures

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "examples/antigravity"))

import grpc  # noqa: E402
import stubs  # noqa: E402
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # noqa: E402

pb, pb_grpc = stubs.load()
from proto import content_pb2 as content  # noqa: E402


def say(words: str, role: str = "assistant"):
    text = content.Content(text=content.TextContent(text=words))
    return pb.HarnessOutputs(messages=[pb.Message(role=role, content=text)])


def ask(name: str, question: str):
    confirmation = content.ConfirmationContent(id=name, question=question)
    message = pb.Message(role="assistant", content=content.Content(confirmation=confirmation))
    return pb.HarnessOutputs(messages=[message])


class Harness(pb_grpc.HarnessServiceServicer):
    def Connect(self, requests, context):
        metadata = dict(context.invocation_metadata())
        for request in requests:
            kind = request.WhichOneof("type")
            answer = self.start if kind == "start" else self.cancel
            for response in answer(request, metadata):
                response.conversation_id = response.conversation_id or request.conversation_id
                yield response

    def cancel(self, request, metadata):
        yield pb.HarnessResponse(end=pb.HarnessEnd(state=pb.STATE_CANCELED))

    def start(self, request, metadata):
        messages = request.start.messages
        last = messages[-1].content
        state = pathlib.Path(os.environ["AX_HARNESS_STATE"])
        if last.HasField("confirmation"):
            decision = last.confirmation.WhichOneof("decision")
            yield pb.HarnessResponse(outputs=say(f"{last.confirmation.id}: {decision}"))
            yield pb.HarnessResponse(end=pb.HarnessEnd(state=pb.STATE_COMPLETED))
            return
        words = last.text.text
        match words.split()[0]:
            case "history":
                told = [f"{m.role}: {m.content.text.text}" for m in messages[:-1]]
                yield pb.HarnessResponse(outputs=say("; ".join(told)))
            case "config":
                yield pb.HarnessResponse(outputs=say(request.start.harness_config.decode()))
                yield pb.HarnessResponse(outputs=say(request.harness_id))
            case "ask":
                yield pb.HarnessResponse(outputs=say("one moment"))
                yield pb.HarnessResponse(outputs=ask("call-1", "May I?"))
                yield pb.HarnessResponse(end=pb.HarnessEnd(state=pb.STATE_PENDING))
                return
            case "crash":
                yield pb.HarnessResponse(outputs=say(f"attempt {metadata['ax-attempt']}"))
                if metadata["ax-attempt"] == "1":
                    time.sleep(0.2)
                    os._exit(3)
            case "silence":
                yield pb.HarnessResponse(outputs=say("about to leave"))
                return
            case "fail":
                error = pb.Error(code=9, description="there is no agent")
                end = pb.HarnessEnd(state=pb.STATE_FAILED, error=error)
                yield pb.HarnessResponse(end=end)
                return
            case "wait":
                (state / "waiting").touch()
                time.sleep(600)
            case "other":
                yield pb.HarnessResponse(conversation_id="other", outputs=say("x"))
            case "thought":
                text = content.TextContent(text="hm")
                thought = content.ThoughtContent()
                thought.summary.add().text.CopyFrom(text)
                call = content.ToolCallContent(id="c1")
                call.function_call.name = "look"
                call.function_call.arguments.update({"at": "it"})
                image = content.ImageContent(mime_type=1, data=b"\x89PNG\xff")
                contents = [
                    content.Content(thought=thought),
                    content.Content(tool_call=call),
                    content.Content(image=image),
                ]
                all_of_it = [pb.Message(role="model", content=one) for one in contents]
                yield pb.HarnessResponse(outputs=pb.HarnessOutputs(messages=all_of_it))
            case _:
                yield pb.HarnessResponse(outputs=say(f"you said: {words}"))
        yield pb.HarnessResponse(end=pb.HarnessEnd(state=pb.STATE_COMPLETED))


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    pb_grpc.add_HarnessServiceServicer_to_server(Harness(), server)
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    checks.set("", health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(sys.argv[1])
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
