"""The vendors' clients through the gateway: they get what they would get without it.

The program is asker.py. It runs once with the addresses of the scripted model, and then as the
harness of an agent, whose gateway asks the same model the same questions. The model makes every
identifier of the request and of how often it came, and has one time for everything; it forgets in
between how often. So nothing may differ, and nothing is left out of the comparison but what belongs
to a connection. See conftest.py for how to run.
"""

from __future__ import annotations

import base64
import json
import os
import pathlib
import subprocess
import sys

import pytest
from conftest import RICH, ROOT

ASKER = pathlib.Path(__file__).with_name("asker.py")
FORMS = ["anthropic", "chat", "responses", "gemini", "interactions"]
KEY = "the-real-key"
# Bytes of all lengths, what looks like an end of a line or of an event, and both directions.
UNICODE = (
    "ä€𝄞 👩‍👩‍👧 שלום مرحبا \u2028\u2029\u0085\ufeff \u0000\u001f \\u00e4"
    "\r\n\r\ndata: x\n\nevent: y\n\n: "
)
LARGE = "".join(f"{number:07} ä\n" for number in range(60_000))
SCRIPT = [
    {**RICH, "when": {"text": "rich"}},
    {"when": {"text": "unicode"}, "text": UNICODE, "pace": {"chunk_chars": 1}},
    {"when": {"text": "large"}, "text": LARGE, "pace": {"chunk_chars": 2000}},
    {
        "when": {"text": "pieces"},
        "text": "0123456789" * 10,
        "pace": {"chunk_chars": 1, "chunk_delay_millis": 2},
    },
    {"when": {"text": "refuse 400"}, "fault": {"status": 400, "message": "no ä"}},
    {"when": {"text": "refuse 429"}, "fault": {"status": 429, "retry_after_seconds": 7}},
    {"when": {"text": "refuse 529"}, "fault": {"status": 529}},
]


def binary() -> str:
    if named := os.environ.get("AX"):
        return named
    subprocess.run(["cargo", "build", "-q", "-p", "ax"], cwd=ROOT, check=True)
    return str(ROOT / "target/debug/ax")


def addresses(url: str) -> dict[str, str]:
    """What the clients find in their environment, with nothing between them and the model."""
    return {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": KEY,
        "OPENAI_BASE_URL": url + "/v1",
        "OPENAI_API_KEY": KEY,
        "GOOGLE_GEMINI_BASE_URL": url,
        "GEMINI_NEXT_GEN_API_BASE_URL": url,
        "GEMINI_API_KEY": KEY,
    }


def manifest(url: str, env: dict[str, str]) -> dict:
    # One try: what a model refuses for a while is to be seen.
    models = [
        {"provider": "anthropic", "baseUrl": url, "tries": 1},
        {"provider": "openai", "baseUrl": url, "tries": 1},
        {"provider": "gemini", "baseUrl": url, "tries": 1},
    ]
    harness = {
        "type": "process",
        "protocol": "text",
        "command": [sys.executable, str(ASKER)],
        "env": env,
    }
    return {
        "apiVersion": "agentexecutor.dev/v1",
        "kind": "Agent",
        "metadata": {"name": "asker"},
        "spec": {"sandbox": "process", "harness": harness, "gateway": {"models": models}},
    }


def calls(out: pathlib.Path) -> list[dict]:
    """What was written down, in its order."""
    return [json.loads(line) for line in out.read_text().splitlines()]


def pieces(call: dict) -> list[bytes]:
    return [base64.b64decode(piece) for piece in call["pieces"]]


class Place:
    """Where one test works."""

    def __init__(self, model, directory: pathlib.Path) -> None:
        self.model = model
        self.dir = directory

    def directly(self, **env: str) -> list[dict]:
        self.model.reset()
        self.model.script(*SCRIPT)
        out = self.dir / "direct.jsonl"
        keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        env = {**keep, **addresses(self.model.url), "ASKER_OUT": str(out), **env}
        subprocess.run([sys.executable, str(ASKER)], env=env, check=True, timeout=300)
        return calls(out)

    def through(self, **env: str) -> list[dict]:
        """Runs the same as the harness of an agent, to its end."""
        self.model.reset()
        self.model.script(*SCRIPT)
        out = self.dir / "gateway.jsonl"
        # JSON is YAML.
        file = self.dir / "agent.yaml"
        file.write_text(json.dumps(manifest(self.model.url, {"ASKER_OUT": str(out), **env})))
        names = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY")
        keys = {**os.environ, **{name: KEY for name in names}}
        command = [binary(), "--data", str(self.dir / "data"), "run", "-f", str(file)]
        command += ["--session", "asker", "--no-wait", "go"]
        done = subprocess.run(command, env=keys, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "all is asked" in done.stdout
        return calls(out)

    def paid(self) -> list[tuple[str, int]]:
        """The calls that the model was paid for: the hash of each, and how often it came."""
        entries = self.model.ledger()["entries"]
        paid = [e for e in entries if e["kind"] == "generate" and e["status"] == "answered"]
        return sorted((e["request_hash"], e["occurrence"]) for e in paid)


@pytest.fixture
def place(model, tmp_path):
    return Place(model, tmp_path)


def same(here: dict, there: dict) -> None:
    """Insists on what a client can see, whatever pieces it came in."""
    name = there["name"]
    assert here["name"] == name
    assert here["status"] == there["status"], name
    assert here["headers"] == there["headers"], name
    assert b"".join(pieces(here)) == b"".join(pieces(there)), name
    assert here["events"] == there["events"], name


def test_the_clients_get_what_they_would_get_without_it(place):
    direct = place.directly()
    paid = place.paid()
    through = place.through()
    assert len(through) == len(direct)
    streamed = 0
    for here, there in zip(through, direct):
        same(here, there)
        # The pieces are those of the model, but what ends a stream is one piece: it waits until
        # the answer is durable.
        ours, theirs = pieces(here), pieces(there)
        assert ours[:-1] == theirs[: len(ours) - 1], there["name"]
        streamed += len(ours) > 1
    for form in FORMS:
        statuses = [call["status"] for call in direct if call["name"].startswith(form)]
        assert len(statuses) >= 19
        assert set(statuses) == {"200", "400", "429", "529"}
    assert streamed >= 30
    assert place.paid() == paid


@pytest.mark.parametrize("form", FORMS)
def test_a_new_attempt_gets_the_same_from_the_journal(place, form):
    direct = place.directly(ASKER_FORMS=form)
    paid = place.paid()
    dies = f"{form}-pieces-streamed"
    both = place.through(ASKER_FORMS=form, ASKER_DIES=dies)
    before = [call for call in both if call["attempt"] == "1"]
    after = [call for call in both if call["attempt"] == "2"]
    assert len(before) + len(after) == len(both)
    assert len(after) == len(direct)
    for here, there in zip(after, direct):
        same(here, there)
    # What the first attempt heard, the second one heard in the same pieces.
    *whole, cut = before
    assert len(whole) >= 12
    for then, now in zip(whole, after):
        same(now, then)
        assert pieces(now) == pieces(then), now["name"]
    now = after[len(whole)]
    assert cut["name"] == now["name"] == dies
    heard = pieces(cut)
    assert pieces(now)[: len(heard) - 1] == heard[:-1]
    assert now["headers"] == cut["headers"]
    assert len(cut["events"]) < len(now["events"])
    # Nothing was paid twice, and what was under way was read to its end.
    assert place.paid() == paid
