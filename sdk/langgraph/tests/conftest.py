"""A real server for the tests: AX names its binary."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]


class Server:
    """A server with a data directory, which can be killed and started again."""

    def __init__(self, data: pathlib.Path) -> None:
        self.data = data
        self.start()

    def start(self, listen: str = "127.0.0.1:0") -> None:
        binary = os.environ.get("AX", str(ROOT / "target/debug/ax"))
        args = ["serve", "--data", str(self.data), "--listen", listen]
        args += ["--insecure-no-auth", "--allow-unsandboxed"]
        self.process = subprocess.Popen(
            [binary, *args, "--json"], stdout=subprocess.PIPE, text=True
        )
        self.url = json.loads(self.process.stdout.readline())["addresses"][0]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=60)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = Server(tmp_path_factory.mktemp("data"))
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
def own_server(tmp_path):
    found = Server(tmp_path / "data")
    try:
        yield found
    finally:
        found.stop()
