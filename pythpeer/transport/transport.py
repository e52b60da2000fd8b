"""One attempt of one request, within its time limit."""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from typing import Final, NamedTuple

import anyio
from yarl import URL

from ..errors import PythpeerError, RequestTimeoutError, Result, TransportError
from ..pacing.limiter import Permit
from ..tracebacks import strip_tracebacks
from ..wire.endpoints import Effect
from ..wire.query import render_query
from ..wire.request import Request
from .aiohttp_names import Message, Payload
from .body import try_read_body
from .connection import Connection
from .deadline import Deadline, DeadlinePassedError, Deadlines, TransportClosedError
from .failures import FAILURES, describe, is_untrusted
from .pool import CONNECT_TIMEOUT, ConnectTimeoutError, Host, Pool
from .response import RawResponse

__all__ = ["Transport"]

logger: Final = logging.getLogger("pythpeer.requests")

TLS_CLOSE_DELAY: Final = 0.02
"""Seconds that `Transport.aclose` waits for TLS connections that are already being closed."""


class Route(NamedTuple):
    """What the requests of an endpoint have in common."""

    host: Host
    """The connections to its host."""

    address: str
    """The name of the host, with the port unless it is that of the scheme: for texts of errors."""

    before: str
    """The request's head before the query."""

    after: str
    """The request's head after the query, without the blank line."""

    single_use: bool
    """Whether each request has a new connection, because it must not be sent twice."""

    time_limit: float
    """Time limit of one attempt without one of its own, in seconds; infinity for none."""

    deadlines: Deadlines
    """The attempts under way."""


class Attempt:
    """One attempt, and what has arrived of its response."""

    __slots__ = ("deadline", "permit", "request", "response", "route")

    def __init__(
        self, request: Request[object], permit: Permit, route: Route, deadline: Deadline
    ) -> None:
        self.request: Final[Request[object]] = request
        self.route: Final[Route] = route
        """How requests of its endpoint are sent."""

        self.permit: Final[Permit] = permit
        """Records when the request was written and when it was answered."""

        self.deadline: Final[Deadline] = deadline
        """When it ends at the latest."""

        self.response: RawResponse | None = None
        """The response without its body, where its status is enough: set by the exchange."""


