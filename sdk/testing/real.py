"""A real server and a scripted model server, for the tests of packages; AX names the binary."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
AX = os.environ.get("AX", str(ROOT / "target/debug/ax"))


class Server:
    """A running server."""

    def __init__(self, data: Path) -> None:
        self.data = data
        args = ["serve", "--data", str(data), "--listen", "127.0.0.1:0"]
        args += ["--insecure-no-auth", "--allow-unsandboxed"]
        self._process = subprocess.Popen([AX, *args, "--json"], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.url: str = json.loads(self._process.stdout.readline())["addresses"][0]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(timeout=60) == 0


class Model:
    """A scripted model server."""

    def __init__(self) -> None:
        command = [AX, "fakemodel", "--json"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.url: str = json.loads(self._process.stdout.readline())["url"]

    def script(self, *turns: dict[str, Any]) -> None:
        document = json.dumps({"version": 1, "turns": turns})
        request = urllib.request.Request(self.url + "/_script", document.encode())
        urllib.request.urlopen(request).close()

    def requests(self) -> list[dict[str, Any]]:
        """Return the requests that cost something, oldest first."""
        with urllib.request.urlopen(self.url + "/_ledger") as reply:
            entries: list[dict[str, Any]] = json.load(reply)["entries"]
        return [entry for entry in entries if entry["kind"] == "generate"]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("data"))
    yield started
    started.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """Start servers on one data directory, one after the other."""
    servers: list[Server] = []

    def start() -> Server:
        servers.append(Server(tmp_path / "data"))
        return servers[-1]

    yield start
    for one in servers:
        one.kill()


@pytest.fixture
def model() -> Iterator[Model]:
    started = Model()
    yield started
    started.stop()
