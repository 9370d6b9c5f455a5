"""Says again what the real program has said in a turn, over the same protocol.

The file TURN has the messages, HEARD gets what it is told. It waits where the real one waits: for
the configuration, the input, the answer to a hook, the answer to a question. It dies before the
message that DIES_AT counts.
"""

import base64
import hashlib
import json
import os
import signal
import socket
import struct
import sys

KEY = "the key"
SESSION = "ax-0123456789abcdef0123456789abcdef"


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3]) + varint(value)
    return bytes([number << 3 | 2]) + varint(len(value)) + value


def varint(value: int) -> bytes:
    low = value & 0x7F
    return bytes([low | 0x80]) + varint(value >> 7) if value > low else bytes([low])


def exactly(stream, count: int) -> bytes:
    said = stream.read(count)
    if len(said) < count:
        sys.exit(0)
    return said


def hear(stream) -> dict:
    """Reads a message, which is never in pieces."""
    head = exactly(stream, 2)
    if head[0] & 0x0F != 1:
        sys.exit(0)
    length = head[1] & 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", exactly(stream, 2))
    elif length == 127:
        (length,) = struct.unpack(">Q", exactly(stream, 8))
    mask = exactly(stream, 4)
    text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(exactly(stream, length)))
    with open(os.environ["HEARD"], "ab") as file:
        file.write(text + b"\n")
    return json.loads(text)


def say(link: socket.socket, message: str) -> None:
    text = message.encode()
    short = len(text) < 126
    head = bytes([0x81, len(text)]) if short else struct.pack(">BBH", 0x81, 126, len(text))
    link.sendall(head + text)


def welcome(stream, link: socket.socket) -> None:
    head = {}
    while (line := stream.readline().strip()):
        name, _, value = line.decode().partition(":")
        head[name.lower()] = value.strip()
    assert head["x-goog-api-key"] == KEY, head
    seed = head["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(seed.encode()).digest()).decode()
    link.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
    )


(length,) = struct.unpack("<I", exactly(sys.stdin.buffer, 4))
exactly(sys.stdin.buffer, length)
server = socket.create_server(("127.0.0.1", 0))
greeting = field(1, server.getsockname()[1]) + field(2, KEY.encode())
sys.stdout.buffer.write(struct.pack("<I", len(greeting)) + greeting)
sys.stdout.buffer.flush()
link, _ = server.accept()
stream = link.makefile("rb")
welcome(stream, link)
config = hear(stream)["config"]
if "REFUSES" in os.environ:
    sys.stderr.write("Failed to create agent: there is no such session\n")
    sys.stderr.flush()
    link.shutdown(socket.SHUT_RDWR)
    signal.pause()
with open(os.environ["TURN"], encoding="utf-8") as file:
    turn = file.read().replace(SESSION, config["cascadeId"]).splitlines()
for at, message in enumerate(turn):
    if str(at) == os.environ.get("DIES_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
    say(link, message)
    if any(word in message for word in ("initializeConv", "callHookRequest", "questionsRequest")):
        hear(stream)
# It lives until nobody is there any more.
sys.stdin.buffer.read()
open(config["appDataDir"] + "/../trajectories/" + config["cascadeId"] + ".db", "w").close()
