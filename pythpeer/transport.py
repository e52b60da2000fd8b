"""Transport: one attempt of one request over aiohttp. No other client module imports aiohttp.

What aiohttp does by default, and what this module does about it:

- It repeats a GET automatically after a disconnect, on new connections too. Both services *send* by
  GET. The connector of this module permits one transmission per request.
- A pooled connection passes an unsolicited late response to the next request. A connection with
  unread data is not used again, and writes and destructive reads get a new connection each.
- It reads bodies of any size, and accepts a truncated gzip body. Bodies are read in parts up to a
  limit, and a truncated body is not valid JSON.
- It permits other libraries to trace every request, with URL and key (the instrumentations of
  OpenTelemetry and Sentry do). Their tracers are removed.
- Its exceptions and their frames hold the URL, and with it the key. This module returns failures as
  values, without the exception of aiohttp, and removes the frames of a cancellation.
"""

from __future__ import annotations

import asyncio
import functools
import math
import select
import ssl
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import aiohttp
import anyio
from aiohttp import hdrs
from yarl import URL

from .errors import (
    PythpeerError,
    RequestTimeoutError,
    ResponseTooLargeError,
    Result,
    TransportError,
)
from .pacing.limiter import Permit
from .wire.endpoints import Effect
from .wire.query import render_query
from .wire.request import Request

if TYPE_CHECKING:
    from aiohttp.connector import Connection

__all__ = ["RawResponse", "Transport"]

CONNECT_TIMEOUT: Final = 5.0
"""Seconds within which one address must accept a connection."""

KEEPALIVE_TIMEOUT: Final = 4.0
"""Seconds for which an idle connection is kept: Apache closes its side after 5 by default."""

LIMIT_PER_HOST: Final = 8
"""Maximum number of open connections of one pool to one host."""

TLS_CLOSE_DELAY: Final = 0.02
"""Seconds that `Transport.aclose` waits for TLS connections that are already being closed."""

# The permit of the request that the current task sends: aiohttp passes nothing else to a connector.
_permit: ContextVar[Permit] = ContextVar("_permit")


class _ResendBlocked(aiohttp.ClientError):
    """aiohttp was about to send a request for the second time.

    It must not derive from `ClientOSError`, after which aiohttp repeats a request.
    """


class _Connector(aiohttp.TCPConnector):
    """Provides a connection to each request once, and records when the request is written.

    For a request without a body, aiohttp awaits nothing between the return of `connect` and the
    writing of its head: the end of `connect` is when it is written, and the last time at which it
    has certainly not left.
    """

    def __init__(
        self, *, force_close: bool, keepalive_timeout: float | None, tls: ssl.SSLContext | bool
    ) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]  # so aiohttp annotates it
            limit_per_host=LIMIT_PER_HOST,
            force_close=force_close,
            keepalive_timeout=keepalive_timeout,
            ssl=tls,
        )
        self._probes: WeakKeyDictionary[object, _IdleProbe] = WeakKeyDictionary()
        """By protocol object, the probe of each connection that was used before: added by `connect`
        and removed with the connection."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,
    ) -> Connection:
        permit = _permit.get()
        if permit.written:
            raise _ResendBlocked
        while True:
            connection = await super().connect(req, traces, timeout)
            probe = self._probes.get(connection.protocol)
            if probe is None:  # a new connection: what TLS sends on it is not a response
                self._probes[connection.protocol] = _IdleProbe()
                break
            if not probe.is_readable(connection):
                break
            connection.close()  # it received unsolicited data while it was idle
        permit.on_written()
        return connection


class _IdleProbe:
    """Checks one pooled connection each time before it is used again."""

    __slots__ = ("_poll",)

    def __init__(self) -> None:
        self._poll: Callable[[], object] | None = None
        """The check of the socket: created by the first `is_readable`."""

    def is_readable(self, connection: Connection) -> bool:
        """Return whether the idle connection has data to read, or was closed by the peer.

        The socket is checked as well, because the event loop may not have read from it yet.
        """
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None or protocol.should_close:
            return True
        if self._poll is None:
            self._poll = _make_poll(transport.get_extra_info("socket").fileno())
        return bool(self._poll())


def _make_poll(descriptor: int) -> Callable[[], object]:
    """Return a function whose result is true where *descriptor* has data to read."""
    if not hasattr(select, "poll"):  # Windows, where `select` accepts any descriptor
        return lambda: select.select([descriptor], [], [], 0)[0]
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return functools.partial(poll.poll, 0)


class RawResponse:
    """A complete response: its status, its headers, its body."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status: Final[int] = status
        """HTTP status."""
        self.headers: Final[Mapping[str, str]] = headers
        """Headers; names are compared without case."""
        self.body: Final[bytes] = body
        """Body, decompressed; empty where the status makes it unnecessary and it broke."""

    def __repr__(self) -> str:
        return f"<RawResponse {self.status}, {len(self.body)} bytes>"


