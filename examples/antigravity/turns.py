"""The state of a conversation between its turns, and the effects of its tools.

The SDK keeps a conversation in files of its own, and writes to them all the time. A turn that is
killed would leave half of itself there. So a turn works on a copy, which takes the place of the
state when the turn is over, together with what was said in it: either all of a turn has happened
or nothing. A turn that has happened is said again as it was, not done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
from typing import Callable


class Turns:
    """The turns of one conversation, in a directory that nobody else writes to."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._dir = directory
        self.name = directory.name
        self._dir.mkdir(parents=True, exist_ok=True)
        self._current = self._dir / "current.json"

    def begin(self, execution: str) -> Turn:
        """Begins the turn of an execution; another try of it begins as the first did."""
        last = json.loads(self._current.read_text()) if self._current.exists() else {"turn": 0}
        number = last["turn"]
        if last.get("execution") == execution:
            return Turn(self, execution, number, self._dir / str(number), said=last["said"])
        for other in self._dir.iterdir():
            if other.is_dir() and other.name != str(number):
                shutil.rmtree(other)
        work = self._dir / str(number + 1)
        before = self._dir / str(number)
        if before.exists():
            shutil.copytree(before, work)
        else:
            work.mkdir()
        return Turn(self, execution, number + 1, work, is_first=number == 0)

    def end(self, turn: Turn, said: list[str]) -> None:
        """Makes a turn what the next one begins with."""
        for path in sorted(turn.dir.rglob("*")):
            if path.is_file():
                _sync(path)
        record = {"turn": turn.number, "execution": turn.execution, "said": said}
        _replace(self._current, json.dumps(record))


class Turn:
    """A turn: where the SDK works, and what its tools have done."""

    def __init__(
        self,
        turns: Turns,
        execution: str,
        number: int,
        directory: pathlib.Path,
        is_first: bool = False,
        said: list[str] | None = None,
    ) -> None:
        self._turns = turns
        self.execution = execution
        self.number = number
        self.dir = directory
        self.is_first = is_first
        # What was said in it, if it is over.
        self.said = said
        self._occurrences: dict[str, int] = {}

    def end(self, said: list[str]) -> None:
        """The turn is over."""
        self._turns.end(self, said)

    def key(self, tool: str, **arguments: object) -> str:
        """Names a call: the same call of another try of this turn has the same name."""
        call = json.dumps([tool, arguments], sort_keys=True)
        seen = self._occurrences[call] = self._occurrences.get(call, 0) + 1
        digest = hashlib.sha256(call.encode()).hexdigest()[:16]
        return f"{self._turns.name}:{self.execution}:{digest}:{seen}"


def once(file: pathlib.Path, key: str, text: str, linger: Callable[[], None]) -> bool:
    """Adds a line to a file unless it is there; says whether it was added."""
    lines = file.read_text().splitlines() if file.exists() else []
    if any(line.split(" ", 1)[0] == key for line in lines):
        return False
    with open(file, "a") as out:
        out.write(f"{key} {text}\n")
        out.flush()
        os.fsync(out.fileno())
    linger()
    return True


def _replace(file: pathlib.Path, text: str) -> None:
    fresh = file.with_suffix(".new")
    with open(fresh, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(fresh, file)
    _sync(file.parent)


def _sync(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
