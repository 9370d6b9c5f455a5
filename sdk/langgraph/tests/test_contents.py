"""How values are told apart, and how they are put together again."""

from __future__ import annotations

import random

import pytest

from agent_executor.records import Blob
from agent_executor_langgraph.contents import Content, apply, diff, tell_apart


def sample(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


A, B = sample(1, 20_000), sample(2, 300)
CHANGES = {
    "the same": (A, A, 0),
    "more at the end": (A, A + B, 300),
    "more at the beginning": (A, B + A, 300),
    "a header that counts": (b"\xdc\x00\x10" + A, b"\xdc\x00\x11" + A + B, 340),
    "a header that grows": (b"\x9f" + A, b"\xdc\x00\x10" + A + B, 340),
    "something in the middle": (A, A[:9_000] + B + A[9_000:], 300),
    "less in the middle": (A, A[:5_000] + A[9_000:], 0),
    "less at the beginning": (A, A[300:], 0),
    "a part that is another": (A, A[:5_000] + B + A[5_300:], 300),
    "nothing of it": (A, sample(3, 20_000), 20_000),
    "nothing before": (b"", A, 20_000),
    "nothing after": (A, b"", 0),
    "repetition": (b"ab" * 5_000, b"ab" * 5_003 + b"c", 64),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_value_comes_back_and_costs_what_is_new(name: str) -> None:
    old, new, cost = CHANGES[name]
    ops, data = diff(old, new)
    assert apply(old, ops, data) == new
    assert len(data) <= cost


@pytest.mark.parametrize("seed", range(200))
def test_any_value_comes_back(seed: int) -> None:
    chance = random.Random(seed)
    old = chance.randbytes(chance.randrange(500))
    pieces = [old[chance.randrange(501) :][: chance.randrange(200)] for _ in range(5)]
    pieces += [chance.randbytes(chance.randrange(50)) for _ in range(3)]
    chance.shuffle(pieces)
    new = b"".join(pieces)
    ops, data = diff(old, new)
    assert apply(old, ops, data) == new


def test_a_chain_ends_before_it_costs_more_than_the_value() -> None:
    value = sample(0, 10_000)
    content = Content("msgpack", Blob(0, b""), 0, len(value), size=len(value))
    whole, written = 0, 0
    for number in range(1, 300):
        new = value + sample(number, 1_000)
        fresh = tell_apart(content, (number, 0), value, "msgpack", new)
        whole += fresh.base is None
        written += len(fresh.data)
        content = Content(
            "msgpack", Blob(0, b""), 0, 0, fresh.base, fresh.ops, 0, fresh.depth, fresh.cost
        )
        value = new
    assert written < 5 * len(value)
    assert 0 < whole < 12


def test_what_another_serializer_made_is_written_whole() -> None:
    content = Content("json", Blob(0, b""), 0, len(A), size=len(A))
    assert tell_apart(content, (1, 0), A, "msgpack", A + B).base is None
