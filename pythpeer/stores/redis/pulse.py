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
from .link import Argument, Link
from .scripts import script

__all__ = ["TERM", "Pulse", "micro"]

TERM: Final = 1.2
"""Seconds after its last sign of life at which one counts as dead."""

PERIOD: Final = 0.3
"""Seconds between signs of life."""


def micro(seconds: float) -> int:
    """Whole microseconds, which is what scripts reckon in."""
    return int(seconds * 1_000_000)


class Pulse:
    """The signs of life of one process."""

    def __init__(self, link: Link, alive: str, deaths: str) -> None:
        self._link = link
        self._keys = (alive, deaths)
        self._process = os.urandom(6).hex()
        self._numbers = itertools.count(1)
        self._living: dict[str, dict[object, float]] = {}
        self._gone: list[str] = []
        self._deaths: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None
        self.stirred: asyncio.Event = asyncio.Event()
        """Set, and replaced by another, when somebody died."""

    def name(self) -> str:
        """A name like no other, here or in another process."""
        return f"pythpeer-{self._process}-{next(self._numbers)}"

    def add(self, who: str, reason: object, seconds: float = math.inf) -> None:
        """Keep *who* alive for *reason*, for so long at most."""
        loop = asyncio.get_running_loop()
        self._living.setdefault(who, {})[reason] = loop.time() + seconds
        self._wind(loop)

    def discard(self, who: str, reason: object) -> None:
        """That reason is no more."""
        reasons = self._living.get(who, {})
        reasons.pop(reason, None)
        if not reasons:
            self._living.pop(who, None)

    def bury(self, who: str) -> None:
        """Tell the others that *who* is gone. Can be called from wherever garbage is collected."""
        if self._living.pop(who, None) is not None:
            self._gone.append(who)

    async def aclose(self) -> None:
        """Stop."""
        self._living.clear()
        self._gone.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        beat, self._beat = self._beat, None
        if beat is not None and not beat.get_loop().is_closed():
            beat.cancel()
            await asyncio.wait([beat])

    def _wind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the next beat come, if none is on its way."""
        beat, timer = self._beat, self._timer
        if beat is not None and beat.get_loop() is loop and not beat.done():
            return
        if timer is None or timer.cancelled() or self._wound is not loop:
            self._wound = loop
            self._timer = loop.call_later(PERIOD, self._start, loop)

    _wound: asyncio.AbstractEventLoop | None = None

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._beat = loop.create_task(self._sign())

    async def _sign(self) -> None:
        loop = asyncio.get_running_loop()
        for who, reasons in list(self._living.items()):
            for reason, end in list(reasons.items()):
                if end <= loop.time():
                    self.discard(who, reason)
        if self._gone or self._living:
            with suppress(StoreError):  # whoever needs the server hears of it there
                await self._tell()
        self._beat = None
        if self._living or self._gone:
            self._wind(loop)

    async def settle(self) -> None:
        """Have it known who is gone: what they had in hand is next, also for whoever asks now."""
        if self._gone:
            await self._tell()

    async def _tell(self) -> None:
        gone, self._gone = self._gone, []
        args: list[Argument] = [micro(TERM), len(gone), *gone, *self._living]
        try:
            self._hear(await self._link.run(script("pulse"), self._keys, args))
        except BaseException:
            self._gone += gone
            raise

    def _hear(self, deaths: int) -> None:
        if self._deaths is not None and deaths != self._deaths:
            self.stirred.set()
            self.stirred = asyncio.Event()
        self._deaths = deaths
