"""One task that polls and sleeps, with an `asyncio.Queue` for each consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from pythpeer import ChatMessage

from .streaming import Candidate, Chat, Handle

__all__ = ["CANDIDATES"]

Queue = asyncio.Queue[ChatMessage]


@asynccontextmanager
async def _open(chat: Chat) -> AsyncGenerator[Callable[[], Queue]]:
    queues: list[Queue] = []

    def make() -> Queue:
        queues.append(Queue())
        return queues[-1]

    polling = asyncio.create_task(_poll(chat, queues))
    try:
        yield make
    finally:
        polling.cancel()
        await asyncio.wait([polling])


async def _poll(chat: Chat, queues: list[Queue]) -> None:
    last = 0
    while True:
        for message in await chat.ask(last):
            last = message.id
            for queue in queues:
                queue.put_nowait(message)
        await asyncio.sleep(chat.interval)


async def _follow(queue: Queue, handle: Handle) -> None:
    while not handle(await queue.get()):
        pass


CANDIDATES: Final = (Candidate("a queue per consumer", _open, _follow),)
