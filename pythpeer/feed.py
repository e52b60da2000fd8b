"""The polling behind streams: one poll at a time fills a log, for however many streams read it.

There is no background task: whoever needs news first polls for all (the leader), the others wait
for that round (the followers), and if the leader is cancelled a follower takes over.
"""

from __future__ import annotations

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

from .calls import notify_retry
from .errors import PythpeerError, SessionClosedError, StoreError, TransportError
from .health import OutcomeTracker, StreamHealth
from .hooks import GapEvent, Hooks, StoreEvent
from .limiter import loop_clock
from .polling import Gap
from .retry import Retry, backoff, is_transient
from .stores.base import Log, NewEntry, Store, Topic

__all__ = ["Cursor", "PollSource", "Poller", "Pollers", "log_skipped", "store_items"]

logger: Final = logging.getLogger("pythpeer.streams")

T = TypeVar("T")

LEASE: Final = 2.0
"""Seconds for which one session polls for all that share its log."""

BASE_DELAY: Final = 1.0
"""The first step of a stream's back-off, in seconds."""


class Cursor:
    """Where a stream stands, as its feed sees it."""

    __slots__ = ("confirmed_at", "may_be_incomplete", "position")

    def __init__(self) -> None:
        self.may_be_incomplete: bool = True
        """Whether the log may lack what comes right after the position."""

        self.position: int | None = None
        """The id of the last item taken from the log; ``None`` until the stream has a place."""

        self.confirmed_at: int | None = None
        """The position from which the service was asked: what the log lacks there is gone."""

    @property
    def needs_poll(self) -> bool:
        """Whether it wants what a poll of another session will not bring."""
        return self.may_be_incomplete or self.position is None


async def store_items(
    hooks: Hooks,
    name: str,
    log: Log[T],
    entries: Sequence[NewEntry[T]],
    *,
    received: int | None = None,
    undecodable: int = 0,
    completes: Collection[int] = (),
) -> None:
    """Append to the log what a poll brought, warn of what could not be decoded, and tell of it.

    *shown* is how many items there were to begin with, if more than *drafts*; *strays* is how many
    besides could not be decoded and have no id.
    """
    now = loop_clock(asyncio.get_running_loop())
    start = now()
    added = await log.append(entries, completes=completes)
    took = now() - start
    holes = sum(draft.item is None for draft in added)
    for _ in range(holes):
        log_skipped(name)
    if hooks.store:
        dropped = (len(entries) if received is None else received) - len(added)
        event = StoreEvent(name, len(added) - holes, dropped, holes + undecodable, took)
        for told in hooks.store:
            told(event)


def log_skipped(name: str) -> None:
    """Warn of an item that cannot be decoded."""
    logger.warning("%s: skipped an item that cannot be decoded", name, extra={"endpoint": name})


class PollSource(Protocol[T]):
    """What a feed polls."""

    @property
    def name(self) -> str:
        """The endpoint's name, for errors and logs."""
        ...

    async def initial_position(self, log: Log[T]) -> int | None:
        """The place of a new stream without one, if the log knows it; else polls will set it."""

    async def poll(self, feed: Poller[T]) -> PythpeerError | None:
        """Ask the service once and append what it says. A failure comes back as a value.

        Sets ``feed.asking`` once it has its token.
        """

    async def drain(self) -> None:
        """Wait for what has to be put down although the session is closing."""


class HasHealth(Protocol):
    """A stream, as its feed sees it."""

    def health(self) -> StreamHealth:
        """How it is doing."""
        ...


