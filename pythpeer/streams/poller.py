"""The poller behind streams: one poll at a time fills a log, for all streams that read the log.

There is no background task. The first stream that needs more entries polls for all (the leader),
the others wait for the end of that poll (the followers), and if the leader is cancelled a follower
takes over. Between sessions on one store a lease decides which session polls.
"""

from __future__ import annotations

import abc
import asyncio
import copy
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

import anyio

from ..calls import Caller, notify_retry
from ..errors import PythpeerError, SessionClosedError, StoreError, TransportError
from ..health import OutcomeTracker, StreamHealth
from ..hooks import GapEvent, Hooks, StoreEvent
from ..pacing.limiter import loop_clock
from ..retry import Retry, backoff, is_transient
from ..stores.base import Log, NewEntry, Store, Topic
from ..stores.ids import first_position, service_id
from .gaps import Gap
from .stopping import StopRequest

__all__ = [
    "Cursor",
    "EndpointSource",
    "PollSource",
    "Poller",
    "Pollers",
    "log_skipped",
    "loop_time",
    "store_items",
]

logger: Final = logging.getLogger("pythpeer.streams")

T = TypeVar("T")

LEASE: Final = 2.0
"""Seconds for which one session polls for all sessions that share its log."""

FAILING_LEASE: Final = 0.0
"""The same after a failed poll. It expires immediately, so that another session may poll instead:
the cause may be here, and if it is not, each session has to notice it."""

BASE_DELAY: Final = 1.0
"""Seconds that the first back-off takes at most; doubled for each further failure. Also the seconds
between two rounds after a permanent transport error."""

WARNING_INTERVAL: Final = 600.0
"""Seconds after which a failure that continues is logged again."""

MAX_REPORTED_GAPS: Final = 64
"""How many of the latest gaps a poller remembers, to log each of them once."""


class Cursor:
    """The position of one stream in the log, shared by the stream and its poller.

    The stream changes ``position`` while it reads. While the stream waits, the poller changes all
    three: it gives a new stream its position, and confirms the position after a poll.
    """

    __slots__ = ("confirmed_at", "may_be_incomplete", "position")

    def __init__(self) -> None:
        self.may_be_incomplete: bool = True
        """Whether the log may lack the entries right after the position."""

        self.position: int | None = None
        """The id of the last entry read from the log; ``None`` until the stream has a position."""

        self.confirmed_at: int | None = None
        """The position after which the service was last asked: an entry that the log lacks there
        is not available any more. For a stream in an earlier numbering than that of the request it
        is the first position of the latter."""

    def is_confirmed(self, position: int) -> bool:
        """Return whether the service has nothing more than the log directly after *position*."""
        if self.confirmed_at is None:
            return False
        is_earlier = first_position(position) < first_position(self.confirmed_at)
        return is_earlier or self.confirmed_at == position

    @property
    def needs_poll(self) -> bool:
        """Whether the stream needs a poll of this session; one of another would not help it."""
        return self.may_be_incomplete or self.position is None


def loop_time() -> float:
    """Return the time of the running event loop, in seconds."""
    return asyncio.get_running_loop().time()


async def store_items(
    hooks: Hooks,
    name: str,
    log: Log[T],
    entries: Sequence[NewEntry[T]],
    *,
    received: int | None = None,
    undecodable: int = 0,
    completes: Collection[int] = (),
    head: int | None = None,
) -> Sequence[NewEntry[T]] | None:
    """Append the result of a poll to the log, log what is undecodable, and notify the hooks.

    Returns what was new. If *head* is given and the log has another one, nothing happens, and the
    result is ``None``.

    *received* is how many items the response had, where that differs from the number of *entries*.
    *undecodable* is how many further items were undecodable and had no id. *completes* are the
    fetch intents that the append completes in the same transaction.
    """
    now = loop_clock(asyncio.get_running_loop())
    started = now()
    if head is None:
        added = await log.append(entries, completes=completes)
    else:
        appended = await log.append_at(head, entries)
        if appended is None:
            return None
        added = appended
    duration = now() - started
    added_undecodable = sum(entry.item is None for entry in added)
    log_skipped(name, added_undecodable)
    if hooks.store:
        if received is None:
            received = len(entries)
        event = StoreEvent(
            name,
            items=len(added) - added_undecodable,
            duplicates=received - len(added),
            skipped=added_undecodable + undecodable,
            duration=duration,
        )
        for listener in hooks.store:
            listener(event)
    return added


