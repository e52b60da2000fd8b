"""Streams: what users iterate over.

A stream never talks HTTP. It reads its log after its own place, and asks its feed for news when
there is nothing more to read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any, Final, Generic, Literal, Self, TypeVar, overload

from .errors import GapError, InvalidRequestError, StoreError
from .feed import Cursor, Poller
from .health import StreamHealth, utc_now
from .hooks import DeliveryEvent
from .misuse import AsyncContextOnly, AsyncIterationOnly
from .polling import Gap
from .retry import is_transient
from .stores.base import Entry
from .wire import check_integer, check_text

__all__ = ["MergedStream", "OnGap", "Stream", "merge"]

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
T2 = TypeVar("T2")
T3 = TypeVar("T3")

BATCH_SIZE: Final = 100
"""Entries that a stream takes from its log at a time."""

POLL_START_WAIT: Final = 0.001
POLL_START_ROUNDS: Final = 10
"""Seconds, and how often so many, that a merged stream leaves the slower of its streams to get as
far as their requests once another has something to say."""

MAX_GAPS: Final = 1000
"""How many of its last gaps a stream remembers."""

OnGap = Literal["log", "raise"]


class Stream(AsyncIterationOnly, AsyncContextOnly, Generic[T_co]):
    """Items of one kind as they come, in order, each once: ``async for item in stream``.

    An item is acknowledged when the next one is asked for, or by `ack`. Leaving the loop and
    `aclose` do not acknowledge: with a name, that item comes again to the next stream of the name.
    Asking is safe to cancel: no item is lost by it. Transient failures are waited out, and what is
    raised instead (a refused key, say) is raised again whenever the stream is asked again.
    """

    def __init__(
        self,
        feed: Poller[T_co],
        *,
        after: int | None = None,
        name: str | None = None,
        on_gap: OnGap = "log",
    ) -> None:
        self._after = None if after is None else check_integer("after", after, 0)
        self._name = None if name is None else check_text("a stream's name", name, 200)
        if on_gap not in ("log", "raise"):
            raise InvalidRequestError('on_gap is "log" or "raise"')
        self._on_gap = on_gap
        self._feed = feed
        self._reader = feed.log.reader(name)
        self._cursor = Cursor()
        self._started = False
        self._buffer: deque[tuple[int, T_co]] = deque()
        self._unacked: int | None = None
        self._acknowledged: int | None = None
        self._busy = False
        self._closed = False
        self._gaps: deque[Gap] = deque(maxlen=MAX_GAPS)
        self._pending_gaps: deque[Gap] = deque()
        self._undecodable = 0
        self._skipped_base = feed.skipped
        feed.streams[self] = None

    # -- what users see ---------------------------------------------------------------------------

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The places where the service may have had more than it could show, in order."""
        return tuple(self._gaps)

    @property
    def skipped(self) -> int:
        """How many items could not be decoded and were passed over."""
        return self._undecodable + self._feed.skipped - self._skipped_base

    def health(self) -> StreamHealth:
        """How the stream is doing at this moment. Costs nothing but the asking."""
        feed, at = self._feed, utc_now()
        next_poll = feed.next_poll
        cursor = self._acknowledged if self._unacked is None else self._unacked
        # What could not be decoded is behind the stream, too, once nothing before it is left.
        place = cursor if self._buffer else self._cursor.position
        return StreamHealth(
            endpoint=feed.source.name,
            name=self._name,
            closed=self._closed or feed.closed,
            last_success=feed.outcomes.last_success,
            failures=feed.outcomes.failures,
            last_error=feed.outcomes.last_error,
            polling=feed.in_flight,
            next_poll=None if next_poll is None else at + timedelta(seconds=next_poll),
            cursor=cursor,
            lag=0 if place is None else max(0, feed.newest - place),
            gaps=len(self._gaps),
            skipped=self.skipped,
        )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        if self._busy or self._closed or self._feed.closed or not self._buffer:
            with _ResourceGuard(self):
                if not self._closed:
                    self._feed.ensure_open()
                    self._acknowledge()
                await self._fill_buffer()
                return self._pop_next()
        self._acknowledge()
        return self._pop_next()

    async def ack(self) -> None:
        """Acknowledge the item handed out last, and have that on record on return."""
        self._acknowledge()
        await self._reader.flush()

    async def aclose(self) -> None:
        """End the stream. What was handed out last stays unacknowledged. Idempotent."""
        if not self._closed:
            self._closed = True
            self._buffer.clear()
            self._feed.streams.pop(self, None)
            if not self._feed.closed:  # else the store has it, and may be closed
                await self._reader.leave()

    async def __aenter__(self) -> Self:
        """Take the starting place, so that what arrives from now on is in the stream."""
        with _ResourceGuard(self):
            self._feed.ensure_open()
            while not await self._retrying(self._init_position):
                self._feed.ensure_open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        state = "closed" if self._closed else f"at {self._cursor.position}"
        return f"<Stream of {self._feed.source.name}{name}, {state}>"

    # -- how it works -----------------------------------------------------------------------------

    def _acknowledge(self) -> None:
        if self._unacked is not None:
            self._reader.ack(self._unacked)
            self._acknowledged, self._unacked = self._unacked, None

    async def _init_position(self) -> None:
        """Find the starting place, and have it stored for a name."""
        if self._started or self._closed:
            return
        cursor = self._cursor
        if cursor.position is None:
            cursor.position = self._after
        if cursor.position is None:
            cursor.position = await self._reader.position()
        if cursor.position is None:
            cursor.position = await self._feed.source.initial_position(self._feed.log)
            cursor.may_be_incomplete = cursor.position is None
        while cursor.position is None:
            await self._feed.wait_for_more(cursor)
        if self._after is None:
            await self._reader.seek_if_new(cursor.position)
        else:
            await self._reader.seek(cursor.position)
        self._acknowledged = cursor.position
        self._started = True

    async def _fill_buffer(self) -> None:
        """Return with something to hand out, or closed."""
        while not self._buffer and not self._closed:
            self._feed.ensure_open()
            await self._retrying(self._read_or_poll)

    async def _read_or_poll(self) -> None:
        """Take what the log has, or have it asked for."""
        await self._init_position()
        entries = await self._reader.read(self._cursor.position or 0, BATCH_SIZE)
        if self._reader.group_position is not None:
            self._cursor.position = self._reader.group_position
        if not self._ingest(entries):
            await self._feed.wait_for_more(self._cursor)

    async def _retrying(self, step: Callable[[], Awaitable[object]]) -> bool:
        """Take a step, or wait a while if the store is away just now: was it taken?"""
        try:
            await step()
        except StoreError as error:
            if not is_transient(error):
                raise
            failure = error.with_traceback(None)
        else:
            return True
        await self._feed.back_off(failure)
        return False

    def _ingest(self, entries: Iterable[Entry[T_co]]) -> bool:
        """Take entries as far as their chain holds. Says whether there were any."""
        cursor = self._cursor
        before = position = cursor.position or 0
        for entry in entries:
            chain_broken = entry.after > position
            if chain_broken and cursor.confirmed_at != position:
                cursor.may_be_incomplete = True
                break  # something belongs in between, and the service may still have it
            # Who asks from 0 on wants the oldest available: what came before that is no gap. To
            # whoever stands at 0 otherwise, the chat was empty: what came since may be missing.
            counts_as_gap = position > 0 or self._after is None
            if (chain_broken or entry.gap) and counts_as_gap and position < entry.id - 1:
                self._record_gap(Gap(position, entry.id))
            cursor.may_be_incomplete = False
            position = cursor.position = entry.id
            if entry.item is None:
                self._undecodable += 1
            else:
                self._buffer.append((entry.id, entry.item))
        self._feed.update_newest(position)
        if self._feed.hooks.delivery and position != before:
            self._emit_delivery()
        return position != before

    def _emit_delivery(self) -> None:
        feed, items = self._feed, len(self._buffer)
        event = DeliveryEvent(feed.source.name, self._name, items, self._lag)
        for told in feed.hooks.delivery:
            told(event)

    @property
    def _lag(self) -> int:
        """How far, in ids, what was taken from the log is behind the newest that is known."""
        return max(0, self._feed.newest - (self._cursor.position or 0))

    def _record_gap(self, gap: Gap) -> None:
        self._gaps.append(gap)
        self._feed.report_gap(gap)
        if self._on_gap == "raise":
            self._pending_gaps.append(gap)

    def _pop_next(self) -> T_co:
        """Hand out the next item, or raise for the gap before it."""
        if not self._buffer:
            raise StopAsyncIteration
        if self._pending_gaps and self._pending_gaps[0].before <= self._buffer[0][0]:
            gap = self._pending_gaps.popleft()
            raise GapError(
                f"messages may be missing between {gap.after} and {gap.before}",
                endpoint=self._feed.source.name,
                after=gap.after,
                before=gap.before,
            )
        self._unacked, item = self._buffer.popleft()
        return item


