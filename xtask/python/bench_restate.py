"""Measures a durable step in Restate and in `ax`, in turns: RESTATE AX DIR. Prints JSON lines.

Both run a handler in Python that takes steps one after the other, each with a result of 1 KiB; the
handler's clock counts. This file is also the agent, which `ax` runs again as a harness, and the
service, which runs under an HTTP/2 server and which Restate calls.
"""

import contextlib
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

COUNT = 500
WARM_UP = 50
ROUND_COUNT = 3
RESULT = "x" * 1024
PATIENCE_SECONDS = 60
MANIFEST = {
    "apiVersion": "agentexecutor.dev/v1",
    "kind": "Agent",
    "metadata": {"name": "bench-steps"},
}


def agent() -> None:
    """Takes steps of the SDK."""
    import agent_executor as ax

    @ax.agent
    def main(ctx: ax.Context) -> dict[str, Any]:
        took = []
        for number in range(COUNT + WARM_UP):
            began = time.perf_counter_ns()
            ctx.step("step", lambda: RESULT, key=f"step-{number}", effect="idempotent")
            took.append(time.perf_counter_ns() - began)
        pathlib.Path(os.environ["BENCH_OUT"]).write_text(json.dumps(took), encoding="utf-8")
        return {}

    main.run()


def service() -> Any:
    """Returns an application that takes steps of Restate."""
    import restate

    bench = restate.VirtualObject("bench")

    @bench.handler()
    async def steps(ctx: restate.ObjectContext) -> list[int]:
        took = []
        for _ in range(COUNT + WARM_UP):
            began = time.perf_counter_ns()
            await ctx.run_typed("step", lambda: RESULT)
            took.append(time.perf_counter_ns() - began)
        return took

    return restate.app([bench])


def free_ports(count: int) -> list[int]:
    """Returns ports of the loopback that were free just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def post(url: str, body: Any = None) -> Any:
    """Sends JSON, or nothing, and returns the JSON that is answered."""
    data = None if body is None else json.dumps(body).encode()
    headers = {} if data is None else {"content-type": "application/json"}
    request = urllib.request.Request(url, data, headers, method="POST")
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return json.load(answer)


def wait_for(url: str) -> None:
    """Waits until something answers."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process."""
    process.terminate()
    process.wait(PATIENCE_SECONDS)


@contextlib.contextmanager
def peer(binary: str, home: pathlib.Path) -> Iterator[str]:
    """A server of Restate with the service beside it. Gives the address for requests."""
    ingress, admin, node, service_port = free_ports(4)
    config = home / "restate.toml"
    config.write_text(
        f'base-dir = "{home / "restate"}"\n'
        f'bind-address = "127.0.0.1:{node}"\n'
        f'advertised-address = "http://127.0.0.1:{node}/"\n'
        "disable-telemetry = true\n"
        f'[admin]\nbind-address = "127.0.0.1:{admin}"\n'
        f'[ingress]\nbind-address = "127.0.0.1:{ingress}"\n',
        encoding="utf-8",
    )
    server = [binary, "--config-file", str(config)]
    hypercorn = [sys.executable, "-m", "hypercorn", "--log-level", "error"]
    hypercorn += ["--bind", f"127.0.0.1:{service_port}", "bench_restate:service()"]
    here = pathlib.Path(__file__).parent
    with contextlib.ExitStack() as stack:
        for command in (server, hypercorn):
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            stack.callback(stop, subprocess.Popen(command, cwd=here, **quiet))
        wait_for(f"http://127.0.0.1:{admin}/health")
        wait_for(f"http://127.0.0.1:{ingress}/restate/health")
        with contextlib.closing(socket.socket()) as probe:
            while probe.connect_ex(("127.0.0.1", service_port)) != 0:
                time.sleep(0.05)
        deployment = {"uri": f"http://127.0.0.1:{service_port}"}
        post(f"http://127.0.0.1:{admin}/deployments", deployment)
        yield f"http://127.0.0.1:{ingress}"


def theirs(address: str, number: int) -> list[int]:
    """Takes steps in an object of its own."""
    took: list[int] = post(f"{address}/bench/object-{number}/steps")
    return took[WARM_UP:]


def ours(binary: str, home: pathlib.Path, number: int) -> list[int]:
    """Takes steps in a session of its own."""
    out = home / f"out-{number}.json"
    env = {"BENCH_OUT": str(out), "PYTHONPATH": os.environ["PYTHONPATH"]}
    harness = {"type": "process", "command": [sys.executable, __file__], "env": env}
    manifest = {**MANIFEST, "spec": {"sandbox": "process", "harness": harness}}
    # JSON is YAML.
    (home / "agent.yaml").write_text(json.dumps(manifest), encoding="utf-8")
    command = [binary, "--data", str(home / "data"), "--quiet", "run", "-f", "agent.yaml"]
    subprocess.run([*command, "--no-wait", "go"], cwd=home, check=True, stdout=sys.stderr)
    took: list[int] = json.loads(out.read_text(encoding="utf-8"))
    return took[WARM_UP:]


def main(restate: str, ax: str, place: str) -> None:
    """Measures both in turns, and says what a step took."""
    took: dict[str, list[int]] = {"Restate": [], "ax": []}
    with tempfile.TemporaryDirectory(dir=place) as name:
        home = pathlib.Path(name)
        with peer(restate, home) as address:
            for number in range(ROUND_COUNT):
                took["Restate"] += theirs(address, number)
                took["ax"] += ours(ax, home, number)
    for who, times in took.items():
        parts = statistics.quantiles(times, n=100)
        figures = {"p50_us": round(parts[49] / 1000, 1), "p99_us": round(parts[98] / 1000, 1)}
        print(json.dumps({"piece": "restate", "what": who, "count": len(times), **figures}))


if __name__ == "__main__":
    if "AX_RUN" in os.environ:
        agent()
    else:
        main(*sys.argv[1:])
