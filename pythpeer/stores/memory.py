"""`MemoryStore`: a store that exists as long as the program: logs in lists, positions in dicts."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import count, islice, takewhile
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from ..misuse import tolerant_repr
from ..pacing.limiter import Limiter, loop_clock
from ..validation import check_integer
from .base import DIRECT, Entry, Log, LogTail, NewEntry, Reader, Store, Topic
from .ids import service_id
from .new_entries import Copies, assign_id, is_better_link
from .notify import Notifier
from .snapshot import EndpointSnapshot, LatestItem, LogSnapshot, ReaderSnapshot, StoreSnapshot

__all__ = ["MemoryStore"]

T = TypeVar("T")

MAX_LENGTH: Final = 10_000
"""The default number of items in a log."""

MAX_TRIMMED: Final = 10_000
"""The entries that an append deletes at most, in addition to as many as it has: the first append
after a long time without an acknowledgement would take long otherwise."""


class MemoryStore(Store):
    """Keeps everything in memory, for the sessions of one event loop that share the object.

    Sessions on one `MemoryStore` share pacing, and one of them polls for all. Its content remains
    after the last session was closed, as long as the object exists.

    Args:
        max_length: The number of last items that each log keeps, 10,000 by default. Mail that no
            stream has acknowledged is kept in addition.

    Raises:
        InvalidRequestError: if ``max_length`` is not a positive integer.
    """

    def __init__(self, *, max_length: int = MAX_LENGTH) -> None:
        super().__init__()
        self._max_length = check_integer("max_length", max_length, 1)
        self._logs: dict[str, _LogState[Any]] = {}
        """The logs by topic. Added by `log`, never removed."""

    async def open(self) -> None:
        """Do nothing: the store needs no preparation."""

    async def aclose(self) -> None:
        """Do nothing: the next session finds what the sessions before have stored."""

    def log(self, topic: Topic[T]) -> Log[T]:
        """Return a handle to the log of *topic*, which all sessions on this store share."""
        state = self._logs.get(topic.name)
        if state is None:
            state = self._logs[topic.name] = _LogState(topic, self._max_length)
        return _MemoryLog(
            cast("_LogState[T]", state),
            partial(self._positions, topic.scope),
            partial(self._unacknowledged_of_others, topic),
        )

    def _positions(self, scope: str) -> list[dict[str, int]]:
        """Return the positions in all logs of a scope."""
        return [state.positions for state in self._logs.values() if state.topic.scope == scope]

    def _unacknowledged_of_others(self, topic: Topic[T]) -> int:
        """Return how many items the logs of other accounts have that no reader has had."""
        return sum(
            state.unacknowledged()
            for state in self._logs.values()
            if state.topic.name != topic.name and "" != state.topic.service == topic.service
        )

    async def snapshot(self, latest: int = 10) -> StoreSnapshot:
        """Return the present content, with the last *latest* items of each log."""
        return StoreSnapshot(
            logs=tuple(state.snapshot(latest) for _, state in sorted(self._logs.items())),
            endpoints=tuple(_endpoint(*item) for item in sorted(self._limiters.items())),
        )

    def __str__(self) -> str:
        return "memory"

    @tolerant_repr
    def __repr__(self) -> str:
        items = sum(len(state.ids) for state in self._logs.values())
        return f"<MemoryStore {len(self._logs)} logs, {items} items>"


class _LogState(Generic[T]):
    """The content of one log, which all its handles share.

    Invariants: `ids` holds the keys of `entries`, ascending; none of them is greater than `head`;
    `head` never decreases, although the entry with that id may have been trimmed.
    """

    def __init__(self, topic: Topic[T], max_length: int) -> None:
        self.topic = topic
        self.max_length = max_length
        self.ids: list[int] = []
        """The ids of all entries, ascending. Changed by `append` and `trim`."""
        # A plain dict is slow to find its first item after many before it were deleted.
        self.entries: OrderedDict[int, Entry[T]] = OrderedDict()
        """The entries by id, in the order of arrival. Changed by `append` and `trim`."""
        self.copies: dict[str, Copies] = {}
        """What was seen of each identity. Changed by `append`."""
        self.head = 0
        """The highest id that was ever appended."""
        self.positions: dict[str, int] = {}
        """The position of each name. Changed by readers."""
        self.acknowledged = 0
        """The highest acknowledged position, without direct calls. Changed by readers."""
        self.pending_fetches: dict[int, float] = {}
        """Until which time of the loop the read of each fetch intent can be under way. Changed by
        handles."""
        self.next_fetch = count(1)
        """The numbers of fetch intents."""
        self.leader: tuple[object, float] | None = None
        """The handle that holds the lease, and the time of the loop at which it expires."""
        self.notifier = Notifier()
        """Notified after each append of something new."""

    def append(self, new: NewEntry[T]) -> bool:
        """Add an entry if it is new. Returns whether it was."""
        if new.id is None:
            return self._append_unnumbered(new)
        stored = self.entries.get(new.id)
        if stored is None:
            self._insert(Entry(new.id, new.after, new.gap, new.item))
        elif is_better_link(
            gap=new.gap, after=new.after, than_gap=stored.gap, than_after=stored.after
        ):
            self.entries[new.id] = Entry(new.id, new.after, new.gap, stored.item)
        return stored is None

    def _append_unnumbered(self, new: NewEntry[T]) -> bool:
        decision = assign_id(new, self.head, self.copies.get(new.identity, Copies()))
        if decision is None:
            return False
        entry, self.copies[new.identity] = decision
        self._insert(entry)
        return True

    def _insert(self, entry: Entry[T]) -> None:
        self.entries[entry.id] = entry
        if entry.id > self.head:
            self.ids.append(entry.id)
            self.head = entry.id
        else:
            insort(self.ids, entry.id)

    def trim(self, batch: int) -> None:
        """Delete the entries that arrived first, but none of the last *batch*.

        Older items that were fetched again for a slow reader therefore stay until it has read them.
        """
        excess = len(self.ids) - max(self.max_length, batch)
        if excess <= 0:
            return
        arrived_first = islice(self.entries, min(excess, MAX_TRIMMED + batch))
        if self.topic.destructive:
            oldest = list(takewhile(self.acknowledged.__ge__, arrived_first))
        else:
            oldest = list(arrived_first)
        for id in oldest:
            del self.entries[id]
        oldest.sort()
        if oldest == self.ids[: len(oldest)]:  # nearly always
            del self.ids[: len(oldest)]
        else:
            self.ids = sorted(self.entries)

    def entries_after(self, position: int, limit: int) -> list[Entry[T]]:
        """Return at most *limit* entries with ids over *position*, ascending."""
        start = bisect_right(self.ids, position)
        return [self.entries[id] for id in self.ids[start : start + limit]]

    def unacknowledged(self) -> int:
        """Return the number of entries that no stream has acknowledged, and no call returned."""
        read = max(self.acknowledged, self.positions.get(DIRECT, 0))
        return len(self.ids) - bisect_right(self.ids, read)

    def last_entries(self, limit: int) -> list[Entry[T]]:
        """Return the last *limit* entries, ascending by id."""
        return [self.entries[id] for id in self.ids[max(0, len(self.ids) - limit) :]]

    def snapshot(self, latest: int) -> LogSnapshot:
        """Return the present content, with the last *latest* items."""
        ids, leader = self.ids, self.leader
        idle_for = None if leader is None else max(0.0, _now() - leader[1])
        return LogSnapshot(
            topic=self.topic.name,
            head=service_id(self.head),
            length=len(ids),
            has_leader=leader is not None and _now() < leader[1],
            pending_fetches=len(self.pending_fetches),
            readers=tuple(
                ReaderSnapshot(name, service_id(position), len(ids) - bisect_right(ids, position))
                for name, position in sorted(self.positions.items())
                if name != DIRECT
            ),
            latest=tuple(
                LatestItem(service_id(entry.id), _as_json(entry.item))
                for entry in self.last_entries(latest)
            ),
            idle_for=idle_for,
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
    """See `Log`."""

    def __init__(
        self,
        state: _LogState[T],
        positions: Callable[[], list[dict[str, int]]],
        count_of_others: Callable[[], int],
    ) -> None:
        self._state = state
        self._positions = positions
        """Returns the positions by name of all logs of the scope."""
        self._count_of_others = count_of_others
        """Returns the unacknowledged items in the logs of other accounts."""

    def reader(self, name: str | None) -> Reader[T]:
        return _MemoryReader(self._state, name, self._positions)

    async def append(
        self, entries: Sequence[NewEntry[T]], *, completes: Collection[int] = ()
    ) -> Sequence[NewEntry[T]]:
        state = self._state
        added = [new for new in entries if state.append(new)]
        state.trim(len(entries))
        for fetch in completes:
            state.pending_fetches.pop(fetch, None)
        if added:
            state.notifier.notify_all()
        return added

    @property
    def outlasts_program(self) -> bool:
        return False

    async def copies(self) -> Mapping[str, int]:
        return {identity: copies.seen for identity, copies in self._state.copies.items()}

    async def unacknowledged_of_others(self) -> int:
        return self._count_of_others()

    async def append_at(
        self, head: int, entries: Sequence[NewEntry[T]]
    ) -> Sequence[NewEntry[T]] | None:
        return None if self._state.head != head else await self.append(entries)

    async def tail(self, limit: int) -> LogTail[T]:
        return LogTail(self._state.head, self._state.last_entries(limit))

    async def max_acknowledged(self) -> int:
        return self._state.acknowledged

    async def begin_fetch(self, timeout: float) -> int:
        fetch = next(self._state.next_fetch)
        self._state.pending_fetches[fetch] = _now() + timeout
        return fetch

    async def cancel_fetch(self, fetch: int) -> None:
        self._state.pending_fetches.pop(fetch, None)

    async def lose_fetch(self, fetch: int) -> None:
        self._state.pending_fetches[fetch] = -math.inf

    async def lost_fetches(self) -> Collection[int]:
        now = _now()
        return [fetch for fetch, end in self._state.pending_fetches.items() if end <= now]

    async def acquire_lease(self, seconds: float) -> bool:
        now = _now()
        leader = self._state.leader
        if leader is not None and leader[0] is not self and now < leader[1]:
            return False
        self._state.leader = (self, now + seconds)
        return True

    async def wait_for_append(self, timeout: float) -> None:
        await self._state.notifier.wait(timeout)


class _MemoryReader(Reader[T]):
    """See `Reader`."""

    def __init__(
        self,
        state: _LogState[T],
        name: str | None,
        positions: Callable[[], list[dict[str, int]]],
    ) -> None:
        self._state = state
        self._name = name
        self._positions = positions

    async def position(self) -> int | None:
        name = self._name
        if name is None:
            return None
        if self._state.topic.scope:
            others = [stored[name] for stored in self._positions() if name in stored]
            if others:
                self._state.positions[name] = max(others)
        return self._state.positions.get(name)

    async def seek(self, position: int) -> None:
        name = self._name
        if name is None:
            return
        self._state.positions[name] = position
        if self._state.topic.scope:
            for stored in self._positions():
                if name in stored:
                    stored[name] = position

    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        return self._state.entries_after(after, limit)

    def ack(self, position: int) -> None:
        state = self._state
        if position > state.acknowledged and self._name != DIRECT:
            state.acknowledged = position
        if self._name is not None:
            stored = state.positions.get(self._name, position)
            state.positions[self._name] = max(position, stored)

    async def flush(self) -> None:
        """Do nothing: nothing is pending."""
