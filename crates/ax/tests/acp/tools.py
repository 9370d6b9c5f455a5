"""A tool server without any package: it writes what it does into the file EFFECTS.

It speaks the Model Context Protocol over standard input and output. The tool `send` takes as long
as TOOL_SECONDS says, after its effect.
"""

import json
import os
import sys
import time

SCHEMA = {"type": "object", "properties": {"shelf": {"type": "integer"}}, "required": ["shelf"]}
TOOL = {"name": "send", "description": "Send what lies on a shelf.", "inputSchema": SCHEMA}


def call(params: dict) -> dict:
    shelf = params["arguments"]["shelf"]
    with open(os.environ["EFFECTS"], "a", encoding="utf-8") as file:
        file.write(f"send {shelf}\n")
    time.sleep(float(os.environ.get("TOOL_SECONDS", "0")))
    text = f"what lay on shelf {shelf} is on its way"
    return {"content": [{"type": "text", "text": text}], "isError": False}


def answer(method: str, params: dict) -> dict:
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "warehouse", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": [TOOL]}
    return call(params) if method == "tools/call" else {}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message and "method" in message:
        result = answer(message["method"], message.get("params", {}))
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