def log_skipped(name: str, count: int) -> None:
    """Log a WARNING if there are undecodable items of the endpoint *name*: one for all of them."""
    if count:
        items = "an item" if count == 1 else f"{count} items"
        extra = {"endpoint": name, "count": count}
        logger.warning("%s: skipped %s that cannot be decoded", name, items, extra=extra)


class PollSource(abc.ABC, Generic[T]):
    """What a poller polls: the requests of one topic."""

    name: str
    """The endpoint's name, for errors and log lines. Never changes."""

    async def initial_position(self, log: Log[T]) -> int | None:
        """Return the position of a new stream, or ``None`` where a poll has to find it."""
        return None

    async def position_after(self, log: Log[T], after: int) -> int | None:
        """Return the position after a user's id, or ``None`` where a poll has to come first.

        By default they are the same: the ids of the log are those of the service, or its own.
        """
        return after

    @abc.abstractmethod
    async def try_poll(self, poller: Poller[T]) -> PythpeerError | None:
        """Poll the service once and append the result to the log. Returns an error as a value.

        Sets ``poller.in_flight`` as soon as it has a token.
        """

    def forget_failures(self) -> None:
        """End the failures of earlier requests, because another session polls now."""

    async def drain(self) -> None:
        """Wait for what must still be stored while the session closes; by default nothing."""


class EndpointSource(PollSource[T]):
    """A source that polls an endpoint of a service."""

    def __init__(self, caller: Caller, name: str) -> None:
        self.name: str = name
        self._caller = caller
        """Gets tokens and sends requests."""

    def forget_failures(self) -> None:
        """End the failures of the endpoint: another session reads from it."""
        self._caller.outcomes[self.name].forget_failures()


class HasHealth(Protocol):
    """A stream, as far as its poller knows it."""

    def health(self) -> StreamHealth:
        """Return the state of the stream."""
        ...


