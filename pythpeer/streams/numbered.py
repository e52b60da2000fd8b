"""The poll source of items that the service numbers: pages after an id, late items, new numberings.

Items are appended to the log under ids that `stores.ids` defines, so the log stays in the order in
which streams return the items, also if an item arrives late, or if the service starts its ids anew.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from ..calls import Caller
from ..errors import DecodeError, PythpeerError, ResponseTooLargeError
from ..pacing.limiter import Permit
from ..pacing.queue import Priority
from ..stores.base import Log, NewEntry
from ..stores.ids import first_position, generation, next_numbering, service_id
from ..wire.endpoints import Endpoint
from ..wire.request import Request
from .gaps import KNOWN_IDS, KnownTail, assign_positions
from .poller import EndpointSource, Poller, log_skipped, loop_time, store_items

__all__ = ["NumberedPage", "NumberedSource"]

T = TypeVar("T")

MIN_KNOWN: Final = 3
"""How many items of the log must have disappeared from the service to count as a new beginning,
where neither the ids nor the dates decide it. Fewer may have been deleted."""

MIN_UNUSABLE: Final = 3
"""How many items without a usable id, and no other new ones, make a poll fail: the stream cannot
continue. Fewer are skipped."""

UNUSABLE: Final = "no new message has a usable id"
"""The text of the error of such a poll."""


class NumberedPage(Protocol[T]):
    """A page of items, as the service returned it."""

    @property
    def undecodable(self) -> tuple[bytes, ...]:
        """Undecodable items without an id, as canonical JSON."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether the service may have had more items than fit on a page."""
        ...

    def by_id(self) -> dict[int, T | None]:
        """Map every id on the page to its item, or to ``None`` if that is undecodable."""
        ...


PageRequest = Callable[[int | None, int | None], Request[NumberedPage[T]]]
"""Makes the request for items with ids over its first argument, at most as many as its second."""


class _Newest(NamedTuple, Generic[T]):
    """The newest item of the service."""

    id: int
    """Its id; 0 if there is none."""

    item: T | None
    """``None`` if it is undecodable, or if there is none."""


