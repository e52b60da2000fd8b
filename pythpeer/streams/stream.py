"""Streams: async iterators over the items of a log; each reports its deliveries to hooks.

A stream does no HTTP. It reads its log from its position, and asks its poller for more when the
log has nothing after that position.
"""

from __future__ import annotations

import abc
import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Final, Generic, Literal, Self, TypeVar

from ..errors import GapError, InvalidRequestError, StoreError
from ..health import StreamHealth, utc_now
from ..hooks import DeliveryEvent
from ..misuse import AsyncContextOnly, AsyncIterationOnly, tolerant_repr
from ..retry import is_transient
from ..stores.base import Entry
from ..stores.ids import first_position, service_id
from ..validation import check_integer, check_text
from .gaps import Gap
from .guard import ResourceGuard
from .poller import Cursor, Poller

__all__ = ["BATCH_SIZE", "MAX_GAPS", "OnGap", "Stream"]

logger: Final = logging.getLogger("pythpeer.streams")

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

BATCH_SIZE: Final = 100
"""Entries that a stream reads from its log at a time."""

MAX_BATCHES: Final = 10
"""Full batches in a row after which a stream lets other tasks run: reading a store in memory does
not wait for anything."""

MAX_GAPS: Final = 1000
"""How many gaps a stream keeps; older ones are dropped."""

OnGap = Literal["log", "raise"]
"""What a stream does about a gap: log it and continue, or also raise `GapError` once."""


class _Mergeable(abc.ABC, Generic[T_co]):
    """What a merged stream needs from each of its streams. Internal: users never call it."""

    busy: bool
    """Whether a task iterates over the stream at this moment; set by `ResourceGuard` only."""

    @property
    @abc.abstractmethod
    def is_ready(self) -> bool:
        """Whether `pop` returns an item, or raises for a gap, without waiting."""

    @property
    @abc.abstractmethod
    def has_ended(self) -> bool:
        """Whether the stream returns no more items: it was closed, or its session is stopping."""

    @property
    @abc.abstractmethod
    def in_flight(self) -> bool:
        """Whether a request for this stream has been sent, which a cancellation would waste."""

    @abc.abstractmethod
    async def fill(self) -> None:
        """Wait until the stream is ready or has ended. Raises an error that is permanent."""

    @abc.abstractmethod
    def pop(self) -> T_co:
        """Return the next item. Raises `GapError`, or ``StopAsyncIteration`` without an item."""

    @abc.abstractmethod
    def acknowledge(self) -> None:
        """Acknowledge the item that was popped last, unless it is, or the stream was closed."""

    @abc.abstractmethod
    async def store_acknowledged(self) -> None:
        """Wait until that is stored, where the store could not do it immediately."""


