"""A harness that speaks the protocol of docs/formats/harness-stdio.md without an SDK.

Its input is a program: a list of operations that the crash test drew.
"""

import json
import sys
import time

from effects import World

DIGEST = "00" * 32


class Runtime:
    """The other end of the pipe."""

    def __init__(self):
        self.seen = {}
        self.journal = {}

    def send(self, **frame):
        sys.stdout.write(json.dumps(frame) + "\n")
        sys.stdout.flush()

    def read(self):
        line = sys.stdin.readline()
        if not line:
            sys.exit(0)
        return json.loads(line)

    def begin(self):
        """Return the start frame and the input's text."""
        self.send(type="hello", protocol=1, sdk="crash-test")
        start, text = None, ""
        while True:
            frame = self.read()
            if frame["type"] == "start":
                start = frame
            elif frame["type"] == "input":
                text = "".join(part["text"] for part in frame["parts"])
            elif frame["type"] == "journal":
                self.journal[frame["key"]] = frame
            elif frame["type"] == "ready":
                assert frame["journal"] == len(self.journal), "the journal is whole"
                return start, text

    def wait(self, kind, key):
        """Read until this was said under this key."""
        while (kind, key) not in self.seen:
            frame = self.read()
            if frame["type"] in ("park", "cancel"):
                sys.exit(0)
            if frame["type"] == "error":
                raise RuntimeError(frame["message"])
            self.seen[frame["type"], frame.get("key")] = frame
        return self.seen.pop((kind, key))


def begin_step(runtime, op, kind):
    """Begin a step; return whether it is to be carried out."""
    if op["key"] in runtime.journal:
        return False
    effect = op.get("effect", "idempotent")
    key, name = op["key"], op["op"]
    runtime.send(type="step_begin", key=key, kind=kind, name=name, effect=effect, digest=DIGEST)
    return True


def end_step(runtime, world, op):
    """Carry a step out, and end it."""
    if op.get("effect") == "once":
        runtime.wait("granted", op["key"])
    usage = {"model_calls": 1} if op["op"] == "model" else {"tool_calls": 1}
    runtime.send(type="step_end", key=op["key"], result=world.do(op), usage=usage)


def steps(runtime, world, ops, kind):
    """Carry out steps that are all under way at the same time."""
    begun = [op for op in ops if begin_step(runtime, op, kind)]
    for op in begun:
        end_step(runtime, world, op)
    for op in begun:
        recorded = runtime.wait("recorded", op["key"])
        assert recorded["before"] is None, "what is in the journal is not done again"


def wait_for(runtime, op, done, until, **frame):
    """Wait for something that may come days later."""
    entry = runtime.journal.get(op["key"])
    if entry is None or not done(entry):
        runtime.send(type=op["op"], key=op["key"], **frame)
        runtime.wait(until, op["key"])


def record(runtime, op, **frame):
    """Say something that is recorded once."""
    if op["key"] not in runtime.journal:
        runtime.send(type=frame.pop("type", op["op"]), key=op["key"], **frame)
        runtime.wait("recorded", op["key"])


def say(runtime, op):
    """Stream an output."""
    if op["key"] in runtime.journal:
        assert runtime.journal[op["key"]]["text"] == "".join(op["pieces"]), "it is what was said"
        return
    block = op["key"]
    for piece in op["pieces"]:
        runtime.send(type="delta", block=block, text=piece)
        time.sleep(op["ms"] / 1000)
    record(runtime, op, type="output", block=block)


def carry_out(runtime, world, op):
    """Carry out an operation; return whether the attempt is to fail."""
    kind = op["op"]
    if kind == "step":
        steps(runtime, world, [op], "tool")
    elif kind == "pair":
        steps(runtime, world, op["steps"], "user")
    elif kind == "model":
        steps(runtime, world, [op], "model")
    elif kind == "say":
        say(runtime, op)
    elif kind == "sleep":
        due = int(time.time() * 1000) + op["ms"]
        wait_for(runtime, op, lambda entry: entry["fired"], "fired", due_ms=due)
    elif kind == "signal":
        wait_for(runtime, op, lambda entry: "payload" in entry, "signaled", name=op["name"])
    elif kind == "ask":
        done = lambda entry: "answer" in entry or entry.get("expired")  # noqa: E731
        wait_for(runtime, op, done, "answered", kind="approval", prompt=f"{op['key']}?")
    elif kind == "emit":
        record(runtime, op, name="crash", data=op["key"])
    elif kind == "checkpoint":
        record(runtime, op, name=op["key"])
    else:
        return world.meet(op)
    return False


def main():
    runtime = Runtime()
    start, text = runtime.begin()
    program = json.loads(text)
    world = World(start["config"], start["session"], start["attempt"], program["tag"])
    for op in program["ops"]:
        if carry_out(runtime, world, op):
            failure = {"code": "drawn", "message": "the program says so"}
            runtime.send(type="fail", failure=failure, retry=True)
            return
    runtime.send(type="end", result=program["tag"])


main()