class NumberedSource(EndpointSource[T]):
    """Polls for items after the lowest position of the streams that wait.

    An *idle check* is a poll for the newest item alone. It gives new streams their position, and
    shows whether the service has started its ids anew. It takes the place of a poll that would find
    nothing: after the first poll without new items, and after each *idle_check* seconds without
    any.
    """

    # Invariant: `_tail` is what the log had when this source last read it or appended to it. Items
    # are only appended if the log still has the same head, so none is appended in a wrong place.

    def __init__(
        self,
        caller: Caller,
        *,
        endpoint: Endpoint[NumberedPage[T]],
        page_request: PageRequest[T],
        max_page: int,
        idle_check: float,
        is_same: Callable[[T, T], bool],
        date_of: Callable[[T], datetime | None],
    ) -> None:
        super().__init__(caller, endpoint.name)
        self._endpoint = endpoint
        """The endpoint whose limiter grants the tokens."""
        self._page_request = page_request
        """Makes the request of a poll."""
        self._max_page = max_page
        """Items on one page at most."""
        self._page_size = max_page
        """Items to request. Halved while pages are too large, and reset by one that is not full."""
        self._idle_check = idle_check or math.inf
        """Seconds without new items after which a poll is an idle check; infinity for never."""
        self._is_same = is_same
        """Returns whether two items with one id are the same one."""
        self._date_of = date_of
        """Returns the date of an item, ``None`` without one."""
        self._tail = KnownTail()
        """The end of the log. Replaced by `_load_tail`, extended by `_append`."""
        self._loaded_at = -1
        """The newest id that streams had seen when `_tail` was last read from the log; -1 before.
        Changed by `_load_tail`."""
        self._min_base = 0
        """The first position of a numbering that the log lacks. Set by an idle check."""
        self._idle_check_at: float | None = None
        """Loop time of the next idle check; ``None`` before the first poll of this session."""
        self._positioned_last_time = False
        """Whether the last poll was one that finds the position of new streams."""
        self._unusable = 0
        """How many items without a usable id have arrived since one that has one, or since a page
        without any of them."""
        self._reported_undecodable: dict[bytes, None] = {}
        """The undecodable items without an id that were logged and may arrive again: those of the
        last page that had any, and at least as many of the latest as fit on a page."""

    async def position_after(self, log: Log[T], after: int) -> int | None:
        """Return the position after the service's id *after*; ``None`` if an idle check is due.

        Before the first idle check, the log may have the items of an earlier numbering.
        """
        if self._loaded_at < 0:
            await self._load_tail(log, 0)
        if self._idle_check_at is None and self._tail.head and self._idle_check < math.inf:
            return None
        base = max(self._min_base, first_position(self._tail.head))
        return self._tail.position_after(base, after)

    async def try_poll(self, poller: Poller[T]) -> PythpeerError | None:
        """Read the items after the lowest position of the streams that wait, or the newest item.

        Streams that wait for a position do not delay those that have one by two polls in a row.
        """
        permit = await self._caller.acquire_permit(self._endpoint, Priority.POLL)
        poller.in_flight = True
        # Decided after the wait for a token, because more streams may have started to wait.
        find_position = poller.has_unpositioned and not (
            self._positioned_last_time and poller.has_positioned
        )
        self._positioned_last_time = find_position
        if find_position or (
            self._idle_check_at is not None and self._idle_check_at <= loop_time()
        ):
            return await self._try_idle_check(poller, permit)
        return await self._try_read(poller, permit)

    # -- the items after a position ---------------------------------------------------------------

    async def _try_read(self, poller: Poller[T], permit: Permit) -> PythpeerError | None:
        if self._loaded_at < 0 or poller.newest > max(self._tail.head, self._loaded_at):
            try:
                await self._load_tail(poller.log, poller.newest)
            except BaseException:
                permit.close()
                raise
        after = max(poller.min_position, self._base(poller))
        requested = self._tail.request_after(after, loop_time())
        size = self._page_size
        request = self._page_request(requested, size)
        page = await self._caller.try_once(request, permit, poller.attempt)
        if isinstance(page, PythpeerError):
            if isinstance(page, ResponseTooLargeError):
                self._page_size = max(1, size // 2)
            return page
        undecodable = self._report_undecodable(page, poller)
        items = page.by_id()
        full = page.is_full or len(items) + len(page.undecodable) >= size
        has_usable = any(id > service_id(after) for id in items)
        if len(items) > self._max_page:  # more than was asked for: the next polls read the others
            items = _lowest(items, requested, self._max_page)
        has_new = await self._append(poller, after, items, undecodable, full=full)
        poller.confirm(after, full=full)
        if self._is_stuck(page, undecodable, has_usable=has_usable):
            return DecodeError(UNUSABLE, endpoint=self.name)
        if not full:
            self._page_size = self._max_page
        if has_new:
            self._idle_check_at = loop_time() + self._idle_check
        elif self._idle_check_at is None:
            self._idle_check_at = loop_time() if self._idle_check < math.inf else math.inf
        return None

    def _is_stuck(self, page: NumberedPage[T], new: int, *, has_usable: bool) -> bool:
        """Return whether nothing but items without a usable id arrives; *new* of them are new."""
        if has_usable or not page.undecodable:
            self._unusable = 0
        else:
            self._unusable += new
        return self._unusable >= MIN_UNUSABLE

    def _base(self, poller: Poller[T]) -> int:
        """Return the first position of the present numbering."""
        return max(self._min_base, first_position(max(self._tail.head, poller.max_position)))

    async def _append(
        self,
        poller: Poller[T],
        after: int,
        items: Mapping[int, T | None],
        undecodable: int,
        *,
        full: bool,
    ) -> bool:
        """Append what the log lacks of a page. Returns whether there was any."""
        received = len(items)
        if first_position(self._tail.head) < first_position(after) and self._tail.head:
            items = await self._without_stored(poller.log, items)
        while True:
            entries = assign_positions(self._tail, after, items, full=full, now=loop_time())
            added = await store_items(
                poller.hooks,
                self.name,
                poller.log,
                entries,
                head=self._tail.head,
                received=received,
                undecodable=undecodable,
            )
            if added is not None:
                break
            # Another session has appended in the meantime.
            await self._load_tail(poller.log, poller.newest)
        self._tail.extend(added, loop_time())
        poller.update_newest(self._tail.head)
        return bool(added)

    async def _without_stored(
        self, log: Log[T], items: Mapping[int, T | None]
    ) -> dict[int, T | None]:
        """Drop what the log has of the numbering before: a service may restore its items."""
        start = first_position(self._tail.head) + max(0, min(items, default=0) - 1)
        stored = await log.reader(None).read(start, self._max_page)
        tail = await log.tail(self._max_page)
        known = {service_id(entry.id): entry.item for entry in (*stored, *tail.entries)}
        return {id: item for id, item in items.items() if not self._are_same(known.get(id), item)}

    def _are_same(self, one: T | None, other: T | None) -> bool:
        return one is not None and other is not None and self._is_same(one, other)

    def _report_undecodable(self, page: NumberedPage[T], poller: Poller[T]) -> int:
        """Log each undecodable item without an id once. Returns how many are new."""
        reported = self._reported_undecodable
        new = [raw for raw in dict.fromkeys(page.undecodable) if raw not in reported]
        if new:
            latest = [*reported, *new][-max(self._max_page, len(new)) :]
            self._reported_undecodable = dict.fromkeys(latest)
        log_skipped(self.name, len(new))
        poller.skipped += len(new)
        return len(new)

    async def _load_tail(self, log: Log[T], newest: int) -> None:
        """Read the end of the log, which has at least the entry *newest* that a stream has seen."""
        stored = await log.tail(KNOWN_IDS)
        self._tail.load(stored.head, stored.entries, loop_time())
        self._loaded_at = newest

    # -- the newest item --------------------------------------------------------------------------

    async def _try_idle_check(self, poller: Poller[T], permit: Permit) -> PythpeerError | None:
        page = await self._caller.try_once(self._page_request(None, 1), permit, poller.attempt)
        if isinstance(page, PythpeerError):
            return page
        self._report_undecodable(page, poller)
        items = page.by_id()
        if not items and page.undecodable and poller.has_unpositioned:
            return DecodeError("the newest message cannot be decoded", endpoint=self.name)
        if self._is_stuck(page, 0, has_usable=bool(items)):
            self._idle_check_at = loop_time() + self._idle_check
            return DecodeError(UNUSABLE, endpoint=self.name)
        id = max(items, default=0)
        await self._take_newest(poller, _Newest(id, items.get(id)))
        self._idle_check_at = loop_time() + self._idle_check
        return None

    async def _take_newest(self, poller: Poller[T], newest: _Newest[T]) -> None:
        """Notice a new numbering, and give new streams their position."""
        log = poller.log
        await self._load_tail(log, poller.newest)
        position = max(self._tail.head, poller.max_position, self._min_base)
        if (
            self._idle_check < math.inf
            and newest.id
            and service_id(position)
            and await self._is_restart(log, position, newest)
        ):
            self._min_base = position = next_numbering(position)
            poller.report_restart(position)
        if not self._tail.head and not poller.has_positioned and newest.item is not None:
            # So that the next session can tell a new numbering from a deleted message.
            entry = NewEntry(newest.item, id=newest.id, after=max(0, newest.id - 1))
            if newest.id and await log.append_at(0, [entry]):
                await self._load_tail(log, poller.newest)
        poller.set_initial_position(max(position, generation(position) | newest.id))

    async def _is_restart(self, log: Log[T], position: int, newest: _Newest[T]) -> bool:
        """Return whether the service has started its ids anew since *position*.

        *newest* is its newest item. If its id is lower, then either the items after it were
        deleted, or the log has something else at that id, or nothing.
        """
        if newest.id >= service_id(position) or newest.item is None:
            return False
        start = self._tail.ids.get(newest.id, first_position(position) | newest.id) - 1
        following = await log.reader(None).read(start, 1)
        if following and service_id(following[0].id) == newest.id:
            stored = following[0].item
            return stored is not None and not self._is_same(stored, newest.item)
        if following and not following[0].gap and following[0].after <= start:
            return True  # the service had nothing at that id
        known = [entry.item for entry in (await log.tail(MIN_KNOWN)).entries if entry.item]
        date, latest = self._date_of(newest.item), self._date_of(known[-1]) if known else None
        if date is not None and latest is not None and date != latest:
            return date > latest
        return len(known) == MIN_KNOWN or newest.id + self._max_page < service_id(position)


def _lowest(items: Mapping[int, T | None], after: int, count: int) -> dict[int, T | None]:
    """Return the *count* items with the lowest ids over *after*."""
    return {id: items[id] for id in heapq.nsmallest(count, [id for id in items if id > after])}
