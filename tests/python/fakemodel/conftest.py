"""Real vendor SDKs against the scripted model server, directly and through the gateway.

How to run, from the root of the repository:

    python3 -m venv /tmp/fakemodel-venv
    /tmp/fakemodel-venv/bin/pip install -r tests/python/fakemodel/requirements.txt
    /tmp/fakemodel-venv/bin/pytest tests/python/fakemodel

The server is built with cargo, unless FAKEMODEL names its binary; so is `ax`, unless AX names it.
No network is used.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]


class Model:
    """A running server, steered and looked into over its control paths."""

    def __init__(self, url: str) -> None:
        self.url = url

    def script(self, *turns: dict, **more) -> None:
        self._post("/_script", {"version": 1, "turns": list(turns), **more})

    def ledger(self) -> dict:
        with urllib.request.urlopen(self.url + "/_ledger") as reply:
            return json.load(reply)

    def reset(self) -> None:
        self._post("/_script", {"version": 1})
        self._post("/_reset", {})

    def _post(self, path: str, body: dict) -> None:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode())
        urllib.request.urlopen(request).close()


def binary() -> str:
    if named := os.environ.get("FAKEMODEL"):
        return named
    built = subprocess.run(
        ["cargo", "build", "-q", "-p", "ax-fakemodel", "--example", "fakemodel"]
        + ["--message-format", "json"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    found = [m["executable"] for m in messages if m.get("executable")]
    return found[-1]


@pytest.fixture(scope="session")
def server():
    with subprocess.Popen([binary()], stdout=subprocess.PIPE) as process:
        yield Model(json.loads(process.stdout.readline())["url"])
        process.kill()


@pytest.fixture
def model(server):
    server.reset()
    return server


CALL = 'please <task>CALL shell {"command": "ls -l", "deep": {"n": [1, 2]}}</task>'
ARGUMENTS = {"command": "ls -l", "deep": {"n": [1, 2]}}
# A turn with everything an answer can have; long enough for several chunks.
RICH = {
    "thought": "first I think about it for a while",
    "text": "then I say what I am going to do",
    "calls": [
        {"tool": "shell", "arguments": ARGUMENTS, "id": "call_first_0001"},
        {"tool": "read", "arguments": {"path": "a/b"}, "id": "call_second_002"},
    ],
    "usage": {"input_tokens": 120, "output_tokens": 34, "cached_tokens": 20},
}
