"""The same harness, on the SDK."""

import json
import time

from effects import World

import agent_executor as ax


def carry_out(ctx, world, op):
    """Carry out an operation; return whether the attempt is to fail."""
    kind = op["op"]
    if kind == "step":
        step(ctx, world, op, "tool", op["effect"])
    elif kind == "model":
        step(ctx, world, op, "model", "idempotent")
    elif kind == "say":
        with ctx.stream(key=op["key"]) as out:
            for piece in op["pieces"]:
                out.write(piece)
                time.sleep(op["ms"] / 1000)
        ctx.flush()
    elif kind == "sleep":
        ctx.sleep(op["ms"] / 1000, key=op["key"])
    elif kind == "signal":
        ctx.signal(op["name"], key=op["key"])
    elif kind == "ask":
        ctx.ask_approval(f"{op['key']}?", key=op["key"])
    elif kind == "emit":
        ctx.emit("crash", op["key"], key=op["key"])
        ctx.flush()
    elif kind == "checkpoint":
        ctx.checkpoint(op["key"], key=op["key"])
    else:
        return world.meet(op)
    return False


def step(ctx, world, op, kind, effect):
    """Carry out a step; whatever a person said of it, the program goes on."""
    try:
        ctx.step(op["op"], world.do, op, key=op["key"], kind=kind, effect=effect, request=op["key"])
    except ax.StepFailed as failed:
        if failed.code != "reported":
            raise


@ax.agent
def main(ctx: ax.Context) -> str:
    """Run the program."""
    program = json.loads(ctx.input.text)
    world = World(ctx.config, ctx.session, ctx.attempt, program["tag"])
    for op in program["ops"]:
        if carry_out(ctx, world, op):
            raise RuntimeError("the program says so")
    return program["tag"]


main.run()
