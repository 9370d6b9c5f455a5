"""ADK's own server with ``services.yaml``: killed and started again, it finds what it knew."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import ROOT, Server, ax

EXAMPLE = ROOT / "examples/adk"
LIMIT = 120.0
OWN = "/apps/shop/users/me/sessions"


class AdkServer:
    """``adk api_server`` on the example, its services at a server of ours."""

    def __init__(self, directory: pathlib.Path, uri: str, model_url: str) -> None:
        self.directory = directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        paths = os.pathsep.join(str(ROOT / path) for path in ("sdk/python/src", "sdk/adk/src"))
        self.env = {
            **os.environ,
            "PYTHONPATH": paths,
            "GOOGLE_GEMINI_BASE_URL": model_url,
            "GOOGLE_API_KEY": "none",
            "EFFECTS": str(directory / "effects.txt"),
        }
        kinds = ("session", "artifact", "memory")
        services = [f"--{kind}_service_uri={uri}" for kind in kinds]
        where = ["--host", "127.0.0.1", "--port", str(self.port)]
        adk = [sys.executable, "-m", "google.adk.cli", "api_server"]
        self.args = [*adk, *where, *services, str(directory)]
        self.start()

    def start(self) -> None:
        log = (self.directory.parent / "adk.log").open("a")
        self.process = subprocess.Popen(
            self.args, env=self.env, cwd=self.directory, stdout=log, stderr=log
        )
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            assert self.process.poll() is None, (self.directory.parent / "adk.log").read_text()
            try:
                self.ask("GET", "/list-apps")
            except urllib.error.URLError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError("the server does not answer")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=60)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def say(self, *parts: dict[str, Any]) -> list[dict[str, Any]]:
        message = {"role": "user", "parts": list(parts)}
        body = {"appName": "shop", "userId": "me", "sessionId": "s", "newMessage": message}
        events: list[dict[str, Any]] = self.ask("POST", "/run", body)
        return events


@pytest.fixture()
def adk(tmp_path: pathlib.Path, server: Server) -> Iterator[AdkServer]:
    args = [ax(), "fakemodel", "--script", str(EXAMPLE / "model.json"), "--json"]
    model = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    assert model.stdout is not None
    model_url = json.loads(model.stdout.readline())["url"]
    shutil.copytree(EXAMPLE, tmp_path / "agents")
    started = AdkServer(tmp_path / "agents", server.uri, model_url)
    yield started
    started.kill()
    model.terminate()
    model.wait(timeout=60)


def confirmation(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Find the call that asks for a confirmation."""
    parts = [part for event in events for part in event.get("content", {}).get("parts", [])]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    (found,) = [call for call in calls if call["name"] == "adk_request_confirmation"]
    return dict(found)


def test_adks_server_that_is_killed_finds_sessions_state_and_artifacts_again(
    adk: AdkServer,
) -> None:
    assert adk.ask("GET", "/list-apps") == ["shop"]
    adk.ask("POST", f"{OWN}/s", {"user:name": "Ada", "app:open": True, "mine": 1})
    with pytest.raises(urllib.error.HTTPError) as refused:
        adk.ask("POST", f"{OWN}/s", {})
    assert refused.value.code == 409
    call = confirmation(adk.say({"text": "Please refund order 1042."}))
    picture = {"filename": "p", "artifact": {"inlineData": {"mimeType": "a/b", "data": "AP8="}}}
    adk.ask("POST", f"{OWN}/s/artifacts", picture)
    before = adk.ask("GET", f"{OWN}/s")
    assert before["state"]["order"] == "1042"

    adk.kill()
    adk.start()

    assert adk.ask("GET", f"{OWN}/s") == before
    assert [one["id"] for one in adk.ask("GET", OWN)] == ["s"]
    assert adk.ask("GET", f"{OWN}/s/artifacts") == ["p"]
    assert adk.ask("GET", f"{OWN}/s/artifacts/p")["inlineData"]["data"] == "AP8="
    # What waited for a person goes on.
    response = {"id": call["id"], "name": call["name"], "response": {"confirmed": True}}
    events = adk.say({"functionResponse": response})
    assert "The manager has to agree." in json.dumps(events)
    assert (adk.directory / "effects.txt").read_text().splitlines()[0] == "refund 1042 40"
    after = adk.ask("GET", f"{OWN}/s")
    assert after["events"][: len(before["events"])] == before["events"]
    assert after["state"] == before["state"]
    assert len(after["events"]) > len(before["events"])

    fresh = adk.ask("POST", OWN, {})
    assert fresh["state"] == {"user:name": "Ada", "app:open": True}
    request = urllib.request.Request(f"http://127.0.0.1:{adk.port}{OWN}/s", method="DELETE")
    urllib.request.urlopen(request, timeout=60).close()
    assert [one["id"] for one in adk.ask("GET", OWN)] == [fresh["id"]]
