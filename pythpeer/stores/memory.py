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

from ..limiter import Limiter, clock
from ..wire import check_integer
from .base import DIRECT, Draft, Entry, Log, Reader, Store, Topic
from .news import News
from .survey import EndpointSurvey, Latest, LogSurvey, NameSurvey, Survey

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
        self._shelves: dict[str, _Shelf[Any]] = {}

    async def open(self) -> None:
        """Nothing to get ready."""

    async def aclose(self) -> None:
        """Nothing to close: what the sessions before left is there for the next."""

    def log(self, topic: Topic[T]) -> Log[T]:
        """The log of *topic*, shared by all sessions on this store."""
        shelf = self._shelves.get(topic.name)
        if shelf is None:
            shelf = self._shelves[topic.name] = _Shelf(topic, self._max_length)
        return _MemoryLog(cast("_Shelf[T]", shelf))

    async def survey(self, latest: int = 10) -> Survey:
        """What is in the store now, with the last *latest* items of each log."""
        return Survey(
            logs=tuple(shelf.survey(latest) for _, shelf in sorted(self._shelves.items())),
            endpoints=tuple(_endpoint(*item) for item in sorted(self._limiters.items())),
        )

    def __repr__(self) -> str:
        items = sum(len(shelf.ids) for shelf in self._shelves.values())
        return f"<MemoryStore {len(self._shelves)} logs, {items} items>"


class _Shelf(Generic[T]):
    """What all holds on one log have in common."""

    def __init__(self, topic: Topic[T], max_length: int) -> None:
        self.topic = topic
        self.max_length = max_length
        self.ids: list[int] = []  # ascending
        # In the order in which they came. A plain dict is slow to find its first item once many
        # before it are gone.
        self.entries: OrderedDict[int, Entry[T]] = OrderedDict()
        self.seen: dict[str, int] = {}
        self.head = 0
        self.places: dict[str, int] = {}
        self.acknowledged = 0
        self.doubtful: dict[str, int] = {}  # keys of what the history brought, by how many
        self.announced: dict[int, float] = {}  # until when each announced read can be under way
        self.numbers = count(1)
        self.leader: tuple[object, float] | None = None
        self.news = News()

    def add(self, draft: Draft[T]) -> bool:
        """Add a draft unless it is known. Says whether it was new."""
        if draft.id is None:
            return self._number(draft)
        known = self.entries.get(draft.id)
        if known is None:
            self._insert(Entry(draft.id, draft.after, draft.gap, draft.item))
        elif (draft.gap, draft.after) < (known.gap, known.after):
            self.entries[draft.id] = Entry(draft.id, draft.after, draft.gap, known.item)
        return known is None

    def _number(self, draft: Draft[T]) -> bool:
        seen = self.seen.get(draft.key, 0)
        if draft.copies and seen >= draft.copies:
            return False
        self.seen[draft.key] = seen + 1
        item, doubtful = draft.item, self.doubtful.get(draft.key, 0)
        if draft.history:
            self.doubtful[draft.key] = doubtful + 1
        elif doubtful and not draft.copies:
            self.doubtful[draft.key] = doubtful - 1
            item = draft.again
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
        if self.topic.consumed:
            oldest = list(takewhile(self.acknowledged.__ge__, oldest))
        for id in oldest:
            del self.entries[id]
        oldest.sort()
        if oldest == self.ids[: len(oldest)]:  # nearly always
            del self.ids[: len(oldest)]
        else:
            self.ids = sorted(self.entries)

    def after(self, place: int, limit: int) -> list[Entry[T]]:
        start = bisect_right(self.ids, place)
        return [self.entries[id] for id in self.ids[start : start + limit]]

    def survey(self, latest: int) -> LogSurvey:
        ids, leader = self.ids, self.leader
        last = ids[max(0, len(ids) - latest) :]
        return LogSurvey(
            topic=self.topic.name,
            head=self.head,
            length=len(ids),
            led=leader is not None and _now() < leader[1],
            announced=len(self.announced),
            names=tuple(
                NameSurvey(name, place, len(ids) - bisect_right(ids, place))
                for name, place in sorted(self.places.items())
                if name != DIRECT
            ),
            latest=tuple(Latest(id, _as_json(self.entries[id].item)) for id in last),
        )


def _as_json(item: object) -> str | None:
    return None if item is None else msgspec.json.encode(item).decode()


def _endpoint(key: str, limiter: Limiter) -> EndpointSurvey:
    return EndpointSurvey(
        key, limiter.requests, limiter.in_hand, limiter.waiting, limiter.paused_for
    )


def _now() -> float:
    return clock(asyncio.get_running_loop())()


class _MemoryLog(Log[T]):
    def __init__(self, shelf: _Shelf[T]) -> None:
        self._shelf = shelf

    def reader(self, name: str | None) -> Reader[T]:
        return _MemoryReader(self._shelf, name)

    async def append(
        self, drafts: Sequence[Draft[T]], *, settled: Collection[int] = ()
    ) -> Sequence[Draft[T]]:
        shelf = self._shelf
        added = [draft for draft in drafts if shelf.add(draft)]
        shelf.trim(len(drafts))
        for announcement in settled:
            shelf.announced.pop(announcement, None)
        if added:
            shelf.news.tell()
        return added

    async def acknowledged(self) -> int:
        return self._shelf.acknowledged

    async def announce(self, seconds: float) -> int:
        announcement = next(self._shelf.numbers)
        self._shelf.announced[announcement] = _now() + seconds
        return announcement

    async def withdraw(self, announcement: int) -> None:
        self._shelf.announced.pop(announcement, None)

    async def give_up(self, announcement: int) -> None:
        self._shelf.announced[announcement] = -math.inf

    async def unsettled(self) -> Collection[int]:
        now = _now()
        return [number for number, end in self._shelf.announced.items() if end <= now]

    async def lead(self, seconds: float) -> bool:
        now = _now()
        leader = self._shelf.leader
        if leader is not None and leader[0] is not self and now < leader[1]:
            return False
        self._shelf.leader = (self, now + seconds)
        return True

    async def news(self, seconds: float) -> None:
        await self._shelf.news.wait(seconds)


class _MemoryReader(Reader[T]):
    def __init__(self, shelf: _Shelf[T], name: str | None) -> None:
        self._shelf = shelf
        self._name = name

    async def place(self) -> int | None:
        return None if self._name is None else self._shelf.places.get(self._name)

    async def seek(self, place: int) -> None:
        if self._name is not None:
            self._shelf.places[self._name] = place

    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        return self._shelf.after(after, limit)

    def ack(self, place: int) -> None:
        shelf = self._shelf
        if place > shelf.acknowledged and self._name != DIRECT:
            shelf.acknowledged = place
        if self._name is not None:
            shelf.places[self._name] = max(place, shelf.places.get(self._name, place))

    async def flush(self) -> None:
        """Nothing to write down."""
