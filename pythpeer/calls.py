"""The way of a call: token, time limit, one request, answer or typed error, and again if it may be.

Pacing, retry, secrecy and size limits each stand on this way once, and nothing goes to a service
by another.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from .answers import interpret, retry_after
from .errors import PythpeerError, RateLimitedError
from .limiter import Limiter, Permit
from .line import Priority
from .retry import Retry, outcome
from .wire import Effect, Endpoint, Request

if TYPE_CHECKING:
    from .transport import Transport  # not at run time: it imports aiohttp

__all__ = ["Caller", "shielded"]

logger: Final = logging.getLogger("pythpeer.requests")

T = TypeVar("T")


class Caller:
    """Runs calls: knows limiters and policy, and borrows the transport while there is one."""

    def __init__(
        self,
        *,
        transport: Callable[[], Transport],
        limiter: Callable[[Endpoint[object]], Limiter],
        retry: Retry,
        timeout: float,
        max_wait: float,
    ) -> None:
        self._transport = transport
        self._limiter = limiter
        self.retry = retry
        self.timeout = timeout
        """Seconds that one attempt can take."""
        self.max_wait = max_wait
        """Seconds that a call may wait for a token."""

    async def call(self, request: Request[T]) -> T:
        """Run *request* for a user: bounded waiting, and reads repeated as the policy says."""
        write = request.endpoint.effect is Effect.WRITE
        priority = Priority.WRITE if write else Priority.CALL
        attempt = 0
        failure: PythpeerError | None = None
        while True:
            try:
                permit = await self.token(request.endpoint, priority, self.max_wait)
            except RateLimitedError:
                if failure is None:
                    raise
                break  # the failure that is to be repeated says more than "no token" would
            answer = await self.attempt(request, permit)
            if not isinstance(answer, PythpeerError):
                return answer
            failure = answer
            attempt += 1
            delay = self._delay(request.endpoint, answer, attempt)
            if delay is None:
                break
            logger.debug("%s: attempt %d failed, next in %.2f s", request, attempt, delay)
            await anyio.sleep(delay)
        raise failure

    def _delay(self, endpoint: Endpoint[T], error: PythpeerError, attempt: int) -> float | None:
        """Seconds until the next attempt, or ``None`` where there is none."""
        if endpoint.effect is not Effect.READ:
            return None
        # A pause that a 429 or 503 asked for can be too long to wait.
        if self._limiter(endpoint).paused_for > self.max_wait:
            return None
        return self.retry.delay(error, attempt)

    def token(
        self, endpoint: Endpoint[T], priority: Priority, max_wait: float = math.inf
    ) -> Awaitable[Permit]:
        """Wait for a token of this endpoint; `Permit.close` it when its request is over."""
        self._transport()  # a closed session says so before anybody waits
        # Not a coroutine of its own: a waiting caller would keep its frame, too.
        return self._limiter(endpoint).acquire(priority, max_wait, self)

    async def attempt(self, request: Request[T], permit: Permit) -> T | PythpeerError:
        """Send *request* once on the token in hand, and say what came of it. Closes the permit."""
        endpoint = request.endpoint
        try:
            reply = await self._transport().send(request, permit)
        finally:
            permit.close()
        if isinstance(reply, PythpeerError):
            logger.debug("%s: %s", request, type(reply).__name__)
            return outcome(endpoint.effect, reply, permit.status)
        logger.debug("%s: status %d, %d bytes", request, reply.status, len(reply.body))
        answer = interpret(endpoint, reply.status, reply.body, request.secrets)
        if not isinstance(answer, PythpeerError):
            return answer
        if isinstance(answer, RateLimitedError):
            answer.retry_after = retry_after(reply.headers)
            permit.refused(answer.retry_after)
        elif reply.status == 503:
            permit.pause(retry_after(reply.headers))
        return outcome(endpoint.effect, answer, permit.status)


async def shielded(work: Callable[[], Awaitable[T]]) -> T:
    """Run *work* to its end although the caller is cancelled meanwhile; then be cancelled.

    A task of its own, because ``Task.cancel`` knows nothing of anyio's scopes, and a shielded scope
    around the waiting, because anyio delivers a scope's cancellation again and again.
    """
    task = asyncio.ensure_future(work())
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # retrieved: whoever was cancelled has no use for it
        raise cancelled
    return task.result()