class MergedStream(AsyncIterationOnly, AsyncContextOnly, Generic[T_co]):
    """Several streams as one: `merge`. Ends when all of them have ended.

    Acknowledgement, order and gaps are each stream's own.
    """

    def __init__(self, streams: tuple[Stream[T_co], ...]) -> None:
        if not streams or any(not isinstance(stream, Stream) for stream in streams):
            raise InvalidRequestError("merge wants one or more streams")
        if len(set(map(id, streams))) < len(streams):
            raise InvalidRequestError("merge wants each stream once")
        self._streams = deque(streams)
        self._last_stream: Stream[T_co] | None = None
        self._busy = False
        self._fill_tasks: dict[Stream[T_co], asyncio.Task[None]] = {}

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The gaps of all the streams, those of each in order."""
        return tuple(gap for stream in self._streams for gap in stream.gaps)

    @property
    def skipped(self) -> int:
        """How many items could not be decoded and were passed over, in all the streams."""
        return sum(stream.skipped for stream in self._streams)

    def health(self) -> tuple[StreamHealth, ...]:
        """How each of the streams is doing at this moment."""
        return tuple(stream.health() for stream in self._streams)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        with _ResourceGuard(self):
            if self._last_stream is not None and not self._last_stream._closed:
                self._last_stream._acknowledge()
            self._last_stream = await self._next_ready_stream()
            return self._last_stream._pop_next()

    async def ack(self) -> None:
        """Acknowledge the item handed out last, and have that on record on return."""
        if self._last_stream is not None:
            await self._last_stream.ack()

    async def aclose(self) -> None:
        """Close every stream. What was handed out last stays unacknowledged. Idempotent."""
        for stream in self._streams:
            await stream.aclose()
        self._cancel_fills(also_asking=True)
        await asyncio.gather(*self._fill_tasks.values(), return_exceptions=True)
        self._fill_tasks.clear()

    async def __aenter__(self) -> Self:
        """Have every stream take its starting place."""
        for stream in self._streams:
            await stream.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _next_ready_stream(self) -> Stream[T_co]:
        """Wait until one of the streams has something, and let each have its turn."""
        while True:
            for stream in self._streams:
                if stream._buffer:
                    self._streams.remove(stream)
                    self._streams.append(stream)
                    return stream
            if all(stream._closed for stream in self._streams):
                raise StopAsyncIteration
            await self._wait()

    async def _wait(self) -> None:
        """Ask all at once, until the first has something to say or fails for good.

        Then the others stop asking, but for a request that is under way: to cancel it whenever
        another stream has something would be to starve a slow service. It ends by itself, and what
        it brings is there the next time.
        """
        over: list[asyncio.Task[None]] = []
        try:
            while not self._can_return(over):
                for stream in self._streams:
                    if stream not in self._fill_tasks and not stream._closed:
                        wait = self._fill_tasks[stream] = asyncio.ensure_future(
                            _fill_guarded(stream)
                        )
                        wait.add_done_callback(_mark_retrieved)
                await asyncio.wait(self._fill_tasks.values(), return_when=asyncio.FIRST_COMPLETED)
                ended = [stream for stream, wait in self._fill_tasks.items() if wait.done()]
                over += [self._fill_tasks.pop(stream) for stream in ended]
            await self._let_polls_start()
        except asyncio.CancelledError:
            self._cancel_fills(also_asking=True)
            raise
        self._cancel_fills(also_asking=False)
        if not any(stream._buffer for stream in self._streams):
            for wait in over:
                if not wait.cancelled():
                    wait.result()

    async def _let_polls_start(self) -> None:
        """Leave the others a moment to get as far as their request.

        A store that is a file takes its time, and without that moment a stream that has a backlog
        would keep them from it until it has none.
        """
        for _ in range(POLL_START_ROUNDS):
            slow = [wait for stream, wait in self._fill_tasks.items() if not stream._feed.in_flight]
            if not slow:
                return
            await asyncio.wait(slow, timeout=POLL_START_WAIT)

    def _can_return(self, over: list[asyncio.Task[None]]) -> bool:
        """Whether there is something to say, be it a failure."""
        failed = any(not wait.cancelled() and wait.exception() for wait in over)
        streams = self._streams
        return failed or any(s._buffer for s in streams) or all(s._closed for s in streams)

    def _cancel_fills(self, *, also_asking: bool) -> None:
        for stream, wait in self._fill_tasks.items():
            if also_asking or not stream._feed.in_flight:
                wait.cancel()


async def _fill_guarded(stream: Stream[object]) -> None:
    with _ResourceGuard(stream):
        await stream._fill_buffer()


def _mark_retrieved(wait: asyncio.Task[None]) -> None:
    """Look at a failure nobody may come back for: the stream raises it anew when it is asked."""
    if not wait.cancelled():
        wait.exception()


@overload
def merge(first: Stream[T], second: Stream[T2], /) -> MergedStream[T | T2]: ...


@overload
def merge(
    first: Stream[T], second: Stream[T2], third: Stream[T3], /
) -> MergedStream[T | T2 | T3]: ...


@overload
def merge(*streams: Stream[T]) -> MergedStream[T]: ...


def merge(*streams: Stream[Any]) -> MergedStream[Any]:
    """One stream of several, in the order in which their items come.

    Until it is closed, a request of one of its streams can be under way when the loop is left; the
    streams are not to be asked by themselves meanwhile.

    An item is acknowledged in its own stream when the next one is asked for. Close the merged
    stream, or leave its ``async with`` block, to close them all.
    """
    return MergedStream(streams)


class _ResourceGuard:
    """One task at a time may ask a stream."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream[object] | MergedStream[object]) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        if self._stream._busy:
            raise InvalidRequestError("another task is asking this stream; give each its own")
        self._stream._busy = True

    def __exit__(self, *exc_info: object) -> None:
        self._stream._busy = False
