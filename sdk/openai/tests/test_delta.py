"""Differences of JSON values."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from agent_executor_openai.delta import apply, difference


def same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@pytest.mark.parametrize(
    ("old", "new", "delta"),
    [
        ({"a": [1, 2]}, {"a": [1, 2]}, None),
        ({"a": [1]}, {"a": [1, 2, 3]}, ["object", {"a": ["list", 1, [2, 3]]}, []]),
        ({"a": 1, "b": 2}, {"b": 2}, ["object", {}, ["a"]]),
        ({"a": 1}, {"a": True}, ["object", {"a": ["is", True]}, []]),
        ([0], [0.0], ["is", [0.0]]),
        ([[1, 0]], [[1, False]], ["is", [[1, False]]]),
        ([1, 2, 3], [1], ["list", 1, []]),
        ([1], [], ["is", []]),
        (None, {"a": None}, ["is", {"a": None}]),
        ({}, {"a": None}, ["object", {"a": ["is", None]}, []]),
    ],
)
def test_it_is_what_differs(old: Any, new: Any, delta: Any) -> None:
    assert difference(old, new) == delta
    assert same(apply(old, delta), new)


def test_it_leads_from_any_value_to_any_other() -> None:
    dice = random.Random(7)

    def value(depth: int) -> Any:
        kind = dice.randrange(5 if depth else 3)
        if kind == 3:
            return [value(depth - 1) for _ in range(dice.randrange(4))]
        if kind == 4:
            return {dice.choice("abc"): value(depth - 1) for _ in range(dice.randrange(4))}
        return dice.choice([None, 0, 1, 1.0, True, False, "a", ""])

    for _ in range(5000):
        old, new = value(3), value(3)
        before = json.dumps(old)
        delta = json.loads(json.dumps(difference(old, new)))
        assert same(apply(old, delta), new), (old, new, delta)
        assert (delta is None) == same(old, new)
        assert json.dumps(old) == before


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="no difference"):
        apply({}, ["was", 1])
