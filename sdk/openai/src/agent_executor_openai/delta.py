"""The difference of two JSON values, so that what did not change is not stored again.

A difference is one of

    ["is", value]                       another value
    ["list", count, items]              the first ``count`` items stay, then come these
    ["object", {name: difference}, [name]]      these fields differ or are new, these are gone

and None if there is none. The lists of a run's state only ever grow, so it is short.
"""

from __future__ import annotations

from typing import Any

# A difference as JSON; None means that nothing differs.
Delta = list[Any] | None


def difference(old: Any, new: Any) -> Delta:
    """Return what turns one value into another."""
    if isinstance(old, dict) and isinstance(new, dict):
        changed = {}
        for name, value in new.items():
            delta = difference(old[name], value) if name in old else ["is", value]
            if delta is not None:
                changed[name] = delta
        gone = [name for name in old if name not in new]
        return ["object", changed, gone] if changed or gone else None
    if isinstance(old, list) and isinstance(new, list):
        count = 0
        while count < min(len(old), len(new)) and _same(old[count], new[count]):
            count += 1
        if count == len(old) == len(new):
            return None
        return ["list", count, new[count:]] if count else ["is", new]
    return None if _same(old, new) else ["is", new]


def apply(old: Any, delta: Delta) -> Any:
    """Return the value that a difference turns another one into; the other one stays as it is.

    Raises:
        ValueError: It is no difference.
    """
    match delta:
        case None:
            return old
        case ["is", value]:
            return value
        case ["list", int(count), list(items)]:
            return [*old[:count], *items]
        case ["object", dict(changed), list(gone)]:
            kept = {name: value for name, value in old.items() if name not in gone}
            for name, inner in changed.items():
                kept[name] = apply(kept.get(name), inner)
            return kept
    raise ValueError(f"{delta!r} is no difference")


def _same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same; to Python, 1, 1.0 and true are equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other
