"""An SDK behind the gateway: a program that knows nothing of us is killed on its way.

Its example lies in a directory `unmodified` and works in the warehouse of `examples/unmodified`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from real import AX, ROOT, Model

SHELVES = 9
TOOLS = ("count_shelf", "label_shelf", "send_goods")
PATIENCE = 240.0


def turns(prefix: str) -> list[dict[str, object]]:
    """Return a conversation with a call for each shelf, of each kind in turn.

    `prefix` is what the SDK puts before the names of tools.
    """
    script: list[dict[str, object]] = []
    for number in range(SHELVES):
        tool = TOOLS[number % 3]
        arguments: dict[str, object] = {"shelf": number}
        if tool == "label_shelf":
            arguments["label"] = f"L{number}"
        call = {"tool": f"{prefix}{tool}", "arguments": arguments}
        pace = {"chunk_chars": 4, "chunk_delay_millis": 15}
        script.append(
            {"when": {"turn": number}, "text": f"Shelf {number}.", "calls": [call], "pace": pace}
        )
    return [*script, {"when": {"turn": SHELVES}, "text": "All shelves are done."}]


def manifest(example: Path, model: Model, effects: Path, mark: str) -> str:
    """Return the manifest of an example, with other places."""
    text = (example / "agent.yaml").read_text()
    for old, new in (
        ('["python3", "agent.py"]', f'["{sys.executable}", "{example}/agent.py", "{mark}"]'),
        ('["python3", "../../', f'["{sys.executable}", "{ROOT}/examples/'),
        ('"effects.txt"', f'"{effects}"'),
        ("http://127.0.0.1:8484", model.url),
    ):
        assert old in text
        text = text.replace(old, new)
    return text + "  limits:\n    retry: {backoffMin: 10ms, backoffMax: 50ms}\n"


def harness(mark: str) -> list[int]:
    """Return the processes of the program, and what it has started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            children = (entry / "task" / entry.name / "children").read_text()
        except (OSError, ValueError):
            continue
        if mark.encode() in words and words[0] == sys.executable.encode():
            found += [int(entry.name), *map(int, children.split())]
    return found


def killed(
    example: Path, model: Model, place: Path, seed: int, *, prefix: str = "", env: dict[str, str]
) -> None:
    """Let the program of an example work, kill it three times, and look at what that cost."""
    model.script(*turns(prefix))
    effects, mark = place / "effects", f"--mark={place}"
    (place / "agent.yaml").write_text(manifest(example, model, effects, mark))
    run = subprocess.Popen(
        [AX, "--data", str(place / "data"), "run", "-f", "agent.yaml", "How many boxes?"],
        cwd=place,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        text=True,
    )
    dice = random.Random(seed)
    for asked in sorted(dice.sample(range(1, SHELVES + 1), 3)):
        wait_until_asked(model, asked, run)
        time.sleep(dice.uniform(0, 0.3))
        victims = harness(mark)
        assert victims, "it is at work"
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
    said, _ = run.communicate(timeout=PATIENCE)
    # It may be said again, if it was killed with its last word on its lips.
    assert run.returncode == 0 and said.splitlines()[-1:] == ["All shelves are done."]
    asked_for = [one["request_hash"] for one in model.requests()]
    assert len(asked_for) == len(set(asked_for)) == SHELVES + 1, "no answer is paid twice"
    done = effects.read_text().splitlines()
    assert len(done) == len(set(done)) == SHELVES * 2 // 3, "nothing is done twice"


def wait_until_asked(model: Model, count: int, run: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    while len(model.requests()) < count:
        assert run.poll() is None and time.monotonic() - began < PATIENCE, "it does not get on"
        time.sleep(0.02)
