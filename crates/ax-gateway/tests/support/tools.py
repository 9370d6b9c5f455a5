"""A tool server for tests: JSON-RPC over lines, effects as lines in the file EFFECTS."""

import json
import os
import sys
import time

TOOLS = ["get", "put", "pay", "secret", "die", "wrong", "late", "find"]


def effect(line):
    with open(os.environ["EFFECTS"], "a", encoding="utf-8") as file:
        file.write(line + "\n")


def find(arguments):
    """Tells whether a call with a key has had its effect."""
    if arguments.get("fails"):
        return {"content": [{"type": "text", "text": "the ledger is locked"}], "isError": True}
    with open(os.environ["EFFECTS"], encoding="utf-8") as file:
        lines = [line for line in file.read().splitlines() if not line.startswith("find")]
    found = [line for line in lines if line.endswith(arguments["key"])]
    text = {"type": "text", "text": f"found {found}"}
    return {"content": [text], "structuredContent": {"found": len(found) > 0}}


def call(params):
    name, arguments = params["name"], params.get("arguments", {})
    key = params.get("_meta", {}).get("dev.agentexecutor/idempotency-key", "none")
    if name == "late":
        time.sleep(arguments.get("seconds", 0))
    effect(f"{name} {json.dumps(arguments, sort_keys=True)} {key}")
    if name == "find":
        return find(arguments)
    if name != "late":
        time.sleep(arguments.get("seconds", 0))
    if name == "die":
        os._exit(7)
    if name == "wrong":
        raise ValueError("this is wrong")
    text = {"type": "text", "text": f"{name} done"}
    return {"content": [text], "structuredContent": {"done": name}}


def answer(request):
    method, params = request["method"], request.get("params", {})
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "tools", "version": "1"},
        }
    if method == "tools/list":
        schema = {"type": "object"}
        tools = [{"name": name, "inputSchema": schema, "outputSchema": schema} for name in TOOLS]
        return {"tools": tools}
    if method == "tools/call":
        return call(params)
    raise KeyError(method)


for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    reply = {"jsonrpc": "2.0", "id": request["id"]}
    try:
        reply["result"] = answer(request)
    except KeyError as error:
        reply["error"] = {"code": -32601, "message": f"no method {error}"}
    except ValueError as error:
        reply["error"] = {"code": -32000, "message": str(error)}
    print(json.dumps(reply), flush=True)
