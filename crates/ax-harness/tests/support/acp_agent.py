"""An agent of the Agent Client Protocol for tests: it does what the words of its prompt say.

Each line of a prompt's text is a command; see `Agent.do`. What it remembers is in the directory
`STATE`. `FAULT=METHOD:WHAT` makes something go wrong when METHOD is asked for; `OFFERS` names what
it offers; `HEARD` is a file to which all that it hears is appended.
"""

import json
import os
import signal
import sys
import time

STATE = os.environ.get("STATE", "")
FAULT, _, WHAT = os.environ.get("FAULT", "").partition(":")
OFFERS = os.environ.get("OFFERS", "load,resume,close,http,image").split(",")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def say(message: dict) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


class Agent:
    def __init__(self) -> None:
        self.asked = 0
        self.later: list[dict] = []
        self.canceled = False

    def hear(self) -> dict:
        line = sys.stdin.readline()
        if not line:
            sys.exit(0)
        if os.environ.get("HEARD"):
            with open(os.environ["HEARD"], "a") as file:
                file.write(line)
        return json.loads(line)

    def ask(self, method: str, params: dict) -> dict:
        self.asked += 1
        number = self.asked
        say({"id": number, "method": method, "params": params})
        while True:
            message = self.hear()
            if message.get("method") == "session/cancel":
                self.canceled = True
            elif "method" in message:
                self.later.append(message)
            elif message["id"] == number:
                return message

    def update(self, session: str, **update: object) -> None:
        say({"method": "session/update", "params": {"sessionId": session, "update": update}})

    def text(self, session: str, text: str, kind: str = "agent_message_chunk") -> None:
        self.update(session, sessionUpdate=kind, content={"type": "text", "text": text})

    def file(self, session: str) -> str:
        return os.path.join(STATE, session + ".json")

    def known(self, session: str) -> list:
        with open(self.file(session)) as file:
            return json.load(file)

    def keep(self, session: str, texts: list) -> None:
        with open(self.file(session), "w") as file:
            json.dump(texts, file)

    def fault(self, method: str) -> None:
        if method != FAULT:
            return
        once = os.path.join(os.environ.get("AX_WORKSPACE", "."), "faulted")
        what, _, always = WHAT.partition("!")
        if not always and os.path.exists(once):
            return
        open(once, "w").close()
        if what == "die":
            die()
        if what == "exit":
            sys.exit(3)
        if what == "hang":
            time.sleep(600)
        if what == "malformed":
            print("Loading models...", flush=True)
            time.sleep(600)
        if what == "huge":
            sys.stdout.write('{"jsonrpc":"2.0","method":"' + "x" * (33 * 1024 * 1024))
            sys.stdout.flush()
            time.sleep(600)
        if what == "close":
            os.close(1)
            time.sleep(600)
        if what == "stray":
            say({"id": 4242, "result": {}})
            time.sleep(600)

    def answer(self, message: dict) -> None:
        method, params = message["method"], message.get("params", {})
        self.fault(method)
        if FAULT == method and WHAT.startswith("refuse"):
            code = int(WHAT.split(" ")[1])
            say({"id": message["id"], "error": {"code": code, "message": "no"}})
            return
        if "id" not in message:
            self.canceled = self.canceled or method == "session/cancel"
            return
        names = {
            "initialize": self.initialize,
            "authenticate": lambda params: {},
            "session/new": self.new,
            "session/load": self.load,
            "session/resume": self.resume,
            "session/set_mode": lambda params: {},
            "session/set_config_option": lambda params: {"configOptions": []},
            "session/prompt": self.prompt,
            "session/close": lambda params: {},
        }
        result = names[method](params)
        if "refused" in result:
            say({"id": message["id"], "error": result["refused"]})
        else:
            say({"id": message["id"], "result": result})

    def initialize(self, params: dict) -> dict:
        sessions = {name: {} for name in ("resume", "close") if name in OFFERS}
        return {
            "protocolVersion": int(os.environ.get("VERSION", "1")),
            "agentCapabilities": {
                "loadSession": "load" in OFFERS,
                "mcpCapabilities": {"http": "http" in OFFERS},
                "promptCapabilities": {"image": "image" in OFFERS},
                "sessionCapabilities": sessions,
            },
            "agentInfo": {"name": "fake", "version": "1"},
        }

    def new(self, params: dict) -> dict:
        session = f"s{len(os.listdir(STATE))}-{os.getpid()}"
        self.keep(session, [])
        self.servers = params["mcpServers"]
        modes = {"currentModeId": "a", "availableModes": [{"id": "a", "name": "A"}]}
        return {"sessionId": session, "modes": modes}

    def resume(self, params: dict) -> dict:
        self.servers = params["mcpServers"]
        if not os.path.exists(self.file(params["sessionId"])):
            return {"refused": {"code": -32002, "message": "no such session"}}
        return {}

    def load(self, params: dict) -> dict:
        result = self.resume(params)
        if not result:
            for text in self.known(params["sessionId"]):
                self.text(params["sessionId"], text, "user_message_chunk")
                self.text(params["sessionId"], "said before")
        return result

    def prompt(self, params: dict) -> dict:
        session = params["sessionId"]
        texts = [part["text"] for part in params["prompt"] if part["type"] == "text"]
        self.parts = params["prompt"]
        self.keep(session, [*self.known(session), *texts])
        for text in texts:
            for line in text.splitlines():
                word, _, rest = line.partition(" ")
                result = self.do(session, word, rest)
                if result:
                    return result
        return {"stopReason": "cancelled" if self.canceled else "end_turn"}

    def do(self, session: str, word: str, rest: str) -> dict | None:
        if word == "say":
            self.text(session, rest)
        elif word == "think":
            self.text(session, rest, "agent_thought_chunk")
        elif word == "remember":
            self.text(session, json.dumps(self.known(session)))
        elif word == "servers":
            self.text(session, json.dumps(self.servers))
        elif word == "parts":
            self.text(session, json.dumps(self.parts))
        elif word == "flood":
            for number in range(int(rest)):
                self.text(session, f"{number};")
        elif word == "plan":
            self.update(session, sessionUpdate="plan", entries=[{"content": rest}])
        elif word == "tool":
            self.tool(session, rest)
        elif word == "may":
            return self.may(session, rest)
        elif word == "want":
            answer = self.ask(rest, {"sessionId": session, "path": "/etc/passwd"})
            self.text(session, json.dumps(answer.get("error", answer.get("result"))))
        elif word == "wait":
            while not self.canceled:
                message = self.hear()
                self.canceled = message.get("method") == "session/cancel"
        elif word == "ignore":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            open(os.path.join(os.environ["AX_WORKSPACE"], "begun"), "w").close()
            time.sleep(600)
        elif word == "stop":
            return {"stopReason": rest}
        elif word == "refuse":
            return {"refused": {"code": int(rest), "message": "no"}}
        elif word == "die":
            once = os.path.join(os.environ["AX_WORKSPACE"], "died")
            if not os.path.exists(once):
                open(once, "w").close()
                die()
        return None

    def tool(self, session: str, name: str) -> None:
        with open(os.path.join(os.environ["AX_WORKSPACE"], "effects"), "a") as file:
            file.write(name + "\n")
        base = {"toolCallId": "call-" + name, "title": name, "kind": "execute"}
        self.update(session, sessionUpdate="tool_call", status="pending", rawInput={}, **base)
        made = {"toolCallId": base["toolCallId"], "sessionUpdate": "tool_call_update"}
        self.update(session, status="in_progress", rawInput={"command": name}, **made)
        self.update(session, status="completed", rawOutput=name + " is done", **made)

    def may(self, session: str, name: str) -> dict | None:
        call = {"toolCallId": f"call-{os.getpid()}", "title": name, "kind": "edit"}
        options = [
            {"optionId": "always", "name": "Always", "kind": "allow_always"},
            {"optionId": "once", "name": "Yes", "kind": "allow_once"},
            {"optionId": "no", "name": "No", "kind": "reject_once"},
        ]
        call["rawInput"] = {"path": name, "call_id": str(os.getpid())}
        params = {"sessionId": session, "toolCall": call, "options": options}
        answer = self.ask("session/request_permission", params)
        outcome = answer["result"]["outcome"]
        if outcome["outcome"] == "cancelled":
            return {"stopReason": "cancelled"}
        self.text(session, f"{name}: {outcome['optionId']}\n")
        return None

    def run(self) -> None:
        os.makedirs(STATE, exist_ok=True)
        while True:
            self.answer(self.later.pop(0) if self.later else self.hear())


Agent().run()