class _PollRound:
    """One round of polling, and its result for all streams that wait for it."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = asyncio.Event()
        """Set by the leader when the round is over."""
        self.error: PythpeerError | None = None
        """The permanent error of the round. Set by the leader before ``done``."""


class _FailureBackoff:
    """Counts consecutive failures of one kind, with a back-off.

    Logs the first failure, one every `WARNING_INTERVAL`, and the recovery.
    """

    __slots__ = (
        "_endpoint",
        "_failures_in_all",
        "_max_delay",
        "_name",
        "_warn_at",
        "failures",
        "not_before",
    )

    def __init__(self, endpoint: str, name: str, max_delay: float) -> None:
        self._endpoint = endpoint
        """The endpoint's name, for the log record's fields."""
        self._name = name
        """What failed, for the log line."""
        self._max_delay = max_delay
        """Seconds of the longest back-off."""
        self.failures = 0
        """Consecutive failures; 0 after a success, and after `bypassed`."""
        self._failures_in_all = 0
        """Failures since the last success: those that the log lines state."""
        self.not_before = 0.0
        """Loop time before which nothing is tried again. Set by `failed`."""
        self._warn_at = 0.0
        """Loop time from which the next failure is logged again. Set by `failed`."""

    def failed(self, error: PythpeerError) -> float:
        """Count one more failure. Returns the back-off in seconds."""
        self.failures += 1
        self._failures_in_all += 1
        delay = backoff(self.failures, BASE_DELAY, self._max_delay)
        now = loop_time()
        self.not_before = now + delay
        if self._failures_in_all == 1 or now >= self._warn_at:
            self._warn_at = now + WARNING_INTERVAL
            extra = {
                "endpoint": self._endpoint,
                "error": type(error).__name__,
                "failures": self._failures_in_all,
            }
            logger.warning("%s; the stream keeps retrying", error, extra=extra)
        return delay

    def succeeded(self) -> bool:
        """End the series of failures. Returns whether there was one, whose end is logged."""
        failures = self._failures_in_all
        if failures:
            extra = {"endpoint": self._endpoint, "failures": failures}
            counted = f"{failures} failure{'' if failures == 1 else 's'}"
            logger.info("%s recovered after %s", self._name, counted, extra=extra)
        self.bypassed()
        self._failures_in_all = 0
        return failures > 0

    def bypassed(self) -> None:
        """End the back-off, not the series of failures: another request has worked instead."""
        self.failures = 0


class Poller(Generic[T]):
    """One session's polling of one log: one poll at a time, for any number of streams."""

    # Invariants: at most one round is in progress, and the stream that started it runs it (the
    # leader). A stream is in `_waiting` only during its `wait_for_more`. `newest` never decreases.
    # When no stream waits there is no round, and the lease is released.

    def __init__(
        self,
        source: PollSource[T],
        log: Log[T],
        retry: Retry,
        ensure_open: Callable[[], object] = lambda: None,
        hooks: Hooks | None = None,
        limiter_wait: Callable[[], float] = lambda: 0.0,
        stop: StopRequest | None = None,
    ) -> None:
        self.hooks: Final = hooks or Hooks()
        """The hooks of the session, which are notified of gaps, retries and stored items."""
        self.stop: Final = stop or StopRequest()
        """The session's request to end all streams."""
        self.outcomes: Final = OutcomeTracker()
        """The last success and the consecutive failures of the polls. `_try_poll_once` records."""
        self.streams: Final[WeakKeyDictionary[HasHealth, None]] = WeakKeyDictionary()
        """The open streams, oldest first. Each stream adds and removes itself."""
        self._limiter_wait = limiter_wait
        """Returns the seconds until the limiter has a token for a poll."""
        self._now: Callable[[], float] = time.monotonic
        """The clock; that of the event loop from the first poll on."""
        self.ensure_open = ensure_open
        """Raises `SessionClosedError` if the session is closed or in another event loop."""
        self.source = source
        """What is polled."""
        self.log = log
        """The log that polls append to."""
        self.skipped = 0
        """Undecodable items without an id, which no entry stands for. The source counts them."""
        self.recovery_error: str | None = None
        """Class of the error for which lost items cannot be recovered; ``None`` where there is
        none. The source changes it."""
        self.bypassed = False
        """Whether the last poll has only read what an earlier one has lost, so that its success
        does not end a series of failures. The source changes it."""
        self._service_failures = _FailureBackoff(source.name, source.name, retry.max_delay)
        """Consecutive failed polls."""
        self._store_failures = _FailureBackoff(
            source.name, f"{source.name}: the store", min(retry.max_delay, log.retry_interval)
        )
        """Consecutive failures of the store, of streams that read it as well."""
        self.newest: int = 0
        """The highest id known to this session; see `update_newest`."""
        self._waiting: dict[Cursor, None] = {}
        """The cursors of the streams that wait for entries, in the order in which they came."""
        self._round: _PollRound | None = None
        """The round in progress. Set and reset by its leader."""
        self.closed: bool = False
        """Whether the session was closed. A plain attribute, because it is read for each item."""
        self._closing = asyncio.Event()
        """Set when the session closes: it ends every back-off."""
        self._wake_up = asyncio.Event()
        """Set by a follower that needs a poll of this session, and when the session closes: it ends
        the leader's wait for another session's append."""
        self.in_flight: bool = False
        """Whether a request is in flight, which a cancellation would waste. The source sets it, and
        `_try_poll_once` resets it."""
        self._reported_gaps: deque[Gap] = deque(maxlen=MAX_REPORTED_GAPS)
        """The latest gaps that were logged."""
        self._reported_numbering = 0
        """The first position of the latest numbering that was logged."""
        self._last_failed = False
        """Whether the last poll of this session failed, in the service or in the store."""
        self._next_round_at = 0.0
        """Loop time before which no round polls, after a permanent transport error."""

    async def wait_for_more(self, cursor: Cursor) -> None:
        """Return once the log may have new entries for *cursor*.

        Transient failures are retried after a back-off; any other error is raised, in every stream
        that waits.
        """
        self._waiting[cursor] = None
        try:
            if self._round is not None:
                if cursor.needs_poll:
                    self._wake_up.set()
                await self._follow(self._round)
            else:
                await self._lead()
        finally:
            self._waiting.pop(cursor, None)
            if not self._waiting:
                self.log.release_lease()

    async def _follow(self, round: _PollRound) -> None:
        await round.done.wait()
        if round.error is not None:
            raise copy.copy(round.error)  # each stream needs a traceback of its own

    async def _lead(self) -> None:
        round = self._round = _PollRound()
        try:
            # A user's loop may ask again after each error. The limiter does not slow it down,
            # because a connection that fails spends no token.
            await self._sleep_until(self._next_round_at)
            round.error = await self._try_poll_once()
            if isinstance(round.error, TransportError):
                self._next_round_at = loop_time() + BASE_DELAY
        finally:
            self._round = None
            round.done.set()
        if round.error is not None:
            try:
                raise round.error
            finally:
                del round  # otherwise the error and this frame would refer to each other

    async def _try_poll_once(self) -> PythpeerError | None:
        """Poll, or wait for another session's poll. Returns only errors that are not transient."""
        self._now = asyncio.get_running_loop().time
        # Cleared before `_needs_poll` is read: a stream that starts to wait later sets it again.
        self._wake_up.clear()
        try:
            if not await self._must_poll():
                return None
            await self._sleep_until(self._not_before)
            if self.closed:
                return self._closed_error()
            error = await self.source.try_poll(self)
        except PythpeerError as raised:
            error = raised.with_traceback(None)
            if not isinstance(error, StoreError):
                self._last_failed = True
                self.outcomes.record(error)
                return error  # errors of the service are returned; what is raised is permanent
        finally:
            self.in_flight = False
        if error is not None and self.closed:
            return self._closed_error()  # closing the session made the poll fail
        self._last_failed = error is not None
        return self._record(error)

    async def _must_poll(self) -> bool:
        """Return whether this session has to poll. Waits for an append if another one polls."""
        await self._sleep_until(self._store_failures.not_before)  # the lease is in the store
        lease = FAILING_LEASE if self._last_failed else LEASE
        if self.closed or self._needs_poll or await self.log.acquire_lease(lease):
            return True
        await self._wait_for_append()
        self._store_failures.succeeded()
        # Another session polls now. Its last poll did not fail, else the lease would be free; if
        # its first one fails, this session polls next, and counts its own failures from then on.
        self.outcomes.forget_failures()
        self.source.forget_failures()
        # Polls in this round if a stream needs it: until the next round, that stream might have
        # stopped waiting and started again, each time too late.
        return self._needs_poll

    def _record(self, error: PythpeerError | None) -> PythpeerError | None:
        """Record the outcome of a poll. Returns an error that is not transient."""
        is_first, attempts = self.outcomes.last_success is None, self.outcomes.failures + 1
        self.outcomes.record(error)
        if error is None:
            is_logged = self._store_failures.succeeded()
            if self.bypassed:
                self._service_failures.bypassed()
            else:
                is_logged |= self._service_failures.succeeded()
            if is_first and not is_logged:  # the end of failures states as much
                extra = {"endpoint": self.source.name, "attempts": attempts}
                logger.info("%s: the first poll succeeded", self.source.name, extra=extra)
        elif not is_transient(error):
            return error
        elif isinstance(error, StoreError):
            self._store_failures.failed(error)
        else:
            delay = self._service_failures.failed(error)
            failures = self._service_failures.failures
            notify_retry(self.hooks, self.source.name, error, failures, delay)
        return None

    def _closed_error(self) -> PythpeerError:
        return SessionClosedError("the session was closed", endpoint=self.source.name)

    async def back_off(self, error: StoreError) -> None:
        """Count a transient failure of the store, and wait until its back-off is over."""
        self.outcomes.record(error)
        self._store_failures.failed(error)
        await self._sleep_until(self._not_before)

    async def _wait_for_append(self) -> None:
        """Wait until another session appends, or a stream here needs a poll of this session."""
        append = asyncio.ensure_future(self.log.wait_for_append(LEASE))
        wake_up = asyncio.ensure_future(self._wake_up.wait())
        try:
            await asyncio.wait((append, wake_up), return_when=asyncio.FIRST_COMPLETED)
        finally:
            append.cancel()
            wake_up.cancel()
            await asyncio.gather(append, wake_up, return_exceptions=True)
        if not append.cancelled():
            append.result()

    @property
    def _needs_poll(self) -> bool:
        return any(cursor.needs_poll for cursor in self._waiting)

    async def _sleep_until(self, until: float) -> None:
        """Sleep until the loop time *until*, or until the session closes.

        The deadline belongs to the poller, so a consumer that cancels and asks again keeps it.
        """
        seconds = until - loop_time()
        if seconds > 0:
            with anyio.move_on_after(seconds):
                await self._closing.wait()

    @property
    def _not_before(self) -> float:
        return max(self._service_failures.not_before, self._store_failures.not_before)

    @property
    def next_poll(self) -> float | None:
        """Seconds until the next poll can be sent; ``None`` if one is in flight or none needed."""
        if self.in_flight or not self._waiting or self.closed:
            return None
        return max(0.0, self._not_before - self._now(), self._limiter_wait())

    # -- what a source reads and reports ----------------------------------------------------------

    @property
    def attempt(self) -> int:
        """The number of the next poll's attempt: 1, plus one for each consecutive failure."""
        return self._service_failures.failures + 1

    @property
    def has_unpositioned(self) -> bool:
        """Whether a stream without a position waits."""
        return any(cursor.position is None for cursor in self._waiting)

    @property
    def has_positioned(self) -> bool:
        """Whether a stream with a position waits."""
        return any(cursor.position is not None for cursor in self._waiting)

    @property
    def min_position(self) -> int:
        """The lowest position of the streams that wait; 0 without any."""
        positions = [cursor.position for cursor in self._waiting if cursor.position is not None]
        return min(positions, default=0)

    @property
    def max_position(self) -> int:
        """The highest position of the streams that wait; 0 without any."""
        positions = [cursor.position for cursor in self._waiting if cursor.position is not None]
        return max(positions, default=0)

    def set_initial_position(self, position: int) -> None:
        """Give *position* to the waiting streams that have none, because they start from now."""
        for cursor in self._waiting:
            if cursor.position is None:
                cursor.position = position
                cursor.may_be_incomplete = False
        self.update_newest(position)

    def confirm(self, after: int, *, full: bool) -> None:
        """The log now has what the service returned for ids over *after*.

        Confirms the streams at *after*; unless the response was *full*, also those after it. If
        *after* is the first position of a numbering, also those in an earlier one.
        """
        is_first = after == first_position(after)
        for cursor in self._waiting:
            position = cursor.position or 0
            if position == after or (is_first if position < after else not full):
                cursor.confirmed_at = max(position, after)
                cursor.may_be_incomplete = False

    def update_newest(self, newest: int) -> None:
        """An item with the id *newest* exists."""
        self.newest = max(self.newest, newest)

    def lag(self, position: int) -> int:
        """Return how many ids a position is behind the newest one that is known."""
        newest = service_id(self.newest)
        if first_position(position) < first_position(self.newest):
            return newest  # the ids have started anew since
        return max(0, newest - service_id(position))

    def report_restart(self, position: int) -> None:
        """Log a WARNING, once for each time that the service starts its ids anew.

        *position* belongs to the new numbering.
        """
        numbering = first_position(position)
        if numbering > self._reported_numbering:
            self._reported_numbering = numbering
            logger.warning(
                "%s: the service has started its ids anew; streams continue with the new ones",
                self.source.name,
                extra={"endpoint": self.source.name},
            )

    def report_gap(self, gap: Gap) -> None:
        """Log a WARNING and notify the hooks, once for each gap, even if many streams find it."""
        if gap not in self._reported_gaps:
            self._reported_gaps.append(gap)
            logger.warning(
                "%s: messages may be missing between %d and %d",
                self.source.name,
                gap.after,
                gap.before,
                extra={"endpoint": self.source.name, "after": gap.after, "before": gap.before},
            )
            for listener in self.hooks.gap:
                listener(GapEvent(self.source.name, gap.after, gap.before))

    def close(self) -> None:
        """The session closes: end every back-off, and every wait for another session's append."""
        self.closed = True
        self._closing.set()
        self._wake_up.set()


