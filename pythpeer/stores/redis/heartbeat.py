"""`Heartbeat`: reports that owners in this process are alive, and detects the death of others.

An owner that has something that others wait for (pending items of a shared name, the lease, a
token, a fetch intent) sends several heartbeats within the session timeout. While no owner in this
process has anything of that kind there is no task.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
from contextlib import suppress
from typing import Final

from ...errors import StoreError
from .clock import ServerClock
from .connection import Argument, Connections
from .keys import Keys
from .scripts import script

__all__ = ["SESSION_TIMEOUT", "Heartbeat", "to_microseconds"]

SESSION_TIMEOUT: Final = 1.2
"""Seconds after its last heartbeat at which an owner counts as dead."""

HEARTBEAT_INTERVAL: Final = 0.3
"""Seconds between two heartbeats."""


MAX_SECONDS: Final = 1e9
"""The longest time that scripts receive, 30 years: their numbers are exact up to 2**53."""


def to_microseconds(seconds: float) -> int:
    """Convert to whole microseconds, the unit of the scripts. Infinity is a very long time."""
    return int(min(seconds, MAX_SECONDS) * 1_000_000)


class Heartbeat:
    """The heartbeats of the owners in one process.

    Invariants: while there are owners, either the timer is set or the task is running, in the
    running event loop; there is at most one of each.
    """

    def __init__(self, connections: Connections, keys: Keys, clock: ServerClock) -> None:
        self._connections = connections
        self._clock = clock
        self._keys = (keys.alive, keys.deaths, keys.server)
        self._names = keys
        """The names of all keys, with the salt."""
        self._process = os.urandom(6).hex()
        """The part of the owners' names that identifies this object in this process. Changed by
        `reset_after_fork`."""
        self._owner_numbers = itertools.count(1)
        self._owners: dict[str, dict[object, float]] = {}
        """For each owner the reasons to keep it alive, each with the time of the loop at which it
        ends. Changed by `keep_alive`, `stop` and `report_dead`."""
        self._beats: dict[str, float] = {}
        """For each of these owners the time of the loop at which its last heartbeat was sent that
        has arrived. Set by `_send`, removed by `stop` and `report_dead`."""
        self._unreported_dead: list[str] = []
        """The owners that are dead, which the server does not know yet. Added by `report_dead`,
        possibly on another thread; removed by `_send`."""
        self._death_count: int | None = None
        """The server's number of deaths at the last heartbeat; ``None`` before the first."""
        self._timer: asyncio.TimerHandle | None = None
        """Starts the next heartbeat."""
        self._task: asyncio.Task[None] | None = None
        """Sends a heartbeat; ``None`` between two of them."""
        self.death_event: asyncio.Event = asyncio.Event()
        """Set, and replaced by a new event, when an owner of any process has died."""

    def reset_after_fork(self) -> None:
        """Have no owners in a child process: those so far belong to the parent."""
        self._process = os.urandom(6).hex()
        self._owners.clear()
        self._beats.clear()
        self._unreported_dead.clear()
        self._timer = self._task = None
        self.death_event = asyncio.Event()

    def new_owner(self) -> str:
        """Return a name that is unique among all processes."""
        return f"pythpeer-{self._process}-{next(self._owner_numbers)}"

    def keep_alive(self, owner: str, reason: object, seconds: float = math.inf) -> None:
        """Keep *owner* alive for *reason*, until `stop` and at most *seconds*."""
        loop = asyncio.get_running_loop()
        self._owners.setdefault(owner, {})[reason] = loop.time() + seconds
        self._schedule(loop)

    def stop(self, owner: str, reason: object) -> None:
        """End a reason to keep *owner* alive. Without any it sends no heartbeats."""
        reasons = self._owners.get(owner, {})
        reasons.pop(reason, None)
        if not reasons:
            self._owners.pop(owner, None)
            self._beats.pop(owner, None)

    def last_beat(self, owner: str) -> float:
        """Return the time of the loop at which the last heartbeat of *owner* was sent."""
        return self._beats.get(owner, -math.inf)

    def report_dead(self, owner: str) -> None:
        """Report *owner* as dead with the next heartbeat.

        Can be called by the garbage collector, on any thread.
        """
        self._beats.pop(owner, None)
        if self._owners.pop(owner, None) is not None:
            self._unreported_dead.append(owner)

    async def aclose(self) -> None:
        """Stop all heartbeats."""
        self._owners.clear()
        self._beats.clear()
        self._unreported_dead.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        task, self._task = self._task, None
        if task is not None and not task.get_loop().is_closed():
            task.cancel()
            await asyncio.wait([task])

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the timer for the next heartbeat, unless it is set or a heartbeat is under way."""
        task, timer = self._task, self._timer
        if task is not None and task.get_loop() is loop and not task.done():
            return
        if timer is None or timer.cancelled() or self._scheduled_in is not loop:
            self._scheduled_in = loop
            self._timer = loop.call_later(HEARTBEAT_INTERVAL, self._start_beat, loop)

    _scheduled_in: asyncio.AbstractEventLoop | None = None
    """The event loop of the timer."""

    def _start_beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._task = loop.create_task(self._beat())

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        for owner, reasons in list(self._owners.items()):
            for reason, end in list(reasons.items()):
                if end <= loop.time():
                    self.stop(owner, reason)
        if self._unreported_dead or self._owners:
            with suppress(StoreError):  # a call that needs the server raises it
                await self._send()
        self._task = None
        if self._owners or self._unreported_dead:
            self._schedule(loop)

    async def flush(self) -> None:
        """Report dead owners now, so that the next read can claim their pending items."""
        if self._unreported_dead:
            await self._send()

    async def _send(self) -> None:
        dead, self._unreported_dead = self._unreported_dead, []
        sent, owners = self._clock.now(), list(self._owners)
        args: list[Argument] = [to_microseconds(SESSION_TIMEOUT), self._names.salt.hex()]
        args += [len(dead), *dead, *owners]
        try:
            deaths, *reading = await self._connections.run_script(
                script("heartbeat"), lambda: self._keys, args
            )
        except BaseException:
            self._unreported_dead += dead
            raise
        self._clock.observe(sent, *reading)
        self._beats.update((owner, sent) for owner in owners if owner in self._owners)
        self._update_deaths(deaths)

    def _update_deaths(self, deaths: int) -> None:
        if self._death_count is not None and deaths != self._death_count:
            self.death_event.set()
            self.death_event = asyncio.Event()
        self._death_count = deaths
