"""`MergedStream`: the items of several streams, as one stream."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, Generic, Self, TypeVar, overload

from ..errors import InvalidRequestError
from ..health import StreamHealth
from ..misuse import AsyncContextOnly, AsyncIterationOnly
from .gaps import Gap
from .guard import ResourceGuard
from .stream import Stream, T, T_co, _Mergeable

__all__ = ["POLL_START_ROUNDS", "POLL_START_WAIT", "MergedStream", "merge"]
T2 = TypeVar("T2")
T3 = TypeVar("T3")

POLL_START_WAIT: Final = 0.001
"""Seconds of one round in which a merged stream waits for its slower streams to send their
requests, after another stream has an item."""

POLL_START_ROUNDS: Final = 10
"""How many such rounds there are at most."""


class MergedStream(AsyncIterationOnly, AsyncContextOnly, Generic[T_co]):
    """Several streams as one, made by `merge`. Ends when all of them have ended.

    Each stream keeps its own order, acknowledgements and gaps.
    """

    # Invariants: a stream has at most one task in `_fill_tasks`, and `busy` is true for it while
    # the task runs. Between two items only tasks whose request is in flight are left running.

    def __init__(self, streams: tuple[Stream[T_co], ...]) -> None:
        if not streams:
            raise InvalidRequestError("merge() needs at least one stream")
        for stream in streams:
            if not isinstance(stream, Stream):
                raise InvalidRequestError(
                    f"an argument of merge() must be a Stream, not {type(stream).__name__}"
                )
        if len(set(map(id, streams))) < len(streams):
            raise InvalidRequestError("merge() needs distinct streams")
        self._streams = deque(streams)
        """All the streams; the one that returned an item last is at the end."""
        self._last_stream: Stream[T_co] | None = None
        """The stream of the item returned last, which is to be acknowledged there."""
        self.busy = False
        """Whether a task iterates at this moment; set by `ResourceGuard` only."""
        self._fill_tasks: dict[Stream[T_co], asyncio.Task[None]] = {}
        """The task that fills each stream's buffer. `_wait_until_ready` adds and removes them."""

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The gaps of all the streams; those of one stream are in order."""
        return tuple(gap for stream in self._streams for gap in stream.gaps)

    @property
    def skipped(self) -> int:
        """How many items of all the streams were skipped because they could not be decoded."""
        return sum(stream.skipped for stream in self._streams)

    @property
    def restarts(self) -> int:
        """How often the services have started their ids anew, in all the streams together."""
        return sum(stream.restarts for stream in self._streams)

    def health(self) -> tuple[StreamHealth, ...]:
        """Return the state of each of the streams at this moment."""
        return tuple(stream.health() for stream in self._streams)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        with ResourceGuard(self):
            if self._last_stream is not None:
                self._last_stream.acknowledge()
                await self._last_stream.store_acknowledged()
            self._last_stream = await self._next_ready_stream()
            return self._last_stream.pop()

    async def ack(self) -> None:
        """Acknowledge the item returned last; on return that is stored."""
        if self._last_stream is not None:
            await self._last_stream.ack()

    async def aclose(self) -> None:
        """Close every stream. The item returned last stays unacknowledged. Idempotent."""
        for stream in self._streams:
            await stream.aclose()
        self._cancel_fills(include_in_flight=True)
        await asyncio.gather(*self._fill_tasks.values(), return_exceptions=True)
        self._fill_tasks.clear()

    async def __aenter__(self) -> Self:
        """Find the initial position of every stream."""
        for stream in self._streams:
            await stream.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _next_ready_stream(self) -> Stream[T_co]:
        """Wait until a stream has an item, and return it; ready streams alternate."""
        while True:
            for stream in self._streams:
                if stream.is_ready:
                    self._streams.remove(stream)
                    self._streams.append(stream)
                    return stream
            if all(stream.has_ended for stream in self._streams):
                raise StopAsyncIteration
            await self._wait_until_ready()

    async def _wait_until_ready(self) -> None:
        """Fill all streams at the same time, until one is ready or fails permanently.

        Then the other tasks are cancelled, except those whose request is in flight: cancelling
        these whenever another stream has an item would starve a slow service. Such a request ends
        by itself, and its items are returned later.
        """
        done: list[asyncio.Task[None]] = []
        try:
            while not self._can_return(done):
                self._start_fills()
                await asyncio.wait(self._fill_tasks.values(), return_when=asyncio.FIRST_COMPLETED)
                ended = [stream for stream, task in self._fill_tasks.items() if task.done()]
                done += [self._fill_tasks.pop(stream) for stream in ended]
            await self._let_polls_start()
        except asyncio.CancelledError:
            self._cancel_fills(include_in_flight=True)
            raise
        self._cancel_fills(include_in_flight=False)
        if not any(stream.is_ready for stream in self._streams):
            for task in done:
                if not task.cancelled():
                    task.result()

    def _start_fills(self) -> None:
        """Start a task for each open stream that has none."""
        for stream in self._streams:
            if stream not in self._fill_tasks and not stream.has_ended:
                task = asyncio.ensure_future(_fill_guarded(stream))
                task.add_done_callback(_mark_retrieved)
                self._fill_tasks[stream] = task

    async def _let_polls_start(self) -> None:
        """Wait briefly until the other streams have sent their requests.

        Reading a store on disk takes a while. Without this wait, a stream with a backlog would keep
        the others from polling until the backlog is read.
        """
        for _ in range(POLL_START_ROUNDS):
            slow = [task for stream, task in self._fill_tasks.items() if not stream.in_flight]
            if not slow:
                return
            await asyncio.wait(slow, timeout=POLL_START_WAIT)

    def _can_return(self, done: list[asyncio.Task[None]]) -> bool:
        """Whether a stream is ready, a task of *done* has failed, or all streams are closed."""
        if any(not task.cancelled() and task.exception() for task in done):
            return True
        if any(stream.is_ready for stream in self._streams):
            return True
        return all(stream.has_ended for stream in self._streams)

    def _cancel_fills(self, *, include_in_flight: bool) -> None:
        for stream, task in self._fill_tasks.items():
            if include_in_flight or not stream.in_flight:
                task.cancel()


async def _fill_guarded(stream: _Mergeable[object]) -> None:
    with ResourceGuard(stream):
        await stream.fill()


def _mark_retrieved(task: asyncio.Task[None]) -> None:
    """Retrieve a failure, so that asyncio does not log it: the stream raises it again later."""
    if not task.cancelled():
        task.exception()


@overload
def merge(first: Stream[T], second: Stream[T2], /) -> MergedStream[T | T2]: ...


@overload
def merge(
    first: Stream[T], second: Stream[T2], third: Stream[T3], /
) -> MergedStream[T | T2 | T3]: ...


@overload
def merge(*streams: Stream[T]) -> MergedStream[T]: ...


def merge(*streams: Stream[Any]) -> MergedStream[Any]:
    """Merge *streams* into one, which returns items in the order in which they arrive.

    An item is acknowledged in its own stream when the next one is requested. Close the merged
    stream, or leave its ``async with`` block, to close all the streams. Until then a request of one
    of them may be in flight after the loop was left, and none may be iterated over separately.
    The `GapError` of a stream with ``on_gap="raise"`` is raised once; ask again to continue.

    Raises:
        InvalidRequestError: Without a stream, for anything but a `Stream`, or for the same stream
            twice.
    """
    return MergedStream(streams)