class Pollers:
    """The pollers of a session, one for each log. Streams can be made while the session is open."""

    # Invariant: between `close` and the next `open` there is no store, and `get` raises.

    def __init__(
        self,
        ensure_open: Callable[[], object] = lambda: None,
        hooks: Hooks | None = None,
        limiter_wait: Callable[[str], float] = lambda _: 0.0,
    ) -> None:
        self.stop: Final = StopRequest()
        """The session's request to end all streams. `open` clears it."""
        self._hooks = hooks
        """The session's hooks, passed to each poller."""
        self._limiter_wait = limiter_wait
        """Returns the seconds until the limiter of an endpoint, by name, has a token."""
        self._store: Store | None = None
        """The store of the open session; ``None`` while it is closed. Set by `open`, `close`."""
        self._ensure_open = ensure_open
        """Raises `SessionClosedError` if the session is closed or in another event loop."""
        self._retry = Retry()
        """The session's retry policy, of which the longest back-off is used. Set by `open`."""
        self._pollers: dict[str, Poller[Any]] = {}
        """The pollers by the names of their topics. `get` adds, `open` and `aclose` remove."""

    def open(self, store: Store, retry: Retry) -> None:
        """The session is open: streams can be made."""
        self._pollers.clear()  # left over if an event loop closed before the session did
        self._store = store
        self._retry = retry
        self.stop.clear()

    def get(self, topic: Topic[T], make_source: Callable[[], PollSource[T]]) -> Poller[T]:
        """Return the poller of *topic*; a new one polls the source that *make_source* returns.

        Raises `SessionClosedError` if the session is not open.
        """
        if self._store is None:
            raise SessionClosedError("the session is not open: use 'async with', or open() it")
        poller: Poller[T] | None = self._pollers.get(topic.name)
        if poller is None:
            log = self._store.log(topic)
            source = make_source()
            wait = partial(self._limiter_wait, source.name)
            poller = Poller(
                source, log, self._retry, self._ensure_open, self._hooks, wait, self.stop
            )
            self._pollers[topic.name] = poller
        return poller

    def streams(self) -> Iterator[HasHealth]:
        """Yield the open streams of the session, those of one log together, oldest first."""
        for poller in self._pollers.values():
            yield from list(poller.streams)

    def close(self) -> None:
        """The session closes: end every wait of every poller."""
        self._store = None
        self.stop.close()
        for poller in self._pollers.values():
            poller.close()

    async def drain(self) -> None:
        """Wait for what must still be stored."""
        for poller in self._pollers.values():
            await poller.source.drain()

    async def aclose(self) -> None:
        """Do the same, when no request can be in flight any more, and forget the pollers."""
        try:
            await self.drain()
        finally:
            self._pollers.clear()
