"""A chat in memory for streams to follow, and pythpeer's stream of it.

A poll costs only its network delay, so that the cost of the streams themselves is measured.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from pythpeer import ChatMessage, MemoryStore, PythpeerError, Rate, Retry
from pythpeer.pacing.queue import Priority
from pythpeer.stores.base import Log, Store, Topic
from pythpeer.streams.gaps import link_entries
from pythpeer.streams.poller import Poller, Pollers, PollSource
from pythpeer.streams.stream import Stream

from .competitors import streaming
from .competitors.installed import OURS

__all__ = ["PAGE", "PYTHPEER", "Chat", "consumer"]

PAGE: Final = 50
"""Maximum messages of a poll."""

GUARD: Final = 0.05
"""Seconds: pythpeer's own default."""

SEED: Final = 20121212

NO_INTERVAL: Final = 1e-6
"""Seconds that stand for no interval, because an interval must be positive."""


class Chat:
    """Existing and future messages; a poll takes up to *max_delay* seconds each way."""

    def __init__(self, messages: int = 0, *, interval: float = 0.0, max_delay: float = 0.0) -> None:
        self.interval = interval
        self.polls = 0
        self.early = 0
        """Polls that arrived less than an interval after the previous one."""
        self._messages: list[ChatMessage] = []
        self._max_delay = max_delay
        self._random = random.Random(SEED)
        self._last = -interval
        for _ in range(messages):
            self.post()

    def copy(self) -> Chat:
        """Return a chat with the same messages, without polls."""
        chat = Chat(interval=self.interval, max_delay=self._max_delay)
        chat._messages = self._messages
        return chat

    def post(self) -> None:
        """Add one message."""
        self._messages.append(ChatMessage(len(self._messages) + 1, "user", "text"))

    async def ask(self, after: int | None, limit: int = PAGE) -> Sequence[ChatMessage]:
        """Return the first messages after an id, ascending; without an id, the newest."""
        await self._delay()
        self._count()
        limit = min(limit, PAGE)
        page = self._messages[-limit:] if after is None else self._messages[after : after + limit]
        await self._delay()
        return page

    async def _delay(self) -> None:
        await asyncio.sleep(self._random.uniform(0.0, self._max_delay) if self._max_delay else 0.0)

    def _count(self) -> None:
        now = asyncio.get_running_loop().time()
        self.polls += 1
        self.early += now - self._last < self.interval - NO_INTERVAL
        self._last = now


def consumer(name: str, messages: int, done: list[str]) -> streaming.Handle:
    """Return a handler that expects *messages* in order, and then adds its name to *done*."""
    received = 0

    def handle(message: ChatMessage) -> bool:
        nonlocal received
        received += 1
        if message.id != received:
            raise RuntimeError(f"{name}: message {message.id} instead of {received}")
        if received < messages:
            return False
        done.append(name)
        return True

    return handle


class _Source(PollSource[ChatMessage]):
    """The chat as pythpeer polls it."""

    def __init__(self, chat: streaming.Chat, store: Store) -> None:
        self.name = "benchmark.chat"
        rate = Rate(max(chat.interval, NO_INTERVAL), guard=min(chat.interval, GUARD))
        self._limiter = store.limiter("benchmark", self.name, rate)
        self._chat = chat

    async def initial_position(self, log: Log[ChatMessage]) -> int | None:
        return 0

    async def try_poll(self, poller: Poller[ChatMessage]) -> PythpeerError | None:
        permit = await self._limiter.acquire(Priority.POLL)
        await asyncio.sleep(0)  # others start to wait now, as with a real interval
        permit.on_written()
        after = poller.min_position
        page = await self._chat.ask(after)
        permit.on_answered()
        permit.close()
        by_id = {message.id: message for message in page}
        full = len(page) == PAGE
        await poller.log.append(link_entries(after, by_id, full=full))
        poller.confirm(after, full=full)
        return None


@asynccontextmanager
async def _open(chat: streaming.Chat) -> AsyncGenerator[Callable[[], Stream[ChatMessage]]]:
    store, pollers = MemoryStore(), Pollers()
    pollers.open(store, Retry())
    poller = pollers.get(Topic("benchmark", ChatMessage), lambda: _Source(chat, store))
    yield lambda: Stream(poller, after=0)
    pollers.close()


async def _follow(stream: Stream[ChatMessage], handle: streaming.Handle) -> None:
    async for message in stream:
        if handle(message):
            break
    await stream.aclose()


PYTHPEER: Final = streaming.Candidate(OURS, _open, _follow)
