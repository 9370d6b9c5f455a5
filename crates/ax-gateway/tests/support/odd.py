"""A tool server that misbehaves, each tool in its own way."""

import json
import os
import sys
import threading

TEXT = {"type": "text"}


def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def done(name):
    return {"content": [{**TEXT, "text": f"{name} done"}]}


def call(number, name):
    if name == "big":
        return {"content": [{**TEXT, "text": "x" * (8 << 20)}]}
    if name == "huge":
        return {"content": [{**TEXT, "text": "x" * (20 << 20)}]}
    if name == "endless":
        while True:
            sys.stdout.write("x" * (1 << 20))
    if name == "number":
        return 7
    if name == "list":
        return {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]}
    if name == "odd content":
        return {"content": [{"type": "smell"}]}
    if name == "noise":
        for line in ["hello", "{", "[]", '{"jsonrpc": "2.0"}', "\x00\x01", "null"] * 100:
            print(line)
        say({"id": 12345, "result": {}})
        say({"method": "notifications/nothing", "params": {}})
        say({"method": "notifications/progress", "params": {"progressToken": 99, "progress": 1}})
    if name == "floods":
        sys.stderr.write("x" * (50 << 20))
        for _ in range(20_000):
            say({"method": "notifications/tools/list_changed"})
            log = {"level": "info", "data": "x" * 100}
            say({"method": "notifications/message", "params": log})
    if name == "dies":
        os._exit(1)
    if name == "asks":
        params = {"messages": [], "maxTokens": 1}
        say({"id": "mine", "method": "sampling/createMessage", "params": params})
        say({"id": "mine too", "method": "roots/list"})
    if name == "hang":
        threading.Event().wait()
    if name == "other id":
        say({"id": number + 1_000, "result": done(name)})
        return None
    return done(name)


def answer(number, method, params):
    result = None
    if method == "initialize":
        version = params["protocolVersion"]
        info = {"name": "odd", "version": "1"}
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
    elif method == "tools/call":
        result = call(number, params["name"])
        if result is None:
            return
    else:
        say({"id": number, "error": {"code": -32601, "message": "no such method"}})
        return
    say({"id": number, "result": result})


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request and "method" in request:
        asked = (request["id"], request["method"], request.get("params", {}))
        threading.Thread(target=answer, args=asked, daemon=True).start()
