"""The way of a call: token, time limit, one request, answer or typed error, and again if it may be.

Pacing, retry, secrecy and size limits each stand on this way once, and nothing goes to a service
by another.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar, cast

import anyio
import msgspec

from .answers import try_parse_response, parse_retry_after
from .errors import AccessDeniedError, ApiError, PythpeerError, RateLimitedError
from .health import OutcomeTracker
from .hooks import Hooks, RequestEvent, ResponseEvent, RetryEvent, outcome_of
from .limiter import Limiter, Permit, loop_clock
from .line import Priority
from .retry import Retry, classify_failure
from .wire import Effect, Endpoint, Request

if TYPE_CHECKING:
    from .transport import RawResponse, Transport  # not at run time: it imports aiohttp

__all__ = ["Caller", "notify_retry", "shielded"]

logger: Final = logging.getLogger("pythpeer.requests")

T = TypeVar("T")
E = TypeVar("E", bound=PythpeerError)


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
        hooks: Hooks,
    ) -> None:
        self._transport = transport
        self._limiter = limiter
        self.retry = retry
        self.timeout = timeout
        """Seconds that one attempt can take."""
        self.max_wait = max_wait
        """Seconds that a call may wait for a token."""
        self.hooks = hooks
        """Who looks on."""
        self.outcomes: Final[defaultdict[str, OutcomeTracker]] = defaultdict(OutcomeTracker)
        """How each endpoint has done."""

    async def call(self, request: Request[T]) -> T:
        """Run *request* for a user: bounded waiting, and reads repeated as the policy says."""
        write = request.endpoint.effect is Effect.WRITE
        priority = Priority.WRITE if write else Priority.CALL
        attempt = 0
        failure: PythpeerError | None = None
        while True:
            try:
                permit = await self.acquire_permit(request.endpoint, priority, self.max_wait)
            except RateLimitedError:
                if failure is None:
                    raise
                break  # the failure that is to be repeated says more than "no token" would
            attempt += 1
            answer = await self.try_once(request, permit, attempt)
            if not isinstance(answer, PythpeerError):
                return answer
            failure = answer
            delay = self._retry_delay(request.endpoint, answer, attempt)
            if delay is None:
                break
            notify_retry(self.hooks, request.endpoint.name, answer, attempt, delay)
            await anyio.sleep(delay)
        raise failure

    def _retry_delay(
        self, endpoint: Endpoint[T], error: PythpeerError, attempt: int
    ) -> float | None:
        """Seconds until the next attempt, or ``None`` where there is none."""
        if endpoint.effect is not Effect.READ:
            return None
        # A pause that a 429 or 503 asked for can be too long to wait.
        if self._limiter(endpoint).paused_for > self.max_wait:
            return None
        return self.retry.delay(error, attempt)

    def acquire_permit(
        self, endpoint: Endpoint[T], priority: Priority, max_wait: float = math.inf
    ) -> Awaitable[Permit]:
        """Wait for a token of this endpoint; `Permit.close` it when its request is over."""
        self._transport()  # a closed session says so before anybody waits
        # Not a coroutine of its own: a waiting caller would keep its frame, too.
        return self._limiter(endpoint).acquire(priority, max_wait, self)

    def try_once(
        self,
        request: Request[T],
        permit: Permit,
        number: int = 1,
        on_response: Callable[[RawResponse], None] | None = None,
    ) -> Awaitable[T | PythpeerError]:
        """Send *request* once on the token in hand, and say what came of it. Closes the permit.

        It is the attempt of this *number*, for those who look on. *keep* gets the reply itself,
        where there is one.
        """
        # No coroutine of its own: where nobody looks on, looking costs nothing.
        if self.hooks.has_request_listeners or logger.isEnabledFor(logging.DEBUG):
            return self._try_once_with_events(request, permit, number, on_response)
        return self._try_once(request, permit, on_response)

    async def _try_once_with_events(
        self,
        request: Request[T],
        permit: Permit,
        number: int,
        on_response: Callable[[RawResponse], None] | None,
    ) -> T | PythpeerError:
        """Do the same, and tell those who look on."""
        name, url, waited = request.endpoint.name, request.redacted(), permit.waited
        try:
            about = RequestEvent(name, url, number, waited)
            for told in self.hooks.request:
                told(about)
        except BaseException:
            permit.close()  # an interrupt, which hooks do not hold up
            raise
        now = loop_clock(asyncio.get_running_loop())
        start = now()
        answer: T | PythpeerError | None = None
        raised: BaseException | None = None
        try:
            answer = await self._try_once(request, permit, on_response)
        except BaseException as reason:  # noqa: BLE001  # raised below, where hooks inherit nothing
            raised = reason
        error = answer if isinstance(answer, PythpeerError) else raised
        event = ResponseEvent(
            name,
            url,
            number,
            waited,
            now() - start,
            permit.status,
            outcome_of(error),
            type(error).__name__ if error is not None else None,
        )
        _log(event)
        for heard in self.hooks.response:
            heard(event)
        if raised is not None:
            try:
                raise raised
            finally:
                del raised, error  # else they would hold this frame, and it them
        return cast("T | PythpeerError", answer)

    async def _try_once(
        self, request: Request[T], permit: Permit, on_response: Callable[[RawResponse], None] | None
    ) -> T | PythpeerError:
        endpoint = request.endpoint
        try:
            reply = await self._transport().try_send(request, permit)
        finally:
            permit.close()
        if isinstance(reply, PythpeerError):
            return self._record_outcome(
                permit, classify_failure(endpoint.effect, reply, permit.status)
            )
        if on_response is not None:
            on_response(reply)
        answer = try_parse_response(endpoint, reply.status, reply.body, request.secrets)
        if not isinstance(answer, PythpeerError):
            self.outcomes[permit.limiter.name].record(None)
            return answer
        if isinstance(answer, RateLimitedError):
            answer.retry_after = parse_retry_after(reply.headers)
            permit.on_throttled(answer.retry_after)
        elif reply.status == 503:
            permit.pause(parse_retry_after(reply.headers))
        return self._record_outcome(
            permit, classify_failure(endpoint.effect, answer, permit.status)
        )

    def _record_outcome(self, permit: Permit, error: E) -> E:
        """Put down how the endpoint did. A no about the matter itself is an answer like another."""
        is_answer = isinstance(error, ApiError) and not isinstance(error, AccessDeniedError)
        self.outcomes[permit.limiter.name].record(None if is_answer else error)
        return error


def notify_retry(
    hooks: Hooks, endpoint: str, error: PythpeerError, attempt: int, delay: float
) -> None:
    """Tell those who look on that a read is going to be asked again."""
    if not (hooks.retry or logger.isEnabledFor(logging.DEBUG)):
        return
    status: int | None = getattr(error, "status", None)
    event = RetryEvent(endpoint, attempt, delay, status, type(error).__name__)
    logger.debug(
        "%s: attempt %d failed with %s, the next is in %.2f s",
        endpoint,
        attempt,
        event.error,
        delay,
        extra=msgspec.structs.asdict(event),
    )
    for told in hooks.retry:
        told(event)


def _log(event: ResponseEvent) -> None:
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug(
            "%s: %s after %.3f s: %s",
            event.endpoint,
            event.error or event.outcome,
            event.duration,
            event.url,
            extra=msgspec.structs.asdict(event),
        )


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
