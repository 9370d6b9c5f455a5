"""What the harnesses of the crash test do to the world: lines in a file, and calls of a model."""

import http.client
import json
import os
import time


class World:
    """The world of one attempt."""

    def __init__(self, config, session, attempt, tag):
        self.path = os.path.join(config["effects"], session)
        os.makedirs(config["effects"] + "-acts", exist_ok=True)
        self.acts = os.path.join(config["effects"] + "-acts", session)
        self.model = config["model"]
        self.attempt = attempt
        self.tag = tag

    def do(self, op):
        """Carry out a step of any kind."""
        if op["op"] == "model":
            return self.call(op)
        return self.look(op) if op["effect"] == "read" else self.act(op)

    def note(self, what):
        """Write down that something begins or ends: who acts, and when."""
        with open(self.acts, "a", encoding="ascii") as file:
            file.write(f"{what} {self.tag} {self.attempt}\n")

    def act(self, op):
        """Carry out the effect of a step: one line, durable before this returns."""
        self.note("begin")
        time.sleep(op["ms"] / 1000)
        line = f"{self.tag} {op['key']} {self.attempt}\n".encode()
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if os.write(file, line) != len(line):
            raise OSError("a line was cut")
        os.fsync(file)
        os.close(file)
        time.sleep(op["ms"] / 1000)
        self.note("end")
        return op["key"]

    def look(self, op):
        """Carry out a step that changes nothing."""
        time.sleep(op["ms"] / 1000)
        return op["key"]

    def call(self, op):
        """Ask the model."""
        content = f"{self.tag} {op['key']} {self.attempt}"
        body = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": content}]}
        connection = http.client.HTTPConnection(self.model)
        connection.request("POST", "/v1/messages", json.dumps(body))
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer["content"][0]["text"]

    def meet(self, op):
        """Die or fail where the program says so."""
        if op["op"] == "die" and self.attempt <= op["attempts"]:
            os._exit(3)
        return op["op"] == "fail" and self.attempt <= op["attempts"]