class Stream(_Mergeable[T_co], AsyncIterationOnly, AsyncContextOnly):
    """Items of one kind as they arrive, in order: ``async for item in stream``.

    One stream returns each item once; delivery to a name is at least once, as follows.

    An item is acknowledged when the next one is requested, or by `ack`. Leaving the loop and
    `aclose` do not acknowledge it: a later stream of the same name returns that item again.
    Cancelling the wait for an item loses nothing. Transient failures are retried after a back-off;
    any other error (for example a rejected key) is raised, and raised again at the next request.
    The loop ends when the stream was closed, or after `Session.stop`: then the item returned last
    is acknowledged.

    A stream is used by one task at a time; another task gets an `InvalidRequestError`.
    """

    # Invariants: the buffer is filled only while it is empty, with ids in ascending order, none
    # above the cursor's position. `_unacked` is the id of the item returned last, or None; every
    # item before it is acknowledged. A closed stream has an empty buffer and never fills it again.

    def __init__(
        self,
        poller: Poller[T_co],
        *,
        after: int | None = None,
        name: str | None = None,
        on_gap: OnGap = "log",
    ) -> None:
        self._after = None if after is None else check_integer("after", after, 0)
        """The position that the user gave, ``None`` without one. Never changes."""
        self._name = None if name is None else check_text("name", name, 200)
        """The name under which the store keeps the position, ``None`` without one."""
        if on_gap not in ("log", "raise"):
            raise InvalidRequestError('on_gap must be "log" or "raise"')
        self._on_gap = on_gap
        """What to do about a gap. Never changes."""
        self._poller = poller
        """Polls for this stream, and for all others of the same log."""
        self._reader = poller.log.reader(name)
        """Reads entries from the log, and stores what was acknowledged."""
        self._cursor = Cursor()
        """How far entries have been read into the buffer; the poller changes it too."""
        self._started = False
        """Whether the initial position is known and stored; set once, by `_init_position`."""
        self._buffer: deque[tuple[int, T_co]] = deque()
        """Items that were read and not returned yet, with their ids. `_ingest` appends."""
        self._full_batches = 0
        """Full batches that were read in a row. Changed by `_read_batch`."""
        self._unacked: int | None = None
        """The id of the item returned last, until it is acknowledged; ``None`` otherwise."""
        self._acknowledged: int | None = None
        """The id acknowledged last; the initial position at first, ``None`` before that."""
        self.busy = False
        self._closed = False
        """Whether `aclose` was called."""
        self._gaps: deque[Gap] = deque(maxlen=MAX_GAPS)
        """The latest gaps, for `gaps`."""
        self._pending_gaps: deque[tuple[int, Gap]] = deque()
        """Gaps for which `GapError` is still to be raised, in order, each with the id of the entry
        after it."""
        self._restarts = 0
        """How often an entry was the first of a new numbering."""
        self._undecodable = 0
        """Undecodable entries that were read from the log."""
        self._skipped_base = poller.skipped
        """The poller's count of undecodable items without an id when the stream was made."""
        poller.streams[self] = None

    # -- what users call --------------------------------------------------------------------------

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The latest 1000 gaps, in order: the service may have had more than it could show."""
        return tuple(self._gaps)

    @property
    def restarts(self) -> int:
        """How often the service has started its ids anew while this stream followed it."""
        return self._restarts

    @property
    def skipped(self) -> int:
        """How many items were skipped because they could not be decoded."""
        return self._undecodable + self._poller.skipped - self._skipped_base

    def health(self) -> StreamHealth:
        """Return the state of the stream at this moment. Sends no request and reads no store."""
        poller, now = self._poller, utc_now()
        seconds_to_poll = poller.next_poll
        next_poll = None
        if seconds_to_poll is not None:
            next_poll = now + timedelta(seconds=seconds_to_poll)
        position = self._acknowledged if self._unacked is None else self._unacked
        # Undecodable entries count as read too, once no item before them is left in the buffer.
        read_up_to = position if self._buffer else self._cursor.position
        return StreamHealth(
            endpoint=poller.source.name,
            name=self._name,
            closed=self._closed or poller.closed,
            last_success=poller.outcomes.last_success,
            failures=poller.outcomes.failures,
            last_error=poller.outcomes.last_error,
            failing_since=poller.outcomes.failing_since,
            recovery_error=poller.recovery_error,
            polling=poller.in_flight,
            next_poll=next_poll,
            cursor=None if position is None else service_id(position),
            lag=0 if read_up_to is None else poller.lag(read_up_to),
            gaps=len(self._gaps),
            restarts=self._restarts,
            skipped=self.skipped,
        )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        poller = self._poller
        if self.busy or self._closed or poller.closed or poller.stop.made or not self._buffer:
            with ResourceGuard(self):
                if not self._closed:
                    poller.ensure_open()
                self.acknowledge()
                await self.store_acknowledged()
                await self.fill()
                if self.has_ended:
                    raise StopAsyncIteration
                return self.pop()
        # The buffer has an item: no other task can run before it is returned, so no guard.
        self.acknowledge()
        if self._reader.is_behind:
            with ResourceGuard(self):
                await self.store_acknowledged()
            if self.has_ended:
                raise StopAsyncIteration
        return self.pop()

    async def ack(self) -> None:
        """Acknowledge the item returned last; on return that is stored."""
        self._acknowledge_last()
        await self._reader.flush()

    async def aclose(self) -> None:
        """Close the stream. The item returned last stays unacknowledged. Idempotent."""
        if not self._closed:
            self._closed = True
            self._buffer.clear()
            self._poller.streams.pop(self, None)
            if not self._poller.closed:  # a closing session stores it, and its store may be closed
                await self._reader.leave()

    async def __aenter__(self) -> Self:
        """Find the initial position, so that the stream returns all that arrives from now on."""
        with ResourceGuard(self):
            self._poller.ensure_open()
            with self._poller.stop.ends_wait():
                while not self.has_ended and not await self._retrying(self._init_position):
                    self._poller.ensure_open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @tolerant_repr
    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        state = "closed" if self._closed else f"at {self._cursor.position}"
        return f"<Stream of {self._poller.source.name}{name}, {state}>"

    # -- what merging calls -----------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Internal, for `merge`."""
        return bool(self._buffer) and not self.has_ended

    @property
    def has_ended(self) -> bool:
        """Internal, for `merge`."""
        return self._closed or self._poller.stop.made

    @property
    def in_flight(self) -> bool:
        """Internal, for `merge`."""
        return self._poller.in_flight

    async def fill(self) -> None:
        """Internal, for `merge`."""
        with self._poller.stop.ends_wait():
            while not self._buffer and not self.has_ended:
                self._poller.ensure_open()
                await self._retrying(self._read_or_poll)

    def pop(self) -> T_co:
        """Internal, for `merge`."""
        if self._pending_gaps and self._pending_gaps[0][0] <= self._buffer[0][0]:
            _, gap = self._pending_gaps.popleft()
            raise GapError(
                f"messages may be missing between {gap.after} and {gap.before}",
                endpoint=self._poller.source.name,
                after=gap.after,
                before=gap.before,
            )
        self._unacked, item = self._buffer.popleft()
        return item

    def acknowledge(self) -> None:
        """Internal, for `merge`."""
        if not self._closed:
            self._acknowledge_last()

    def _acknowledge_last(self) -> None:
        if self._unacked is not None:
            self._reader.ack(self._unacked)
            self._acknowledged, self._unacked = self._unacked, None

    async def store_acknowledged(self) -> None:
        """Internal, for `merge`."""
        while self._reader.is_behind and not self.has_ended:
            self._poller.ensure_open()
            await self._retrying(self._reader.flush)

    # -- how it works -----------------------------------------------------------------------------

    async def _init_position(self) -> None:
        """Find the initial position, and store it for a stream with a name."""
        if self._started or self._closed:
            return
        cursor = self._cursor
        if cursor.position is None and self._after is None:
            cursor.position = await self._reader.position()
        if cursor.position is None and self._after is None:
            cursor.position = await self._poller.source.initial_position(self._poller.log)
            cursor.may_be_incomplete = cursor.position is None
        if self._after is not None:
            cursor.position = await self._position_after(self._after)
        while cursor.position is None:
            await self._poller.wait_for_more(cursor)
        await self._log_if_volatile()
        if self._after is None:
            await self._reader.seek_if_new(cursor.position)
        else:
            await self._reader.seek(cursor.position)
        self._acknowledged = cursor.position
        self._started = True

    async def _log_if_volatile(self) -> None:
        """Log that the position is lost with the program, if its name is new to such a store."""
        if self._name is None or self._poller.log.outlasts_program:
            return
        if await self._reader.position() is None:
            endpoint = self._poller.source.name
            logger.info(
                "%s: the position of %r is lost when the program ends; to keep it, set "
                'PYTHPEER_STORE=bot.sqlite, or pass store=SqliteStore("bot.sqlite")',
                endpoint,
                self._name,
                extra={"endpoint": endpoint, "stream": self._name},
            )

    async def _position_after(self, after: int) -> int:
        """Return the position after a user's id, which may need a poll."""
        poller, cursor = self._poller, self._cursor
        while (position := await poller.source.position_after(poller.log, after)) is None:
            cursor.position = None
            await poller.wait_for_more(cursor)
            cursor.may_be_incomplete = True
        return position

    async def _read_or_poll(self) -> None:
        """Read entries from the log into the buffer, or wait for a poll where there are none."""
        await self._init_position()
        entries = await self._read_batch(self._cursor.position or 0)
        if self._reader.group_position is not None:
            self._cursor.position = self._reader.group_position
        if not self._ingest(entries):
            await self._poller.wait_for_more(self._cursor)

    async def _read_batch(self, position: int) -> Sequence[Entry[T_co]]:
        """Read the next entries of the log. Other tasks run first if this had many to read."""
        if self._full_batches == MAX_BATCHES:
            self._full_batches = 0
            await asyncio.sleep(0)
        entries = await self._reader.read(position, BATCH_SIZE)
        self._full_batches = self._full_batches + 1 if len(entries) == BATCH_SIZE else 0
        return entries

    async def _retrying(self, step: Callable[[], Awaitable[object]]) -> bool:
        """Run *step* once and return True, or back off after a transient error of the store."""
        try:
            await step()
        except StoreError as error:
            if not is_transient(error):
                raise
            failure = error.with_traceback(None)
        else:
            return True
        await self._poller.back_off(failure)
        return False

    def _ingest(self, entries: Iterable[Entry[T_co]]) -> bool:
        """Buffer *entries* up to the first break in their chain. Returns whether any was taken."""
        cursor = self._cursor
        before = position = cursor.position or 0
        for entry in entries:
            # A new numbering begins at its first position, wherever the one before has ended.
            start = max(position, first_position(entry.id))
            chain_broken = entry.after > start
            if chain_broken and not cursor.is_confirmed(start):
                cursor.may_be_incomplete = True
                self._poller.update_newest(entry.id)
                break  # entries are missing in between, and the service may still have them
            # after=0 asks for the oldest item available: no gap before it. Any other stream at 0
            # started when the chat was empty: items since then may be missing.
            counts_as_gap = service_id(position) > 0 or self._after is None
            if (chain_broken or entry.gap) and counts_as_gap and start < entry.id - 1:
                self._record_gap(start, entry.id)
            if start > position and service_id(position):
                self._restarts += 1
                self._poller.report_restart(entry.id)
            cursor.may_be_incomplete = False
            position = cursor.position = entry.id
            if entry.item is None:
                self._undecodable += 1
            else:
                self._buffer.append((entry.id, entry.item))
        self._poller.update_newest(position)
        if self._poller.hooks.delivery and position != before:
            self._emit_delivery()
        return position != before

    def _emit_delivery(self) -> None:
        """Notify the hooks of the items that were buffered."""
        poller, items = self._poller, len(self._buffer)
        lag = poller.lag(self._cursor.position or 0)
        event = DeliveryEvent(poller.source.name, self._name, items, lag)
        for listener in poller.hooks.delivery:
            listener(event)

    def _record_gap(self, position: int, id: int) -> None:
        """Record that items may be missing between a position and the entry *id*."""
        after, before = service_id(position), service_id(id)
        if after >= before - 1:
            return
        gap = Gap(after, before)
        self._gaps.append(gap)
        self._poller.report_gap(gap)
        if self._on_gap == "raise":
            self._pending_gaps.append((id, gap))
