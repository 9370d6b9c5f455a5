"""A tiny model server in the Anthropic format, which counts what is paid."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Turn = list[dict[str, Any]]


@contextmanager
def model_server(turns: list[Turn]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve the turns of a conversation, each by how often the assistant has spoken."""
    paid: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            request = json.loads(self.rfile.read(length))
            paid.append(request)
            turn = sum(message["role"] == "assistant" for message in request["messages"])
            content = turns[turn]
            calls = any(block["type"] == "tool_use" for block in content)
            answer = {
                "id": f"msg_{len(paid)}",
                "type": "message",
                "role": "assistant",
                "model": request["model"],
                "content": content,
                "stop_reason": "tool_use" if calls else "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": 10, "output_tokens": 5},
            }
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", paid
    finally:
        server.shutdown()
        server.server_close()


def call(tool: str, number: int, **arguments: Any) -> dict[str, Any]:
    """Return a tool call of a model."""
    return {"type": "tool_use", "id": f"toolu_{number}", "name": tool, "input": arguments}


def text(said: str) -> dict[str, Any]:
    """Return a text of a model."""
    return {"type": "text", "text": said}
