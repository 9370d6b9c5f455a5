"""A server that keeps records and blobs, in memory: it reads requests and answers in JSON."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from agent_executor.client import Plan, ServerError
from agent_executor.client.calls import Calls
from agent_executor.client.drive import Call

_T = TypeVar("_T")
PAGE = 3


class Store:
    """Sessions with records, blobs, agents."""

    def __init__(self) -> None:
        self.sessions: dict[str, list[dict[str, Any]] | None] = {}
        self.agents: dict[str, str] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []

    def carry(self, plan: Plan[_T]) -> _T:
        """Carry out a plan, as a client does."""
        calls = Calls("store", "", "")
        try:
            ask = next(plan)
            while True:
                prepared = ask(calls)
                try:
                    answer = prepared.read(self.answer(prepared.call))
                except ServerError as error:
                    ask = plan.throw(error)
                else:
                    ask = plan.send(answer)
        except StopIteration as stop:
            result: _T = stop.value
            return result

    def answer(self, call: Call) -> bytes:
        """Carry out a request; raise a refusal."""
        method, body = call.method, call.body or b""
        url = urlsplit(call.target)
        path = [unquote(one) for one in url.path.split("/")[2:]]
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.requests.append(f"{method} {'/'.join(path)}")
        if path[0] == "blobs":
            return self._blob(method, path, body)
        if path == ["agents"]:
            manifest = json.loads(body)["manifest"]
            name = manifest.partition("name: ")[2].partition("}")[0]
            self.agents[name] = manifest
            return json.dumps({"agent": {"name": name, "version": 1}}).encode()
        if self.sessions.get(path[1], []) is None:
            raise ServerError("AX1011", "it was deleted")
        if method == "POST":
            return json.dumps(self._write(path[1], json.loads(body))).encode()
        if path[1] not in self.sessions:
            raise ServerError("AX1002", "there is none")
        if method == "DELETE":
            self.sessions[path[1]] = None
            return b"{}"
        if path[2:] == ["records"]:
            page = self._read(path[1], query["collection"], int(query["after"]))
            return json.dumps(page).encode()
        return json.dumps({"session": {"id": path[1]}}).encode()

    def _blob(self, method: str, path: list[str], body: bytes) -> bytes:
        if method == "GET":
            return self.blobs[path[1]]
        name = f"blob_{hashlib.sha256(body).hexdigest()}"
        self.blobs[name] = body
        return json.dumps({"id": name, "bytes": str(len(body))}).encode()

    def _write(self, session: str, body: dict[str, Any]) -> dict[str, Any]:
        if body["agent"] not in self.agents:
            raise ServerError("AX1003", "there is no such agent")
        created = session not in self.sessions
        log = self.sessions.get(session) or [{"seq": "1", "sessionCreated": {}}]
        said = {"collection": body["collection"], "key": body["key"], "parts": body["parts"]}
        if body["replaces"]:
            said["replaces"] = True
        for part in body["parts"]:
            if "blob" in part["body"]:
                digest = base64.b64decode(part["body"]["blob"]["hash"])
                assert f"blob_{digest.hex()}" in self.blobs, "what is referred to is there"
        for event in log:
            if event.get("recordWritten", {}).get("key") == body["key"]:
                assert event["recordWritten"] == said
                return {"session": session, "seq": event["seq"], "duplicate": True}
        newest = max([int(one["seq"]) for one in self._of(log, body["collection"])], default=0)
        if "after" in body and int(body["after"]) != newest:
            raise ServerError("AX1021", "somebody else wrote")
        seq = str(len(log) + 1)
        log.append({"seq": seq, "atMillis": "7", "recordWritten": said})
        self.sessions[session] = log
        return {"session": session, "seq": seq, "created": created}

    def _read(self, session: str, collection: str, after: int) -> dict[str, Any]:
        records = self._of(self.sessions[session] or [], collection)
        base = max([int(o["seq"]) for o in records if "replaces" in o["recordWritten"]], default=0)
        last = int(records[-1]["seq"]) if records else 0
        wanted = [one for one in records if int(one["seq"]) > after and int(one["seq"]) >= base]
        return {"events": wanted[:PAGE], "last": str(last), "base": str(base)}

    def _of(self, log: list[dict[str, Any]], collection: str) -> list[dict[str, Any]]:
        of = [one for one in log if "recordWritten" in one]
        return [one for one in of if one["recordWritten"]["collection"] == collection]
