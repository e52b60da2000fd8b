"""Who of this process is alive, as the others see it, and whether one of them has died.

Whoever has something in hand that others wait for (items of a shared name, the lead, a token, an
announced read) says several times within its term that it is alive. There is no task for it while
nobody here has any such thing.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
from contextlib import suppress
from typing import Final

from ...errors import StoreError
from .link import Argument, Connections
from .scripts import script

__all__ = ["SESSION_TIMEOUT", "Heartbeat", "to_microseconds"]

SESSION_TIMEOUT: Final = 1.2
"""Seconds after its last sign of life at which one counts as dead."""

HEARTBEAT_INTERVAL: Final = 0.3
"""Seconds between signs of life."""


def to_microseconds(seconds: float) -> int:
    """Whole microseconds, which is what scripts reckon in."""
    return int(seconds * 1_000_000)


class Heartbeat:
    """The signs of life of one process."""

    def __init__(self, link: Connections, alive: str, deaths: str) -> None:
        self._connections = link
        self._keys = (alive, deaths)
        self._process = os.urandom(6).hex()
        self._owner_numbers = itertools.count(1)
        self._owners: dict[str, dict[object, float]] = {}
        self._unreported_dead: list[str] = []
        self._death_count: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.death_event: asyncio.Event = asyncio.Event()
        """Set, and replaced by another, when somebody died."""

    def new_owner(self) -> str:
        """A name like no other, here or in another process."""
        return f"pythpeer-{self._process}-{next(self._owner_numbers)}"

    def keep_alive(self, who: str, reason: object, seconds: float = math.inf) -> None:
        """Keep *who* alive for *reason*, for so long at most."""
        loop = asyncio.get_running_loop()
        self._owners.setdefault(who, {})[reason] = loop.time() + seconds
        self._schedule(loop)

    def stop(self, who: str, reason: object) -> None:
        """That reason is no more."""
        reasons = self._owners.get(who, {})
        reasons.pop(reason, None)
        if not reasons:
            self._owners.pop(who, None)

    def report_dead(self, who: str) -> None:
        """Tell the others that *who* is gone. Can be called from wherever garbage is collected."""
        if self._owners.pop(who, None) is not None:
            self._unreported_dead.append(who)

    async def aclose(self) -> None:
        """Stop."""
        self._owners.clear()
        self._unreported_dead.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        beat, self._task = self._task, None
        if beat is not None and not beat.get_loop().is_closed():
            beat.cancel()
            await asyncio.wait([beat])

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the next beat come, if none is on its way."""
        beat, timer = self._task, self._timer
        if beat is not None and beat.get_loop() is loop and not beat.done():
            return
        if timer is None or timer.cancelled() or self._scheduled_in is not loop:
            self._scheduled_in = loop
            self._timer = loop.call_later(HEARTBEAT_INTERVAL, self._start_beat, loop)

    _scheduled_in: asyncio.AbstractEventLoop | None = None

    def _start_beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._task = loop.create_task(self._beat())

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        for who, reasons in list(self._owners.items()):
            for reason, end in list(reasons.items()):
                if end <= loop.time():
                    self.stop(who, reason)
        if self._unreported_dead or self._owners:
            with suppress(StoreError):  # whoever needs the server hears of it there
                await self._send()
        self._task = None
        if self._owners or self._unreported_dead:
            self._schedule(loop)

    async def flush(self) -> None:
        """Have it known who is gone: what they had in hand is next, also for whoever asks now."""
        if self._unreported_dead:
            await self._send()

    async def _send(self) -> None:
        gone, self._unreported_dead = self._unreported_dead, []
        args: list[Argument] = [to_microseconds(SESSION_TIMEOUT), len(gone), *gone, *self._owners]
        try:
            self._update_deaths(
                await self._connections.run_script(script("pulse"), self._keys, args)
            )
        except BaseException:
            self._unreported_dead += gone
            raise

    def _update_deaths(self, deaths: int) -> None:
        if self._death_count is not None and deaths != self._death_count:
            self.death_event.set()
            self.death_event = asyncio.Event()
        self._death_count = deaths
