"""The services against a real server.

How to run, from this directory:

    AX=../../target/debug/ax python -m pytest

AX names the binary of the server. Everything happens on the loopback.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from agent_executor_adk import AxArtifactService, AxMemoryService, AxSessionService

ROOT = pathlib.Path(__file__).resolve().parents[3]


def ax() -> str:
    return os.environ.get("AX", str(ROOT / "target/debug/ax"))


class Server:
    """A server of a data directory, that can be killed and started again at the same address."""

    def __init__(self, data: pathlib.Path, env: dict[str, str] | None = None) -> None:
        self.data = data
        self.env = {**os.environ, **(env or {})}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.uri = f"ax://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        listen = ["--listen", f"127.0.0.1:{self.port}", "--insecure-no-auth", "--allow-unsandboxed"]
        args = [ax(), "serve", "--data", str(self.data), *listen, "--json"]
        self.process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True, env=self.env)
        assert self.process.stdout is not None
        assert json.loads(self.process.stdout.readline())["addresses"]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=60)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=60) == 0


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("data"))
    yield server
    server.stop()


@pytest.fixture()
def sessions(server: Server) -> AxSessionService:
    return AxSessionService(server.uri)


@pytest.fixture()
def artifacts(server: Server) -> AxArtifactService:
    return AxArtifactService(server.uri)


@pytest.fixture()
def memory(server: Server) -> AxMemoryService:
    return AxMemoryService(server.uri)


@pytest.fixture()
def app() -> str:
    """An app that no other test has used."""
    return f"app_{uuid.uuid4().hex[:12]}"
