"""What a conversation is between two inputs: the thread's newest checkpoints.

Within an execution they are in memory, since the journal of the runtime brings them back; at its
end they are kept, under the position of the input, for the execution of the next input. An attempt
reads what was kept *before* its own input, so that each attempt begins from the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver

from .saver import AxSaver

_FILE = re.compile(r"(\d{20})\.state")
_INPUT = "ax_input"
_SPACES = "ax_spaces"


class Store(Protocol):
    """Where conversations are kept."""

    async def load(self, before: int) -> list[CheckpointTuple]:
        """Return what was kept for the newest input before this one, oldest first."""

    async def save(self, at: int, tuples: Sequence[CheckpointTuple]) -> None:
        """Keep what is so after the input at a position, all or nothing."""


class FileStore:
    """Keeps them in files of the session's workspace."""

    def __init__(self, workspace: Path, saver: BaseCheckpointSaver[Any]) -> None:
        self._directory = workspace / ".langgraph"
        self._serde = saver.serde

    async def load(self, before: int) -> list[CheckpointTuple]:
        """Do as :meth:`Store.load`."""
        earlier = [seq for seq in self._seqs() if seq < before]
        if not earlier:
            return []
        kind, _, data = self._path(max(earlier)).read_bytes().partition(b"\n")
        said = self._serde.loads_typed((kind.decode(), data))
        return [CheckpointTuple(*one) for one in said]

    async def save(self, at: int, tuples: Sequence[CheckpointTuple]) -> None:
        """Do as :meth:`Store.save`."""
        self._directory.mkdir(exist_ok=True)
        kind, data = self._serde.dumps_typed([list(one) for one in tuples])
        _write(self._path(at), kind.encode() + b"\n" + data)
        # The last one stays: a branch may begin there.
        for seq in sorted(self._seqs())[:-2]:
            self._path(seq).unlink(missing_ok=True)

    def _seqs(self) -> list[int]:
        found = self._directory.iterdir() if self._directory.is_dir() else iter(())
        return [int(match[1]) for path in found if (match := _FILE.fullmatch(path.name))]

    def _path(self, seq: int) -> Path:
        return self._directory / f"{seq:020}.state"


class SessionStore:
    """Keeps them in the session's own log: branches have them, and others can read them."""

    def __init__(self, saver: AxSaver, session: str) -> None:
        self._saver = saver
        self._session = session
        # For which input each namespace was kept last.
        self._kept: dict[str, int] = {}
        self._loaded: set[str] = set()

    async def load(self, before: int) -> list[CheckpointTuple]:
        """Do as :meth:`Store.load`."""
        found: list[CheckpointTuple] = []
        newest = 0
        async for one in self._saver.alist(self._config("")):
            at = _said(one).get(_INPUT, 0)
            if newest and at < newest:
                break
            if at < before:
                newest = at
                found.append(one)
        if found:
            self._kept = dict(_said(found[0]).get(_SPACES, {}))
        for ns, at in self._kept.items():
            if ns:
                listed = self._saver.alist(self._config(ns), filter={_INPUT: at})
                found += [one async for one in listed]
        self._loaded = {_id(one) for one in found}
        return sorted(found, key=_id)

    async def save(self, at: int, tuples: Sequence[CheckpointTuple]) -> None:
        """Do as :meth:`Store.save`. The root, which names the others, is the last."""
        fresh = [one for one in tuples if _id(one) not in self._loaded]
        spaces = {**self._kept, **{_ns(one): at for one in fresh}}
        marks = {_INPUT: at, _SPACES: spaces}
        for one in sorted(fresh, key=lambda one: (_ns(one) == "", _id(one))):
            metadata = cast("CheckpointMetadata", {**one.metadata, **marks})
            await replay([one._replace(metadata=metadata)], self._saver, self._session)

    def _config(self, ns: str) -> RunnableConfig:
        return {"configurable": {"thread_id": self._session, "checkpoint_ns": ns}}


def _said(one: CheckpointTuple) -> Mapping[str, Any]:
    return one.metadata


def _id(one: CheckpointTuple) -> str:
    return str(one.config["configurable"]["checkpoint_id"])


def _ns(one: CheckpointTuple) -> str:
    return str(one.config["configurable"].get("checkpoint_ns", ""))


async def replay(
    tuples: Iterable[CheckpointTuple], saver: BaseCheckpointSaver[Any], thread: str
) -> None:
    """Put checkpoints and what was written upon them into a checkpointer."""
    for one in tuples:
        said = one.config["configurable"]
        parent = (one.parent_config or {"configurable": {}})["configurable"]
        place = {"thread_id": thread, "checkpoint_ns": said.get("checkpoint_ns", "")}
        upon = {**place, "checkpoint_id": parent.get("checkpoint_id")}
        versions = one.checkpoint["channel_versions"]
        at = await saver.aput({"configurable": upon}, one.checkpoint, one.metadata, versions)
        for order, (task, writes) in enumerate(_by_task(one)):
            await saver.aput_writes(at, writes, task, f"{order:06}")


def _by_task(one: CheckpointTuple) -> list[tuple[str, list[tuple[str, Any]]]]:
    tasks: dict[str, list[tuple[str, Any]]] = {}
    for task, channel, value in one.pending_writes or ():
        tasks.setdefault(task, []).append((channel, value))
    return list(tasks.items())


async def newest(saver: InMemorySaver, thread: str) -> list[CheckpointTuple]:
    """Return the newest checkpoint of each namespace; of delta channels what they rest on, too."""
    config: RunnableConfig = {"configurable": {"thread_id": thread}}
    found: dict[str, list[CheckpointTuple]] = {}
    async for one in saver.alist(config):
        of_ns = found.setdefault(one.config["configurable"].get("checkpoint_ns", ""), [])
        if not of_ns or of_ns[0].metadata.get("counters_since_delta_snapshot"):
            of_ns.append(one)
    return [one for of_ns in found.values() for one in reversed(of_ns)]


def _write(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, also after a loss of power."""
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
