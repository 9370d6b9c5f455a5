"""Peers of the AX wire, generation 1: clients made of our proto files, and harnesses.

How to run, from the root of the repository:

    python3 -m venv /tmp/ax1-venv
    /tmp/ax1-venv/bin/pip install -r tests/python/ax1/requirements.txt \
        -r examples/antigravity/requirements.txt
    cargo build -p ax
    AX=target/debug/ax /tmp/ax1-venv/bin/pytest tests/python/ax1

No network is used but the loopback.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import grpc
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples/antigravity"
sys.path.insert(0, str(EXAMPLE))

import stubs  # noqa: E402

pb, pb_grpc = stubs.load()
from proto import content_pb2 as content  # noqa: E402

START_MAX_SECONDS = 60
# A harness inherits little; it finds the stubs where we have them.
CACHE = {name: os.environ[name] for name in ("XDG_CACHE_HOME",) if name in os.environ}


def text(words: str, role: str = "user"):
    return pb.Message(role=role, content=content.Content(text=content.TextContent(text=words)))


def texts(responses) -> list[str]:
    """The texts of responses, in their order."""
    messages = [message for response in responses for message in response.outputs]
    return [m.content.text.text for m in messages if m.content.HasField("text")]


def wait_for(what, condition, seconds: float = START_MAX_SECONDS):
    """Waits for a state."""
    due = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < due, f"no {what} within {seconds} s"
        time.sleep(0.02)
    return found


class Server:
    """`ax serve` on a data directory of its own."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.dir = directory
        self.data = directory / "data"
        self._process: subprocess.Popen | None = None
        self._channels: list[grpc.Channel] = []
        self.start()

    def start(self) -> None:
        errors = open(self.dir / "server.err", "ab")
        command = [binary(), "serve", "--data", str(self.data)]
        self._process = subprocess.Popen(command, stdout=errors, stderr=errors)
        wait_for("server", self._serves)

    def kill(self) -> None:
        """As the power goes: SIGKILL, and the harnesses go with it."""
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        for channel in self._channels:
            channel.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)

    def channel(self) -> grpc.Channel:
        channel = self._connect()
        self._channels.append(channel)
        return channel

    def _connect(self) -> grpc.Channel:
        # Else grpcio sends the path of the socket as the authority, which is none (RFC 3986 §3.2).
        options = [("grpc.default_authority", "localhost")]
        return grpc.insecure_channel(f"unix:{self.data}/ax.sock", options)

    def apply(self, name: str, harness: dict, **limits) -> None:
        manifest = {
            "apiVersion": "agentexecutor.dev/v1",
            "kind": "Agent",
            "metadata": {"name": name},
            "spec": {"sandbox": "process", "harness": harness, "limits": limits},
        }
        file = self.dir / f"{name}.yaml"
        file.write_text(json.dumps(manifest))
        self.ax("agent", "apply", "-f", str(file))

    def ax(self, *arguments: str) -> str:
        """Runs a command against this server."""
        command = [binary(), "--data", str(self.data), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def events(self, session: str) -> list[dict]:
        lines = self.ax("--json", "events", session).splitlines()
        return [json.loads(line) for line in lines]

    def _serves(self) -> bool:
        assert self._process.poll() is None, (self.dir / "server.err").read_text()
        try:
            with self._connect() as channel:
                grpc.channel_ready_future(channel).result(0.5)
            return True
        except grpc.FutureTimeoutError:
            return False


def binary() -> str:
    named = os.environ.get("AX")
    return str(pathlib.Path(named).resolve()) if named else str(ROOT / "target/debug/ax")


@pytest.fixture
def server():
    # The path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="ax1-") as directory:
        server = Server(pathlib.Path(directory))
        yield server
        server.stop()


@pytest.fixture
def model(tmp_path):
    """Starts a scripted model server; returns its URL."""
    started = []

    def start(script: dict) -> str:
        file = tmp_path / "model.json"
        file.write_text(json.dumps(script))
        command = [binary(), "fakemodel", "--listen", "127.0.0.1:0", "--script", str(file)]
        command += ["--ledger", str(tmp_path / "ledger.jsonl")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()
