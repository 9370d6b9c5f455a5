"""A tool server: it sends letters. What it does to the world are lines in the file EFFECTS.

It speaks the Model Context Protocol over standard input and output and knows nothing of Agent
Executor. It needs nothing but Python.
"""

import json
import os
import sys
import time
from pathlib import Path

EFFECTS = Path(os.environ.get("EFFECTS", "effects.txt"))
SECONDS = float(os.environ.get("TOOL_SECONDS", "0"))
TOOL = {
    "name": "send_letter",
    "description": "Send a customer a letter. It cannot be taken back.",
    "inputSchema": {
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
    },
}


def answer(method: str, params: dict) -> dict:
    """Answer a request."""
    if method == "initialize":
        info = {"name": "post", "version": "1"}
        version = params["protocolVersion"]
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return {"tools": [TOOL]}
    if method == "tools/call":
        with EFFECTS.open("a", encoding="utf-8") as file:
            file.write(f"send_letter {params['arguments']['text']}\n")
        time.sleep(SECONDS)  # the worst moment: it is sent, and nobody knows
        return {"content": [{"type": "text", "text": "the letter is on its way"}]}
    return {}


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        result = answer(request["method"], request.get("params", {}))
        reply = {"jsonrpc": "2.0", "id": request["id"], "result": result}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
