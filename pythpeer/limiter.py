"""Waiting for a token: first come, first served, and safe to cancel at any moment.

One `Limiter` paces one endpoint. A caller that gets a `Permit` tells it when the request head was
written and when the answer came; the arithmetic is the `Bucket`'s, and who goes first the `Line`'s.

Where a store paces several processes together, a token that is due here has to be had from them as
well: the limiter asks at their `Gate`, for whoever is first in line when the answer comes.
"""

from __future__ import annotations

import asyncio
import copy
import math
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import anyio

from .bucket import Bucket
from .errors import PythpeerError, RateLimitedError, SessionClosedError
from .line import Line, Priority, Waiter
from .wire import Rate, check_seconds

__all__ = ["Gate", "Limiter", "Permit", "Turn", "clock"]

LONGEST_PAUSE: Final = 3600.0
"""The longest ``Retry-After``, in seconds, that is slept through by those who wait for ever."""

_HELD: Final = -1
_RETURNED: Final = -2


def clock(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The monotonic clock to pace by in *loop*.

    An asyncio loop's own clock is exact, and it is the one that a test's virtual time moves. Loops
    not written in Python (uvloop) read theirs once per turn, which is too old after a stall.
    """
    return loop.time if isinstance(loop, asyncio.BaseEventLoop) else time.monotonic


class Turn(NamedTuple):
    """What a `Gate` says to one who asks for the token that several processes share."""

    wait: float
    """Seconds after which to ask again; 0 if the token is the asker's."""

    ticket: int
    """The token's number, for the one who has it."""

    paused: float
    """Seconds for which another process has paused the endpoint; 0 if none has."""


class Gate(Protocol):
    """The pacing that processes share, as the limiter of one of them sees it.

    Only `take` waits for an answer. The rest is for the record: it is done in the order in which it
    was said, and before the next `take`.
    """

    async def take(self) -> Turn:
        """Ask for a token, and keep a place in the line of processes until it is had.

        If it is cancelled it leaves neither behind.
        """
        ...

    def written(self, ticket: int, guard: float) -> None:
        """The request on *ticket* is being written now."""

    def answered(self, ticket: int) -> None:
        """The request on *ticket* has its answer now. Not said where that changes nothing."""

    def give_back(self, ticket: int) -> None:
        """The request on *ticket* certainly never left."""

    def leave(self) -> None:
        """Nobody here waits any more: give the place in the line up."""

    def pause(self, seconds: float) -> None:
        """Let nothing through for *seconds* from now, in any process."""


class Permit:
    """A token in hand. Exactly one request goes out on it, or none: then `close` gives it back."""

    __slots__ = ("_anchor", "_bucket", "_ticket", "limiter", "status", "waited")

    def __init__(self, limiter: Limiter, bucket: Bucket, ticket: int = 0) -> None:
        self.limiter: Final[Limiter] = limiter
        self._ticket = ticket
        # If the limiter moves to another loop it gets another bucket: what is left over from the
        # old loop must not count there.
        self._bucket = bucket
        self._anchor = _HELD
        self.status: int | None = None
        """The HTTP status of the answer, once its head is here."""
        self.waited: float = 0.0
        """Seconds for which it was waited for."""

    @property
    def written(self) -> bool:
        """Whether the request head went out, so that the service may have seen it."""
        return self._anchor >= 0

    def on_written(self) -> None:
        """The request head is being written now."""
        if self._anchor == _HELD:
            self._anchor = self.limiter._spend(self._bucket, self._ticket)

    def on_answered(self, status: int | None = None) -> None:
        """The head of the answer is here."""
        self.status = status
        if self._anchor > 0:
            if status != 429:
                self._bucket.praise()
            self.limiter._answered(self._bucket, self._anchor, self._ticket)

    def refused(self, retry_after: float | None) -> None:
        """The service said that it was asked too often: keep more distance from now on."""
        self._bucket.punish()
        self.pause(retry_after)

    def pause(self, retry_after: float | None) -> None:
        """The service said when to come back, or nothing of the kind."""
        if retry_after is not None:
            self.limiter.pause(min(retry_after, LONGEST_PAUSE))

    def close(self) -> None:
        """The request is over. A token that was never spent goes back."""
        if self._anchor == _HELD:
            self._anchor = _RETURNED
            self.limiter._give_back(self._bucket, self._ticket)


class Limiter:
    """The live token bucket of one endpoint: an item of ``session.limiters``.

    Time is the event loop's; a limiter may move to another loop once nobody waits in the old one.
    """

    __slots__ = (
        "__weakref__",
        "_asking",
        "_bucket",
        "_gate",
        "_gate_due",
        "_line",
        "_loop",
        "_now",
        "_ticket",
        "_timer",
        "_wake",
        "name",
    )

    def __init__(self, name: str, rate: Rate, gate: Gate | None = None) -> None:
        self.name: Final[str] = name
        self._gate = gate
        self._gate_due = -math.inf  # when to ask there again; infinity while it is being asked
        self._asking: asyncio.Task[None] | None = None
        self._ticket: int | None = None  # a token from there for whoever is next
        self._bucket = Bucket(rate)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._now: Callable[[], float] = time.monotonic
        self._timer: asyncio.TimerHandle | None = None
        self._wake = math.inf  # when it goes off
        self._line: Line[Permit] = Line()

    # -- what users see ---------------------------------------------------------------------------

    @property
    def rate(self) -> Rate:
        """The rate this endpoint is held to."""
        return self._bucket.rate

    @property
    def available(self) -> int:
        """How many requests could leave at this moment without waiting for others of this program.

        Where a store paces several programs together, what those have left is known only on asking.
        """
        return self._bucket.available(self._now())

    @property
    def waiting(self) -> int:
        """How many callers wait for a token."""
        return len(self._line)

    @property
    def in_hand(self) -> int:
        """Tokens that were given out, and whose requests are not written yet."""
        return self._bucket.reserved

    @property
    def requests(self) -> int:
        """How many requests were written so far; none are counted where there is no interval."""
        return self._bucket.spent

    @property
    def guard(self) -> float:
        """Seconds allowed for uneven network delay: widened by 429s, narrowed by their absence."""
        return self._bucket.guard

    @property
    def paused_for(self) -> float:
        """Seconds until the deadline set by `pause` or a ``Retry-After``; 0 without one."""
        return max(0.0, self._bucket.paused - self._now())

    @property
    def next_token(self) -> float:
        """Seconds until the next token, as far as is known here; 0 if there is one."""
        return max(0.0, self._first(self._now()))

    def pause(self, seconds: float) -> None:
        """Let nothing through for *seconds* from now. A deadline is only ever moved later."""
        self._bucket.pause(self._now() + check_seconds("a pause", seconds))
        if self._gate is not None:
            self._gate.pause(seconds)
        self._serve()

    def __repr__(self) -> str:
        state = f"{self.available} of {self.rate.burst} available, {self.waiting} waiting"
        if self.paused_for:
            state += f", paused for {self.paused_for:.1f} s"
        return f"<Limiter {self.name}: 1 per {self.rate.interval:g} s, {state}>"

    # -- for whoever sends ------------------------------------------------------------------------

    async def acquire(
        self, priority: Priority, max_wait: float = math.inf, owner: object = None
    ) -> Permit:
        """Wait for a token, *max_wait* seconds at most, on behalf of *owner*.

        Raises `RateLimitedError`, at once where it is known that the wait would be longer.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._move_to(loop)
        bucket, line = self._bucket, self._line
        if not line and self._gate is None:
            # A token saved up and no pause ever set: no need to look at the clock.
            if bucket.saved > bucket.reserved and bucket.paused == -math.inf:
                bucket.reserve()
                return Permit(self, bucket)
            now = self._now()
            if bucket.due(now) <= now:
                bucket.reserve()
                return Permit(self, bucket)
        now = self._now()
        wait = self._expected(priority, now)
        if wait > max_wait:
            raise self._too_long(wait)
        # A class that is given its parameter in the call takes four times as long.
        waiter: Waiter[Permit] = Waiter(loop.create_future(), priority, now + max_wait, owner)
        line.join(waiter)
        # Somebody who comes last changes nothing, unless they lose patience first.
        if self._timer is None or waiter.deadline < self._wake:
            self._serve()
        try:
            permit: Permit = await waiter.told
        except BaseException:
            self._leave(waiter)
            if self._asking is not None and not line:
                await self._stop_asking(self._asking)
            raise
        permit.waited = self._now() - now
        return permit

    def dismiss(self, owner: object) -> None:
        """Send everybody away who waits on behalf of *owner*: its session is being closed."""
        for waiter in self._line.take(owner):
            waiter.send_away(SessionClosedError("the session was closed", endpoint=self.name))
        self._serve()

    # -- permits ----------------------------------------------------------------------------------

    def _spend(self, bucket: Bucket, ticket: int) -> int:
        anchor = bucket.spend(self._now())
        if self._gate is not None:
            self._gate.written(ticket, bucket.guard)
        self._serve()
        return anchor

    def _answered(self, bucket: Bucket, anchor: int, ticket: int) -> None:
        if bucket.answered(anchor, self._now()):
            if self._gate is not None:
                self._gate.answered(ticket)
            self._serve()

    def _give_back(self, bucket: Bucket, ticket: int) -> None:
        bucket.give_back()
        if self._gate is not None:
            self._gate.give_back(ticket)
        self._serve()

    # -- the token that processes share -----------------------------------------------------------

    def _admitted(self, now: float) -> bool:
        """Whether the other processes leave the next token to this one. Asks them if need be."""
        if self._gate is None or self._ticket is not None:
            return True
        if self._gate_due <= now:
            self._gate_due = math.inf
            self._asking = asyncio.ensure_future(self._ask(self._gate))
        return False

    @property
    def _gate_opens(self) -> float:
        """The time before which the other processes are not done, as far as is known."""
        return self._gate_due if self._gate_due < math.inf else -math.inf

    async def _ask(self, gate: Gate) -> None:
        failure: PythpeerError | None = None
        try:
            turn = await gate.take()
        except PythpeerError as error:
            failure = error.with_traceback(None)
        else:
            now = self._now()
            self._gate_due = now + turn.wait if turn.wait else -math.inf
            self._ticket = None if turn.wait else turn.ticket
            if turn.paused:
                self._bucket.pause(now + turn.paused)
        self._asking = None
        if failure is not None:
            self._gate_due = -math.inf
            self._fail(failure)
        self._serve()

    async def _stop_asking(self, asking: asyncio.Task[None]) -> None:
        """The last one who waited is gone: so is the task that asked on its behalf."""
        asking.cancel()
        # Here and not there: a task that has not begun yet is not told of its cancellation.
        self._asking, self._gate_due = None, -math.inf
        with anyio.CancelScope(shield=True):
            await asyncio.wait([asking])

    def _fail(self, error: PythpeerError) -> None:
        """Nobody can be served."""
        for waiter in self._line.clear():
            waiter.send_away(copy.copy(error))

    def _leave_gate(self, gate: Gate) -> None:
        """Nobody waits here any more: leave what the other processes can use to them."""
        if self._ticket is not None:
            gate.give_back(self._ticket)
        elif self._gate_due > -math.inf and self._asking is None:
            gate.leave()
        self._ticket = None
        if self._asking is None:
            self._gate_due = -math.inf

    # -- the queue --------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Grant what is due, send away who has waited too long, and set the timer for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        line = self._line
        if not line:
            if self._gate is not None:
                self._leave_gate(self._gate)
            return
        now = self._now()
        bucket = self._bucket
        while line and bucket.due(now) <= now and self._admitted(now):
            told = line.next().told
            if not told.done():
                bucket.reserve()
                told.set_result(Permit(self, bucket, self._ticket or 0))
                self._ticket = None
        if self._ticket is not None and self._gate is not None:
            self._gate.give_back(self._ticket)  # a pause came between: others may be faster
            self._ticket = None
        due = max(bucket.due(now), now if self._gate is None else self._gate_due)
        wake = min(due, self._send_away(now))
        if line and wake < math.inf and self._loop is not None:
            # A timer may fire early (uvloop rounds to milliseconds): the clock is asked again.
            self._timer = self._loop.call_later(max(0.0, wake - now), self._serve)
            self._wake = wake

    def _send_away(self, now: float) -> float:
        """Fail those who cannot be served in time. Returns when to look again."""
        closed = max(self._bucket.paused, self._gate_opens)
        late, soonest = self._line.late(now, closed, asking=self._asking is not None)
        for waiter in late:
            waiter.send_away(self._too_long(self._first(now)))
        return soonest

    def _first(self, now: float) -> float:
        """Seconds until somebody can go, as far as is known."""
        due = self._bucket.due(now)
        opens = max(self._bucket.paused, self._gate_opens)
        return max(0.0, opens - now) if due == math.inf else max(due, opens) - now

    def _expected(self, priority: Priority, now: float) -> float:
        """The least that somebody who comes now will wait, in seconds."""
        bucket = self._bucket
        ahead = self._line.ahead(priority)
        saved = bucket.available(max(now, bucket.paused))
        return self._first(now) + max(0, ahead - saved) * bucket.rate.interval

    def _too_long(self, wait: float) -> RateLimitedError:
        return RateLimitedError(
            f"no token for another {wait:.1f} s", endpoint=self.name, retry_after=wait
        )

    def _leave(self, waiter: Waiter[Permit]) -> None:
        """A waiter was cancelled: unlink it, or hand on the token that came in the same turn."""
        told = waiter.told
        if told.done() and not told.cancelled() and told.exception() is None:
            told.result().close()
        elif self._line.leave(waiter):
            self._serve()

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start to count in another loop's time."""
        busy = self._line or self._bucket.reserved
        if busy and self._loop is not None and not self._loop.is_closed():
            raise SessionClosedError("it is in use in another event loop", endpoint=self.name)
        self._line.clear()
        self._timer = None  # the old loop's: it waits for nobody, or its loop is closed
        before, self._now = self._now, clock(loop)
        self._bucket = self._bucket.moved(self._now() - before())
        self._loop = loop
        self._asking, self._ticket, self._gate_due = None, None, -math.inf
