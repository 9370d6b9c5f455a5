"""Strangers' clients against a real server: made from the proto files and the OpenAPI document.

How to run, from the root of the repository:

    cargo xtask test api

AX names the binary of the server. Everything happens on the loopback.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import urllib.request

import grpc
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROTO = ROOT / "crates/ax-proto/proto"
MANIFEST = """\
apiVersion: agentexecutor.dev/v1
kind: Agent
metadata: {name: hello}
spec:
  sandbox: process
  harness: {type: process, protocol: text, command: [echo, hello]}
"""


class Server:
    """A running server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.target = url.removeprefix("http://")

    def ask(self, method: str, path: str, body: dict | None = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"} if data else {}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)


# A server for each file: what one leaves there is not for another to stumble on.
@pytest.fixture(scope="module")
def server(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    binary = os.environ.get("AX", str(ROOT / "target/debug/ax"))
    args = ["serve", "--data", str(data), "--listen", "127.0.0.1:0"]
    args += ["--insecure-no-auth", "--allow-unsandboxed"]
    process = subprocess.Popen([binary, *args, "--json"], stdout=subprocess.PIPE, text=True)
    try:
        serving = json.loads(process.stdout.readline())
        found = Server(serving["addresses"][0])
        found.ask("POST", "/v1/agents", {"manifest": MANIFEST})
        yield found
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """The modules that grpcio-tools makes from the proto files, and from nothing else."""
    out = tmp_path_factory.mktemp("stubs")
    files = ["agentexecutor/v1/event.proto", "agentexecutor/v1/service.proto"]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}"]
    outs = [f"--python_out={out}", f"--grpc_python_out={out}"]
    subprocess.run([*protoc, *outs, *files], check=True)
    sys.path.insert(0, str(out))
    from agentexecutor.v1 import event_pb2, service_pb2, service_pb2_grpc

    return event_pb2, service_pb2, service_pb2_grpc


@pytest.fixture()
def channel(server):
    with grpc.insecure_channel(server.target) as channel:
        yield channel
