"""An ordinary program: a question on standard input, two calls of a model, an answer."""

import json
import os
import sys
import urllib.request


def ask(messages):
    """Ask the model, wherever the environment says it is."""
    body = {"model": "claude-sonnet-4-5", "max_tokens": 1024, "messages": messages}
    request = urllib.request.Request(
        os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages",
        json.dumps(body).encode(),
        {
            "content-type": "application/json",
            "anthropic-version": "2023-06-01",
            "x-api-key": os.environ["ANTHROPIC_API_KEY"],
        },
    )
    with urllib.request.urlopen(request) as response:
        return "".join(block.get("text", "") for block in json.load(response)["content"])


question = sys.stdin.read()
draft = ask([{"role": "user", "content": question}])
better = [
    {"role": "user", "content": question},
    {"role": "assistant", "content": draft},
    {"role": "user", "content": "Say it in one sentence."},
]
print(ask(better))
