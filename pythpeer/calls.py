"""One call: permit, time limit, request, result or error, retry; and its events for hooks.

Every request to a service goes through this module, so that pacing, retry, secrecy and size limits
are each applied in one place.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, cast

import msgspec

from .errors import (
    AccessDeniedError,
    ApiError,
    PythpeerError,
    RateLimitedError,
    Result,
    SessionClosedError,
)
from .health import OutcomeTracker
from .hooks import Hooks, RequestEvent, ResponseEvent, RetryEvent, outcome_of
from .pacing.limiter import Limiter, Permit, TokenExpiredError, loop_clock
from .pacing.queue import Priority
from .retry import Retry, classify_failure
from .wire.endpoints import Effect, Endpoint
from .wire.request import Request
from .wire.responses import (
    LONG_BODY,
    GetSecrets,
    decode_documented,
    is_long,
    parse_retry_after,
    parse_undocumented,
    try_parse_response,
)

if TYPE_CHECKING:
    from .secret import Secret
    from .transport import RawResponse, Transport  # not at run time, because it imports aiohttp

__all__ = ["Caller", "notify_retry"]

logger: Final = logging.getLogger("pythpeer.requests")

MAX_CALL_KEYS: Final = 16
"""How many keys of earlier calls are masked in errors. Each costs an error some 0.3 ms."""

T = TypeVar("T")
E = TypeVar("E", bound=PythpeerError)


class Caller:
    """Runs calls, with the limiters, the retry policy, the hooks and the transport of a session."""

    def __init__(
        self,
        *,
        transport: Callable[[], Transport],
        limiter: Callable[[Endpoint[object]], Limiter],
        retry: Retry,
        timeout: float,
        max_wait: float,
        hooks: Hooks,
        keys: Sequence[Secret] = (),
    ) -> None:
        self._transport = transport
        """Returns the open transport, or raises `SessionClosedError`."""

        self._limiter = limiter
        """Returns the limiter of an endpoint."""

        self.retry = retry
        """The policy for failed reads."""

        self.timeout = timeout
        """Time limit of one attempt, in seconds."""

        self.max_wait = max_wait
        """Longest time, in seconds, that a call waits for a token."""

        self.hooks = hooks
        """The listeners for requests, responses and retries."""

        self._keys = keys
        """The keys of the session, which no error shows, whatever a response repeats."""

        self._call_keys: tuple[Secret, ...] = ()
        """The last different keys that were parameters of calls, the latest last, `MAX_CALL_KEYS`
        at most. No error shows them either. Replaced by `remember_keys`."""

        self._back_offs: set[asyncio.Future[None]] = set()
        """One for each call that waits to try again: `_back_off` adds and removes it."""

        self.outcomes: Final[defaultdict[str, OutcomeTracker]] = defaultdict(OutcomeTracker)
        """By limiter name, the last success and the failures since: changed after each attempt."""

    async def call(self, request: Request[T]) -> T:
        """Run *request*, and return its result. A read is repeated as the retry policy says.

        Raises the error of the last attempt, or `RateLimitedError` when the wait for a token is
        longer than ``max_wait``.
        """
        write = request.endpoint.effect is Effect.WRITE
        priority = Priority.WRITE if write else Priority.CALL
        attempt = 0
        failure: PythpeerError | None = None
        self._transport()  # raises where the session is closed, before a token is taken
        while True:
            try:
                permit = self._limiter(request.endpoint).try_acquire()
                if permit is None:
                    permit = await self.acquire_permit(request.endpoint, priority, self.max_wait)
            except RateLimitedError:
                if failure is None:
                    raise
                break  # the failure of the attempt before says more than this error
            attempt += 1
            result = await self.try_once(request, permit, attempt)
            if not isinstance(result, PythpeerError):
                return result
            failure = result
            del result  # so that the end can delete the only reference
            delay = self._retry_delay(request.endpoint, failure, attempt)
            if delay is None:
                break
            notify_retry(self.hooks, request.endpoint.name, failure, attempt, delay)
            await self._back_off(request.endpoint, delay)
        try:
            raise failure
        finally:
            del failure  # otherwise the error and this frame would refer to each other

    def remember_keys(self, keys: Sequence[Secret]) -> None:
        """Mask *keys* in the errors of later calls and polls, too: a service can repeat them."""
        if keys:
            others = [key for key in self._call_keys if key not in keys]
            self._call_keys = (*others, *dict.fromkeys(keys))[-MAX_CALL_KEYS:]

    async def _back_off(self, endpoint: Endpoint[T], delay: float) -> None:
        """Wait *delay* seconds. Raises `SessionClosedError` as soon as the session is closed."""
        closed = asyncio.get_running_loop().create_future()
        self._back_offs.add(closed)
        try:
            if self._is_open():
                await asyncio.wait([closed], timeout=delay)
        finally:
            self._back_offs.discard(closed)
        if closed.done() or not self._is_open():
            raise SessionClosedError("the session was closed", endpoint=endpoint.name)

    def _is_open(self) -> bool:
        try:
            self._transport()
        except SessionClosedError:
            return False
        return True

    def end_back_offs(self) -> None:
        """Raise `SessionClosedError` in every call that waits to try again."""
        for closed in self._back_offs:
            if not closed.done():
                closed.set_result(None)

    def _retry_delay(
        self, endpoint: Endpoint[T], error: PythpeerError, attempt: int
    ) -> float | None:
        """Return the seconds until the next attempt, or ``None`` to give up."""
        if endpoint.effect is not Effect.READ:
            return None
        # A 429 or a 503 can ask for a pause that is longer than the call may wait.
        if self._limiter(endpoint).paused_for > self.max_wait:
            return None
        return self.retry.delay(error, attempt)

    def acquire_permit(
        self, endpoint: Endpoint[T], priority: Priority, max_wait: float = math.inf
    ) -> Awaitable[Permit]:
        """Wait for a token of *endpoint*, *max_wait* seconds at most.

        The caller must close the permit when the request has ended.
        """
        self._transport()  # raises where the session is closed, before any waiting
        # Not a coroutine function: each waiting caller would keep one more frame.
        return self._limiter(endpoint).acquire(priority, max_wait, self)

    def try_once(
        self,
        request: Request[T],
        permit: Permit,
        number: int = 1,
        on_response: Callable[[RawResponse], None] | None = None,
    ) -> Awaitable[Result[T]]:
        """Send *request* once, and return its result or its error. Closes the permit.

        *number* is the number of the attempt, for hooks. *on_response* receives the raw response,
        where there is one.
        """
        # Not a coroutine function, so that events cost nothing where there is no listener.
        if self.hooks.has_request_listeners or logger.isEnabledFor(logging.DEBUG):
            return self._try_once_with_events(request, permit, number, on_response)
        return self._try_once(request, permit, on_response)

    async def _try_once_with_events(
        self,
        request: Request[T],
        permit: Permit,
        number: int,
        on_response: Callable[[RawResponse], None] | None,
    ) -> Result[T]:
        """Do the same as `try_once`, and notify the listeners before and after."""
        name, url, waited = request.endpoint.name, request.redacted(), permit.waited
        try:
            request_event = RequestEvent(name, url, number, waited)
            for request_listener in self.hooks.request:
                request_listener(request_event)
        except BaseException:
            permit.close()  # an interrupt such as Ctrl-C, which a listener does not catch
            raise
        now = loop_clock(asyncio.get_running_loop())
        start = now()
        result: Result[T] | None = None
        raised: BaseException | None = None
        try:
            result = await self._try_once(request, permit, on_response)
        except BaseException as reason:  # noqa: BLE001  # raised below, outside of this context
            raised = reason
        error = result if isinstance(result, PythpeerError) else raised
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
        for response_listener in self.hooks.response:
            response_listener(event)
        if raised is not None:
            try:
                raise raised
            finally:
                del raised, error  # otherwise the error and this frame would refer to each other
        return cast("Result[T]", result)

    async def _try_once(
        self, request: Request[T], permit: Permit, on_response: Callable[[RawResponse], None] | None
    ) -> Result[T]:
        endpoint = request.endpoint
        try:
            response = await self._try_send(request, permit)
        finally:
            permit.close()
        if isinstance(response, PythpeerError):
            return self._record_outcome(permit, classify_failure(endpoint, response, permit.status))
        if on_response is not None:
            on_response(response)
        status, body = response.status, response.body
        documented = None
        if len(body) <= LONG_BODY:
            documented = decode_documented(endpoint, status, body)
        result: Result[T]
        if documented is not None:
            result = documented
        else:
            args = (endpoint, status, body, self._secrets(request), request.texts, request.size)
            if is_long(body):
                result = await _run_in_thread(partial(try_parse_response, *args))
            else:
                result = parse_undocumented(*args)
        if not isinstance(result, PythpeerError):
            self.outcomes[permit.limiter.name].record(None)
            return result
        if isinstance(result, RateLimitedError):
            result.retry_after = parse_retry_after(response.headers)
            permit.on_throttled(result.retry_after)
        elif status == 503:
            permit.pause(parse_retry_after(response.headers))
        return self._record_outcome(permit, classify_failure(endpoint, result, permit.status))

    async def _try_send(self, request: Request[object], permit: Permit) -> Result[RawResponse]:
        """Send *request* once, with a new token if that of *permit* has expired by then."""
        while True:
            try:
                return await self._transport().try_send(request, permit)
            except TokenExpiredError:
                pass
            try:
                await permit.renew(self.max_wait, self)
            except RateLimitedError as error:
                return error.with_traceback(None)

    def _secrets(self, request: Request[object]) -> GetSecrets:
        """Return a function that returns the keys of *request*, the session and recent calls."""
        return lambda: [*request.secrets(), *self._keys, *self._call_keys]

    def _record_outcome(self, permit: Permit, error: E) -> E:
        """Record the outcome of an endpoint, and return *error*.

        An API error counts as a success, because the endpoint works; `AccessDeniedError` does not.
        """
        is_success = isinstance(error, ApiError) and not isinstance(error, AccessDeniedError)
        self.outcomes[permit.limiter.name].record(None if is_success else error)
        return error


async def _run_in_thread(work: Callable[[], T]) -> T:
    """Execute *work* in a thread of its own, which ends with it, so that the loop continues."""
    executor = ThreadPoolExecutor(1, "pythpeer-parser")
    try:
        result = asyncio.get_running_loop().run_in_executor(executor, work)
    except RuntimeError:  # no thread can be started: the program has too many, or is ending
        return work()
    finally:
        executor.shutdown(wait=False)
    return await result


def notify_retry(
    hooks: Hooks, endpoint: str, error: PythpeerError, attempt: int, delay: float
) -> None:
    """Log that a read will be repeated after *delay* seconds, and notify the listeners."""
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
    for listener in hooks.retry:
        listener(event)


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
