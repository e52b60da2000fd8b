"""Destructive reads: reading what the service marks as read, without losing any of it.

Before such a read is sent, a fetch intent is stored in the log; the transaction that appends the
result completes it. If the result never arrives (a lost connection, a time-out, a damaged response,
a crash), the fetch is lost, and the next read asks for the whole history and appends what the log
lacks. An item that cannot be told apart from an earlier one is delivered again, and marked as
recovered, rather than dropped.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final, Generic, TypeVar

import msgspec

from ..calls import Caller, shielded
from ..errors import OutcomeUnknownError, PythpeerError
from ..pacing.limiter import Permit
from ..pacing.queue import Priority
from ..stores.base import DIRECT, Log, NewEntry
from ..wire.request import Request
from .poller import Poller, store_items

__all__ = ["DecodedItem", "DestructiveSource"]

T = TypeVar("T")

INTENT_GRACE: Final = 1.0
"""Seconds after the time limit of a read in which its result can still reach the log. After that
another process may treat the fetch as lost."""


class DecodedItem(msgspec.Struct, Generic[T], frozen=True):
    """One item of a response."""

    item: T | None
    """``None`` if it could not be decoded."""

    identity: str
    """What distinguishes it from other items: a digest of all its content except the read mark."""

    has_id: bool
    """Whether the content includes an id, so that two items of one identity are the same item."""


class DestructiveSource(Generic[T]):
    """Polls *unread*, a destructive read; after a lost fetch it polls *history*, which has all.

    *mark_recovered* returns a copy of an item that is marked as possibly delivered before.
    """

    # Invariants: `_idle` is cleared from the moment a fetch intent may be stored until its result
    # is stored, so there is at most one destructive read at a time. It stays cleared while a direct
    # call reads its result from the log.

    def __init__(
        self,
        caller: Caller,
        *,
        unread: Request[tuple[DecodedItem[T], ...]],
        history: Request[tuple[DecodedItem[T], ...]],
        mark_recovered: Callable[[T], T],
    ) -> None:
        self.name: Final = unread.endpoint.name
        """The endpoint's name, for errors and log lines."""
        self._caller = caller
        """Gets tokens and sends requests."""
        self._unread = unread
        """The destructive read."""
        self._history = history
        """The harmless read of everything."""
        self._mark_recovered = mark_recovered
        """Returns a marked copy of an item."""
        self._idle = asyncio.Event()
        """Set while no read is in progress. The poll or direct call that begins a read clears it,
        and sets it at the end."""
        self._idle.set()
        self._undelivered_after: int | None = None
        """The position after which a direct call has fetched items without returning them; ``None``
        if there are none. Set and reset by `_fetch_direct` only."""

    async def initial_position(self, log: Log[T]) -> int | None:
        """Return the highest acknowledged position: a new stream gets what no stream has had."""
        return await log.max_acknowledged()

    async def position_after(self, log: Log[T], after: int) -> int | None:
        """Return the same: the ids of such a log are its own."""
        return after

    async def try_poll(self, poller: Poller[T]) -> PythpeerError | None:
        """Fetch unread items into the log. Returns an error as a value."""
        permit = await self._begin(Priority.POLL)
        poller.in_flight = True
        try:
            error = await self._try_read_or_recover(poller.log, permit, poller.attempt)
        finally:
            permit.close()
            self._idle.set()
        if error is None:
            poller.confirm(poller.min_position, full=False)
        return error

    async def fetch(self, log: Log[T]) -> tuple[T, ...]:
        """Fetch for a direct call. Returns also the items that earlier calls could not return."""
        permit = await self._begin(Priority.CALL, self._caller.max_wait)
        try:
            return await self._fetch_direct(log, permit)
        finally:
            permit.close()
            self._idle.set()

    async def _begin(self, priority: Priority, max_wait: float = math.inf) -> Permit:
        """Wait until no read is in progress and there is a permit, and begin a read.

        The caller must close the permit and set `_idle`. No permit is held while another read is in
        progress: it would keep its token from a mail that is to be sent.
        """
        while True:
            await self._idle.wait()
            permit = await self._caller.acquire_permit(self._unread.endpoint, priority, max_wait)
            if self._idle.is_set():
                self._idle.clear()
                return permit
            permit.close()

    async def drain(self) -> None:
        """Wait until no read is in progress whose result must be stored."""
        await self._idle.wait()

    async def _fetch_direct(self, log: Log[T], permit: Permit) -> tuple[T, ...]:
        direct_reader = log.reader(DIRECT)
        previous = self._undelivered_after
        if previous is None:
            self._undelivered_after = max(
                await direct_reader.position() or 0, await log.max_acknowledged()
            )
        after = self._undelivered_after or 0
        error = await self._try_read_or_recover(log, permit)
        if error is not None:
            if not isinstance(error, OutcomeUnknownError):
                self._undelivered_after = previous  # nothing was fetched
            raise error
        entries = await direct_reader.read(after, sys.maxsize)
        direct_reader.ack(max([after, *(entry.id for entry in entries)]))
        await direct_reader.flush()
        self._undelivered_after = None
        return tuple(entry.item for entry in entries if entry.item is not None)

    async def _try_read_or_recover(
        self, log: Log[T], permit: Permit, attempt: int = 1
    ) -> PythpeerError | None:
        """Use *permit* for the history if a fetch was lost, else for the destructive read."""
        lost = await log.lost_fetches()
        if lost:
            return await self._try_recover(log, permit, lost, attempt)
        return await shielded(lambda: self._try_read_unread(log, permit, attempt))

    async def _try_read_unread(
        self, log: Log[T], permit: Permit, attempt: int
    ) -> PythpeerError | None:
        """Store a fetch intent, send the destructive read, and append its result."""
        intent = await log.begin_fetch(self._caller.timeout + INTENT_GRACE)
        try:
            result = await self._caller.try_once(self._unread, permit, attempt)
        except PythpeerError as error:
            result = error.with_traceback(None)  # the session was closed: nothing was sent
        if not isinstance(result, PythpeerError):
            entries = [self._new_entry(decoded) for decoded in result]
            await store_items(self._caller.hooks, self.name, log, entries, completes=[intent])
            return None
        if isinstance(result, OutcomeUnknownError):
            await log.lose_fetch(intent)
        else:
            await log.cancel_fetch(intent)  # nothing was sent, or the service rejected it
        return result

    def _new_entry(self, decoded: DecodedItem[T]) -> NewEntry[T]:
        if decoded.has_id:
            return NewEntry(decoded.item, identity=decoded.identity, max_copies=1)
        return NewEntry(
            decoded.item,
            identity=decoded.identity,
            as_duplicate=decoded.item and self._mark_recovered(decoded.item),
        )

    async def _try_recover(
        self, log: Log[T], permit: Permit, lost: Collection[int], attempt: int
    ) -> PythpeerError | None:
        """Read the history, and append what the log lacks of it: the results of *lost* fetches."""
        result = await self._caller.try_once(self._history, permit, attempt)
        if isinstance(result, PythpeerError):
            return result
        entries: list[NewEntry[T]] = []
        copies: Counter[str] = Counter()  # identical items may exist: the log must have as many
        for decoded in result:
            copies[decoded.identity] += 1
            entries.append(
                NewEntry(
                    decoded.item and self._mark_recovered(decoded.item),
                    identity=decoded.identity,
                    max_copies=copies[decoded.identity],
                    from_history=True,
                )
            )
        await store_items(self._caller.hooks, self.name, log, entries, completes=lost)
        return None
