"""Limiter: callers wait for a token, or receive an error: too long a wait, a closed session.

One `Limiter` paces one endpoint. A caller receives a `Permit`, and reports to it when the request
head was written and when the response arrived; a waiter can be cancelled at any moment. `Bucket`
does the arithmetic, and `WaitQueue` keeps the order.

Where a store paces several processes together, a token that is due in this process must be granted
by their `PacingBackend` too. The limiter asks it on behalf of the queue: the waiter that is first
when the grant arrives receives the token.
"""

from __future__ import annotations

import asyncio
import copy
import math
import os
import time
from collections.abc import Callable
from typing import Final

import anyio

from ..deprecation import warn_renamed
from ..errors import PythpeerError, RateLimitedError, SessionClosedError, StoreError
from ..misuse import tolerant_repr
from ..validation import check_seconds
from .backend import Grant, PacingBackend
from .bucket import Bucket, Rate
from .queue import Priority, Waiter, WaitQueue
from .shared import TOKEN_TTL

__all__ = ["MAX_PAUSE", "Limiter", "Permit", "TokenExpiredError", "loop_clock"]

MAX_PAUSE: Final = 3600.0
"""Upper bound, in seconds, for a pause that a ``Retry-After`` header asks for."""


def loop_clock(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return the monotonic clock for pacing in *loop*, in seconds.

    The clock of an asyncio loop is exact, and the virtual time of tests changes it. A loop that is
    not written in Python (uvloop) reads its clock once per iteration: after a long callback that
    reading is too old.
    """
    return loop.time if isinstance(loop, asyncio.BaseEventLoop) else time.monotonic


class TokenExpiredError(PythpeerError):
    """The token of a request may have been given to another process: `Permit.renew` gets a new one.

    Internal: nothing was written, and `Caller` does not let it out.
    """


class Permit:
    """A token for one request. It is spent when the request is written, or released by `close`.

    Invariants: the token is spent or released, once, and never both; a permit that was written
    stays so.
    """

    __slots__ = (
        "_bucket",
        "_expires",
        "_released",
        "_spend_number",
        "_ticket",
        "limiter",
        "status",
        "waited",
    )

    def __init__(
        self, limiter: Limiter, bucket: Bucket, ticket: int = 0, expires: float = math.inf
    ) -> None:
        self.limiter: Final[Limiter] = limiter
        """The limiter that the token is of."""

        self._bucket = bucket
        """The bucket that the token is of. A limiter that is used in another event loop gets
        another bucket, in which a permit of the old loop must not count."""

        self._ticket = ticket
        """Number of the token at the pacing backend; 0 without one."""

        self._expires = expires
        """When the backend gives the token to others, in seconds of the limiter's clock."""

        self._spend_number: int | None = None
        """What `Bucket.spend` returned: ``None`` until `on_written`."""

        self._released = False
        """Whether `close` has released the token, because no request was written."""

        self.status: int | None = None
        """HTTP status of the response: ``None`` until `on_answered` sets it."""

        self.waited: float = 0.0
        """Seconds that the caller waited for the token: set by `Limiter.acquire`."""

    @property
    def written(self) -> bool:
        """Whether the request head was written, so that the service may have received it."""
        return self._spend_number is not None

    def on_written(self) -> None:
        """Spend the token: the request head is being written now.

        Raises `TokenExpiredError` if the token may have been given to another process, because
        this one stood still for too long. The head must not be written then.
        """
        if self._spend_number is None and not self._released:
            if self._ticket and not self.limiter.is_held(self._ticket, self._expires):
                raise TokenExpiredError("the token has expired", endpoint=self.limiter.name)
            self._spend_number = self.limiter.permit_written(self._bucket, self._ticket)

    async def renew(self, max_wait: float, owner: object) -> None:
        """Replace a token that has expired, before all waiters that have had none yet.

        Raises what `Limiter.acquire` raises; the permit is closed then.
        """
        self.close()
        fresh = await self.limiter.acquire(Priority.WRITE, max_wait, owner)
        self._bucket, self._ticket, self._expires = fresh.token
        self._released = False

    @property
    def token(self) -> tuple[Bucket, int, float]:
        """Internal, for `renew`: the bucket, the number and the expiry of the token."""
        return self._bucket, self._ticket, self._expires

    def postpone(self, within: float = math.inf) -> float | None:
        """Return the seconds after which the same request may be written once more.

        ``None`` where the next token may have been granted, so that it would follow too soon, and
        where *within* seconds are too few: then nothing has changed.
        """
        spend_number = self._spend_number
        return (
            None
            if spend_number is None
            else self.limiter.permit_postponed(self._bucket, spend_number, within)
        )

    def on_answered(self, status: int | None = None) -> None:
        """Record that the head of the response has arrived, with this HTTP *status*."""
        self.status = status
        if self._spend_number:  # 0 where there is no interval
            if status != 429:
                self._bucket.on_success()
            self.limiter.permit_answered(self._bucket, self._spend_number, self._ticket)

    def on_throttled(self, retry_after: float | None) -> None:
        """Widen the guard, and pause for *retry_after* seconds, because the service throttled."""
        self._bucket.on_throttled()
        self.pause(retry_after)

    def pause(self, retry_after: float | None) -> None:
        """Pause the limiter for *retry_after* seconds, at most `MAX_PAUSE`; ``None`` does not."""
        if retry_after is not None:
            self.limiter.pause(min(retry_after, MAX_PAUSE))

    def close(self) -> None:
        """End the permit: a token that was not spent is released."""
        if self._spend_number is None and not self._released:
            self._released = True
            self.limiter.permit_released(self._bucket, self._ticket)


class Limiter:
    """Token bucket and wait queue of one endpoint: a value of ``session.limiters``.

    The clock is that of the event loop. A limiter can be used in another event loop when no caller
    waits in the first one, and no permit is outstanding there, and in a process that was forked.

    Invariants: where callers wait and no timer is set, a permit is outstanding or the pacing
    backend is being asked, and the end of either calls ``_dispatch``; at most one request to the
    pacing backend is under way; after ``_dispatch`` there is no ``_ticket``.
    """

    __slots__ = (
        "__weakref__",
        "_backend",
        "_backend_retry_at",
        "_backend_task",
        "_bucket",
        "_loop",
        "_now",
        "_pid",
        "_queue",
        "_ticket",
        "_ticket_expires",
        "_timer",
        "_timer_at",
        "name",
    )

    def __init__(self, name: str, rate: Rate, backend: PacingBackend | None = None) -> None:
        self.name: Final[str] = name
        """Name of the endpoint, such as ``"peerbet.chat.get"``."""

        self._backend = backend
        """The pacing shared with other processes; ``None`` without it."""

        self._backend_retry_at = -math.inf
        """When the backend may be asked again, in seconds of ``_now``; infinity while it is being
        asked, and minus infinity for immediately."""

        self._backend_task: asyncio.Task[None] | None = None
        """The task that asks the backend: set by ``_backend_admits``, reset at its end or by
        ``_cancel_backend_ask``."""

        self._ticket: int | None = None
        """A token that the backend has granted: set by ``_ask_backend``, and passed to a waiter or
        returned by the ``_dispatch`` that follows."""

        self._ticket_expires = math.inf
        """When the backend gives that token to others, in seconds of ``_now``."""

        self._bucket = Bucket(rate)
        """The tokens of this process; replaced by ``_rebind``."""

        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop that the limiter is in use in; ``None`` before the first `acquire`."""

        self._pid = 0
        """The process of ``_loop``: set by ``_rebind``."""

        self._now: Callable[[], float] = time.monotonic
        """The clock of ``_loop``, in seconds."""

        self._timer: asyncio.TimerHandle | None = None
        """The next call of ``_dispatch``: set and cancelled by ``_dispatch`` only."""

        self._timer_at = math.inf
        """When ``_timer`` fires, in seconds of ``_now``; valid while there is a timer."""

        self._queue: WaitQueue[Permit] = WaitQueue()
        """The callers that wait for a token."""

    # -- the public part --------------------------------------------------------------------------

    @property
    def rate(self) -> Rate:
        """The configured rate of the endpoint."""
        return self._bucket.rate

    @property
    def available(self) -> int:
        """Number of requests that can leave now without waiting for others of this process.

        Where a store paces several processes together, their requests are not considered, because
        they are known only by asking the store.
        """
        return self._bucket.available(self._now())

    @property
    def waiting(self) -> int:
        """Number of callers that wait for a token."""
        return len(self._queue)

    @property
    def outstanding(self) -> int:
        """Number of permits whose requests are not written yet."""
        return self._bucket.reserved

    @property
    def requests(self) -> int:
        """Number of requests written so far; always 0 where the interval is 0."""
        return self._bucket.spent

    @property
    def guard(self) -> float:
        """Current guard in seconds: ``rate.guard``, widened after 429 responses, then narrowed."""
        return self._bucket.guard

    @property
    def paused_for(self) -> float:
        """Seconds until the end of a pause set by `pause` or a ``Retry-After``; 0 without one."""
        return max(0.0, self._bucket.paused - self._now())

    @property
    def next_token(self) -> float:
        """Seconds until the next token, as far as this process knows; 0 if one is available."""
        return max(0.0, self._wait_of_next(self._now()))

    def pause(self, seconds: float) -> None:
        """Make no token due for *seconds* from now, in every process that shares the pacing.

        The end of a pause is only ever moved later. Raises `InvalidRequestError` where *seconds* is
        not a finite number, 0 or more.
        """
        self._bucket.pause(self._now() + check_seconds("a pause", seconds))
        if self._backend is not None:
            self._backend.pause(seconds)
        self._dispatch()

    @tolerant_repr
    def __repr__(self) -> str:
        state = f"{self.available} of {self.rate.burst} available, {self.waiting} waiting"
        if self.paused_for:
            state += f", paused for {self.paused_for:.1f} s"
        return f"<Limiter {self.name}: 1 per {self.rate.interval:g} s, {state}>"

    # -- the callers' part ------------------------------------------------------------------------

    async def acquire(
        self, priority: Priority, max_wait: float = math.inf, owner: object = None
    ) -> Permit:
        """Wait for a token, *max_wait* seconds at most, on behalf of *owner*.

        Raises `RateLimitedError` when the wait is longer than *max_wait*, immediately where that is
        known; `SessionClosedError` when `fail_waiters` is called for *owner*, or when the limiter
        is in use in another event loop; and the error of the pacing backend if it fails.
        """
        permit = self.try_acquire()
        if permit is not None:
            return permit
        loop, queue, now = asyncio.get_running_loop(), self._queue, self._now()
        wait = self._wait_of_newcomer(priority, now)
        if wait > max_wait:
            raise self._rate_limited_error(wait)
        # `Waiter[Permit](...)` would take four times as long as this annotation.
        waiter: Waiter[Permit] = Waiter(loop.create_future(), priority, now + max_wait, owner)
        queue.push(waiter)
        # A new waiter changes nothing that the timer was set for, except with an earlier deadline.
        if self._timer is None or waiter.deadline < self._timer_at:
            self._dispatch()
        try:
            permit = await waiter.future
        except BaseException:
            self._on_waiter_cancelled(waiter)
            if self._backend_task is not None and not queue:
                await self._cancel_backend_ask(self._backend_task)
            del waiter  # otherwise its error and this frame would refer to each other
            raise
        permit.waited = self._now() - now
        return permit

    def try_acquire(self) -> Permit | None:
        """Return a token that is available now, if no caller waits and no other process counts.

        Raises `SessionClosedError` when the limiter is in use in another event loop.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._rebind(loop)
        if self._queue or self._backend is not None:
            return None
        bucket = self._bucket
        # With a stored token, and without any pause so far, the time does not matter.
        if bucket.stored <= bucket.reserved or bucket.paused != -math.inf:
            now = self._now()
            if bucket.due(now) > now:
                return None
        bucket.reserve()
        return Permit(self, bucket)

    def fail_waiters(self, owner: object) -> None:
        """Raise `SessionClosedError` in every caller that waits on behalf of *owner*."""
        for waiter in self._queue.drain_owner(owner):
            waiter.fail(SessionClosedError("the session was closed", endpoint=self.name))
        self._dispatch()

    # -- names of version 0.1 ---------------------------------------------------------------------

    @property
    def in_hand(self) -> int:
        """Deprecated name of `outstanding`."""
        warn_renamed("Limiter.in_hand", "Limiter.outstanding")
        return self.outstanding

    def dismiss(self, owner: object) -> None:
        """Deprecated name of `fail_waiters`."""
        warn_renamed("Limiter.dismiss()", "Limiter.fail_waiters()")
        self.fail_waiters(owner)

    # -- the permits' part ------------------------------------------------------------------------

    def is_held(self, ticket: int, expires: float) -> bool:
        """Return whether no other process can have been given the token of a `Permit`."""
        return self._now() < expires and self._backend is not None and self._backend.is_held(ticket)

    def permit_written(self, bucket: Bucket, ticket: int) -> int:
        """Spend the token of a `Permit`. Returns the argument of `permit_answered`."""
        spend_number = bucket.spend(self._now())
        if self._backend is not None:
            self._backend.written(ticket, bucket.guard)
        self._dispatch()
        return spend_number

    def permit_postponed(
        self, bucket: Bucket, spend_number: int, within: float = math.inf
    ) -> float | None:
        """Do what `Permit.postpone` does, for every process."""
        delay = bucket.postpone(spend_number, self._now(), within)
        if delay and self._backend is not None:
            self._backend.pause(delay + bucket.guard + bucket.rate.interval)
        return delay

    def permit_answered(self, bucket: Bucket, spend_number: int, ticket: int) -> None:
        """Record that the request of a `Permit` was answered."""
        if bucket.answered(spend_number, self._now()):
            if self._backend is not None:
                self._backend.answered(ticket)
            self._dispatch()

    def permit_released(self, bucket: Bucket, ticket: int) -> None:
        """Release the token of a `Permit` that was not written."""
        bucket.release()
        if self._backend is not None:
            self._backend.release(ticket)
        self._dispatch()

    # -- the pacing backend -----------------------------------------------------------------------

    def _backend_admits(self, now: float) -> bool:
        """Return whether the backend has granted the next token. Starts to ask it if necessary."""
        if self._backend is None or self._ticket is not None:
            return True
        if self._backend_retry_at <= now:
            self._backend_retry_at = math.inf
            self._backend_task = asyncio.ensure_future(self._ask_backend(self._backend))
        return False

    @property
    def _backend_opens_at(self) -> float:
        """When the backend can grant a token at the earliest; minus infinity where unknown."""
        return self._backend_retry_at if self._backend_retry_at < math.inf else -math.inf

    async def _ask_backend(self, backend: PacingBackend) -> None:
        failure: PythpeerError | None = None
        self._ticket_expires = self._now() + TOKEN_TTL
        try:
            self._on_grant(await backend.acquire())
        except PythpeerError as error:
            failure = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001  # it is the store's: callers must not wait on
            failure = self._backend_error(f"failed with {type(error).__name__}")
        except BaseException:
            if self._backend_task is asyncio.current_task():  # cancelled by others
                self._end_backend_ask(self._backend_error("was interrupted", transient=True))
            raise
        self._end_backend_ask(failure)

    def _on_grant(self, grant: Grant) -> None:
        """Take a token that was granted, or the time of the next try."""
        now = self._now()
        self._backend_retry_at = now + grant.retry_in if grant.retry_in else -math.inf
        self._ticket = None if grant.retry_in else grant.ticket
        if grant.paused_for:
            self._bucket.pause(now + grant.paused_for)

    def _end_backend_ask(self, failure: PythpeerError | None) -> None:
        """Continue after the backend was asked; raise a *failure* in every caller that waits."""
        self._backend_task = None
        if failure is not None:
            self._backend_retry_at = -math.inf
            self._fail_all(failure)
        self._dispatch()

    def _backend_error(self, problem: str, *, transient: bool = False) -> StoreError:
        text = f"the pacing of the store {problem}"
        return StoreError(text, endpoint=self.name, transient=transient)

    async def _cancel_backend_ask(self, task: asyncio.Task[None]) -> None:
        """Cancel the task that asks the backend, because no caller waits any more."""
        task.cancel()
        # Not in the task: one that has not started yet does not run when it is cancelled.
        self._backend_task, self._backend_retry_at = None, -math.inf
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])

    def _fail_all(self, error: PythpeerError) -> None:
        """Raise *error* in every caller that waits."""
        for waiter in self._queue.drain():
            waiter.fail(copy.copy(error))

    def _leave_backend(self, backend: PacingBackend) -> None:
        """Leave a granted token, or the position in the queue, to the other processes.

        It is called when no caller waits any more.
        """
        if self._ticket is not None:
            backend.release(self._ticket)
        elif self._backend_retry_at > -math.inf and self._backend_task is None:
            backend.leave_queue()
        self._ticket = None
        if self._backend_task is None:
            self._backend_retry_at = -math.inf

    # -- the queue --------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Grant due tokens, fail expired waiters, and set the timer for the remaining ones."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        queue = self._queue
        if not queue:
            if self._backend is not None:
                self._leave_backend(self._backend)
            return
        now = self._now()
        bucket = self._bucket
        while queue and bucket.due(now) <= now and self._backend_admits(now):
            future = queue.pop().future
            if not future.done():
                bucket.reserve()
                future.set_result(Permit(self, bucket, self._ticket or 0, self._ticket_expires))
                self._ticket = None
        if self._ticket is not None and self._backend is not None:
            # A pause was set since the grant: another process may be able to use the token first.
            self._backend.release(self._ticket)
            self._ticket = None
        due = max(bucket.due(now), now if self._backend is None else self._backend_retry_at)
        wake = min(due, self._expire_waiters(now))
        if queue and wake < math.inf and self._loop is not None:
            # A timer may fire early (uvloop rounds to milliseconds): `_dispatch` reads the clock.
            self._timer = self._loop.call_later(max(0.0, wake - now), self._dispatch)
            self._timer_at = wake

    def _expire_waiters(self, now: float) -> float:
        """Fail the waiters that cannot be served in time. Returns the next deadline."""
        blocked_until = max(self._bucket.paused, self._backend_opens_at)
        expired, next_deadline = self._queue.pop_expired(
            now, blocked_until, asking=self._backend_task is not None
        )
        for waiter in expired:
            waiter.fail(self._rate_limited_error(self._retry_after(now)))
        return next_deadline

    def _retry_after(self, now: float) -> float:
        """Return the seconds after which another attempt makes sense.

        Where the time of the next token is not known, because a request that has the last one was
        not written yet, that is an interval: with 0, a caller would try again in a busy loop.
        """
        wait = self._wait_of_next(now)
        return wait if wait > 0 else self._bucket.rate.interval

    def _wait_of_next(self, now: float) -> float:
        """Return the seconds until a token is due, as far as this process knows."""
        due = self._bucket.due(now)
        blocked_until = max(self._bucket.paused, self._backend_opens_at)
        if due == math.inf:  # every token is reserved: the time is not known
            return max(0.0, blocked_until - now)
        return max(due, blocked_until) - now

    def _wait_of_newcomer(self, priority: Priority, now: float) -> float:
        """Return the seconds that a new waiter of this *priority* waits at least."""
        bucket = self._bucket
        ahead = self._queue.count_ahead(priority)
        available = bucket.available(max(now, bucket.paused))
        return self._wait_of_next(now) + max(0, ahead - available) * bucket.rate.interval

    def _rate_limited_error(self, wait: float) -> RateLimitedError:
        return RateLimitedError(
            f"next token in {wait:.1f} s, longer than max_wait",
            endpoint=self.name,
            retry_after=wait,
        )

    def _on_waiter_cancelled(self, waiter: Waiter[Permit]) -> None:
        """Remove a cancelled waiter, or release the token that it received at the same time."""
        future = waiter.future
        if future.done() and not future.cancelled() and future.exception() is None:
            future.result().close()
        elif self._queue.discard(waiter):
            self._dispatch()

    def _rebind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use the clock of *loop* from now on. Raises `SessionClosedError` where that is unsafe."""
        busy = self._queue or self._bucket.reserved
        # In a process that was forked, the callers of the parent do not wait.
        is_same_process, self._pid = self._pid == os.getpid(), os.getpid()
        if busy and is_same_process and self._loop is not None and not self._loop.is_closed():
            raise SessionClosedError(
                "the limiter is in use in another event loop", endpoint=self.name
            )
        self._queue.drain()
        self._timer = None  # of the old loop: no caller waits there, or the loop is closed
        old_clock, self._now = self._now, loop_clock(loop)
        self._bucket = self._bucket.shifted(self._now() - old_clock())
        self._loop = loop
        self._backend_task, self._ticket, self._backend_retry_at = None, None, -math.inf
