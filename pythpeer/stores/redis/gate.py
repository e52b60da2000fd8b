"""Pacing that all programs on one server share: what happens here is told there, in order.

To take a token is one trip to the server, and takes along whatever happened before. When something
happens and nobody asks for a token, it is told at once all the same: others may wait for it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from typing import Final

from ...errors import StoreError
from ...limiter import Turn, clock
from ...wire import Rate
from .link import Argument, Link
from .pulse import TERM, Pulse, micro
from .scripts import script

__all__ = ["RedisGate"]

UNTOLD: Final = 256
"""How many events are kept while the server is away. What is older than that is of no account."""

_Event = tuple[float, tuple[Argument, ...]]
"""What happened, and when by the loop's clock. The server is told how long ago that was."""


class RedisGate:
    """The `Gate` of one endpoint and account, whose state lies under *keys*."""

    def __init__(self, link: Link, pulse: Pulse, keys: Sequence[str], rate: Rate) -> None:
        self._link = link
        self._pulse = pulse
        self._keys = tuple(keys)
        self._who = pulse.name()
        self._script = script("pace")
        times = (micro(rate.interval), rate.burst, micro(rate.guard), micro(TERM))
        self._always: tuple[Argument, ...] = (self._who, *times)
        self._numbers = itertools.count(1)
        self._in_hand: set[int] = set()
        self._untold: deque[_Event] = deque()
        self._turn = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._telling: asyncio.Task[None] | None = None
        self._in_line = False

    async def take(self) -> Turn:
        """Ask for a token, and keep a place in the line of processes until it is had."""
        ticket = next(self._numbers)
        self._in_line = True
        try:
            wait, paused = await self._tell("t", ticket)
        except BaseException:
            self._note("b", ticket)
            self.leave()
            raise
        if not wait:
            self._in_line = False
            self._in_hand.add(ticket)
            self._pulse.add(self._who, ticket)
        return Turn(wait / 1e6, ticket, paused / 1e6)

    def written(self, ticket: int, guard: float) -> None:
        """The request on *ticket* is being written now."""
        self._let_go(ticket)
        self._note("w", ticket, micro(guard))

    def answered(self, ticket: int) -> None:
        """The request on *ticket* has its answer now."""
        self._note("a", ticket)

    def give_back(self, ticket: int) -> None:
        """The request on *ticket* certainly never left."""
        self._let_go(ticket)
        self._note("b", ticket)

    def leave(self) -> None:
        """Nobody here waits any more: give the place in the line up."""
        self._in_line = False
        self._note("l")

    def pause(self, seconds: float) -> None:
        """Let nothing through for *seconds* from now, in any process."""
        self._note("p", micro(seconds))

    async def withdraw(self) -> None:
        """The store is closing: what is in hand goes back, and the place in the line."""
        for ticket in list(self._in_hand):
            self.give_back(ticket)
        if self._in_line:
            self.leave()
        if self._telling is not None:
            await asyncio.wait([self._telling])
        if self._untold:
            await self._tell()

    def _let_go(self, ticket: int) -> None:
        self._in_hand.discard(ticket)
        self._pulse.discard(self._who, ticket)

    # -- telling ----------------------------------------------------------------------------------

    def _note(self, *event: Argument) -> None:
        loop = self._move()
        self._untold.append((clock(loop)(), event))
        if len(self._untold) > UNTOLD:
            self._untold.popleft()
        if self._telling is None or self._telling.done():
            self._telling = loop.create_task(self._tell_all())

    def _move(self) -> asyncio.AbstractEventLoop:
        """Come to the running loop. What happened in another one has no time in this."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._turn, self._telling = loop, asyncio.Lock(), None
            self._untold.clear()
        return loop

    async def _tell_all(self) -> None:
        while self._untold:
            try:
                await self._tell()
            except StoreError:
                return  # it is told with the next token: whoever wants one hears what is wrong

    async def _tell(self, *wish: Argument) -> tuple[int, int]:
        """Tell what happened, and ask for a token if that is the wish. One at a time, in order."""
        loop = self._move()
        async with self._turn:
            events = list(self._untold)
            if not events and not wish:
                return 0, 0
            now = clock(loop)()
            args: list[Argument] = []
            for when, what in events:
                args += _aged(what, micro(now - when))
            args += wish
            told = await self._link.run(self._script, self._keys, args, always=self._always)
            for event in events:
                if self._untold and self._untold[0] is event:
                    self._untold.popleft()
            wait, paused = (told, 0) if isinstance(told, int) else told
            return wait, paused


def _aged(event: tuple[Argument, ...], age: int) -> tuple[Argument, ...]:
    if event[0] in ("w", "a"):
        return (*event, age)
    if event[0] == "p":
        return ("p", max(0, int(event[1]) - age))
    return event
