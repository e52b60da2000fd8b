"""The simplest way: each consumer polls, handles the messages, and sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from .streaming import Candidate, Chat, Handle

__all__ = ["CANDIDATES"]


@asynccontextmanager
async def _open(chat: Chat) -> AsyncGenerator[Callable[[], Chat]]:
    yield lambda: chat


async def _follow(chat: Chat, handle: Handle) -> None:
    last = 0
    while True:
        for message in await chat.ask(last):
            last = message.id
            if handle(message):
                return
        await asyncio.sleep(chat.interval)


CANDIDATES: Final = (Candidate("a loop per consumer", _open, _follow),)