class Transport:
    """Two pools of connections: one for reads, and one whose connections are used once each.

    It must be created in a running event loop. The proxy and netrc variables of the environment are
    not read.

    Invariant: each request is written at most once, and its permit records when.
    """

    def __init__(
        self,
        *,
        user_agent: str,
        timeout: float,
        max_body: int,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._timeout = timeout
        """Time limit of one attempt, in seconds; infinity for none."""

        self._max_body = max_body
        """Largest permitted body, in bytes."""

        self._user_agent = user_agent
        """Value of the header ``User-Agent``."""

        self._ssl_context = ssl_context
        """TLS settings; ``None`` for those of aiohttp."""

        self._pooled = self._new_client(force_close=False)
        """The client for reads: idle connections are kept."""

        self._single_use = self._new_client(force_close=True)
        """The client for writes and destructive reads: a new connection for each."""

        self._client_timeout = functools.lru_cache(64)(_client_timeout)
        """By seconds, aiohttp's settings for a time limit."""

        self._url = functools.lru_cache(64)(_url_builder)
        """By an endpoint's URL, a function that adds a query to it."""

        self._close_delay = 0.0
        """Seconds that `aclose` waits: set to `TLS_CLOSE_DELAY` by the first request over TLS on a
        single-use connection."""

    def _new_client(self, *, force_close: bool) -> aiohttp.ClientSession:
        client = aiohttp.ClientSession(
            connector=_Connector(
                force_close=force_close,
                keepalive_timeout=None if force_close else KEEPALIVE_TIMEOUT,
                tls=self._ssl_context or True,
            ),
            headers={
                "User-Agent": self._user_agent,
                "Accept": "application/json",
                # Explicit, because aiohttp would add every encoding with an installed decoder.
                "Accept-Encoding": "gzip",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_client_timeout(self._timeout),
            trust_env=False,
        )
        # An instrumentation of every ClientSession would export the URL, and the key with it.
        client.trace_configs.clear()
        return client

    async def try_send(self, request: Request[object], permit: Permit) -> Result[RawResponse]:
        """Send *request* once, and return its complete response, within the time limit.

        Returns `RequestTimeoutError`, `TransportError` or `ResponseTooLargeError` instead of
        raising it.
        """
        # No secret in this frame, because it stays in the traceback of a cancellation.
        failure: PythpeerError
        try:
            return await self._try_exchange(request, permit)
        except aiohttp.ConnectionTimeoutError:
            text = f"no connection within {CONNECT_TIMEOUT:g} s"
            failure = RequestTimeoutError(text, endpoint=request.endpoint.name, sent=permit.written)
        except TimeoutError:
            missing = "complete response" if permit.written else "connection"
            limit = request.endpoint.time_limit(self._timeout)
            text = f"no {missing} within the time limit of {limit:g} s (timeout)"
            failure = RequestTimeoutError(text, endpoint=request.endpoint.name, sent=permit.written)
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError, EOFError) as error:
            failure = TransportError(
                _describe(error),
                endpoint=request.endpoint.name,
                sent=permit.written,
                untrusted=isinstance(error, aiohttp.ClientConnectorCertificateError),
            )
        except BaseException as error:
            _strip_tracebacks(error)
            raise
        return failure

    async def _try_exchange(self, request: Request[object], permit: Permit) -> Result[RawResponse]:
        """Do what `try_send` does, in a frame that holds the URL: it is removed from errors."""
        endpoint = request.endpoint
        url = self._url(endpoint.url)(query_string=render_query(request.segments))
        headers = None
        if request.headers is not None:
            headers = {name: key.reveal() for name, key in request.headers.items()}
        client = self._pooled
        if endpoint.effect is not Effect.READ:
            client = self._single_use
            self._close_delay = TLS_CLOSE_DELAY if url.scheme == "https" else self._close_delay
        token = _permit.set(permit)
        try:
            response = await client.request(
                "GET",
                url,
                headers=headers,
                allow_redirects=False,
                timeout=self._client_timeout(endpoint.time_limit(self._timeout)),
            )
        finally:
            _permit.reset(token)
        status = response.status
        permit.on_answered(status)
        # For these the status is enough, so a broken body does not hide it, or its Retry-After.
        needs_no_body = status == 429 or status >= 500
        body: Result[bytes] = b""
        try:
            body = await self._try_read(response, endpoint.name)
        except (aiohttp.ClientError, OSError):  # a TimeoutError is an OSError
            if not needs_no_body:
                raise
        finally:
            if not response.closed:  # a response that was read to its end is closed
                response.close()
        if isinstance(body, PythpeerError):
            if not needs_no_body:
                return body
            body = b""
        return RawResponse(status, response.headers, body)

    async def _try_read(self, response: aiohttp.ClientResponse, name: str) -> Result[bytes]:
        """Read the body in parts, ``max_body`` bytes at most."""
        encoding = response.headers.get(hdrs.CONTENT_ENCODING)
        if encoding and encoding.strip().lower() not in ("identity", "gzip", "deflate"):
            return TransportError("unexpected Content-Encoding", endpoint=name)
        limit, content = self._max_body, response.content
        size = response.content_length or 0
        parts: list[bytes] = []
        if size <= limit:
            parts.append(await content.readany())
            size = len(parts[0])
        while size <= limit and not content.at_eof():
            parts.append(await content.readany())
            size += len(parts[-1])
        if size > limit:
            text = f"the body is larger than {limit} bytes"
            return ResponseTooLargeError(text, endpoint=name, limit=limit)
        return b"".join(parts)

    async def aclose(self) -> None:
        """Close every connection. Requests that are under way fail."""
        try:
            await self._pooled.close()
        finally:
            # Also when that was cancelled, because `aclose` is not called a second time.
            with anyio.CancelScope(shield=True):
                await self._single_use.close()
                await asyncio.sleep(self._close_delay)


def _client_timeout(seconds: float) -> aiohttp.ClientTimeout:
    """Return aiohttp's settings for a time limit over connecting, head and body.

    Without the threshold, a total of 5 s or more would be rounded up to a whole second of the
    loop's clock. `sock_connect` has no effect where it is longer than the total, but aiohttp 4
    would raise the total to it.
    """
    return aiohttp.ClientTimeout(
        total=seconds if seconds < math.inf else None,
        sock_connect=CONNECT_TIMEOUT if seconds > CONNECT_TIMEOUT else None,
        ceil_threshold=1e9,
    )


def _url_builder(url: str) -> Callable[..., URL]:
    """Return a function that adds a query to *url*, which is parsed only once."""
    parts = URL(url, encoded=True)
    return functools.partial(
        URL.build,
        scheme=parts.scheme,
        host=parts.raw_host or "",
        port=parts.port,
        path=parts.raw_path,
        encoded=True,
    )


_CERTIFICATE_ERRORS: Final[Mapping[int | None, str]] = {
    9: "is not valid yet",
    10: "has expired",
    62: "is for another name",
    64: "is for another address",
}
"""By OpenSSL's error number, why a certificate is rejected."""


def _describe(error: BaseException) -> str:
    """Return a text for *error* without any of its own text, which can hold the URL."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        code = getattr(error.certificate_error, "verify_code", None)
        return f"the certificate {_CERTIFICATE_ERRORS.get(code, 'is not trusted')}"
    if isinstance(error, aiohttp.ClientSSLError):
        return "no TLS connection"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "no connection"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection broke within the body"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the response is not HTTP"
    return "the connection broke before the response"


def _strip_tracebacks(error: BaseException) -> None:
    """Remove the tracebacks of *error*, its causes and its contexts: their frames hold the URL.

    The exceptions themselves are unchanged, because anyio recognises its cancellations by them.
    """
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        link = chain.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            chain += (link.__cause__, link.__context__)
