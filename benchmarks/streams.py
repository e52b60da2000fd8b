"""Many streams on one session: what is polled, what is delivered, what a stream weighs.

The polls are scripted and in memory: what is measured is the streams' own machinery.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from pythpeer import ChatMessage, MemoryStore, PythpeerError, Retry
from pythpeer.feed import Feed, Feeds
from pythpeer.polling import chain
from pythpeer.stores.base import Log, Topic
from pythpeer.streams import Stream

from .measure import kept_bytes, take_turns
from .report import Table, ratio

__all__ = ["run"]

PAGE: Final = 50
"""Messages that one poll brings."""


class _Script:
    """A chat in which *PAGE* messages are said before each poll, as long as there are any."""

    def __init__(self, messages: int) -> None:
        self.name: Final = "benchmark.chat"
        self.polls = 0
        self._messages = messages
        self._said = 0

    async def start(self, log: Log[ChatMessage]) -> int | None:
        return 0

    async def finish(self) -> None:
        pass

    async def poll(self, feed: Feed[ChatMessage]) -> PythpeerError | None:
        await asyncio.sleep(0)  # as a real one: others come to wait meanwhile
        if self._said == self._messages:
            await asyncio.Event().wait()  # nothing more will ever come
        self.polls += 1
        self._said = min(self._messages, self._said + PAGE)
        after = feed.lowest
        known = {id: ChatMessage(id, "user", "text") for id in range(after + 1, self._said + 1)}
        await feed.log.append(chain(after, known, full=False))
        feed.prove(after, full=False)
        return None


def run(*, quick: bool) -> list[Table]:
    """Measure one poll for 1, 100, 1,000 and 10,000 streams."""
    return [asyncio.run(_run(quick=quick))]


async def _run(*, quick: bool) -> Table:
    rounds = 1 if quick else 5
    deliveries = 50_000 if quick else 300_000
    table = Table(
        "Streams on one session, and the same through an asyncio.Queue for each consumer",
        (
            *("streams", "messages", "polls", "least polls", "delivered/s", "queues/s", "ratio"),
            *("stream B", "waiting B", "queue B", "queue waiting B"),
        ),
        notes=[
            f"A poll brings {PAGE} messages, in memory; medians of {rounds} rounds, in turns.",
            "ratio: of the rates of delivery. B: bytes of one; waiting: with its consumer's task.",
            "A single stream is charged with all that the streams of a session share.",
        ],
    )
    for streams in (1, 100, 1_000, 10_000):
        messages = max(2 * PAGE, deliveries // streams // PAGE * PAGE)
        if streams == 1:
            messages = min(messages, 100_000)
        polls: list[int] = []
        times = await take_turns(
            rounds,
            {
                "streams": _streaming(streams, messages, polls),
                "queues": _queueing(streams, messages),
            },
        )
        total = streams * messages
        ours, queues = times["streams"].wall, times["queues"].wall
        table.add(
            streams,
            messages,
            max(polls),
            messages // PAGE,
            total / statistics.median(ours),
            total / statistics.median(queues),
            ratio(queues, ours),
            await _weight(streams, _make_streams),
            await _weight(streams, _wait_for_streams),
            await _weight(streams, _make_queues),
            await _weight(streams, _wait_for_queues),
        )
        table.samples[f"{streams} streams s"] = ours
        table.samples[f"{streams} queues s"] = queues
    return table


def _feed(script: _Script) -> Feed[ChatMessage]:
    feeds = Feeds()
    feeds.open(MemoryStore(), Retry())
    return feeds.get(Topic("benchmark", ChatMessage), lambda: script)


# -- delivery -------------------------------------------------------------------------------------


def _streaming(streams: int, messages: int, polls: list[int]) -> Callable[[], Awaitable[None]]:
    async def consume(stream: Stream[ChatMessage]) -> None:
        expected = 0
        async for message in stream:
            expected += 1
            if message.id != expected:
                raise RuntimeError(f"message {message.id} where {expected} was due")
            if expected == messages:
                await stream.aclose()

    async def work() -> None:
        script = _Script(messages)
        feed = _feed(script)
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            for _ in range(streams):
                group.create_task(consume(Stream(feed, after=0)))
        polls.append(script.polls)

    return work


def _queueing(streams: int, messages: int) -> Callable[[], Awaitable[None]]:
    """One producer that hands every message to every consumer's own queue."""

    async def consume(queue: asyncio.Queue[ChatMessage]) -> None:
        expected = 0
        while expected < messages:
            message = await queue.get()
            expected += 1
            if message.id != expected:
                raise RuntimeError(f"message {message.id} where {expected} was due")

    async def work() -> None:
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            queues = [asyncio.Queue[ChatMessage]() for _ in range(streams)]
            for queue in queues:
                group.create_task(consume(queue))
            for start in range(0, messages, PAGE):
                await asyncio.sleep(0)
                for id in range(start + 1, start + PAGE + 1):
                    message = ChatMessage(id, "user", "text")
                    for queue in queues:
                        queue.put_nowait(message)

    return work


# -- weight ---------------------------------------------------------------------------------------


async def _weight(count: int, make: Callable[[int], Awaitable[list[object]]]) -> float:
    """Bytes of each of *count* things; tasks among them are ended."""
    made: list[object] = []

    async def build() -> None:
        made.extend(await make(count))

    each = await kept_bytes(count, build)
    tasks = [thing for thing in made if isinstance(thing, asyncio.Task)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return each


async def _make_streams(count: int) -> list[object]:
    feed = _feed(_Script(0))
    return [Stream(feed, after=0) for _ in range(count)]


async def _wait_for_streams(count: int) -> list[object]:
    feed = _feed(_Script(0))
    return await _waiting([Stream(feed, after=0).__anext__ for _ in range(count)])


async def _make_queues(count: int) -> list[object]:
    return [asyncio.Queue[ChatMessage]() for _ in range(count)]


async def _wait_for_queues(count: int) -> list[object]:
    return await _waiting([asyncio.Queue[ChatMessage]().get for _ in range(count)])


async def _waiting(asks: list[Callable[[], Coroutine[Any, Any, ChatMessage]]]) -> list[object]:
    tasks: list[object] = [asyncio.create_task(ask()) for ask in asks]
    for _ in range(4):
        await asyncio.sleep(0)
    return tasks
