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
from ...limiter import Grant, loop_clock
from ...wire import Rate
from .link import Argument, Connections
from .pulse import SESSION_TIMEOUT, Heartbeat, to_microseconds
from .scripts import script

__all__ = ["RedisPacing"]

MAX_OUTBOX: Final = 256
"""How many events are kept while the server is away. What is older than that is of no account."""

_Event = tuple[float, tuple[Argument, ...]]
"""What happened, and when by the loop's clock. The server is told how long ago that was."""


class RedisPacing:
    """The `Gate` of one endpoint and account, whose state lies under *keys*."""

    def __init__(
        self, link: Connections, pulse: Heartbeat, keys: Sequence[str], rate: Rate
    ) -> None:
        self._connections = link
        self._heartbeat = pulse
        self._keys = tuple(keys)
        self._owner = pulse.new_owner()
        self._script = script("pace")
        times = (
            to_microseconds(rate.interval),
            rate.burst,
            to_microseconds(rate.guard),
            to_microseconds(SESSION_TIMEOUT),
        )
        self._fixed_args: tuple[Argument, ...] = (self._owner, *times)
        self._ticket_numbers = itertools.count(1)
        self._outstanding: set[int] = set()
        self._outbox: deque[_Event] = deque()
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flush_task: asyncio.Task[None] | None = None
        self._is_queued = False

    async def acquire(self) -> Grant:
        """Ask for a token, and keep a place in the line of processes until it is had."""
        ticket = next(self._ticket_numbers)
        self._is_queued = True
        try:
            wait, paused = await self._send("t", ticket)
        except BaseException:
            self._enqueue("b", ticket)
            self.leave_queue()
            raise
        if not wait:
            self._is_queued = False
            self._outstanding.add(ticket)
            self._heartbeat.keep_alive(self._owner, ticket)
        return Grant(wait / 1e6, ticket, paused / 1e6)

    def written(self, ticket: int, guard: float) -> None:
        """The request on *ticket* is being written now."""
        self._forget(ticket)
        self._enqueue("w", ticket, to_microseconds(guard))

    def answered(self, ticket: int) -> None:
        """The request on *ticket* has its answer now."""
        self._enqueue("a", ticket)

    def release(self, ticket: int) -> None:
        """The request on *ticket* certainly never left."""
        self._forget(ticket)
        self._enqueue("b", ticket)

    def leave_queue(self) -> None:
        """Nobody here waits any more: give the place in the line up."""
        self._is_queued = False
        self._enqueue("l")

    def pause(self, seconds: float) -> None:
        """Let nothing through for *seconds* from now, in any process."""
        self._enqueue("p", to_microseconds(seconds))

    async def close(self) -> None:
        """The store is closing: what is in hand goes back, and the place in the line."""
        for ticket in list(self._outstanding):
            self.release(ticket)
        if self._is_queued:
            self.leave_queue()
        if self._flush_task is not None:
            await asyncio.wait([self._flush_task])
        if self._outbox:
            await self._send()

    def _forget(self, ticket: int) -> None:
        self._outstanding.discard(ticket)
        self._heartbeat.stop(self._owner, ticket)

    # -- telling ----------------------------------------------------------------------------------

    def _enqueue(self, *event: Argument) -> None:
        loop = self._rebind()
        self._outbox.append((loop_clock(loop)(), event))
        if len(self._outbox) > MAX_OUTBOX:
            self._outbox.popleft()
        if self._flush_task is None or self._flush_task.done():
            self._flush_task = loop.create_task(self._flush())

    def _rebind(self) -> asyncio.AbstractEventLoop:
        """Come to the running loop. What happened in another one has no time in this."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._lock, self._flush_task = loop, asyncio.Lock(), None
            self._outbox.clear()
        return loop

    async def _flush(self) -> None:
        while self._outbox:
            try:
                await self._send()
            except StoreError:
                return  # it is told with the next token: whoever wants one hears what is wrong

    async def _send(self, *request: Argument) -> tuple[int, int]:
        """Tell what happened, and ask for a token if that is the wish. One at a time, in order."""
        loop = self._rebind()
        async with self._lock:
            events = list(self._outbox)
            if not events and not request:
                return 0, 0
            now = loop_clock(loop)()
            args: list[Argument] = []
            for when, what in events:
                args += _with_age(what, to_microseconds(now - when))
            args += request
            told = await self._connections.run_script(
                self._script, self._keys, args, fixed_args=self._fixed_args
            )
            for event in events:
                if self._outbox and self._outbox[0] is event:
                    self._outbox.popleft()
            wait, paused = (told, 0) if isinstance(told, int) else told
            return wait, paused


def _with_age(event: tuple[Argument, ...], age: int) -> tuple[Argument, ...]:
    if event[0] in ("w", "a"):
        return (*event, age)
    if event[0] == "p":
        return ("p", max(0, int(event[1]) - age))
    return event