class _PollRound:
    """One poll, and those who wait for it."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.error: PythpeerError | None = None


class _FailureBackoff:
    """Failures in a row: said once when they begin and once when they are over, with back-off."""

    __slots__ = ("_endpoint", "_max_delay", "_name", "failures", "not_before")

    def __init__(self, endpoint: str, name: str, max_delay: float) -> None:
        self._endpoint = endpoint
        self._name = name
        self._max_delay = max_delay
        self.failures = 0
        self.not_before = 0.0

    def failed(self, error: PythpeerError) -> float:
        """One failure more. Returns for how many seconds to wait."""
        self.failures += 1
        delay = backoff(self.failures, BASE_DELAY, self._max_delay)
        self.not_before = asyncio.get_running_loop().time() + delay
        if self.failures == 1:
            about = {"endpoint": self._endpoint, "error": type(error).__name__}
            logger.warning("%s; the stream goes on trying", error, extra=about)
        return delay

    def succeeded(self) -> None:
        if self.failures:
            about = {"endpoint": self._endpoint, "failures": self.failures}
            logger.info("%s is back after %d failures", self._name, self.failures, extra=about)
        self.failures = 0


class Poller(Generic[T]):
    """One session's polling of one log: a single poll at a time, for however many streams."""

    def __init__(
        self,
        source: PollSource[T],
        log: Log[T],
        retry: Retry,
        check: Callable[[], object] = lambda: None,
        hooks: Hooks | None = None,
        wait: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.hooks: Final = hooks or Hooks()
        """Who looks on."""
        self.outcomes: Final = OutcomeTracker()
        """How its polls have done."""
        self.streams: Final[WeakKeyDictionary[HasHealth, None]] = WeakKeyDictionary()
        """The streams that are not closed, oldest first."""
        self._limiter_wait = wait
        self._now: Callable[[], float] = time.monotonic  # until there is a loop to go by
        self.ensure_open = check
        """Raises `SessionClosedError` where the session is closed or in another event loop."""
        self.source = source
        self.log = log
        self.skipped = 0
        """Items nobody could decode and that have no id to count them by."""
        self._service_failures = _FailureBackoff(source.name, source.name, retry.max_delay)
        self._store_failures = _FailureBackoff(
            source.name, f"{source.name}: the store", retry.max_delay
        )
        self.newest: int = 0
        """The greatest id that is known here."""
        self._waiting: dict[Cursor, None] = {}
        self._round: _PollRound | None = None
        self.closed: bool = False
        """Whether the session of this feed has been closed. Asked for each item: a plain value."""
        self._closing = asyncio.Event()
        self._wake_up = asyncio.Event()
        self.in_flight: bool = False
        """Whether a request is under way, which a cancellation would waste."""
        self._reported_gaps: deque[Gap] = deque(maxlen=64)
        self._next_round_at = 0.0

    async def wait_for_more(self, cursor: Cursor) -> None:
        """Return once the log may have something new for *cursor*.

        Transient failures are waited out; any other is raised, to everybody who waits.
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
            raise copy.copy(round.error)  # a traceback of its own for each

    async def _lead(self) -> None:
        round = self._round = _PollRound()
        try:
            # It keeps apart the attempts of whoever asks again after each error. No token does:
            # none is spent on a connection that never comes about.
            await self._sleep_until(self._next_round_at)
            round.error = await self._poll_once()
            if isinstance(round.error, TransportError):
                self._next_round_at = asyncio.get_running_loop().time() + BASE_DELAY
        finally:
            self._round = None
            round.done.set()
        if round.error is not None:
            raise round.error

    async def _poll_once(self) -> PythpeerError | None:
        """Poll, or let another session do it. Returns only what is not to be waited out."""
        self._now = asyncio.get_running_loop().time
        # Before the look at those who wait: who comes after it is one who stirs.
        self._wake_up.clear()
        try:
            if not self.closed and not (self._needs_poll or await self.log.acquire_lease(LEASE)):
                await self._wait_for_append()
                self._store_failures.succeeded()
                # Who stirred may be back too late for the next look, be it ever so often.
                if not self._needs_poll:
                    return None
            await self._sleep_until(self._not_before)
            if self.closed:
                return self._closed_error()
            error = await self.source.poll(self)
        except PythpeerError as raised:
            error = raised.with_traceback(None)
            if not isinstance(error, StoreError):
                self.outcomes.record(error)
                return error  # what is raised and not returned is not the service's
        finally:
            self.in_flight = False
        if error is not None and self.closed:
            return self._closed_error()  # what broke was broken by closing
        self.outcomes.record(error)
        if error is not None and not is_transient(error):
            return error
        if error is None:
            self._store_failures.succeeded()
            self._service_failures.succeeded()
        elif isinstance(error, StoreError):
            self._store_failures.failed(error)
        else:
            delay = self._service_failures.failed(error)
            notify_retry(
                self.hooks, self.source.name, error, self._service_failures.failures, delay
            )
        return None

    def _closed_error(self) -> PythpeerError:
        return SessionClosedError("the session was closed", endpoint=self.source.name)

    async def back_off(self, error: StoreError) -> None:
        """Wait a while for the store, which is away just now."""
        self._store_failures.failed(error)
        await self._sleep_until(self._not_before)

    async def _wait_for_append(self) -> None:
        """Wait for what another session appends, or until somebody here needs a poll of its own."""
        news = asyncio.ensure_future(self.log.wait_for_append(LEASE))
        stirred = asyncio.ensure_future(self._wake_up.wait())
        try:
            await asyncio.wait((news, stirred), return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
            stirred.cancel()
            await asyncio.gather(news, stirred, return_exceptions=True)
        if not news.cancelled():
            news.result()

    @property
    def _needs_poll(self) -> bool:
        return any(cursor.needs_poll for cursor in self._waiting)

    async def _sleep_until(self, until: float) -> None:
        """Wait a back-off out. It is the feed's: a consumer's time limit does not reset it."""
        rest = until - asyncio.get_running_loop().time()
        if rest > 0:
            with anyio.move_on_after(rest):
                await self._closing.wait()

    @property
    def _not_before(self) -> float:
        return max(self._service_failures.not_before, self._store_failures.not_before)

    @property
    def next_poll(self) -> float | None:
        """Seconds until the next poll can leave, ``None`` if one is under way or none is wanted."""
        if self.in_flight or not self._waiting or self.closed:
            return None
        return max(0.0, self._not_before - self._now(), self._limiter_wait())

    # -- what a source asks and tells -------------------------------------------------------------

    @property
    def attempt(self) -> int:
        """The number of the attempt that the next poll is: 1, and one more for each failure."""
        return self._service_failures.failures + 1

    @property
    def has_unpositioned(self) -> bool:
        """Whether a stream waits that has no place yet."""
        return any(cursor.position is None for cursor in self._waiting)

    @property
    def has_positioned(self) -> bool:
        """Whether a stream waits that has a place."""
        return any(cursor.position is not None for cursor in self._waiting)

    @property
    def min_position(self) -> int:
        """The lowest place of those who wait."""
        places = [cursor.position for cursor in self._waiting if cursor.position is not None]
        return min(places, default=0)

    def set_initial_position(self, place: int) -> None:
        """Give the streams that start from now on their place."""
        for cursor in self._waiting:
            if cursor.position is None:
                cursor.position = place
                cursor.may_be_incomplete = False
        self.update_newest(place)

    def confirm(self, after: int, *, full: bool) -> None:
        """The service was asked for everything after *after*, and its answer is in the log."""
        for cursor in self._waiting:
            if cursor.position == after or (not full and (cursor.position or 0) > after):
                cursor.confirmed_at = cursor.position
                cursor.may_be_incomplete = False

    def update_newest(self, newest: int) -> None:
        """There is an item of this id."""
        self.newest = max(self.newest, newest)

    def report_gap(self, gap: Gap) -> None:
        """Warn of a gap, once however many streams come across it."""
        if gap not in self._reported_gaps:
            self._reported_gaps.append(gap)
            logger.warning(
                "%s: messages may be missing between %d and %d",
                self.source.name,
                gap.after,
                gap.before,
                extra={"endpoint": self.source.name, "after": gap.after, "before": gap.before},
            )
            for told in self.hooks.gap:
                told(GapEvent(self.source.name, gap.after, gap.before))

    def close(self) -> None:
        """The session is closing: wake whoever rests."""
        self.closed = True
        self._closing.set()
        self._wake_up.set()


class Pollers:
    """The feeds of a session while it is open, one for each log."""

    def __init__(
        self,
        check: Callable[[], object] = lambda: None,
        hooks: Hooks | None = None,
        wait: Callable[[str], float] = lambda _: 0.0,
    ) -> None:
        self._hooks = hooks
        self._wait = wait
        self._store: Store | None = None
        self._check = check
        self._retry = Retry()
        self._feeds: dict[str, Poller[Any]] = {}

    def open(self, store: Store, retry: Retry) -> None:
        """The session is open: streams can be made."""
        self._feeds.clear()  # what a loop that was closed without closing the session left
        self._store = store
        self._retry = retry

    def get(self, topic: Topic[T], source: Callable[[], PollSource[T]]) -> Poller[T]:
        """The feed of *topic*, which polls what *source* makes."""
        if self._store is None:
            raise SessionClosedError("the session is not open")
        feed: Poller[T] | None = self._feeds.get(topic.name)
        if feed is None:
            log = self._store.log(topic)
            made = source()
            wait = partial(self._wait, made.name)
            feed = Poller(made, log, self._retry, self._check, self._hooks, wait)
            self._feeds[topic.name] = feed
        return feed

    def streams(self) -> Iterator[HasHealth]:
        """The streams of the session that are not closed."""
        for feed in self._feeds.values():
            yield from list(feed.streams)

    def close(self) -> None:
        """The session is closing: wake everybody who rests."""
        self._store = None
        for feed in self._feeds.values():
            feed.close()

    async def drain(self) -> None:
        """Wait, once no request can be under way, for what has to be put down."""
        feeds = list(self._feeds.values())
        self._feeds.clear()
        for feed in feeds:
            await feed.source.drain()
