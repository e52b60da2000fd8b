"""`RedisPacing`: pacing shared by all programs on one server, whose script receives all events.

A request for a token is one round trip, which also sends the events that happened before it. If
something happens while no token is requested, it is sent immediately, because other processes may
be waiting for it.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import deque
from enum import StrEnum
from typing import Final

from ...errors import StoreError
from ...pacing.backend import Grant
from ...pacing.bucket import Rate
from ...pacing.limiter import loop_clock
from .clock import ServerClock
from .connection import Argument, Connections
from .heartbeat import SESSION_TIMEOUT, Heartbeat, to_microseconds
from .keys import Keys
from .scripts import script

__all__ = ["Op", "RedisPacing"]

MAX_BURST: Final = 1000
"""The number of tokens that the server stores at most, because it stores a time for each."""

MAX_OUTBOX: Final = 256
"""The number of events that are kept while the server is not reachable. Older ones are dropped,
because they no longer matter."""


class Op(StrEnum):
    """What an event is, in the arguments of ``bucket.lua``."""

    ACQUIRE = "t"
    WRITTEN = "w"
    ANSWERED = "a"
    RELEASE = "b"
    LEAVE_QUEUE = "l"
    PAUSE = "p"


_Event = tuple[float, tuple[Argument, ...]]
"""The time of an event by the loop's clock, and its `Op` with arguments. The server receives its
age instead of the time."""


class RedisPacing:
    """The pacing backend of one endpoint and account, which *key* identifies among *keys*.

    Invariants: events are sent in their order, and removed after the server has processed them; one
    call of the script is under way at a time; no event from one event loop is sent in another.
    """

    def __init__(
        self,
        connections: Connections,
        heartbeat: Heartbeat,
        clock: ServerClock,
        keys: Keys,
        key: str,
        rate: Rate,
    ) -> None:
        self._connections = connections
        self._clock = clock
        self._heartbeat = heartbeat
        self._keys = keys
        self.key: Final = key
        """Identifies the endpoint and the account, as `Keys.bucket` expects it."""
        self._script = script("bucket")
        times = (
            to_microseconds(rate.interval),
            min(rate.burst, MAX_BURST),
            to_microseconds(rate.guard),
            to_microseconds(SESSION_TIMEOUT),
        )
        self._rate_args: tuple[Argument, ...] = times
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Start as another limiter: tokens and events so far belong to a parent process."""
        self._owner = self._heartbeat.new_owner()
        """The name of this limiter on the server."""
        self._fixed_args: tuple[Argument, ...] = (self._owner, *self._rate_args)
        """The first arguments of each call of the script."""
        self._ticket_numbers = itertools.count(1)
        self._outstanding: dict[int, float] = {}
        """The tickets that were granted, and whose requests were not written yet; with the time of
        the loop at which the token was requested."""
        self._outbox: deque[_Event] = deque()
        """The events that are not sent yet. Added by `_enqueue`, removed by `_send`."""
        self._lock = asyncio.Lock()
        """Held during a call of the script. Replaced in another event loop."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the lock, the task and the events."""
        self._flush_task: asyncio.Task[None] | None = None
        """The task that sends the outbox. Started by `_enqueue`, ends when it is empty."""
        self._is_queued = False
        """Whether this limiter may be in the server's queue. Changed by `acquire` and
        `leave_queue`."""

    async def acquire(self) -> Grant:
        """Request a token. Until it is granted, the process keeps its position in the queue."""
        ticket = next(self._ticket_numbers)
        asked = self._clock.now()
        self._is_queued = True
        try:
            wait, paused = await self._send(Op.ACQUIRE, ticket)
        except BaseException:
            self._enqueue(Op.RELEASE, ticket)
            self.leave_queue()
            raise
        if not wait:
            self._is_queued = False
            self._outstanding[ticket] = asked
            self._heartbeat.keep_alive(self._owner, ticket)
        return Grant(wait / 1e6, ticket, paused / 1e6)

    def is_held(self, ticket: int) -> bool:
        """Return whether the server has certainly not taken this process for dead.

        The process counts as alive for the session timeout, after the request for the token and
        after each heartbeat.
        """
        asked = self._outstanding.get(ticket, -math.inf)
        alive_since = max(asked, self._heartbeat.last_beat(self._owner))
        return self._clock.now() < alive_since + SESSION_TIMEOUT

    def written(self, ticket: int, guard: float) -> None:
        """Record that the request of *ticket* is being written now."""
        self._forget(ticket)
        self._enqueue(Op.WRITTEN, ticket, to_microseconds(guard))

    def answered(self, ticket: int) -> None:
        """Record that the request of *ticket* received its response now."""
        self._enqueue(Op.ANSWERED, ticket)

    def release(self, ticket: int) -> None:
        """Return a token: the request of *ticket* was certainly not sent."""
        self._forget(ticket)
        self._enqueue(Op.RELEASE, ticket)

    def leave_queue(self) -> None:
        """Leave the queue of processes, because no caller waits here any more."""
        self._is_queued = False
        self._enqueue(Op.LEAVE_QUEUE)

    def pause(self, seconds: float) -> None:
        """Grant no token for *seconds* from now, in any process."""
        self._enqueue(Op.PAUSE, to_microseconds(seconds))

    async def close(self) -> None:
        """Release outstanding tokens, and leave the queue, because the store is closing."""
        for ticket in list(self._outstanding):
            self.release(ticket)
        if self._is_queued:
            self.leave_queue()
        if self._flush_task is not None:
            await asyncio.wait([self._flush_task])
        if self._outbox:
            await self._send()

    def _forget(self, ticket: int) -> None:
        self._outstanding.pop(ticket, None)
        self._heartbeat.stop(self._owner, ticket)

    # -- sending ----------------------------------------------------------------------------------

    def _enqueue(self, *event: Argument) -> None:
        loop = self._rebind()
        self._outbox.append((loop_clock(loop)(), event))
        if len(self._outbox) > MAX_OUTBOX:
            self._outbox.popleft()
        if self._flush_task is None or self._flush_task.done():
            self._flush_task = loop.create_task(self._flush())

    def _rebind(self) -> asyncio.AbstractEventLoop:
        """Switch to the running loop. Events of another one are dropped: its clock differs."""
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
                return  # sent with the next request for a token, whose caller receives the error

    async def _send(self, *request: Argument) -> tuple[int, int]:
        """Send the outbox, and a *request* for a token if there is one.

        Returns how long to wait for the token, and how long the bucket is paused, in microseconds.
        """
        loop = self._rebind()
        async with self._lock:
            pending = list(self._outbox)
            if not pending and not request:
                return 0, 0
            now = loop_clock(loop)()
            args: list[Argument] = [*self._clock.limit()]
            for happened_at, event in pending:
                args += _with_age(event, to_microseconds(now - happened_at))
            args += request
            result = await self._connections.run_script(
                self._script,
                lambda: self._keys.bucket(self.key),
                args,
                fixed_args=self._fixed_args,
            )
            for sent in pending:
                if self._outbox and self._outbox[0] is sent:
                    self._outbox.popleft()
            wait, paused, *reading = result
            self._clock.observe(now, *reading)
            return wait, paused


def _with_age(event: tuple[Argument, ...], age: int) -> tuple[Argument, ...]:
    """Return the arguments of an event that happened *age* microseconds ago."""
    if event[0] in (Op.WRITTEN, Op.ANSWERED):
        return (*event, age)
    if event[0] == Op.PAUSE:
        return (Op.PAUSE, max(0, int(event[1]) - age))
    return event
