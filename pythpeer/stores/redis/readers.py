"""How streams read a log on the server.

Streams without a name read it by themselves. Streams of one name, in however many processes, are
the workers of a consumer group: each item goes to one of them, is in its hand until it acknowledges
it, and goes to another if it dies.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from ...errors import StoreError
from ..base import DIRECT, Entry, Reader
from .link import Argument
from .pulse import SESSION_TIMEOUT, to_microseconds
from .shelf import LogState

__all__ = ["GroupReader", "StandaloneReader"]

T = TypeVar("T")

NO_LIMIT: Final = 1_000_000
"""A limit that is none."""

BATCH_SECONDS: Final = 0.05
"""Seconds of work that a worker takes in hand at a time, so that the others have something to do.

What an item is worth is seen from those before."""

MAX_GROWTH: Final = 4
"""How much more a worker takes than the last time, at most."""


class StandaloneReader(Reader[T]):
    """Reads all of the log: a stream without a name, or what direct calls have returned."""

    def __init__(self, shelf: LogState[T], name: str | None) -> None:
        self._state = shelf
        self._direct = name == DIRECT
        self._meta_field = "direct" if self._direct else "acknowledged"
        self._acknowledged: int | None = None

    async def position(self) -> int | None:
        """Where direct calls are; without a name there is no place."""
        if not self._direct:
            return None
        await self.flush()
        place: int | None = await self._state.run_script("meta", "direct", "")
        return place

    async def seek(self, place: int) -> None:
        """Nothing to store: it has no name."""

    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        """At most *limit* entries with ids over *after*, ascending. Writes acknowledgements too."""
        return await self._read(after, None if limit >= NO_LIMIT else limit)

    def ack(self, place: int) -> None:
        """Acknowledge everything up to *place*."""
        self._acknowledged = max(place, self._acknowledged or 0)
        self._state.readers.add(self)

    async def flush(self) -> None:
        """Write acknowledgements down."""
        if self._acknowledged is not None:
            await self._read(0, 0)

    async def _read(self, after: int, limit: int | None) -> Sequence[Entry[T]]:
        acknowledged = self._acknowledged
        entries = await self._state.read(after, limit, self._meta_field, acknowledged)
        if self._acknowledged == acknowledged:
            self._acknowledged = None
            self._state.readers.discard(self)
        return entries


class _BatchSizer(Generic[T]):
    """What a worker took in hand at a time: how much, and how long it took."""

    __slots__ = ("_started", "_size", "next_size")

    def __init__(self) -> None:
        self.next_size = 1
        self._started = 0.0
        self._size = 0

    def start(self, size: int) -> None:
        """So many items are in hand from now on."""
        self._started, self._size = time.perf_counter(), size

    def done(self) -> None:
        """They are acknowledged: see what to take the next time."""
        if self._size:
            each = max(1e-9, (time.perf_counter() - self._started) / self._size)
            self.next_size = max(1, min(int(BATCH_SECONDS / each), MAX_GROWTH * self._size))
            self._size = 0


class GroupReader(Reader[T]):
    """One worker of a name."""

    def __init__(self, shelf: LogState[T], name: str) -> None:
        self.name: Final = name
        self._state = shelf
        self._consumer = shelf.heartbeat.new_owner()
        self._epoch: int | None = None
        self._group_position: int | None = None
        self._batch: _BatchSizer[T] = _BatchSizer()
        self._pending: deque[int] = deque()
        self._acks: dict[int, None] = {}  # of items in hand
        self._position_to_write: int | None = None  # up to where all is acknowledged
        self._is_catching_up = False
        self._redeliver = False
        self._flushing: asyncio.Task[None] | None = None
        weakref.finalize(self, shelf.heartbeat.report_dead, self._consumer).atexit = False

    @property
    def group_position(self) -> int | None:
        """Where the name stood before the entries that were read last."""
        return self._group_position

    async def position(self) -> int | None:
        """The id up to which everything was acknowledged, by whichever worker."""
        for reader in list(self._state.readers):
            if isinstance(reader, GroupReader) and reader.name == self.name:
                await reader.flush()
        place: int | None = await self._run("place")
        return place

    async def seek_if_new(self, place: int) -> None:
        """Become one of the workers of the name. It begins at *place* if it is new."""
        self._epoch = await self._run("join", place)

    async def seek(self, place: int) -> None:
        """Send all workers of the name to *place*. What they have in hand is no longer theirs."""
        self._pending.clear()
        self._acks.clear()
        self._position_to_write = None
        self._epoch = await self._run("seek", place)

    async def _run(self, what: str, *args: Argument) -> int | None:
        epoch = "" if self._epoch is None else self._epoch
        answer: int | None = await self._state.run_script("name", what, self.name, epoch, *args)
        return answer

    # -- reading ----------------------------------------------------------------------------------

    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        """The next items that no other worker has, or those that a dead one had in hand."""
        await self._state.heartbeat.flush()
        self._batch.done()
        acks, place = list(self._acks), self._position_to_write
        args: list[Argument] = [self.name, self._consumer, to_microseconds(SESSION_TIMEOUT)]
        args += [
            min(limit, self._batch.next_size),
            after,
            "" if self._epoch is None else self._epoch,
        ]
        args += [int(self._redeliver), "" if place is None else place, *acks]
        self._redeliver = True  # unless the answer is heard
        self._state.heartbeat.keep_alive(self._consumer, "reading")
        self._state.readers.add(self)
        mode, self._epoch, head, passed, found = await self._state.run_script(
            "share", *self._state.script_head, *args
        )
        self._redeliver = False
        self._acks_written(acks, place)
        self._state.head = max(self._state.head, head)
        self._is_catching_up = mode == b"catch up"
        entries = self._state.entries(found)
        if mode == b"again":
            entries = _relinked(entries)
            passed = entries[0].after
        self._group_position = passed
        self._pending.extend(entry.id for entry in entries)
        self._batch.start(len(entries))
        # There is nothing in a hole to be lost.
        self._acks.update(
            (e.id, None) for e in entries if e.item is None and not self._is_catching_up
        )
        return entries

    def ack(self, place: int) -> None:
        """Acknowledge what this worker has in hand up to *place*.

        What it never had in hand up to there is skipped by all workers of the name.
        """
        in_hand, acks, before = self._pending, self._acks, len(self._acks)
        while in_hand and in_hand[0] <= place:
            acks[in_hand.popleft()] = None
        if self._is_catching_up or len(acks) == before:
            self._position_to_write = max(place, self._position_to_write or 0)
        self._state.readers.add(self)
        if self._flushing is None:
            self._flushing = asyncio.ensure_future(self._flush_soon())

    async def _flush_soon(self) -> None:
        """Have on record what is acknowledged, in case the next item takes its time."""
        try:
            await self.flush()
        except StoreError:
            pass  # it is written with whatever is asked next, which says what is wrong
        finally:
            self._flushing = None

    async def flush(self) -> None:
        """Write acknowledgements down."""
        while self._acks or self._position_to_write is not None:
            acks, place = list(self._acks), self._position_to_write
            await self._run("ack", "" if place is None else place, *acks)
            self._acks_written(acks, place)

    def _acks_written(self, acks: Sequence[int], place: int | None) -> None:
        for id in acks:
            self._acks.pop(id, None)
        if self._position_to_write == place:
            self._position_to_write = None

    async def leave(self) -> None:
        """The stream is over: let others have what is in hand."""
        try:
            if self._flushing is not None:
                await asyncio.wait([self._flushing])
            await self.flush()
        finally:
            self._state.readers.discard(self)
            self._state.heartbeat.stop(self._consumer, "reading")
        await self._run("leave", self._consumer)


def _relinked(entries: Sequence[Entry[T]]) -> list[Entry[T]]:
    """What was in somebody's hand, as a chain: what lies between is in the hands of others."""
    before = 0
    strung: list[Entry[T]] = []
    for entry in entries:
        after = min(entry.after, before) if strung else entry.after
        strung.append(Entry(entry.id, after, entry.gap, entry.item))
        before = entry.id
    return strung
