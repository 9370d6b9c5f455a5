"""Measures steps of the SDK through the real binary: BINARY DIR. Prints one JSON object a line.

This file is also the agent: `ax` runs it again as a harness.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

COUNT = 1000
WARM_UP = 100
SYNC_BYTES = 4096
SYNC_COUNT = {"idempotent": 1, "once": 2}
MANIFEST = {
    "apiVersion": "agentexecutor.dev/v1",
    "kind": "Agent",
    "metadata": {"name": "bench-steps"},
}


def agent() -> None:
    """Takes turns: an idempotent step, a once step, a synced write."""
    import agent_executor as ax

    @ax.agent
    def main(ctx: ax.Context) -> dict[str, Any]:
        file = os.open("raw", os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(file, 0, SYNC_BYTES)
        os.fsync(file)
        took: dict[str, list[int]] = {"idempotent": [], "once": [], "sync": []}
        for number in range(COUNT + WARM_UP):
            for effect in ("idempotent", "once"):
                began = time.perf_counter_ns()
                ctx.step("nothing", int, key=f"{effect}-{number}", effect=effect)
                took[effect].append(time.perf_counter_ns() - began)
            began = time.perf_counter_ns()
            os.pwrite(file, os.urandom(SYNC_BYTES), 0)
            os.fdatasync(file)
            took["sync"].append(time.perf_counter_ns() - began)
        out = os.environ["BENCH_OUT"]
        pathlib.Path(out).write_text(json.dumps(took), encoding="utf-8")
        return {}

    main.run()


def part(times: list[int], percent: int) -> float:
    """Returns a percentile, in microseconds."""
    return round(statistics.quantiles(times[WARM_UP:], n=100)[percent - 1] / 1000, 1)


def main(binary: str, place: str) -> None:
    """Runs the agent and says what its steps took."""
    with tempfile.TemporaryDirectory(dir=place) as name:
        home = pathlib.Path(name)
        env = {"BENCH_OUT": str(home / "out.json"), "PYTHONPATH": os.environ["PYTHONPATH"]}
        harness = {"type": "process", "command": [sys.executable, __file__], "env": env}
        manifest = {**MANIFEST, "spec": {"sandbox": "process", "harness": harness}}
        # JSON is YAML.
        (home / "agent.yaml").write_text(json.dumps(manifest), encoding="utf-8")
        command = [binary, "--data", str(home / "data"), "--quiet", "run", "-f", "agent.yaml"]
        subprocess.run([*command, "--no-wait", "go"], cwd=home, check=True, stdout=sys.stderr)
        took = json.loads((home / "out.json").read_text(encoding="utf-8"))
    sync = part(took["sync"], 50)
    for effect, count in SYNC_COUNT.items():
        step = part(took[effect], 50)
        figures = {
            "name": f"SDK_step_{effect}",
            "step_us_p50": step,
            "step_us_p99": part(took[effect], 99),
            "sync_us_p50": sync,
            "syncs_each": count,
            "beyond_us_p50": round(step - count * sync, 1),
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    if "AX_RUN" in os.environ:
        agent()
    else:
        main(*sys.argv[1:])
