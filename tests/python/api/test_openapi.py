"""Requests of all kinds that the OpenAPI document allows, and many that it does not."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

CONFIG = pathlib.Path(__file__).with_name("schemathesis.toml")
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
]


def test_no_request_breaks_the_server_or_its_promises(server, tmp_path):
    part = {"kind": "PART_KIND_TEXT", "mediaType": "text/plain", "body": {"text": "Hi"}}
    server.ask("POST", "/v1/sessions/talk/inputs", {"agent": "hello", "parts": [part]})
    seconds = os.environ.get("SCHEMATHESIS_SECONDS", "30")
    seed = os.environ.get("AX_SEED", "1")
    schemathesis = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)]
    url = f"{server.url}/v1/openapi.json"
    options = ["--checks", ",".join(CHECKS), "--max-time", seconds, "--seed", seed]
    more = ["--exclude-operation-id", "Shutdown", "--continue-on-failure", "--no-color"]
    done = subprocess.run(
        [*schemathesis, "run", url, *options, *more],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    print(done.stdout)
    assert done.returncode == 0
    assert server.ask("GET", "/v1/info")["pid"] > 0
