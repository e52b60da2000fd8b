"""Destructive reads: reading what the service marks as read, without losing any of it.

Before such a read is sent, a fetch intent is stored in the log; the transaction that appends the
result completes it. If the result never arrives (a lost connection, a time-out, a damaged response,
a crash), the fetch is lost, and the next read asks for the whole history and appends what the log
lacks. While the history cannot be read, new items are fetched as usual, and the fetch stays lost.

The service may return an item that was appended from the history once more, as new. It may also
have another one that is equal. The history then counts them: the item is held back until it has
been read again. If it is not complete, so that it cannot count, the item is delivered and marked as
recovered, rather than dropped.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, Generic, NamedTuple, TypeVar

import anyio
import msgspec

from ..calls import Caller
from ..errors import (
    OutcomeUnknownError,
    PythpeerError,
    RateLimitedError,
    ResponseTooLargeError,
    SessionClosedError,
    StoreError,
)
from ..pacing.limiter import Permit
from ..pacing.queue import Priority
from ..retry import is_transient
from ..stores.base import DIRECT, Log, NewEntry
from ..wire.request import Request
from .poller import EndpointSource, Poller, loop_time, store_items

__all__ = ["DecodedItem", "DestructiveSource", "Reads", "fetch_timeout"]

logger: Final = logging.getLogger("pythpeer.streams")

T = TypeVar("T")

PIECE_SIZE: Final = 1000
"""Items that are appended to the log or read from it at a time; after each piece other tasks run.
That of a usual response is its only one."""

INTENT_GRACE: Final = 1.0
"""Seconds after the time limit of a read in which its result can still reach the log. After that
another process may treat the fetch as lost."""

HISTORY_INTERVAL: Final = 600.0
"""Seconds after which a history is requested again that is too large or has failed permanently."""

HISTORY_ATTEMPTS: Final = 5
"""Consecutive transient failures of the history after which new items are fetched first."""

HISTORY_DELAY: Final = 10.0
"""Seconds after which it is requested again then; doubled for each further failure."""

MAX_INTENT: Final = 86400.0
"""Seconds for which a fetch intent is valid at most, where the time limit is longer or infinite."""

MAX_DRAIN: Final = 300.0
"""Seconds for which closing the session waits for a read at most, where the time limit is longer or
infinite."""


def fetch_timeout(timeout: float) -> float:
    """Return the seconds within which a read is over whose time limit is *timeout*."""
    return min(timeout, MAX_INTENT) + INTENT_GRACE


# Without garbage collection, like all that exists once for each item: a response can have 100,000
# items, and looking through them all keeps the event loop busy. They cannot refer to themselves.
class DecodedItem(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """One item of a response."""

    item: T | None
    """``None`` if it could not be decoded."""

    identity: str
    """What distinguishes it from other items: a digest of all its content except the read mark."""

    has_id: bool
    """Whether the content includes an id, so that two items of one identity are the same item."""


class Reads(NamedTuple, Generic[T]):
    """The two requests of a source. Their endpoints may have a time limit of their own."""

    unread: Request[tuple[DecodedItem[T], ...]]
    """The destructive read."""

    history: Request[tuple[DecodedItem[T], ...]]
    """The harmless read of everything."""


class _Outcome(NamedTuple):
    """What a read has achieved."""

    error: PythpeerError | None = None
    """Its error; ``None`` if it has none that its caller must handle."""

    fetched: bool = False
    """Whether its items are in the log."""

    complete: bool = False
    """Whether nothing is missing: no item is held back, and the history was not skipped."""


class _Unstored(Generic[T]):
    """What is not in the log yet of the result of a destructive read."""

    __slots__ = ("has_failed", "intent", "log", "pieces")

    def __init__(self, log: Log[T], intent: int, result: Sequence[DecodedItem[T]]) -> None:
        self.log: Final = log
        """The log for it."""
        self.intent: Final = intent
        """Its fetch intent."""
        starts = range(0, max(1, len(result)), PIECE_SIZE)
        self.pieces: Final = deque(result[start : start + PIECE_SIZE] for start in starts)
        """What is to be appended. `_store_piece` removes the first one."""
        self.has_failed = False
        """Whether the append of a piece failed, and the log repeats it: then it is not known which
        of its items are to be held back. Set by `_store_piece`."""


class DestructiveSource(EndpointSource[T]):
    """Polls the destructive read of *reads*; after a lost fetch, the history, which has all.

    *mark_recovered* returns a copy of an item that is marked as possibly delivered before.
    """

    # Invariants: `_read` is the only destructive read in progress, if there is one. Its task ends
    # by itself within the time limit, so its callers can be cancelled at any time. `_direct` is
    # held by a direct call until it has its items, so that no two calls return the same ones.

    def __init__(
        self,
        caller: Caller,
        reads: Reads[T],
        *,
        mark_recovered: Callable[[T], T],
    ) -> None:
        super().__init__(caller, reads.unread.endpoint.name)
        self._poll_reads = reads
        """The requests of polls."""
        self._reads = reads
        """The requests of the read in progress, or of the last one. Set by `_start`."""
        self._mark_recovered = mark_recovered
        """Returns a marked copy of an item."""
        self._read: asyncio.Task[_Outcome] | None = None
        """The read in progress. `_start` sets it, and its end resets it."""
        self._direct = asyncio.Lock()
        """Held by the direct call in progress."""
        self._undelivered_after: int | None = None
        """The position after which a direct call has fetched items without returning them; ``None``
        if there are none. Set and reset by `_fetch_direct` only."""
        self._held: list[DecodedItem[T]] = []
        """The items that the history has to count, in their order. Their fetches count as lost."""
        self._history_due = 0.0
        """Loop time before which the history is not requested. Changed by `_history_failed`, and
        when the service works again."""
        self._history_failures = 0
        """Consecutive failures of the history."""
        self._history_may_recover = False
        """Whether its last failure was transient."""
        self._history_warned = -HISTORY_INTERVAL
        """Loop time of the last warning that it cannot be read."""
        self._unread_failed = False
        """Whether the last destructive read since the history was last skipped failed."""
        self._unstored: _Unstored[T] | None = None
        """The last result, until all of it is appended to the log."""
        self._last_ids: frozenset[str] = frozenset()
        """The identities with an id in the last result of a destructive read."""
        self._repeated: frozenset[str] = frozenset()
        """Those of them that were in the result before as well: the service has repeated them."""
        self._others_checked = False
        """Whether the logs of other accounts were looked at. Set by `_report_others`."""

    async def initial_position(self, log: Log[T]) -> int | None:
        """Return the highest acknowledged position: a new stream gets what no stream has had."""
        return await log.max_acknowledged()

    async def try_poll(self, poller: Poller[T]) -> PythpeerError | None:
        """Fetch unread items into the log. Returns an error as a value.

        A read that is in progress, for instance for a caller that was cancelled, is waited for
        instead of sending another one. A history that is skipped is neither a success nor a
        failure: the destructive read follows it, and decides.
        """
        outcome = _Outcome()
        while not outcome.fetched and outcome.error is None:  # the history was skipped
            poller.in_flight = False
            read = self._read
            if read is None:
                permit = await self._caller.acquire_permit(
                    self._poll_reads.unread.endpoint, Priority.POLL
                )
                read = self._read
                if read is None:
                    read = self._start(poller, permit, self._poll_reads, poller.attempt)
                else:
                    permit.close()
            poller.in_flight = True
            outcome = await _result(read)
        if outcome.fetched:
            poller.confirm(poller.min_position, full=False)
        return outcome.error

    async def fetch(self, poller: Poller[T], reads: Reads[T]) -> tuple[T, ...]:
        """Fetch by *reads*, for a direct call.

        Returns also the items that earlier calls could not return. Raises `RateLimitedError` if
        other direct calls take longer than the longest wait for a token.
        """
        await self._wait_for_direct_calls()
        try:
            return await self._fetch_direct(poller, reads)
        finally:
            self._direct.release()

    async def _wait_for_direct_calls(self) -> None:
        max_wait = self._caller.max_wait
        with anyio.move_on_after(max_wait):
            await self._direct.acquire()
            return
        limit = self._time_limit()
        raise RateLimitedError(
            "other calls for unread mail take longer than max_wait",
            endpoint=self.name,
            retry_after=limit if limit < math.inf else None,
        )

    async def drain(self) -> None:
        """Wait until the read in progress is over and stored, at most for its time limit.

        Then wait until the direct call in progress has its items.
        """
        if self._read is not None:
            limit = min(self._time_limit(), MAX_DRAIN) + INTENT_GRACE
            _, pending = await asyncio.wait([self._read], timeout=limit)
            if pending:
                return  # closing its connection ends it
        async with self._direct:
            pass
        with suppress(StoreError):  # its fetch is lost then, and is recovered later
            await self._store_remaining()

    def _time_limit(self) -> float:
        """Return the time limit of the read in progress, in seconds."""
        own = self._reads.unread.endpoint.timeout
        return self._caller.timeout if own is None else own

    async def _fetch_direct(self, poller: Poller[T], reads: Reads[T]) -> tuple[T, ...]:
        direct_reader = poller.log.reader(DIRECT)
        previous = after = self._undelivered_after
        if after is None:
            after = max(await direct_reader.position() or 0, await poller.log.max_acknowledged())
        has_fetched = False
        outcome = _Outcome()
        while not outcome.complete:
            permit = await self._acquire_direct()
            self._undelivered_after = after
            outcome = await _result(self._start(poller, permit, reads))
            has_fetched = has_fetched or outcome.fetched
            if outcome.error is not None and has_fetched:
                break  # what is held back is returned by a later call
            if outcome.error is not None:
                if not isinstance(outcome.error, OutcomeUnknownError):
                    self._undelivered_after = previous  # nothing was fetched
                raise copy.copy(outcome.error)  # a poll may raise it, too
        items: list[T] = []
        is_last = False
        while not is_last:
            entries = await direct_reader.read(after, PIECE_SIZE)
            items += (entry.item for entry in entries if entry.item is not None)
            after = entries[-1].id if entries else after
            is_last = len(entries) < PIECE_SIZE
            if not is_last:
                await asyncio.sleep(0)
        direct_reader.ack(after)
        await direct_reader.flush()
        self._undelivered_after = None
        return tuple(items)

    async def _acquire_direct(self) -> Permit:
        """Wait until no read is in progress and there is a permit.

        No permit is held while a read is in progress: it would keep its token from a mail that is
        to be sent.
        """
        while True:
            if self._read is not None:
                await asyncio.wait([self._read])
            permit = await self._caller.acquire_permit(
                self._poll_reads.unread.endpoint, Priority.CALL, self._caller.max_wait
            )
            if self._read is None:
                return permit
            permit.close()

    def _start(
        self, poller: Poller[T], permit: Permit, reads: Reads[T], attempt: int = 1
    ) -> asyncio.Task[_Outcome]:
        """Start a read, which closes *permit*. Its task outlives the caller, not the session."""
        self._reads = reads
        read = asyncio.ensure_future(self._try_read(poller, permit, attempt))
        self._read = read
        read.add_done_callback(lambda _: self._ended(permit))
        return read

    def _ended(self, permit: Permit) -> None:
        self._read = None
        permit.close()  # still open if the store failed, or the task never ran

    async def _try_read(self, poller: Poller[T], permit: Permit, attempt: int) -> _Outcome:
        """Use *permit* for the history if it is needed and due, else for the destructive read."""
        try:
            if poller.closed:
                return _Outcome(SessionClosedError("the session was closed", endpoint=self.name))
            await self._store_remaining()
            await self._report_others(poller.log)
            lost = await poller.log.lost_fetches()
            if not (lost or self._held):
                poller.recovery_error = None  # another session may have recovered it
            if (lost or self._held) and loop_time() >= self._history_due:
                return await self._try_recover(poller, permit, lost, attempt)
            poller.bypassed = False
            return await self._try_read_unread(poller.log, permit, attempt)
        except PythpeerError as error:  # of the store
            return _Outcome(error.with_traceback(None))

    async def _report_others(self, log: Log[T]) -> None:
        """Log a WARNING, once, if items wait in the store that belong to another account.

        They are never returned here, because another key may be the key of another user.
        """
        if self._others_checked:
            return
        try:
            count = await log.unacknowledged_of_others()
        except StoreError as error:  # of the log of another account: mail is still read
            self._others_checked = not error.transient
            return
        self._others_checked = True
        if count:
            logger.warning(
                "%s: mail in the store was fetched with another personal key and never "
                "acknowledged (%d); only a session with that key delivers it (all_mail() lists it, "
                "if this key is of the same account)",
                self.name,
                count,
                extra={"endpoint": self.name, "count": count},
            )

    async def _try_read_unread(self, log: Log[T], permit: Permit, attempt: int) -> _Outcome:
        """Store a fetch intent, send the destructive read, and append its result."""
        intent = await log.begin_fetch(fetch_timeout(self._time_limit()))
        try:
            result = await self._caller.try_once(self._reads.unread, permit, attempt)
        except PythpeerError as error:
            result = error.with_traceback(None)  # the session was closed: nothing was sent
        if isinstance(result, PythpeerError):
            self._unread_failed = True
            if isinstance(result, OutcomeUnknownError):
                await log.lose_fetch(intent)
            else:
                await log.cancel_fetch(intent)  # nothing was sent, or the service rejected it
            return _Outcome(result)
        if self._unread_failed and self._history_may_recover:
            self._history_due = 0.0  # the service works again
        self._unread_failed = False
        ids = frozenset([decoded.identity for decoded in result if decoded.has_id])
        self._repeated, self._last_ids = ids & self._last_ids, ids
        self._unstored = _Unstored(log, intent, result)
        return await self._store_unread(self._unstored)

    async def _store_remaining(self) -> None:
        """Append the last result if the store failed before, unless the store does it itself."""
        if self._unstored is not None:
            await self._store_unread(self._unstored)

    async def _store_unread(self, unstored: _Unstored[T]) -> _Outcome:
        """Append the result of a destructive read, and hold back what the history has to count.

        The fetch of an item that is held back counts as lost, so that a later process, which does
        not have the item, requests the history as well.
        """
        log, intent = unstored.log, unstored.intent
        is_empty = not unstored.pieces[0]
        while len(unstored.pieces) > 1:
            await self._store_piece(unstored)
            await asyncio.sleep(0)
        await self._store_piece(unstored)
        if self._held and loop_time() < self._history_due:  # it is not readable
            await self._store_all(log, self._uncounted(self._held))
            self._held.clear()
        if self._held or unstored.has_failed:
            await log.lose_fetch(intent)
        elif not is_empty:
            await log.append((), completes=(intent,))
        return _Outcome(fetched=True, complete=not self._held)

    async def _store_piece(self, unstored: _Unstored[T]) -> None:
        """Append the first piece of a result. If it is empty, the fetch intent is completed."""
        log, piece = unstored.log, unstored.pieces[0]
        entries = [_only_new(decoded) for decoded in piece]
        try:
            new = await self._store(log, entries, () if piece else (unstored.intent,))
        except StoreError:
            if log.keeps_failed_appends:
                unstored.has_failed = True
                self._remove_piece(unstored)
            raise
        self._remove_piece(unstored)
        added = set(map(id, new))
        self._held += [
            decoded for decoded, entry in zip(piece, entries, strict=True) if id(entry) not in added
        ]

    def _remove_piece(self, unstored: _Unstored[T]) -> None:
        unstored.pieces.popleft()
        if not unstored.pieces:
            self._unstored = None

    async def _try_recover(
        self, poller: Poller[T], permit: Permit, lost: Collection[int], attempt: int
    ) -> _Outcome:
        """Read the history, and append what the log lacks of it: the results of *lost* fetches."""
        log = poller.log
        result = await self._caller.try_once(self._reads.history, permit, attempt)
        if isinstance(result, PythpeerError):
            return self._history_failed(poller, result)
        self._history_succeeded(poller)
        entries = self._history_entries(result)
        if self._held and not await _has_all_seen(log, result):
            new = await self._store_all(log, entries)
            added = Counter(entry.identity for entry in new)
            entries = self._uncounted(
                [held for held in self._held if not _take_one(added, held.identity)]
            )
        await self._store_all(log, entries, lost)
        self._held.clear()
        poller.bypassed = True
        return _Outcome(fetched=True, complete=True)

    def _history_failed(self, poller: Poller[T], error: PythpeerError) -> _Outcome:
        """Return a transient error; after too many, or any other one, skip the history for now."""
        now = loop_time()
        self._history_failures += 1
        self._history_may_recover = is_transient(error) and not isinstance(
            error, ResponseTooLargeError
        )
        if self._history_may_recover and self._history_failures < HISTORY_ATTEMPTS:
            return _Outcome(error)
        delay = HISTORY_INTERVAL
        if self._history_may_recover:
            doublings = min(self._history_failures - HISTORY_ATTEMPTS, 10)
            delay = min(delay, HISTORY_DELAY * 2.0**doublings)
        self._history_due = now + delay
        self._unread_failed = False
        poller.recovery_error = type(error).__name__
        if now >= self._history_warned + HISTORY_INTERVAL:
            self._history_warned = now
            logger.warning(
                "%s; what a lost response contained is recovered when the history can be read, "
                "and new items are read until then%s",
                error,
                " (max_body limits its size)" if isinstance(error, ResponseTooLargeError) else "",
                extra={"endpoint": self.name, "error": poller.recovery_error},
            )
        return _Outcome()

    def _history_succeeded(self, poller: Poller[T]) -> None:
        self._history_failures = 0
        self._history_warned = -HISTORY_INTERVAL
        if poller.recovery_error is not None:
            poller.recovery_error = None
            logger.info("%s: the history was read again", self.name, extra={"endpoint": self.name})

    def _history_entries(self, result: Sequence[DecodedItem[T]]) -> Iterator[NewEntry[T]]:
        """Yield an entry for each item of the history, which has as many of each as there are.

        The log appends the last ones of equal items, as many as it lacks. The first of these are
        held back, and are new: they came from a destructive read.
        """
        remaining = Counter([decoded.identity for decoded in result])
        held: defaultdict[str, deque[DecodedItem[T]]] = defaultdict(deque)
        for decoded in self._held:
            held[decoded.identity].append(decoded)
        copies: Counter[str] = Counter()
        for decoded in result:
            identity = decoded.identity
            copies[identity] += 1
            is_new = remaining[identity] <= len(held[identity])
            remaining[identity] -= 1
            item = held[identity].popleft().item if is_new else self._marked(decoded.item)
            yield NewEntry(
                item,
                identity=identity,
                max_copies=copies[identity],
                from_history=not is_new,
            )

    async def _store_all(
        self, log: Log[T], entries: Iterable[NewEntry[T]], completes: Collection[int] = ()
    ) -> Sequence[NewEntry[T]]:
        """Append *entries* in pieces, and complete fetch intents. Returns those that were new."""
        remaining = iter(entries)
        added: list[NewEntry[T]] = []
        while len(piece := list(islice(remaining, PIECE_SIZE))) == PIECE_SIZE:
            added += await self._store(log, piece)
            await asyncio.sleep(0)
        added += await self._store(log, piece, completes)
        return added

    async def _store(
        self, log: Log[T], entries: Sequence[NewEntry[T]], completes: Collection[int] = ()
    ) -> Sequence[NewEntry[T]]:
        hooks = self._caller.hooks
        return await store_items(hooks, self.name, log, entries, completes=completes) or ()

    def _uncounted(self, held: Sequence[DecodedItem[T]]) -> Iterator[NewEntry[T]]:
        """Yield entries for items that the history cannot count: they may be duplicates.

        Those that the service has only repeated are left out.
        """
        for decoded in held:
            item = self._marked(decoded.item)
            if decoded.identity not in self._repeated:
                yield NewEntry(item, identity=decoded.identity, as_duplicate=item)

    def _marked(self, item: T | None) -> T | None:
        return None if item is None else self._mark_recovered(item)


def _take_one(copies: Counter[str], identity: str) -> bool:
    """Take one of the *copies* of an identity. Returns whether there was one."""
    copies[identity] -= 1
    return copies[identity] >= 0


def _only_new(decoded: DecodedItem[T]) -> NewEntry[T]:
    """Return an entry that is appended only if it is certainly new."""
    return NewEntry(decoded.item, identity=decoded.identity, max_copies=1 if decoded.has_id else 0)


async def _has_all_seen(log: Log[T], history: Sequence[DecodedItem[T]]) -> bool:
    """Return whether the history has all items that the log has seen, so that it can count them."""
    seen = await log.copies()
    if seen is None:
        return False
    copies = Counter([decoded.identity for decoded in history])
    return all(copies[identity] >= count for identity, count in seen.items())


async def _result(read: asyncio.Task[_Outcome]) -> _Outcome:
    """Wait for a read, which continues if the caller is cancelled."""
    await asyncio.wait([read])
    return read.result()
