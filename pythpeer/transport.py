"""One request, one attempt on the wire. The only importer of aiohttp.

What aiohttp does otherwise, and what stands here against it:

- It repeats a GET by itself after a disconnect, on fresh connections too. Both services *send* by
  GET. The connector below lets each request go out once.
- A pooled connection hands an unsolicited late response to the next request. A connection with
  anything left to read is not used again, and writes and consuming reads get a fresh one each.
- It reads bodies of any size, and a cut gzip body passes as whole. Bodies are read in pieces up to
  a limit, and JSON syntax is the net for the rest.
- It lets others of the program trace every request (OpenTelemetry's and Sentry's instrumentations
  do), URL and key included. Their tracers are taken out.
- Its exceptions, and the frames behind them, hold the URL and so the key. Failures leave this
  module as values, without the foreign exception, and a passing cancellation loses its frames.
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

from .errors import PythpeerError, RequestTimeoutError, ResponseTooLargeError, TransportError
from .limiter import Permit
from .wire import Effect, Request, render_query

if TYPE_CHECKING:
    from aiohttp.connector import Connection

__all__ = ["RawResponse", "Transport"]

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for one address to accept a connection."""

KEEPALIVE_TIMEOUT: Final = 4.0
"""Seconds an idle connection is kept: Apache closes its side after 5 by default."""

LIMIT_PER_HOST: Final = 8
"""Connections of one kind to one host open at a time."""

TLS_CLOSE_DELAY: Final = 0.02
"""Seconds that closing waits for TLS connections which are just being closed anyway."""

# The permit of the request that this task is sending: the connector has no other way to know.
_permit: ContextVar[Permit] = ContextVar("_permit")


class _ResendBlocked(aiohttp.ClientError):
    """aiohttp was about to send a request for the second time.

    It must not be a `ClientOSError`, which is what aiohttp repeats after.
    """


class _Connector(aiohttp.TCPConnector):
    """Lends a connection to each request once, and stamps the moment the request is written.

    For a request without a body nothing is awaited between the return of `connect` and the writing
    of its head, so this is that moment, and the last one at which the request has not left.
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
            ear = self._probes.get(connection.protocol)
            if ear is None:  # a fresh one: whatever TLS has to say on it is no answer
                self._probes[connection.protocol] = _IdleProbe()
                break
            if not ear.is_readable(connection):
                break
            connection.close()  # something unasked for came in on it while it was idle
        permit.on_written()
        return connection


class _IdleProbe:
    """Put to one connection whenever it is lent again."""

    __slots__ = ("_poll",)

    def __init__(self) -> None:
        self._poll: Callable[[], object] | None = None

    def is_readable(self, connection: Connection) -> bool:
        """Whether there is anything to read on the idle connection, be it only its end.

        The socket is asked as well: the loop may not have had a turn to read from it.
        """
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None or protocol.should_close:
            return True
        if self._poll is None:
            self._poll = _make_poll(transport.get_extra_info("socket").fileno())
        return bool(self._poll())


def _make_poll(descriptor: int) -> Callable[[], object]:
    """What says whether there is anything to read: something, or nothing."""
    if not hasattr(select, "poll"):  # Windows, where select takes any descriptor
        return lambda: select.select([descriptor], [], [], 0)[0]
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return functools.partial(poll.poll, 0)


class RawResponse:
    """A whole answer: its status, its headers, its body."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status: Final[int] = status
        self.headers: Final[Mapping[str, str]] = headers
        self.body: Final[bytes] = body

    def __repr__(self) -> str:
        return f"<Reply {self.status}, {len(self.body)} bytes>"


