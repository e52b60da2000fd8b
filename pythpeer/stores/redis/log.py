"""One session's hold on a log: readers, announcements, and whose turn to poll it is."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Collection, Sequence
from typing import Any, Final, TypeVar

from ..base import DIRECT, Draft, Log, Reader
from .pulse import TERM, micro
from .readers import LonelyReader, SharingReader
from .shelf import Shelf

__all__ = ["RedisLog"]

T = TypeVar("T")

LOOK: Final = 1.0
"""Seconds for which one question for news is open."""

BUSY: Final = 0.25
"""Seconds after its poll at which a leader that has not come back is taken to be at work."""


class RedisLog(Log[T]):
    """See `Log`."""

    def __init__(self, shelf: Shelf[T]) -> None:
        self._shelf = shelf
        self._pulse = shelf.pulse
        self._who = shelf.pulse.name()
        self._leads = False
        self._retiring: asyncio.TimerHandle | None = None
        weakref.finalize(self, shelf.pulse.bury, self._who).atexit = False

    def reader(self, name: str | None) -> Reader[T]:
        """A reader of this name, which shares it with all others of the name, or one without."""
        if name is None or name == DIRECT:
            return LonelyReader(self._shelf, name)
        return SharingReader(self._shelf, name)

    async def append(
        self, drafts: Sequence[Draft[T]], *, settled: Collection[int] = ()
    ) -> Sequence[Draft[T]]:
        """Add what is new among *drafts*, and return that part of them."""
        if not drafts and not settled:
            return ()
        added = await self._shelf.append(self._who, drafts, settled)
        for number in settled:
            self._pulse.discard(self._who, number)
        return added

    async def acknowledged(self) -> int:
        """The highest place that any reader but of direct calls has acknowledged."""
        for reader in list(self._shelf.readers):
            await reader.flush()
        place: int = await self._shelf.run("meta", "acknowledged", self._who)
        return place

    # -- announcements ----------------------------------------------------------------------------

    async def announce(self, seconds: float) -> int:
        """Note that a consuming read is about to be sent, and have the server know it."""
        args = (self._who, micro(TERM), micro(seconds))
        number: int = await self._shelf.run("meta", "announce", *args)
        self._pulse.add(self._who, number, seconds)
        return number

    async def withdraw(self, announcement: int) -> None:
        """Take an announcement back: nothing was consumed."""
        self._pulse.discard(self._who, announcement)
        await self._shelf.run("meta", "withdraw", self._who, announcement)

    async def give_up(self, announcement: int) -> None:
        """The announced read is over, and nobody knows what it consumed."""
        self._pulse.discard(self._who, announcement)
        await self._shelf.run("meta", "give up", self._who, announcement)

    async def unsettled(self) -> Collection[int]:
        """The announcements of which nobody knows what they consumed."""
        numbers: list[int] = await self._shelf.run("meta", "unsettled", self._who)
        return numbers

    # -- who polls --------------------------------------------------------------------------------

    async def lead(self, seconds: float) -> bool:
        """Whether this hold may poll for all that share the log, for *seconds* from now.

        If its process dies the lead is free as soon as that shows.
        """
        if self._retiring is not None:
            self._retiring.cancel()
            self._retiring = None
        args = (self._who, micro(TERM), micro(seconds))
        leads = bool(await self._shelf.run("meta", "lead", *args))
        if leads:
            self._leads = True
            self._pulse.add(self._who, "lead", seconds)
        return leads

    def retire(self) -> None:
        """Let another hold lead, if this one is not back soon: work on an item may take long."""
        if self._leads and self._retiring is None:
            loop = asyncio.get_running_loop()
            self._retiring = loop.call_later(BUSY, self._step_back)

    def _step_back(self) -> None:
        self._leads, self._retiring = False, None
        self._pulse.discard(self._who, "lead")
        self._shelf.spawn(self._shelf.run("meta", "retire", self._who))

    async def news(self, seconds: float) -> None:
        """Wait until somebody appends to the log, or dies, *seconds* at most."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        self._pulse.add(self._who, "news")
        stirred = asyncio.ensure_future(self._pulse.stirred.wait())
        try:
            while not stirred.done() and (left := end - loop.time()) > 0:
                if await self._appended(min(left, LOOK), stirred):
                    return
        finally:
            self._pulse.discard(self._who, "news")
            stirred.cancel()

    async def _appended(self, seconds: float, stirred: asyncio.Future[Any]) -> bool:
        """Whether something was appended in this time. Ends early if somebody was *stirred*."""
        shelf = self._shelf
        wait = asyncio.ensure_future(shelf.link.wait(shelf.stream, shelf.head, seconds))
        try:
            await asyncio.wait((wait, stirred), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not wait.done():
                wait.cancel()
                await asyncio.wait([wait])
        return not wait.cancelled() and wait.result()
