"""Destructive reads: reading what the service marks as read, without losing any of it.

Before such a read is sent, a fetch intent is stored in the log; the transaction that appends the
result completes it. If the result never arrives (a lost connection, a time-out, a damaged response,
a crash), the fetch is lost, and the next read asks for the whole history and appends what the log
lacks. An item that cannot be told apart from an earlier one is delivered again, and marked as
recovered, rather than dropped.
"""

from __future__ import annotations

import asyncio
import copy
import sys
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final, Generic, TypeVar

import msgspec

from ..calls import Caller
from ..errors import OutcomeUnknownError, PythpeerError, SessionClosedError
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

MAX_INTENT: Final = 86400.0
"""Seconds for which a fetch intent is valid at most, where the time limit is longer or infinite."""

MAX_DRAIN: Final = 300.0
"""Seconds for which closing the session waits for a read at most, where the time limit is longer or
infinite."""


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

    # Invariants: `_read` is the only destructive read in progress, if there is one. Its task ends
    # by itself within the time limit, so that its callers can be cancelled at any time. `_direct` is
    # held by a direct call until it has its items, so that no two calls return the same ones.

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
        self._read: asyncio.Task[PythpeerError | None] | None = None
        """The read in progress, whose result is its error. `_start` sets it, and its end resets
        it."""
        self._direct = asyncio.Lock()
        """Held by the direct call in progress."""
        self._undelivered_after: int | None = None
        """The position after which a direct call has fetched items without returning them; ``None``
        if there are none. Set and reset by `_fetch_direct` only."""

    async def initial_position(self, log: Log[T]) -> int | None:
        """Return the highest acknowledged position: a new stream gets what no stream has had."""
        return await log.max_acknowledged()

    async def try_poll(self, poller: Poller[T]) -> PythpeerError | None:
        """Fetch unread items into the log. Returns an error as a value.

        A read that is in progress, for instance for a caller that was cancelled, is waited for
        instead of sending another one.
        """
        read = self._read
        if read is None:
            permit = await self._caller.acquire_permit(self._unread.endpoint, Priority.POLL)
            read = self._read
            if read is None:
                read = self._start(poller, permit, poller.attempt)
            else:
                permit.close()
        poller.in_flight = True
        error = await _result(read)
        if error is None:
            poller.confirm(poller.min_position, full=False)
        return error

    async def fetch(self, poller: Poller[T]) -> tuple[T, ...]:
        """Fetch for a direct call. Returns also the items that earlier calls could not return."""
        async with self._direct:
            return await self._fetch_direct(poller)

    async def drain(self) -> None:
        """Wait until the read in progress is over and stored, at most for its time limit.

        Then wait until the direct call in progress has its items.
        """
        if self._read is not None:
            limit = min(self._caller.timeout, MAX_DRAIN) + INTENT_GRACE
            _, pending = await asyncio.wait([self._read], timeout=limit)
            if pending:
                return  # closing its connection ends it
        async with self._direct:
            pass

    async def _fetch_direct(self, poller: Poller[T]) -> tuple[T, ...]:
        direct_reader = poller.log.reader(DIRECT)
        permit = await self._acquire_direct()
        try:
            previous = self._undelivered_after
            after = previous
            if after is None:
                after = max(
                    await direct_reader.position() or 0, await poller.log.max_acknowledged()
                )
            while self._read is not None:  # a poll has started meanwhile
                permit.close()
                permit = await self._acquire_direct()
            self._undelivered_after = after
            read = self._start(poller, permit)
        except BaseException:
            permit.close()
            raise
        error = await _result(read)
        if error is not None:
            if not isinstance(error, OutcomeUnknownError):
                self._undelivered_after = previous  # nothing was fetched
            raise copy.copy(error)  # a poll may raise it, too
        entries = await direct_reader.read(after, sys.maxsize)
        direct_reader.ack(max([after, *(entry.id for entry in entries)]))
        await direct_reader.flush()
        self._undelivered_after = None
        return tuple(entry.item for entry in entries if entry.item is not None)

    async def _acquire_direct(self) -> Permit:
        """Wait until no read is in progress and there is a permit.

        No permit is held while a read is in progress: it would keep its token from a mail that is
        to be sent.
        """
        while True:
            if self._read is not None:
                await asyncio.wait([self._read])
            permit = await self._caller.acquire_permit(
                self._unread.endpoint, Priority.CALL, self._caller.max_wait
            )
            if self._read is None:
                return permit
            permit.close()

    def _start(
        self, poller: Poller[T], permit: Permit, attempt: int = 1
    ) -> asyncio.Task[PythpeerError | None]:
        """Start a read, which closes *permit*. Its task outlives the caller, not the session."""
        read = asyncio.ensure_future(self._try_read(poller, permit, attempt))
        self._read = read
        read.add_done_callback(lambda _: self._ended(permit))
        return read

    def _ended(self, permit: Permit) -> None:
        self._read = None
        permit.close()  # still open if the store failed, or the task never ran

    async def _try_read(
        self, poller: Poller[T], permit: Permit, attempt: int
    ) -> PythpeerError | None:
        """Use *permit* for the history if a fetch was lost, else for the destructive read."""
        log = poller.log
        try:
            if poller.closed:
                return SessionClosedError("the session was closed", endpoint=self.name)
            lost = await log.lost_fetches()
            if lost:
                return await self._try_recover(log, permit, lost, attempt)
            return await self._try_read_unread(log, permit, attempt)
        except PythpeerError as error:  # of the store
            return error.with_traceback(None)

    async def _try_read_unread(
        self, log: Log[T], permit: Permit, attempt: int
    ) -> PythpeerError | None:
        """Store a fetch intent, send the destructive read, and append its result."""
        intent = await log.begin_fetch(min(self._caller.timeout, MAX_INTENT) + INTENT_GRACE)
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


async def _result(read: asyncio.Task[PythpeerError | None]) -> PythpeerError | None:
    """Wait for a read, which continues if the caller is cancelled."""
    await asyncio.wait([read])
    return read.result()