class Transport:
    """Two pools of connections: one for reads, and one whose connections serve once.

    Needs a running event loop. Neither proxy nor netrc variables of the environment are read.
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
        self._max_body = max_body
        self._user_agent = user_agent
        self._ssl_context = ssl_context
        self._pooled = self._new_client(force_close=False)
        self._single_use = self._new_client(force_close=True)
        self._url = functools.lru_cache(64)(_url_builder)
        self._close_delay = 0.0

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
                # Said explicitly: aiohttp would add whatever decoders happen to be installed.
                "Accept-Encoding": "gzip",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            # The total covers connecting, head and body. Without the threshold, a total of 5 s or
            # more would be rounded up to a whole second of the loop's clock. A time for connecting
            # that is longer than the total never counts, but aiohttp 4 would raise the total to it.
            timeout=aiohttp.ClientTimeout(
                total=self._timeout if self._timeout < math.inf else None,
                sock_connect=CONNECT_TIMEOUT if self._timeout > CONNECT_TIMEOUT else None,
                ceil_threshold=1e9,
            ),
            trust_env=False,
        )
        # Who instruments every ClientSession of the program would export the URL, and the key.
        client.trace_configs.clear()
        return client

    async def try_send(self, request: Request[object], permit: Permit) -> RawResponse | PythpeerError:
        """Send *request* once, and read its answer whole, within the time limit."""
        # No secret in this frame: it stays in the traceback of a cancellation.
        failure: PythpeerError
        try:
            return await self._try_exchange(request, permit)
        except aiohttp.ConnectionTimeoutError:
            text = f"no connection within {CONNECT_TIMEOUT:g} s"
            failure = RequestTimeoutError(text, endpoint=request.endpoint.name, sent=permit.written)
        except TimeoutError:
            what = "whole answer" if permit.written else "connection"
            text = f"no {what} within the time limit of {self._timeout:g} s (timeout)"
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

    async def _try_exchange(
        self, request: Request[object], permit: Permit
    ) -> RawResponse | PythpeerError:
        """The frame that holds the URL. Nothing it raises gets past `send` with its traceback."""
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
            response = await client.request("GET", url, headers=headers, allow_redirects=False)
        finally:
            _permit.reset(token)
        status = response.status
        permit.on_answered(status)
        # These say all there is to say, and a Retry-After beside them says when to come back.
        needs_no_body = status == 429 or status >= 500
        body: bytes | PythpeerError = b""
        try:
            body = await self._try_read(response, endpoint.name)
        except (aiohttp.ClientError, OSError):  # a TimeoutError is an OSError
            if not needs_no_body:
                raise
        finally:
            if not response.closed:  # as it is once it was read to its end
                response.close()
        if isinstance(body, PythpeerError):
            if not needs_no_body:
                return body
            body = b""
        return RawResponse(status, response.headers, body)

    async def _try_read(self, response: aiohttp.ClientResponse, name: str) -> bytes | PythpeerError:
        """Read the body in pieces, as far as ``max_body``."""
        encoding = response.headers.get(hdrs.CONTENT_ENCODING)
        if encoding and encoding.strip().lower() not in ("identity", "gzip", "deflate"):
            return TransportError("the body has an encoding nobody asked for", endpoint=name)
        limit, content = self._max_body, response.content
        size = response.content_length or 0
        pieces: list[bytes] = []
        if size <= limit:
            pieces.append(await content.readany())
            size = len(pieces[0])
        while size <= limit and not content.at_eof():
            pieces.append(await content.readany())
            size += len(pieces[-1])
        if size > limit:
            text = f"the body is over {limit} bytes"
            return ResponseTooLargeError(text, endpoint=name, limit=limit)
        return b"".join(pieces)

    async def aclose(self) -> None:
        """Close every connection. Requests under way fail."""
        try:
            await self._pooled.close()
        finally:
            # Also if that was cancelled: nobody will come back for the rest.
            with anyio.CancelScope(shield=True):
                await self._single_use.close()
                await asyncio.sleep(self._close_delay)


def _url_builder(url: str) -> Callable[..., URL]:
    """Take an endpoint's URL apart once, and put only the query to it for each request."""
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
"""What is wrong with a certificate, by OpenSSL's number for it."""


def _describe(error: BaseException) -> str:
    """Say what broke without a word from the error itself: its text can hold the URL."""
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
        return "the answer is not HTTP"
    return "the connection broke before the answer"


def _strip_tracebacks(error: BaseException) -> None:
    """Drop the tracebacks of *error* and of all it grew from: their frames hold the URL.

    The exceptions themselves stay as they are; anyio tells its own cancellations by them.
    """
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        link = chain.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            chain += (link.__cause__, link.__context__)
