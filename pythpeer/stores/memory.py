"""The store that lasts as long as the program: logs in lists, places in dictionaries."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Collection, Sequence
from itertools import count, islice, takewhile
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from ..limiter import Limiter, loop_clock
from ..wire import check_integer
from .base import DIRECT, Entry, Log, NewEntry, Reader, Store, Topic
from .news import Notifier
from .survey import EndpointSnapshot, LatestItem, LogSnapshot, ReaderSnapshot, StoreSnapshot

__all__ = ["MemoryStore"]

T = TypeVar("T")

MAX_LENGTH: Final = 10_000


class MemoryStore(Store):
    """Keeps everything in memory, for the sessions of one event loop that share the object.

    Sessions on one `MemoryStore` share pacing, and one of them polls for all. Each log keeps its
    last ``max_length`` items; of mail, all that no stream has acknowledged besides.
    """

    def __init__(self, *, max_length: int = MAX_LENGTH) -> None:
        super().__init__()
        self._max_length = check_integer("max_length", max_length, 1)
        self._shelves: dict[str, _LogState[Any]] = {}

    async def open(self) -> None:
        """Nothing to get ready."""

    async def aclose(self) -> None:
        """Nothing to close: what the sessions before left is there for the next."""

    def log(self, topic: Topic[T]) -> Log[T]:
        """The log of *topic*, shared by all sessions on this store."""
        shelf = self._shelves.get(topic.name)
        if shelf is None:
            shelf = self._shelves[topic.name] = _LogState(topic, self._max_length)
        return _MemoryLog(cast("_LogState[T]", shelf))

    async def snapshot(self, latest: int = 10) -> StoreSnapshot:
        """What is in the store now, with the last *latest* items of each log."""
        return StoreSnapshot(
            logs=tuple(shelf.snapshot(latest) for _, shelf in sorted(self._shelves.items())),
            endpoints=tuple(_endpoint(*item) for item in sorted(self._limiters.items())),
        )

    def __repr__(self) -> str:
        items = sum(len(shelf.ids) for shelf in self._shelves.values())
        return f"<MemoryStore {len(self._shelves)} logs, {items} items>"


class _LogState(Generic[T]):
    """What all holds on one log have in common."""

    def __init__(self, topic: Topic[T], max_length: int) -> None:
        self.topic = topic
        self.max_length = max_length
        self.ids: list[int] = []  # ascending
        # In the order in which they came. A plain dict is slow to find its first item once many
        # before it are gone.
        self.entries: OrderedDict[int, Entry[T]] = OrderedDict()
        self.copies_seen: dict[str, int] = {}
        self.head = 0
        self.places: dict[str, int] = {}
        self.acknowledged = 0
        self.possible_duplicates: dict[
            str, int
        ] = {}  # keys of what the history brought, by how many
        self.pending_fetches: dict[
            int, float
        ] = {}  # until when each announced read can be under way
        self.next_fetch = count(1)
        self.leader: tuple[object, float] | None = None
        self.news = Notifier()

    def append(self, draft: NewEntry[T]) -> bool:
        """Add a draft unless it is known. Says whether it was new."""
        if draft.id is None:
            return self._append_unnumbered(draft)
        known = self.entries.get(draft.id)
        if known is None:
            self._insert(Entry(draft.id, draft.after, draft.gap, draft.item))
        elif (draft.gap, draft.after) < (known.gap, known.after):
            self.entries[draft.id] = Entry(draft.id, draft.after, draft.gap, known.item)
        return known is None

    def _append_unnumbered(self, draft: NewEntry[T]) -> bool:
        seen = self.copies_seen.get(draft.identity, 0)
        if draft.max_copies and seen >= draft.max_copies:
            return False
        self.copies_seen[draft.identity] = seen + 1
        item, doubtful = draft.item, self.possible_duplicates.get(draft.identity, 0)
        if draft.from_history:
            self.possible_duplicates[draft.identity] = doubtful + 1
        elif doubtful and not draft.max_copies:
            self.possible_duplicates[draft.identity] = doubtful - 1
            item = draft.as_duplicate
        self._insert(Entry(self.head + 1, self.head, gap=False, item=item))
        return True

    def _insert(self, entry: Entry[T]) -> None:
        self.entries[entry.id] = entry
        if entry.id > self.head:
            self.ids.append(entry.id)
            self.head = entry.id
        else:
            insort(self.ids, entry.id)

    def trim(self, batch: int) -> None:
        """Drop what came first, but no more than leaves room for a last batch of *batch*.

        So older items that were fetched again for a late reader stay until it has read them.
        """
        excess = len(self.ids) - max(self.max_length, batch)
        if excess <= 0:
            return
        oldest = list(islice(self.entries, excess))
        if self.topic.destructive:
            oldest = list(takewhile(self.acknowledged.__ge__, oldest))
        for id in oldest:
            del self.entries[id]
        oldest.sort()
        if oldest == self.ids[: len(oldest)]:  # nearly always
            del self.ids[: len(oldest)]
        else:
            self.ids = sorted(self.entries)

    def entries_after(self, place: int, limit: int) -> list[Entry[T]]:
        start = bisect_right(self.ids, place)
        return [self.entries[id] for id in self.ids[start : start + limit]]

    def snapshot(self, latest: int) -> LogSnapshot:
        ids, leader = self.ids, self.leader
        last = ids[max(0, len(ids) - latest) :]
        return LogSnapshot(
            topic=self.topic.name,
            head=self.head,
            length=len(ids),
            has_leader=leader is not None and _now() < leader[1],
            pending_fetches=len(self.pending_fetches),
            readers=tuple(
                ReaderSnapshot(name, place, len(ids) - bisect_right(ids, place))
                for name, place in sorted(self.places.items())
                if name != DIRECT
            ),
            latest=tuple(LatestItem(id, _as_json(self.entries[id].item)) for id in last),
        )


def _as_json(item: object) -> str | None:
    return None if item is None else msgspec.json.encode(item).decode()


def _endpoint(key: str, limiter: Limiter) -> EndpointSnapshot:
    return EndpointSnapshot(
        key, limiter.requests, limiter.outstanding, limiter.waiting, limiter.paused_for
    )


def _now() -> float:
    return loop_clock(asyncio.get_running_loop())()


class _MemoryLog(Log[T]):
    def __init__(self, shelf: _LogState[T]) -> None:
        self._shelf = shelf

    def reader(self, name: str | None) -> Reader[T]:
        return _MemoryReader(self._shelf, name)

    async def append(
        self, drafts: Sequence[NewEntry[T]], *, completes: Collection[int] = ()
    ) -> Sequence[NewEntry[T]]:
        shelf = self._shelf
        added = [draft for draft in drafts if shelf.append(draft)]
        shelf.trim(len(drafts))
        for announcement in completes:
            shelf.pending_fetches.pop(announcement, None)
        if added:
            shelf.news.notify_all()
        return added

    async def max_acknowledged(self) -> int:
        return self._shelf.acknowledged

    async def begin_fetch(self, seconds: float) -> int:
        announcement = next(self._shelf.next_fetch)
        self._shelf.pending_fetches[announcement] = _now() + seconds
        return announcement

    async def cancel_fetch(self, announcement: int) -> None:
        self._shelf.pending_fetches.pop(announcement, None)

    async def lose_fetch(self, announcement: int) -> None:
        self._shelf.pending_fetches[announcement] = -math.inf

    async def lost_fetches(self) -> Collection[int]:
        now = _now()
        return [number for number, end in self._shelf.pending_fetches.items() if end <= now]

    async def acquire_lease(self, seconds: float) -> bool:
        now = _now()
        leader = self._shelf.leader
        if leader is not None and leader[0] is not self and now < leader[1]:
            return False
        self._shelf.leader = (self, now + seconds)
        return True

    async def wait_for_append(self, seconds: float) -> None:
        await self._shelf.news.wait(seconds)


class _MemoryReader(Reader[T]):
    def __init__(self, shelf: _LogState[T], name: str | None) -> None:
        self._shelf = shelf
        self._name = name

    async def position(self) -> int | None:
        return None if self._name is None else self._shelf.places.get(self._name)

    async def seek(self, place: int) -> None:
        if self._name is not None:
            self._shelf.places[self._name] = place

    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        return self._shelf.entries_after(after, limit)

    def ack(self, place: int) -> None:
        shelf = self._shelf
        if place > shelf.acknowledged and self._name != DIRECT:
            shelf.acknowledged = place
        if self._name is not None:
            shelf.places[self._name] = max(place, shelf.places.get(self._name, place))

    async def flush(self) -> None:
        """Nothing to write down."""
