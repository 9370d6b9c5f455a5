"""The checkpointer: LangGraph's interface in front of the plans."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.base import SerializerProtocol

from agent_executor.client import AsyncClient, Client, Credentials, Patience

from .keeper import Found, History, Keeper, Put


class AxSaver(BaseCheckpointSaver[str]):
    """Keeps the checkpoints of LangGraph in an Agent Executor server.

        graph = builder.compile(checkpointer=AxSaver("http://127.0.0.1:7700"))

    Every method is there to wait and to await; one saver serves threads and event loops alike.
    A thread is a session, ``lg/THREAD``: it can be listed, followed, branched and deleted as such.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        credentials: Credentials | None = None,
        namespace: str = "",
        patience: Patience | None = None,
        serde: SerializerProtocol | None = None,
        agent: str = "langgraph",
        prefix: str = "lg",
        forks: bool = False,
    ) -> None:
        """Keep checkpoints at a server; at that of ``AX_SERVER`` if none is given.

        Args:
            server: ``http://HOST:PORT``, ``https://HOST:PORT``, or the path of a socket.
            credentials: What the server is shown; from the environment if not given.
            namespace: Empty for the one that the server takes for granted.
            patience: How long a server that does not answer is waited for.
            serde: What makes bytes of values.
            agent: The agent that the sessions belong to. It is made if it is not there.
            prefix: What the names of sessions begin with, before the id of the thread. If it is
                empty, a thread is the session of that name or id, which then must be there.
            forks: Whether two runs of a thread at the same time may each go on from the same
                checkpoint, as LangGraph's own checkpointers let them. Otherwise the one that is
                later fails with :class:`Overtaken`.
        """
        super().__init__(serde=serde)
        options: dict[str, Any] = {
            "credentials": credentials,
            "namespace": namespace,
            "patience": patience,
        }
        self._client = Client(server, **options)
        self._awaiting = AsyncClient(server, **options)
        self._keeper = Keeper(agent, prefix, forks=forks)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint, the newest one if the configuration names none."""
        found = self._client.carry(self._keeper.find(*_place(config), get_checkpoint_id(config)))
        return self._tuple(found) if found else None

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Do as :meth:`get_tuple`."""
        plan = self._keeper.find(*_place(config), get_checkpoint_id(config))
        found = await self._awaiting.carry(plan)
        return self._tuple(found) if found else None

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints, newest first; of all threads if there is no configuration."""
        carry = self._client.carry
        threads = [_thread(config)] if config else carry(self._keeper.threads())
        for thread in threads:
            for state, entry in carry(self._keeper.entries(thread, *_wanted(config, before))):
                if limit is not None and limit <= 0:
                    return
                if filter and not self._fits(carry(self._keeper.metadata(state, entry)), filter):
                    continue
                limit = None if limit is None else limit - 1
                yield self._tuple(carry(self._keeper.load(state, entry)))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Do as :meth:`list`."""
        carry = self._awaiting.carry
        threads = [_thread(config)] if config else await carry(self._keeper.threads())
        for thread in threads:
            entries = await carry(self._keeper.entries(thread, *_wanted(config, before)))
            for state, entry in entries:
                if limit is not None and limit <= 0:
                    return
                if filter:
                    metadata = await carry(self._keeper.metadata(state, entry))
                    if not self._fits(metadata, filter):
                        continue
                limit = None if limit is None else limit - 1
                yield self._tuple(await carry(self._keeper.load(state, entry)))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Write a checkpoint.

        Raises:
            Overtaken: Another run has written one since this one read the thread, or the thread
                was deleted.
        """
        thread, ns = _place(config)
        put = self._put(config, checkpoint, metadata, new_versions)
        self._client.carry(self._keeper.put(thread, put))
        return _config(thread, ns, checkpoint["id"])

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Do as :meth:`put`."""
        thread, ns = _place(config)
        put = self._put(config, checkpoint, metadata, new_versions)
        await self._awaiting.carry(self._keeper.put(thread, put))
        return _config(thread, ns, checkpoint["id"])

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Write what a task wrote upon a checkpoint.

        Raises:
            Overtaken: The thread was deleted.
        """
        place = (*_place(config), config["configurable"]["checkpoint_id"])
        dumped = [(channel, self.serde.dumps_typed(value)) for channel, value in writes]
        self._client.carry(self._keeper.put_writes(place, dumped, task_id, task_path))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Do as :meth:`put_writes`."""
        place = (*_place(config), config["configurable"]["checkpoint_id"])
        dumped = [(channel, self.serde.dumps_typed(value)) for channel, value in writes]
        await self._awaiting.carry(self._keeper.put_writes(place, dumped, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread with all that is in it."""
        self._client.carry(self._keeper.delete(str(thread_id)))

    async def adelete_thread(self, thread_id: str) -> None:
        """Do as :meth:`delete_thread`."""
        await self._awaiting.carry(self._keeper.delete(str(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Drop the checkpoints of some runs; all threads are looked through."""
        runs = {str(run) for run in run_ids}
        for thread in self._client.carry(self._keeper.threads()) if runs else ():
            self._client.carry(self._keeper.delete_for_runs(thread, runs))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Do as :meth:`delete_for_runs`."""
        runs = {str(run) for run in run_ids}
        for thread in await self._awaiting.carry(self._keeper.threads()) if runs else ():
            await self._awaiting.carry(self._keeper.delete_for_runs(thread, runs))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread in no time: the target, which must be new, is a branch of its session.

        Raises:
            ValueError: The target has something in it.
        """
        self._client.carry(self._keeper.copy(str(source_thread_id), str(target_thread_id)))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Do as :meth:`copy_thread`."""
        await self._awaiting.carry(self._keeper.copy(str(source_thread_id), str(target_thread_id)))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Drop checkpoints: all (``delete``), or all but the newest ones (``keep_latest``).

        Of delta channels the ancestors are kept that the newest checkpoint rests on.

        Raises:
            ValueError: There is no such strategy.
        """
        plan = self._pruning(strategy)
        for thread in thread_ids:
            self._client.carry(plan(str(thread)))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Do as :meth:`prune`."""
        plan = self._pruning(strategy)
        for thread in thread_ids:
            await self._awaiting.carry(plan(str(thread)))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what delta channels are made from, read at once."""
        place = (*_place(config), get_checkpoint_id(config))
        found = self._client.carry(self._keeper.history(*place, channels)) if channels else {}
        return {channel: self._history(history) for channel, history in found.items()}

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Do as :meth:`get_delta_channel_history`."""
        if not channels:
            return {}
        place = (*_place(config), get_checkpoint_id(config))
        found = await self._awaiting.carry(self._keeper.history(*place, channels))
        return {channel: self._history(history) for channel, history in found.items()}

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Return the version after another one; no two branches of a thread have the same."""
        return InMemorySaver.get_next_version(self, current, channel)  # type: ignore[arg-type]

    def _put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Put:
        head = {name: value for name, value in checkpoint.items() if name != "channel_values"}
        said = get_checkpoint_metadata(config, metadata)
        values = checkpoint["channel_values"]
        run = said.get("run_id")

        def dump(channel: str) -> tuple[str, bytes] | None:
            return self.serde.dumps_typed(values[channel]) if channel in values else None

        return Put(
            _place(config)[1],
            checkpoint["id"],
            get_checkpoint_id(config),
            None if run is None else str(run),
            self.serde.dumps_typed(head),
            self.serde.dumps_typed(said),
            checkpoint["channel_versions"],
            new_versions,
            dump,
        )

    def _tuple(self, found: Found) -> CheckpointTuple:
        loads = self.serde.loads_typed
        entry = found.entry
        head = loads(found.head)
        head["channel_values"] = {name: loads(value) for name, value in found.values.items()}
        parent = _config(found.thread, entry.ns, entry.parent) if entry.parent else None
        writes = [(task, channel, loads(value)) for task, channel, value in found.writes]
        config = _config(found.thread, entry.ns, entry.id)
        return CheckpointTuple(config, head, loads(found.metadata), parent, writes)

    def _history(self, history: History) -> DeltaChannelHistory:
        loads = self.serde.loads_typed
        writes = [(task, channel, loads(value)) for task, channel, value in history.writes]
        said: DeltaChannelHistory = {"writes": writes}
        if history.seed is not None:
            said["seed"] = loads(history.seed)
        return said

    def _fits(self, metadata: tuple[str, bytes], wanted: dict[str, Any]) -> bool:
        said = self.serde.loads_typed(metadata)
        return all(said.get(name) == value for name, value in wanted.items())

    def _pruning(self, strategy: str) -> Callable[[str], Any]:
        if strategy == "delete":
            return self._keeper.delete
        if strategy != "keep_latest":
            raise ValueError(f"there is no strategy {strategy!r}: keep_latest or delete")
        return lambda thread: self._keeper.prune(thread, self._deltas)

    def _deltas(self, metadata: tuple[str, bytes]) -> set[str]:
        said = self.serde.loads_typed(metadata)
        return set(said.get("counters_since_delta_snapshot") or ())


def _thread(config: RunnableConfig) -> str:
    return str(config["configurable"]["thread_id"])


def _place(config: RunnableConfig) -> tuple[str, str]:
    return _thread(config), config["configurable"].get("checkpoint_ns", "")


def _wanted(
    config: RunnableConfig | None, before: RunnableConfig | None
) -> tuple[str | None, str | None, str | None]:
    said = config["configurable"] if config else {}
    checkpoint = get_checkpoint_id(config) if config else None
    return said.get("checkpoint_ns"), checkpoint, get_checkpoint_id(before) if before else None


def _config(thread: str, ns: str, checkpoint: str) -> RunnableConfig:
    names = {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": checkpoint}
    return {"configurable": names}