class Transport:
    """Sends requests, each once. It must be created in a running event loop.

    The proxy and netrc variables of the environment are not read, redirects are not followed, and
    no cookie is kept.

    Invariants: each request is written once, and its permit records when. A read whose kept
    connection turns out to be closed is written once more. No variable of any frame holds the text
    of a key, so that an exception at any point can show none.
    """

    def __init__(
        self,
        *,
        user_agent: str,
        timeout: float,
        max_body: int,
        max_header: int,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._timeout = timeout
        """Seconds of one attempt at most, unless its endpoint has a limit; infinity for none."""

        self._max_body = max_body
        """Largest permitted body, in bytes."""

        self._max_header = max_header
        """Largest permitted header, in bytes."""

        self._user_agent = user_agent
        """Value of the header ``User-Agent``."""

        self._deadlines: dict[tuple[float, bool], Deadlines] = {}
        """By time limit, and whether they are destructive reads, the attempts that are under way.
        `_make_route` adds."""

        self._pool = Pool(tls=ssl_context or True, max_header=max_header)
        """The connections."""

        self._route = functools.lru_cache(64)(self._make_route)
        """By URL, effect and time limit of an endpoint: how its requests are sent."""

        self._close_delay = 0.0
        """Seconds that `aclose` waits: set to `TLS_CLOSE_DELAY` by the first request over TLS on a
        single-use connection."""

    def _make_route(self, url: str, effect: Effect, time_limit: float) -> Route:
        parts = URL(url, encoded=True)
        host = self._pool.host(parts)
        single_use = effect is not Effect.READ
        if single_use and host.is_tls:
            self._close_delay = TLS_CLOSE_DELAY
        address = parts.host_port_subcomponent or ""
        after = (
            f" HTTP/1.1\r\nHost: {address}\r\n"
            f"User-Agent: {self._user_agent}\r\nAccept: application/json\r\n"
            "Accept-Encoding: gzip\r\n"
        )
        if single_use:
            after += "Connection: close\r\n"
        deadlines = self._deadlines.setdefault(
            (time_limit, effect is Effect.CONSUME), Deadlines(time_limit)
        )
        before = f"GET {parts.raw_path}"
        return Route(host, address, before, after, single_use, time_limit, deadlines)

    def waiting(self, endpoint: str) -> int:
        """Return how many requests of this endpoint wait for a connection."""
        return self._pool.waiting(endpoint)

    async def try_send(self, request: Request[object], permit: Permit) -> Result[RawResponse]:
        """Send *request* once, and return its complete response, within the time limit.

        Returns `RequestTimeoutError`, `TransportError` or `ResponseTooLargeError` instead of
        raising it.
        """
        endpoint = request.endpoint
        route = self._route(endpoint.url, endpoint.effect, max(self._timeout, endpoint.min_timeout))
        attempt = Attempt(request, permit, route, route.deadlines.start(endpoint.timeout))
        result: Result[RawResponse]
        try:
            with attempt.deadline:
                result = await self._try_exchange(attempt)
        except (ConnectTimeoutError, DeadlinePassedError, TransportClosedError, *FAILURES) as error:
            result = self._explain(attempt, error)
            strip_tracebacks(error)
        if attempt.response is not None and isinstance(result, PythpeerError):
            return attempt.response
        return result

    def _explain(self, attempt: Attempt, error: BaseException) -> PythpeerError:
        """Return the error of the library for one that ended *attempt*."""
        endpoint, route, sent = attempt.request.endpoint, attempt.route, attempt.permit.written
        if isinstance(error, ConnectTimeoutError):
            text = f"no connection to {route.address} within {CONNECT_TIMEOUT:g} s"
            return RequestTimeoutError(text, endpoint=endpoint.name, sent=sent)
        if isinstance(error, DeadlinePassedError):
            missing = "complete response of" if sent else "connection to"
            seconds = route.time_limit if endpoint.timeout is None else endpoint.timeout
            text = f"no {missing} {route.address} within the time limit of {seconds:g} s (timeout)"
            return RequestTimeoutError(text, endpoint=endpoint.name, sent=sent)
        if isinstance(error, TransportClosedError):
            return TransportError("the session was closed", endpoint=endpoint.name, sent=sent)
        return TransportError(
            describe(error, route.address, self._max_header),
            endpoint=endpoint.name,
            sent=sent,
            untrusted=is_untrusted(error),
        )

    async def _try_exchange(self, attempt: Attempt) -> Result[RawResponse]:
        """Send the request on a connection of the pool, and return the response."""
        endpoint, route = attempt.request.endpoint, attempt.route
        pool, host = self._pool, route.host
        connection = await pool.acquire(host, endpoint.name, single_use=route.single_use)
        keep = False
        try:
            head = await self._try_send_head(attempt, connection)
            if head is None:
                await self._await_second_turn(attempt)
                connection = await pool.replace(host, connection)
                connection.send(render_head(route, attempt.request))
                head = await connection.read_head()
            message, payload = head
            self._record_head(attempt, message)
            body = await try_read_body(message, payload, self._max_body, endpoint.name)
            keep = not route.single_use and payload.at_eof()
        finally:
            pool.release(host, connection, keep=keep)
        if isinstance(body, PythpeerError):
            return body
        return RawResponse(message.code, message.headers, body)

    @staticmethod
    async def _try_send_head(
        attempt: Attempt, connection: Connection
    ) -> tuple[Message, Payload] | None:
        """Write the request, and return the head and the body of the response.

        Returns ``None`` where the host had closed the kept connection before the request came. A
        new connection has not been kept, so that this never happens to a write.
        """
        attempt.permit.on_written()
        connection.send(render_head(attempt.route, attempt.request))
        try:
            return await connection.read_head()
        except FAILURES as error:
            if not connection.was_stale:
                raise
            strip_tracebacks(error)
            return None

    @staticmethod
    async def _await_second_turn(attempt: Attempt) -> None:
        """Wait until a read may be written for the second time, with the same token.

        The service may have received the first one, so the interval lies between the two, and
        between the second one and the next request. Without pacing there is nothing to wait for.

        Raises an error of the connection where the time limit would pass before.
        """
        name = attempt.request.endpoint.name
        delay = attempt.permit.postpone(attempt.deadline.remaining)
        if delay is None:
            raise ConnectionResetError
        logger.debug(
            "%s: the kept connection was closed, sending again", name, extra={"endpoint": name}
        )
        if delay:
            await asyncio.sleep(delay)

    @staticmethod
    def _record_head(attempt: Attempt, message: Message) -> None:
        """Record that the head of the response has arrived."""
        status = message.code
        attempt.permit.on_answered(status)
        if status == 429 or status >= 500:
            # The status is enough, so a broken body does not hide it, or its Retry-After.
            attempt.response = RawResponse(status, message.headers, b"")

    def abort(self) -> None:
        """Let requests fail that are under way, except destructive reads."""
        for (_, is_destructive), deadlines in self._deadlines.items():
            if not is_destructive:
                deadlines.close()

    async def aclose(self) -> None:
        """Close every connection. Requests that are under way fail."""
        for deadlines in self._deadlines.values():
            deadlines.close()
        # Also where that is cancelled, because `aclose` is not called a second time.
        with anyio.CancelScope(shield=True):
            await self._pool.aclose()
            await asyncio.sleep(self._close_delay)


def render_head(route: Route, request: Request[object]) -> memoryview:
    """Return the bytes of a request, with its keys in clear.

    Only the result has them, and its ``repr`` shows none: asyncio keeps it in its frames.
    """
    mark = "?" if request.segments else ""
    if request.headers is None:
        return memoryview(
            f"{route.before}{mark}{render_query(request.segments)}{route.after}\r\n".encode()
        )
    return memoryview(
        "".join(
            [
                f"{route.before}{mark}{render_query(request.segments)}{route.after}",
                *(f"{name}: {key.reveal()}\r\n" for name, key in request.headers.items()),
                "\r\n",
            ]
        ).encode()
    )
