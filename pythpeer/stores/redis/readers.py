"""The readers of a log on the server.

A stream without a name reads the whole log with a `StandaloneReader`. Streams of one name, in any
number of processes, are the consumers of a Redis consumer group, each with a `GroupReader`. Each
item is returned to one of them, is pending until it acknowledges it, and is claimed by another one
if it dies.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

from ...errors import StoreError
from ..base import DIRECT, Entry, Reader
from .connection import Argument
from .heartbeat import SESSION_TIMEOUT, to_microseconds
from .log_state import LogState

__all__ = ["GroupReader", "StandaloneReader"]

T = TypeVar("T")

NO_LIMIT: Final = 1_000_000
"""A limit that is treated as none."""

BATCH_SECONDS: Final = 0.05
"""The seconds of work in one batch of a group reader, so that others get a share as well. The
time for an item is estimated from the batch before."""

MAX_GROWTH: Final = 4
"""The factor by which a batch can be larger than the one before."""


class StandaloneReader(Reader[T]):
    """Reads all entries of the log: for a stream without a name, or for direct calls."""

    def __init__(self, state: LogState[T], name: str | None) -> None:
        self._state = state
        self._direct = name == DIRECT
        self._meta_field = "direct" if self._direct else "acknowledged"
        """The field on the server in which the acknowledged position is stored."""
        self._known = state.known
        """What was known of the log at the last read of entries: ids mean what they meant then."""
        self._acknowledged: int | None = None
        """The acknowledged position that is not stored yet. Set by `ack`, cleared by `_read`."""

    async def position(self) -> int | None:
        """Return the position of direct calls; a stream without a name has none."""
        if not self._direct:
            return None
        await self.flush()
        position: int | None = await self._state.run_script(
            "lease_and_fetches", "direct position", ""
        )
        return position

    async def seek(self, position: int) -> None:
        """Do nothing: without a name no position is stored."""

    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        """Return at most *limit* entries with ids over *after*, and store acknowledgements."""
        entries = await self._read(after, None if limit >= NO_LIMIT else limit)
        self._known = self._state.known
        return entries

    def ack(self, position: int) -> None:
        """Acknowledge all items up to *position*."""
        self._acknowledged = max(position, self._acknowledged or 0)
        self._state.readers.add(self)

    async def flush(self) -> None:
        """Store pending acknowledgements."""
        if self._acknowledged is not None:
            await self._read(0, 0)

    async def _read(self, after: int, limit: int | None) -> Sequence[Entry[T]]:
        acknowledged = self._acknowledged
        entries = await self._state.read(after, limit, self._meta_field, acknowledged, self._known)
        if self._acknowledged == acknowledged:
            self._acknowledged = None
            self._state.readers.discard(self)
        return entries


class _BatchSizer(Generic[T]):
    """Determines the size of the next batch from the time that the one before took."""

    __slots__ = ("_size", "_started", "next_size")

    def __init__(self) -> None:
        self.next_size = 1
        """The number of items to read next."""
        self._started = 0.0
        """When the present batch was read, in seconds of the performance counter."""
        self._size = 0
        """The number of items in it; 0 without one."""

    def start(self, size: int) -> None:
        """Start a batch of *size* items."""
        self._started, self._size = time.perf_counter(), size

    def done(self) -> None:
        """End the batch, whose items are acknowledged."""
        if self._size:
            seconds_per_item = max(1e-9, (time.perf_counter() - self._started) / self._size)
            wanted = int(BATCH_SECONDS / seconds_per_item)
            self.next_size = max(1, min(wanted, MAX_GROWTH * self._size))
            self._size = 0


class GroupReader(Reader[T]):
    """One consumer of the group of a name.

    Invariants: an id is in `_pending` or in `_acks`, not in both; both are cleared by a seek, which
    starts a new epoch on the server; acknowledgements with an older epoch are ignored there.
    """

    def __init__(self, state: LogState[T], name: str) -> None:
        self.name: Final = name
        self._state = state
        self._consumer = state.heartbeat.new_owner()
        """The name of the consumer on the server."""
        self._epoch: bytes = b""
        """How often the name was moved by seek, and the run of the server, as it last reported
        them; empty before that."""
        self._group_position: int | None = None
        """See `group_position`. Changed by `read`."""
        self._batch: _BatchSizer[T] = _BatchSizer()
        self._pending: deque[int] = deque()
        """The ids that were returned and are not acknowledged, ascending per batch. Each read
        reports them: what else is pending for this reader on the server was in a response that was
        lost, and is returned again."""
        self._acks: dict[int, None] = {}
        """The acknowledged ids that are not stored yet, in order."""
        self._position_to_write: int | None = None
        """The acknowledged position that is not stored yet, for items that were not pending."""
        self._is_catching_up = False
        """Whether the last entries were a replay of what the stream lacks: they are not pending."""
        self._flushing: asyncio.Task[None] | None = None
        """The task that stores acknowledgements soon. Started by `ack`."""
        weakref.finalize(self, state.heartbeat.report_dead, self._consumer).atexit = False

    @property
    def group_position(self) -> int | None:
        """The position of the name before the entries that were read last."""
        return self._group_position

    async def position(self) -> int | None:
        """Return the id up to which all items were acknowledged, by any reader of the name."""
        for reader in list(self._state.readers):
            if isinstance(reader, GroupReader) and reader.name == self.name:
                await reader.flush()
        position: int | None = await self._run_command("position", self._state.fetch_time)
        others: list[int | None] = await self._state.run_in_others(
            "group", "position", self.name, ""
        )
        highest = max((other for other in others if other is not None), default=None)
        if highest is None or (position is not None and position >= highest):
            return position
        if position is not None:
            # Not by `ack`, which also sends it in the background: that could undo a later seek.
            await self._run_command("ack", highest)
        return highest

    async def seek_if_new(self, position: int) -> None:
        """Join the readers of the name, which starts at *position* if it is new."""
        self._epoch = await self._run_command("seek if new", position)

    async def seek(self, position: int) -> None:
        """Move all readers of the name to *position*. Their pending items are no longer theirs."""
        self._pending.clear()
        self._acks.clear()
        self._position_to_write = None
        self._epoch = await self._run_command("seek", position)
        await self._state.run_in_others("group", "seek if known", self.name, "", position)

    async def _run_command(self, command: str, *args: Argument) -> Any:
        return await self._state.run_script("group", command, self.name, self._epoch, *args)

    # -- reading ----------------------------------------------------------------------------------

    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        """Return the next items that no other reader has, or pending ones of a dead reader."""
        await self._state.heartbeat.flush()
        self._batch.done()
        acks, position = list(self._acks), self._position_to_write
        args: list[Argument] = [self.name, self._consumer, to_microseconds(SESSION_TIMEOUT)]
        args += [min(limit, self._batch.next_size), after]
        args += [self._epoch]
        args += [len(self._pending), *self._pending]
        args += ["" if position is None else position, *acks]
        self._state.heartbeat.keep_alive(self._consumer, "reading")
        self._state.readers.add(self)
        mode, self._epoch, known, group_position, raw_entries = await self._state.run_script(
            "group_read", *self._state.script_head, *args
        )
        self._acks_written(acks, position)
        self._state.update_head(known)
        self._is_catching_up = mode == b"catch up"
        entries = self._state.entries(raw_entries)
        if mode == b"again":
            entries = _relinked(entries)
            group_position = entries[0].after
        self._group_position = group_position
        self._batch.start(len(entries))
        for entry in entries:
            if entry.item is not None or self._is_catching_up:
                self._pending.append(entry.id)
            else:  # an undecodable entry contains nothing that could be lost
                self._acks[entry.id] = None
        return entries

    def ack(self, position: int) -> None:
        """Acknowledge the pending items of this reader up to *position*.

        If there are none, all readers of the name skip the items up to there.
        """
        pending, acks, ack_count = self._pending, self._acks, len(self._acks)
        while pending and pending[0] <= position:
            id = pending.popleft()
            acks[id] = None
            if id == position:
                break  # smaller ids after it are of a batch that was read later
        if self._is_catching_up or len(acks) == ack_count:
            self._position_to_write = max(position, self._position_to_write or 0)
        self._state.readers.add(self)
        if self._flushing is None:
            self._flushing = asyncio.ensure_future(self._flush_soon())

    async def _flush_soon(self) -> None:
        """Store acknowledgements without waiting for the next read, which may be much later."""
        try:
            await self.flush()
        except StoreError:
            pass  # they are sent with the next call, which raises the error
        finally:
            self._flushing = None

    async def flush(self) -> None:
        """Store pending acknowledgements."""
        while self._acks or self._position_to_write is not None:
            acks, position = list(self._acks), self._position_to_write
            await self._run_command("ack", "" if position is None else position, *acks)
            self._acks_written(acks, position)

    def _acks_written(self, acks: Sequence[int], position: int | None) -> None:
        for id in acks:
            self._acks.pop(id, None)
        if self._position_to_write == position:
            self._position_to_write = None

    async def leave(self) -> None:
        """Leave the group: other readers receive the pending items."""
        try:
            if self._flushing is not None:
                await asyncio.wait([self._flushing])
            await self.flush()
        finally:
            self._state.readers.discard(self)
            self._state.heartbeat.stop(self._consumer, "reading")
        await self._run_command("leave", self._consumer)


def _relinked(entries: Sequence[Entry[T]]) -> list[Entry[T]]:
    """Link items that were pending to each other: what is between them, other readers have."""
    previous = 0
    linked: list[Entry[T]] = []
    for entry in entries:
        after = min(entry.after, previous) if linked else entry.after
        linked.append(Entry(entry.id, after, entry.gap, entry.item))
        previous = entry.id
    return linked
