"""asyncpraw: its `stream_generator`, which its documentation describes for any listing.

It waits up to 16 s while there are no new items; its documentation avoids that by
``pause_after=0``. After a page with new items it requests the next one immediately, because its
client paces the requests; therefore the listing here paces them as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final

from asyncpraw.models.util import stream_generator

from pythpeer import ChatMessage

from .streaming import Candidate, Chat, Handle

__all__ = ["CANDIDATES"]

Stream = AsyncIterator[ChatMessage | None]


@asynccontextmanager
async def _open(chat: Chat, pause_after: int | None) -> AsyncGenerator[Callable[[], Stream]]:
    def make() -> Stream:
        # Starts after id 0, that is, with the first message.
        return stream_generator(
            partial(_listing, chat, [0.0]),
            attribute_name="id",
            continue_after_id="0",
            pause_after=pause_after,
        )

    yield make


async def _listing(
    chat: Chat, due: list[float], *, limit: int, params: dict[str, Any]
) -> AsyncIterator[ChatMessage]:
    """Yield messages, the newest first; *due* is the time of the next allowed poll."""
    loop = asyncio.get_running_loop()
    if chat.interval:
        await asyncio.sleep(due[0] - loop.time())
    before = params["before"]
    page = await chat.ask(None if before is None else int(before), limit)
    due[0] = loop.time() + chat.interval
    for message in reversed(page):
        yield message


async def _follow(stream: Stream, handle: Handle) -> None:
    async for message in stream:
        if message is not None and handle(message):
            break


def _candidate(name: str, pause_after: int | None) -> Candidate[Stream]:
    def open(chat: Chat) -> AbstractAsyncContextManager[Callable[[], Stream]]:
        return _open(chat, pause_after)

    return Candidate(name, open, _follow)


CANDIDATES: Final = (
    _candidate("asyncpraw", None),
    _candidate("asyncpraw pause_after=0", 0),
)
