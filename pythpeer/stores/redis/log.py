"""One session's hold on a log: readers, announcements, and whose turn to poll it is."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Collection, Sequence
from typing import Any, Final, TypeVar

from ..base import DIRECT, Log, NewEntry, Reader
from .pulse import SESSION_TIMEOUT, to_microseconds
from .readers import GroupReader, StandaloneReader
from .shelf import LogState

__all__ = ["RedisLog"]

T = TypeVar("T")

BLOCK_TIMEOUT: Final = 1.0
"""Seconds for which one question for news is open."""

RELEASE_DELAY: Final = 0.25
"""Seconds after its poll at which a leader that has not come back is taken to be at work."""


class RedisLog(Log[T]):
    """See `Log`."""

    def __init__(self, shelf: LogState[T]) -> None:
        self._state = shelf
        self._heartbeat = shelf.heartbeat
        self._owner = shelf.heartbeat.new_owner()
        self._is_leader = False
        self._release_timer: asyncio.TimerHandle | None = None
        weakref.finalize(self, shelf.heartbeat.report_dead, self._owner).atexit = False

    def reader(self, name: str | None) -> Reader[T]:
        """A reader of this name, which shares it with all others of the name, or one without."""
        if name is None or name == DIRECT:
            return StandaloneReader(self._state, name)
        return GroupReader(self._state, name)

    async def append(
        self, drafts: Sequence[NewEntry[T]], *, completes: Collection[int] = ()
    ) -> Sequence[NewEntry[T]]:
        """Add what is new among *drafts*, and return that part of them."""
        if not drafts and not completes:
            return ()
        added = await self._state.append(self._owner, drafts, completes)
        for number in completes:
            self._heartbeat.stop(self._owner, number)
        return added

    async def max_acknowledged(self) -> int:
        """The highest place that any reader but of direct calls has acknowledged."""
        for reader in list(self._state.readers):
            await reader.flush()
        place: int = await self._state.run_script("meta", "acknowledged", self._owner)
        return place

    # -- announcements ----------------------------------------------------------------------------

    async def begin_fetch(self, seconds: float) -> int:
        """Note that a consuming read is about to be sent, and have the server know it."""
        args = (self._owner, to_microseconds(SESSION_TIMEOUT), to_microseconds(seconds))
        number: int = await self._state.run_script("meta", "announce", *args)
        self._heartbeat.keep_alive(self._owner, number, seconds)
        return number

    async def cancel_fetch(self, announcement: int) -> None:
        """Take an announcement back: nothing was consumed."""
        self._heartbeat.stop(self._owner, announcement)
        await self._state.run_script("meta", "withdraw", self._owner, announcement)

    async def lose_fetch(self, announcement: int) -> None:
        """The announced read is over, and nobody knows what it consumed."""
        self._heartbeat.stop(self._owner, announcement)
        await self._state.run_script("meta", "give up", self._owner, announcement)

    async def lost_fetches(self) -> Collection[int]:
        """The announcements of which nobody knows what they consumed."""
        numbers: list[int] = await self._state.run_script("meta", "unsettled", self._owner)
        return numbers

    # -- who polls --------------------------------------------------------------------------------

    async def acquire_lease(self, seconds: float) -> bool:
        """Whether this hold may poll for all that share the log, for *seconds* from now.

        If its process dies the lead is free as soon as that shows.
        """
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None
        args = (self._owner, to_microseconds(SESSION_TIMEOUT), to_microseconds(seconds))
        leads = bool(await self._state.run_script("meta", "lead", *args))
        if leads:
            self._is_leader = True
            self._heartbeat.keep_alive(self._owner, "lead", seconds)
        return leads

    def release_lease(self) -> None:
        """Let another hold lead, if this one is not back soon: work on an item may take long."""
        if self._is_leader and self._release_timer is None:
            loop = asyncio.get_running_loop()
            self._release_timer = loop.call_later(RELEASE_DELAY, self._release_now)

    def _release_now(self) -> None:
        self._is_leader, self._release_timer = False, None
        self._heartbeat.stop(self._owner, "lead")
        self._state.run_in_background(self._state.run_script("meta", "retire", self._owner))

    async def wait_for_append(self, seconds: float) -> None:
        """Wait until somebody appends to the log, or dies, *seconds* at most."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        self._heartbeat.keep_alive(self._owner, "news")
        stirred = asyncio.ensure_future(self._heartbeat.death_event.wait())
        try:
            while not stirred.done() and (left := end - loop.time()) > 0:
                if await self._wait_appended(min(left, BLOCK_TIMEOUT), stirred):
                    return
        finally:
            self._heartbeat.stop(self._owner, "news")
            stirred.cancel()

    async def _wait_appended(self, seconds: float, stirred: asyncio.Future[Any]) -> bool:
        """Whether something was appended in this time. Ends early if somebody was *stirred*."""
        shelf = self._state
        wait = asyncio.ensure_future(
            shelf.connections.wait_for_entry(shelf.stream, shelf.head, seconds)
        )
        try:
            await asyncio.wait((wait, stirred), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not wait.done():
                wait.cancel()
                await asyncio.wait([wait])
        return not wait.cancelled() and wait.result()
