"""A chat in memory for streams to follow, and pythpeer's stream of it.

A poll costs nothing here but the asking, and what time it is on its way, so that what is measured
is the streams' own machinery.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from pythpeer import ChatMessage, MemoryStore, PythpeerError, Rate, Retry
from pythpeer.feed import Poller, Pollers
from pythpeer.line import Priority
from pythpeer.polling import link_entries
from pythpeer.stores.base import Log, Store, Topic
from pythpeer.streams import Stream

from .rivals import streaming
from .rivals.installed import OURS

__all__ = ["PAGE", "PYTHPEER", "Chat", "consumer"]

PAGE: Final = 50
"""Messages that one poll brings at most."""

GUARD: Final = 0.05
"""Seconds: pythpeer's own default."""

SEED: Final = 20121212

NOTHING: Final = 1e-6
"""Seconds: what stands for no interval at all."""


class Chat:
    """Messages that are there or are yet to be said; a poll takes up to *trip* seconds each way."""

    def __init__(self, said: int = 0, *, interval: float = 0.0, trip: float = 0.0) -> None:
        self.interval = interval
        self.polls = 0
        self.early = 0
        """Polls that came less than an interval after the one before."""
        self._messages: list[ChatMessage] = []
        self._trip = trip
        self._random = random.Random(SEED)
        self._last = -interval
        for _ in range(said):
            self.say()

    def again(self) -> Chat:
        """The same messages, as nobody has asked for them yet."""
        chat = Chat(interval=self.interval, trip=self._trip)
        chat._messages = self._messages
        return chat

    def say(self) -> None:
        """One message more."""
        self._messages.append(ChatMessage(len(self._messages) + 1, "user", "text"))

    async def ask(self, after: int | None, limit: int = PAGE) -> Sequence[ChatMessage]:
        """The first messages after an id, ascending; without one, the newest."""
        await self._travel()
        self._count()
        limit = min(limit, PAGE)
        found = self._messages[-limit:] if after is None else self._messages[after : after + limit]
        await self._travel()
        return found

    async def _travel(self) -> None:
        await asyncio.sleep(self._random.uniform(0.0, self._trip) if self._trip else 0.0)

    def _count(self) -> None:
        now = asyncio.get_running_loop().time()
        self.polls += 1
        self.early += now - self._last < self.interval - NOTHING
        self._last = now


def consumer(name: str, messages: int, done: list[str]) -> streaming.Handle:
    """One that wants each of so many, in order. Says so in *done* when it has them."""
    had = 0

    def handle(message: ChatMessage) -> bool:
        nonlocal had
        had += 1
        if message.id != had:
            raise RuntimeError(f"{name}: message {message.id} where {had} was due")
        if had < messages:
            return False
        done.append(name)
        return True

    return handle


class _Source:
    """The chat as pythpeer polls it."""

    def __init__(self, chat: streaming.Chat, store: Store) -> None:
        self.name: Final = "benchmark.chat"
        rate = Rate(max(chat.interval, NOTHING), guard=min(chat.interval, GUARD))
        self._limiter = store.limiter("benchmark", self.name, rate)
        self._chat = chat

    async def initial_position(self, log: Log[ChatMessage]) -> int | None:
        return 0

    async def drain(self) -> None:
        pass

    async def try_poll(self, feed: Poller[ChatMessage]) -> PythpeerError | None:
        permit = await self._limiter.acquire(Priority.POLL)
        await asyncio.sleep(0)  # others come to wait meanwhile, as where there is an interval
        permit.on_written()
        after = feed.min_position
        page = await self._chat.ask(after)
        permit.on_answered()
        permit.close()
        known = {message.id: message for message in page}
        full = len(page) == PAGE
        await feed.log.append(link_entries(after, known, full=full))
        feed.confirm(after, full=full)
        return None


@asynccontextmanager
async def _open(chat: streaming.Chat) -> AsyncGenerator[Callable[[], Stream[ChatMessage]]]:
    store, feeds = MemoryStore(), Pollers()
    feeds.open(store, Retry())
    feed = feeds.get(Topic("benchmark", ChatMessage), lambda: _Source(chat, store))
    yield lambda: Stream(feed, after=0)
    feeds.close()


async def _follow(stream: Stream[ChatMessage], handle: streaming.Handle) -> None:
    async for message in stream:
        if handle(message):
            break
    await stream.aclose()


PYTHPEER: Final = streaming.Arm(OURS, _open, _follow)
