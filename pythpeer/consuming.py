"""Reading what the service forgets once it was read, without losing any of it.

Before such a read is sent it is announced in the log, and the announcement ends in the very
transaction that appends what it brought. If that never happens (cut off, timed out, garbage,
crash), the next read asks for the whole history instead, and appends what the log lacks. What
cannot be told apart is delivered again, and marked, rather than dropped.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final, Generic, TypeVar

import msgspec

from .calls import Caller, shielded
from .errors import OutcomeUnknownError, PythpeerError
from .feed import Poller, store_items
from .limiter import Permit
from .line import Priority
from .stores.base import DIRECT, Log, NewEntry
from .wire import Request

__all__ = ["DecodedItem", "DestructiveSource"]

T = TypeVar("T")

INTENT_GRACE: Final = 1.0
"""Seconds beyond its time limit within which an announced read can still reach the log."""


class DecodedItem(msgspec.Struct, Generic[T], frozen=True):
    """One item of an answer."""

    item: T | None
    """``None`` if it could not be decoded."""

    identity: str
    """What tells it from others: a digest of all that is in it, but for whether it was read."""

    has_id: bool
    """Whether there is an id among that, so that two items of one key are the same."""


class DestructiveSource(Generic[T]):
    """Polls *unread*, which consumes what it returns, and falls back on *history*, which has all.

    *recovered* marks an item that may have been delivered before.
    """

    def __init__(
        self,
        caller: Caller,
        *,
        unread: Request[tuple[DecodedItem[T], ...]],
        history: Request[tuple[DecodedItem[T], ...]],
        mark_recovered: Callable[[T], T],
    ) -> None:
        self.name: Final = unread.endpoint.name
        self._caller = caller
        self._unread = unread
        self._history = history
        self._recovered = mark_recovered
        self._lock = asyncio.Lock()
        self._undelivered_after: int | None = None
        """The place after which a direct call has not returned what it fetched."""

    async def initial_position(self, log: Log[T]) -> int | None:
        """A stream without a place starts with what no stream acknowledged."""
        return await log.max_acknowledged()

    async def poll(self, feed: Poller[T]) -> PythpeerError | None:
        """Fetch what is unread into the log."""
        permit = await self._caller.acquire_permit(self._unread.endpoint, Priority.POLL)
        feed.in_flight = True
        try:
            async with self._lock:
                error = await self._read_or_recover(feed.log, permit, feed.attempt)
        finally:
            permit.close()
        if error is None:
            feed.confirm(feed.min_position, full=False)
        return error

    async def fetch(self, log: Log[T]) -> tuple[T, ...]:
        """Fetch for a direct call: returns that, and what earlier calls could not return."""
        endpoint = self._unread.endpoint
        permit = await self._caller.acquire_permit(endpoint, Priority.CALL, self._caller.max_wait)
        try:
            async with self._lock:
                return await self._fetch_direct(log, permit)
        finally:
            permit.close()

    async def drain(self) -> None:
        """Wait until no read is under way whose outcome has to be put down."""
        async with self._lock:
            pass

    async def _fetch_direct(self, log: Log[T], permit: Permit) -> tuple[T, ...]:
        direct_reader = log.reader(DIRECT)
        owed_before = self._undelivered_after
        if owed_before is None:
            self._undelivered_after = max(
                await direct_reader.position() or 0, await log.max_acknowledged()
            )
        after = self._undelivered_after or 0
        error = await self._read_or_recover(log, permit)
        if error is not None:
            if not isinstance(error, OutcomeUnknownError):
                self._undelivered_after = owed_before  # nothing was fetched that could be owed
            raise error
        entries = await direct_reader.read(after, sys.maxsize)
        direct_reader.ack(max([after, *(entry.id for entry in entries)]))
        await direct_reader.flush()
        self._undelivered_after = None
        return tuple(entry.item for entry in entries if entry.item is not None)

    async def _read_or_recover(
        self, log: Log[T], permit: Permit, attempt: int = 1
    ) -> PythpeerError | None:
        """Use the token in hand for whichever of the two requests is due."""
        lost = await log.lost_fetches()
        if lost:
            return await self._recover(log, permit, lost, attempt)
        return await shielded(lambda: self._read_unread(log, permit, attempt))

    async def _read_unread(self, log: Log[T], permit: Permit, attempt: int) -> PythpeerError | None:
        """The read that makes the service forget what it returns."""
        announcement = await log.begin_fetch(self._caller.timeout + INTENT_GRACE)
        try:
            answer = await self._caller.try_once(self._unread, permit, attempt)
        except PythpeerError as error:
            answer = error.with_traceback(None)  # the session was closed: it never left
        if not isinstance(answer, PythpeerError):
            drafts = [self._new_entry(found) for found in answer]
            await store_items(self._caller.hooks, self.name, log, drafts, completes=[announcement])
            return None
        if isinstance(answer, OutcomeUnknownError):
            await log.lose_fetch(announcement)
        else:
            await log.cancel_fetch(announcement)  # it never left, or it was refused
        return answer

    def _new_entry(self, found: DecodedItem[T]) -> NewEntry[T]:
        if found.has_id:
            return NewEntry(found.item, identity=found.identity, max_copies=1)
        return NewEntry(
            found.item,
            identity=found.identity,
            as_duplicate=found.item and self._recovered(found.item),
        )

    async def _recover(
        self, log: Log[T], permit: Permit, lost: Collection[int], attempt: int
    ) -> PythpeerError | None:
        """Find in the history what the answers of *lost* reads held."""
        answer = await self._caller.try_once(self._history, permit, attempt)
        if isinstance(answer, PythpeerError):
            return answer
        drafts: list[NewEntry[T]] = []
        copies: Counter[str] = Counter()  # identical items may exist: the log must have as many
        for found in answer:
            copies[found.identity] += 1
            item = found.item and self._recovered(found.item)
            drafts.append(
                NewEntry(
                    item,
                    identity=found.identity,
                    max_copies=copies[found.identity],
                    from_history=True,
                )
            )
        await store_items(self._caller.hooks, self.name, log, drafts, completes=lost)
        return None
