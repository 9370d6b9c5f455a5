"""An agent of the native protocol: says as many things as it is told to, asks, and writes files."""

import json
import os
import pathlib
import sys
import time


def say(**frame):
    print(json.dumps(frame), flush=True)


def hear():
    return json.loads(sys.stdin.readline())


def begin():
    say(type="hello", protocol=1)
    heard = []
    while True:
        heard.append(hear())
        if heard[-1]["type"] == "ready":
            return heard


def spoken(key, text):
    """Streams a message in two pieces."""
    for piece in (text[:2], text[2:]):
        say(type="delta", block=key, text=piece)
        # The runtime puts together what comes within 20 ms.
        time.sleep(0.03)
    say(type="output", block=key, key=key)


heard = begin()
words = next(frame for frame in heard if frame["type"] == "input")["parts"][0]["text"].split()
match words[0]:
    case "count":
        for number in range(1, int(words[1]) + 1):
            spoken(f"n{number}", f"number {number}")
            time.sleep(float(words[2]) if len(words) > 2 else 0)
    case "ask":
        journal = [frame for frame in heard if frame["type"] == "journal"]
        answers = [frame["answer"] for frame in journal if frame.get("answer")]
        if not answers:
            say(type="ask", key="q", kind="approval", prompt="May I?")
            answers = [hear()["answer"]]
        spoken("a", f"answer: {answers[0]['kind']}")
    case "write":
        (pathlib.Path(os.environ["AX_WORKSPACE"]) / words[1]).write_text(" ".join(words[2:]))
        spoken("w", "written")
    case "loose":
        # Without a key: void if the attempt is lost, as the first one is.
        say(type="output", text="first words")
        time.sleep(0.1)
        if next(frame for frame in heard if frame["type"] == "start")["attempt"] == 1:
            sys.exit(1)
        say(type="output", text="last words")
    case "fail":
        failure = {"code": "not_found", "message": "I do not know"}
        say(type="fail", failure=failure, retry=False)
        sys.exit(0)
say(type="end")
