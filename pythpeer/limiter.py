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
from .line import Priority, Waiter, WaitQueue
from .wire import Rate, check_seconds

__all__ = ["Grant", "Limiter", "PacingBackend", "Permit", "loop_clock"]

MAX_PAUSE: Final = 3600.0
"""The longest ``Retry-After``, in seconds, that is slept through by those who wait for ever."""

_HELD: Final = -1
_RETURNED: Final = -2


def loop_clock(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The monotonic clock to pace by in *loop*.

    An asyncio loop's own clock is exact, and it is the one that a test's virtual time moves. Loops
    not written in Python (uvloop) read theirs once per turn, which is too old after a stall.
    """
    return loop.time if isinstance(loop, asyncio.BaseEventLoop) else time.monotonic


class Grant(NamedTuple):
    """What a `Gate` says to one who asks for the token that several processes share."""

    retry_in: float
    """Seconds after which to ask again; 0 if the token is the asker's."""

    ticket: int
    """The token's number, for the one who has it."""

    paused_for: float
    """Seconds for which another process has paused the endpoint; 0 if none has."""


class PacingBackend(Protocol):
    """The pacing that processes share, as the limiter of one of them sees it.

    Only `take` waits for an answer. The rest is for the record: it is done in the order in which it
    was said, and before the next `take`.
    """

    async def acquire(self) -> Grant:
        """Ask for a token, and keep a place in the line of processes until it is had.

        If it is cancelled it leaves neither behind.
        """
        ...

    def written(self, ticket: int, guard: float) -> None:
        """The request on *ticket* is being written now."""

    def answered(self, ticket: int) -> None:
        """The request on *ticket* has its answer now. Not said where that changes nothing."""

    def release(self, ticket: int) -> None:
        """The request on *ticket* certainly never left."""

    def leave_queue(self) -> None:
        """Nobody here waits any more: give the place in the line up."""

    def pause(self, seconds: float) -> None:
        """Let nothing through for *seconds* from now, in any process."""


class Permit:
    """A token in hand. Exactly one request goes out on it, or none: then `close` gives it back."""

    __slots__ = ("_bucket", "_spend_number", "_ticket", "limiter", "status", "waited")

    def __init__(self, limiter: Limiter, bucket: Bucket, ticket: int = 0) -> None:
        self.limiter: Final[Limiter] = limiter
        self._ticket = ticket
        # If the limiter moves to another loop it gets another bucket: what is left over from the
        # old loop must not count there.
        self._bucket = bucket
        self._spend_number = _HELD
        self.status: int | None = None
        """The HTTP status of the answer, once its head is here."""
        self.waited: float = 0.0
        """Seconds for which it was waited for."""

    @property
    def written(self) -> bool:
        """Whether the request head went out, so that the service may have seen it."""
        return self._spend_number >= 0

    def on_written(self) -> None:
        """The request head is being written now."""
        if self._spend_number == _HELD:
            self._spend_number = self.limiter._spend(self._bucket, self._ticket)

    def on_answered(self, status: int | None = None) -> None:
        """The head of the answer is here."""
        self.status = status
        if self._spend_number > 0:
            if status != 429:
                self._bucket.on_success()
            self.limiter._answered(self._bucket, self._spend_number, self._ticket)

    def on_throttled(self, retry_after: float | None) -> None:
        """The service said that it was asked too often: keep more distance from now on."""
        self._bucket.on_throttled()
        self.pause(retry_after)

    def pause(self, retry_after: float | None) -> None:
        """The service said when to come back, or nothing of the kind."""
        if retry_after is not None:
            self.limiter.pause(min(retry_after, MAX_PAUSE))

    def close(self) -> None:
        """The request is over. A token that was never spent goes back."""
        if self._spend_number == _HELD:
            self._spend_number = _RETURNED
            self.limiter._release(self._bucket, self._ticket)


class Limiter:
    """The live token bucket of one endpoint: an item of ``session.limiters``.

    Time is the event loop's; a limiter may move to another loop once nobody waits in the old one.
    """

    __slots__ = (
        "__weakref__",
        "_backend",
        "_backend_retry_at",
        "_backend_task",
        "_bucket",
        "_loop",
        "_now",
        "_queue",
        "_ticket",
        "_timer",
        "_timer_at",
        "name",
    )

    def __init__(self, name: str, rate: Rate, gate: PacingBackend | None = None) -> None:
        self.name: Final[str] = name
        self._backend = gate
        self._backend_retry_at = (
            -math.inf
        )  # when to ask there again; infinity while it is being asked
        self._backend_task: asyncio.Task[None] | None = None
        self._ticket: int | None = None  # a token from there for whoever is next
        self._bucket = Bucket(rate)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._now: Callable[[], float] = time.monotonic
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf  # when it goes off
        self._queue: WaitQueue[Permit] = WaitQueue()

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
        return len(self._queue)

    @property
    def outstanding(self) -> int:
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
        return max(0.0, self._wait_of_next(self._now()))

    def pause(self, seconds: float) -> None:
        """Let nothing through for *seconds* from now. A deadline is only ever moved later."""
        self._bucket.pause(self._now() + check_seconds("a pause", seconds))
        if self._backend is not None:
            self._backend.pause(seconds)
        self._dispatch()

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
            self._rebind(loop)
        bucket, line = self._bucket, self._queue
        if not line and self._backend is None:
            # A token saved up and no pause ever set: no need to look at the clock.
            if bucket.stored > bucket.reserved and bucket.paused == -math.inf:
                bucket.reserve()
                return Permit(self, bucket)
            now = self._now()
            if bucket.due(now) <= now:
                bucket.reserve()
                return Permit(self, bucket)
        now = self._now()
        wait = self._wait_of_newcomer(priority, now)
        if wait > max_wait:
            raise self._rate_limited_error(wait)
        # A class that is given its parameter in the call takes four times as long.
        waiter: Waiter[Permit] = Waiter(loop.create_future(), priority, now + max_wait, owner)
        line.push(waiter)
        # Somebody who comes last changes nothing, unless they lose patience first.
        if self._timer is None or waiter.deadline < self._timer_at:
            self._dispatch()
        try:
            permit: Permit = await waiter.future
        except BaseException:
            self._on_waiter_cancelled(waiter)
            if self._backend_task is not None and not line:
                await self._cancel_backend_ask(self._backend_task)
            raise
        permit.waited = self._now() - now
        return permit

    def fail_waiters(self, owner: object) -> None:
        """Send everybody away who waits on behalf of *owner*: its session is being closed."""
        for waiter in self._queue.drain_owner(owner):
            waiter.fail(SessionClosedError("the session was closed", endpoint=self.name))
        self._dispatch()

    # -- permits ----------------------------------------------------------------------------------

    def _spend(self, bucket: Bucket, ticket: int) -> int:
        anchor = bucket.spend(self._now())
        if self._backend is not None:
            self._backend.written(ticket, bucket.guard)
        self._dispatch()
        return anchor

    def _answered(self, bucket: Bucket, anchor: int, ticket: int) -> None:
        if bucket.answered(anchor, self._now()):
            if self._backend is not None:
                self._backend.answered(ticket)
            self._dispatch()

    def _release(self, bucket: Bucket, ticket: int) -> None:
        bucket.release()
        if self._backend is not None:
            self._backend.release(ticket)
        self._dispatch()

    # -- the token that processes share -----------------------------------------------------------

    def _backend_admits(self, now: float) -> bool:
        """Whether the other processes leave the next token to this one. Asks them if need be."""
        if self._backend is None or self._ticket is not None:
            return True
        if self._backend_retry_at <= now:
            self._backend_retry_at = math.inf
            self._backend_task = asyncio.ensure_future(self._ask_backend(self._backend))
        return False

    @property
    def _backend_opens_at(self) -> float:
        """The time before which the other processes are not done, as far as is known."""
        return self._backend_retry_at if self._backend_retry_at < math.inf else -math.inf

    async def _ask_backend(self, gate: PacingBackend) -> None:
        failure: PythpeerError | None = None
        try:
            turn = await gate.acquire()
        except PythpeerError as error:
            failure = error.with_traceback(None)
        else:
            now = self._now()
            self._backend_retry_at = now + turn.retry_in if turn.retry_in else -math.inf
            self._ticket = None if turn.retry_in else turn.ticket
            if turn.paused_for:
                self._bucket.pause(now + turn.paused_for)
        self._backend_task = None
        if failure is not None:
            self._backend_retry_at = -math.inf
            self._fail_all(failure)
        self._dispatch()

    async def _cancel_backend_ask(self, asking: asyncio.Task[None]) -> None:
        """The last one who waited is gone: so is the task that asked on its behalf."""
        asking.cancel()
        # Here and not there: a task that has not begun yet is not told of its cancellation.
        self._backend_task, self._backend_retry_at = None, -math.inf
        with anyio.CancelScope(shield=True):
            await asyncio.wait([asking])

    def _fail_all(self, error: PythpeerError) -> None:
        """Nobody can be served."""
        for waiter in self._queue.drain():
            waiter.fail(copy.copy(error))

    def _leave_backend(self, gate: PacingBackend) -> None:
        """Nobody waits here any more: leave what the other processes can use to them."""
        if self._ticket is not None:
            gate.release(self._ticket)
        elif self._backend_retry_at > -math.inf and self._backend_task is None:
            gate.leave_queue()
        self._ticket = None
        if self._backend_task is None:
            self._backend_retry_at = -math.inf

    # -- the queue --------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Grant what is due, send away who has waited too long, and set the timer for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        line = self._queue
        if not line:
            if self._backend is not None:
                self._leave_backend(self._backend)
            return
        now = self._now()
        bucket = self._bucket
        while line and bucket.due(now) <= now and self._backend_admits(now):
            told = line.pop().future
            if not told.done():
                bucket.reserve()
                told.set_result(Permit(self, bucket, self._ticket or 0))
                self._ticket = None
        if self._ticket is not None and self._backend is not None:
            self._backend.release(self._ticket)  # a pause came between: others may be faster
            self._ticket = None
        due = max(bucket.due(now), now if self._backend is None else self._backend_retry_at)
        wake = min(due, self._expire_waiters(now))
        if line and wake < math.inf and self._loop is not None:
            # A timer may fire early (uvloop rounds to milliseconds): the clock is asked again.
            self._timer = self._loop.call_later(max(0.0, wake - now), self._dispatch)
            self._timer_at = wake

    def _expire_waiters(self, now: float) -> float:
        """Fail those who cannot be served in time. Returns when to look again."""
        closed = max(self._bucket.paused, self._backend_opens_at)
        late, soonest = self._queue.pop_expired(now, closed, asking=self._backend_task is not None)
        for waiter in late:
            waiter.fail(self._rate_limited_error(self._wait_of_next(now)))
        return soonest

    def _wait_of_next(self, now: float) -> float:
        """Seconds until somebody can go, as far as is known."""
        due = self._bucket.due(now)
        opens = max(self._bucket.paused, self._backend_opens_at)
        return max(0.0, opens - now) if due == math.inf else max(due, opens) - now

    def _wait_of_newcomer(self, priority: Priority, now: float) -> float:
        """The least that somebody who comes now will wait, in seconds."""
        bucket = self._bucket
        ahead = self._queue.count_ahead(priority)
        saved = bucket.available(max(now, bucket.paused))
        return self._wait_of_next(now) + max(0, ahead - saved) * bucket.rate.interval

    def _rate_limited_error(self, wait: float) -> RateLimitedError:
        return RateLimitedError(
            f"no token for another {wait:.1f} s", endpoint=self.name, retry_after=wait
        )

    def _on_waiter_cancelled(self, waiter: Waiter[Permit]) -> None:
        """A waiter was cancelled: unlink it, or hand on the token that came in the same turn."""
        told = waiter.future
        if told.done() and not told.cancelled() and told.exception() is None:
            told.result().close()
        elif self._queue.discard(waiter):
            self._dispatch()

    def _rebind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start to count in another loop's time."""
        busy = self._queue or self._bucket.reserved
        if busy and self._loop is not None and not self._loop.is_closed():
            raise SessionClosedError("it is in use in another event loop", endpoint=self.name)
        self._queue.drain()
        self._timer = None  # the old loop's: it waits for nobody, or its loop is closed
        before, self._now = self._now, loop_clock(loop)
        self._bucket = self._bucket.shifted(self._now() - before())
        self._loop = loop
        self._backend_task, self._ticket, self._backend_retry_at = None, None, -math.inf
