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
from .feed import Cursor, Feed
from .health import StreamHealth, moment
from .hooks import DeliveryEvent
from .misuse import AsyncFor, AsyncWith
from .polling import Gap
from .retry import is_transient
from .stores.base import Entry
from .wire import check_integer, check_text

__all__ = ["MergedStream", "OnGap", "Stream", "merge"]

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
T2 = TypeVar("T2")
T3 = TypeVar("T3")

BATCH: Final = 100
"""Entries that a stream takes from its log at a time."""

MOMENT: Final = 0.001
MOMENTS: Final = 10
"""Seconds, and how often so many, that a merged stream leaves the slower of its streams to get as
far as their requests once another has something to say."""

GAPS: Final = 1000
"""How many of its last gaps a stream remembers."""

OnGap = Literal["log", "raise"]


class Stream(AsyncFor, AsyncWith, Generic[T_co]):
    """Items of one kind as they come, in order, each once: ``async for item in stream``.

    An item is acknowledged when the next one is asked for, or by `ack`. Leaving the loop and
    `aclose` do not acknowledge: with a name, that item comes again to the next stream of the name.
    Asking is safe to cancel: no item is lost by it. Transient failures are waited out, and what is
    raised instead (a refused key, say) is raised again whenever the stream is asked again.
    """

    def __init__(
        self,
        feed: Feed[T_co],
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
        self._ready: deque[tuple[int, T_co]] = deque()
        self._handed: int | None = None
        self._acknowledged: int | None = None
        self._busy = False
        self._closed = False
        self._gaps: deque[Gap] = deque(maxlen=GAPS)
        self._unsaid: deque[Gap] = deque()
        self._holes = 0
        self._skipped_before = feed.skipped
        feed.streams[self] = None

    # -- what users see ---------------------------------------------------------------------------

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The places where the service may have had more than it could show, in order."""
        return tuple(self._gaps)

    @property
    def skipped(self) -> int:
        """How many items could not be decoded and were passed over."""
        return self._holes + self._feed.skipped - self._skipped_before

    def health(self) -> StreamHealth:
        """How the stream is doing at this moment. Costs nothing but the asking."""
        feed, at = self._feed, moment()
        next_poll = feed.next_poll
        cursor = self._acknowledged if self._handed is None else self._handed
        # What could not be decoded is behind the stream, too, once nothing before it is left.
        place = cursor if self._ready else self._cursor.position
        return StreamHealth(
            endpoint=feed.source.name,
            name=self._name,
            closed=self._closed or feed.closed,
            last_success=feed.record.last_success,
            failures=feed.record.failures,
            last_error=feed.record.last_error,
            polling=feed.asking,
            next_poll=None if next_poll is None else at + timedelta(seconds=next_poll),
            cursor=cursor,
            lag=0 if place is None else max(0, feed.newest - place),
            gaps=len(self._gaps),
            skipped=self.skipped,
        )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        if self._busy or self._closed or self._feed.closed or not self._ready:
            with _Turn(self):
                if not self._closed:
                    self._feed.check()
                    self._acknowledge()
                await self._fill()
                return self._take()
        self._acknowledge()
        return self._take()

    async def ack(self) -> None:
        """Acknowledge the item handed out last, and have that on record on return."""
        self._acknowledge()
        await self._reader.flush()

    async def aclose(self) -> None:
        """End the stream. What was handed out last stays unacknowledged. Idempotent."""
        if not self._closed:
            self._closed = True
            self._ready.clear()
            self._feed.streams.pop(self, None)
            if not self._feed.closed:  # else the store has it, and may be closed
                await self._reader.leave()

    async def __aenter__(self) -> Self:
        """Take the starting place, so that what arrives from now on is in the stream."""
        with _Turn(self):
            self._feed.check()
            while not await self._patiently(self._start):
                self._feed.check()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        state = "closed" if self._closed else f"at {self._cursor.position}"
        return f"<Stream of {self._feed.source.name}{name}, {state}>"

    # -- how it works -----------------------------------------------------------------------------

    def _acknowledge(self) -> None:
        if self._handed is not None:
            self._reader.ack(self._handed)
            self._acknowledged, self._handed = self._handed, None

    async def _start(self) -> None:
        """Find the starting place, and have it stored for a name."""
        if self._started or self._closed:
            return
        cursor = self._cursor
        if cursor.position is None:
            cursor.position = self._after
        if cursor.position is None:
            cursor.position = await self._reader.place()
        if cursor.position is None:
            cursor.position = await self._feed.source.start(self._feed.log)
            cursor.adrift = cursor.position is None
        while cursor.position is None:
            await self._feed.advance(cursor)
        if self._after is None:
            await self._reader.join(cursor.position)
        else:
            await self._reader.seek(cursor.position)
        self._acknowledged = cursor.position
        self._started = True

    async def _fill(self) -> None:
        """Return with something to hand out, or closed."""
        while not self._ready and not self._closed:
            self._feed.check()
            await self._patiently(self._refill)

    async def _refill(self) -> None:
        """Take what the log has, or have it asked for."""
        await self._start()
        entries = await self._reader.read(self._cursor.position or 0, BATCH)
        if self._reader.passed is not None:
            self._cursor.position = self._reader.passed
        if not self._accept(entries):
            await self._feed.advance(self._cursor)

    async def _patiently(self, step: Callable[[], Awaitable[object]]) -> bool:
        """Take a step, or wait a while if the store is away just now: was it taken?"""
        try:
            await step()
        except StoreError as error:
            if not is_transient(error):
                raise
            failure = error.with_traceback(None)
        else:
            return True
        await self._feed.sit_out(failure)
        return False

    def _accept(self, entries: Iterable[Entry[T_co]]) -> bool:
        """Take entries as far as their chain holds. Says whether there were any."""
        cursor = self._cursor
        before = position = cursor.position or 0
        for entry in entries:
            broken = entry.after > position
            if broken and cursor.proved != position:
                cursor.adrift = True
                break  # something belongs in between, and the service may still have it
            # Who asks from 0 on wants the oldest available: what came before that is no gap. To
            # whoever stands at 0 otherwise, the chat was empty: what came since may be missing.
            sought = position > 0 or self._after is None
            if (broken or entry.gap) and sought and position < entry.id - 1:
                self._note_gap(Gap(position, entry.id))
            cursor.adrift = False
            position = cursor.position = entry.id
            if entry.item is None:
                self._holes += 1
            else:
                self._ready.append((entry.id, entry.item))
        self._feed.see(position)
        if self._feed.hooks.delivery and position != before:
            self._tell_of_delivery()
        return position != before

    def _tell_of_delivery(self) -> None:
        feed, items = self._feed, len(self._ready)
        event = DeliveryEvent(feed.source.name, self._name, items, self._behind)
        for told in feed.hooks.delivery:
            told(event)

    @property
    def _behind(self) -> int:
        """How far, in ids, what was taken from the log is behind the newest that is known."""
        return max(0, self._feed.newest - (self._cursor.position or 0))

    def _note_gap(self, gap: Gap) -> None:
        self._gaps.append(gap)
        self._feed.say(gap)
        if self._on_gap == "raise":
            self._unsaid.append(gap)

    def _take(self) -> T_co:
        """Hand out the next item, or raise for the gap before it."""
        if not self._ready:
            raise StopAsyncIteration
        if self._unsaid and self._unsaid[0].before <= self._ready[0][0]:
            gap = self._unsaid.popleft()
            raise GapError(
                f"messages may be missing between {gap.after} and {gap.before}",
                endpoint=self._feed.source.name,
                after=gap.after,
                before=gap.before,
            )
        self._handed, item = self._ready.popleft()
        return item


class MergedStream(AsyncFor, AsyncWith, Generic[T_co]):
    """Several streams as one: `merge`. Ends when all of them have ended.

    Acknowledgement, order and gaps are each stream's own.
    """

    def __init__(self, streams: tuple[Stream[T_co], ...]) -> None:
        if not streams or any(not isinstance(stream, Stream) for stream in streams):
            raise InvalidRequestError("merge wants one or more streams")
        if len(set(map(id, streams))) < len(streams):
            raise InvalidRequestError("merge wants each stream once")
        self._streams = deque(streams)
        self._last: Stream[T_co] | None = None
        self._busy = False
        self._waits: dict[Stream[T_co], asyncio.Task[None]] = {}

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
        with _Turn(self):
            if self._last is not None and not self._last._closed:
                self._last._acknowledge()
            self._last = await self._first_ready()
            return self._last._take()

    async def ack(self) -> None:
        """Acknowledge the item handed out last, and have that on record on return."""
        if self._last is not None:
            await self._last.ack()

    async def aclose(self) -> None:
        """Close every stream. What was handed out last stays unacknowledged. Idempotent."""
        for stream in self._streams:
            await stream.aclose()
        self._let_go(also_asking=True)
        await asyncio.gather(*self._waits.values(), return_exceptions=True)
        self._waits.clear()

    async def __aenter__(self) -> Self:
        """Have every stream take its starting place."""
        for stream in self._streams:
            await stream.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _first_ready(self) -> Stream[T_co]:
        """Wait until one of the streams has something, and let each have its turn."""
        while True:
            for stream in self._streams:
                if stream._ready:
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
            while not self._done(over):
                for stream in self._streams:
                    if stream not in self._waits and not stream._closed:
                        wait = self._waits[stream] = asyncio.ensure_future(_filled(stream))
                        wait.add_done_callback(_retrieve)
                await asyncio.wait(self._waits.values(), return_when=asyncio.FIRST_COMPLETED)
                ended = [stream for stream, wait in self._waits.items() if wait.done()]
                over += [self._waits.pop(stream) for stream in ended]
            await self._let_ask()
        except asyncio.CancelledError:
            self._let_go(also_asking=True)
            raise
        self._let_go(also_asking=False)
        if not any(stream._ready for stream in self._streams):
            for wait in over:
                if not wait.cancelled():
                    wait.result()

    async def _let_ask(self) -> None:
        """Leave the others a moment to get as far as their request.

        A store that is a file takes its time, and without that moment a stream that has a backlog
        would keep them from it until it has none.
        """
        for _ in range(MOMENTS):
            slow = [wait for stream, wait in self._waits.items() if not stream._feed.asking]
            if not slow:
                return
            await asyncio.wait(slow, timeout=MOMENT)

    def _done(self, over: list[asyncio.Task[None]]) -> bool:
        """Whether there is something to say, be it a failure."""
        failed = any(not wait.cancelled() and wait.exception() for wait in over)
        streams = self._streams
        return failed or any(s._ready for s in streams) or all(s._closed for s in streams)

    def _let_go(self, *, also_asking: bool) -> None:
        for stream, wait in self._waits.items():
            if also_asking or not stream._feed.asking:
                wait.cancel()


async def _filled(stream: Stream[object]) -> None:
    with _Turn(stream):
        await stream._fill()


def _retrieve(wait: asyncio.Task[None]) -> None:
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


class _Turn:
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
