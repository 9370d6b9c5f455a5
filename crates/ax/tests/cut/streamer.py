"""A harness that streams texts, in pieces; what the cut test lets agents say.

It speaks the protocol of docs/formats/harness-stdio.md. Its input is JSON: ``blocks``, each a list
of pieces, and ``ms``, the pause after each piece.
"""

import json
import sys
import time


def send(**frame):
    sys.stdout.write(json.dumps(frame) + "\n")
    sys.stdout.flush()


def main():
    send(type="hello", protocol=1, sdk="cut-test")
    text, said = "", set()
    for line in sys.stdin:
        frame = json.loads(line)
        if frame["type"] == "input":
            text = "".join(part["text"] for part in frame["parts"])
        elif frame["type"] == "journal":
            said.add(frame["key"])
        elif frame["type"] == "ready":
            break
    program = json.loads(text)
    for number, pieces in enumerate(program["blocks"]):
        key = f"block-{number}"
        if key in said:
            continue
        for piece in pieces:
            send(type="delta", block=key, text=piece)
            time.sleep(program["ms"] / 1000)
        send(type="output", key=key, block=key)
    send(type="end", result=len(program["blocks"]))


main()
