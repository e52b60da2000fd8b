"""What the transport relies on in aiohttp: one test for each name of `RELIED_ON`.

Where one fails, aiohttp has changed what the sentence says, and `pythpeer/transport` must follow.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from helpers import now, wait_for_io
from raw_server import (
    RawServer,
    StubDnsLoop,
    closed_port,
    drop,
    hang,
    http,
    server_context,
    unresolvable_host,
    unresponsive_port,
    untrusted_tls,
)
from yarl import URL

from pythpeer.transport import aiohttp_names
from pythpeer.transport.aiohttp_names import (
    RELIED_ON,
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientError,
    ClientPayloadError,
    ClientSSLError,
    ClientTimeout,
    HttpProcessingError,
    LineTooLong,
    Target,
    TCPConnector,
    open_connection,
)

pytestmark = pytest.mark.anyio

CHECKS: Final[dict[str, Callable[[], Awaitable[None]]]] = {}
"""By name of `RELIED_ON`, its check: `check` adds it."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """A loop on which look-ups of host names can fail."""
    return ("asyncio", {"loop_factory": StubDnsLoop})


def check(*names: str) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Register a check of these names."""

    def register(function: Callable[[], Awaitable[None]]) -> None:
        CHECKS.update(dict.fromkeys(names, function))

    return register


class Open:
    """A connection that is open, and what is read from it."""

    def __init__(self, opened: Any, server: RawServer) -> None:
        self.opened = opened
        self.server = server

    @property
    def handler(self) -> Any:
        return self.opened.protocol

    def prepare(self, max_header: int = 9_000) -> None:
        self.handler.set_response_params(
            read_until_eof=True, max_line_size=max_header, max_field_size=max_header
        )

    async def response(self, data: bytes) -> Any:
        """Pass the bytes of a response to the handler, and return its head and body."""
        self.prepare()
        self.handler.data_received(data)
        return await self.handler.read()


@asynccontextmanager
async def connected(url: str | None = None) -> AsyncIterator[Open]:
    """A connection to a server that sends nothing, or to *url*."""
    async with RawServer(hang()) as server:
        connector = TCPConnector(limit=0, force_close=True)
        target = Target(URL(url or server.url), tls=True)
        timeout = ClientTimeout(sock_connect=5.3, ceil_threshold=1e9)
        try:
            opened = await open_connection(connector, target, timeout)
            try:
                yield Open(opened, server)
            finally:
                opened.close()
        finally:
            await connector.close()


async def open_error(url: str) -> BaseException:
    """What opening a connection to *url* raises."""
    with pytest.raises(Exception) as caught:
        async with connected(url):
            pass
    return caught.value


class StrictTarget(Target):
    """A target that fails where another attribute than those of `Target` is read."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the connector reads {name} of a request, which Target has not")


@check("TCPConnector.connect", "Connection.protocol", "Connection.transport")
async def _connects() -> None:
    for tls in (None, server_context()):
        async with RawServer(hang(), tls=tls) as server:
            connector = TCPConnector(limit=0, force_close=True)
            url = URL(server.url.replace("http:", "https:") if tls else server.url)
            target = StrictTarget(url / "x" % {"key": "secret"}, tls=unverified() if tls else True)
            assert str(target.url) == str(url.origin())
            opened = await open_connection(connector, target, ClientTimeout(sock_connect=5.0))
            assert isinstance(opened.transport, asyncio.Transport)
            assert isinstance(opened.protocol, asyncio.Protocol)
            assert opened.transport.get_protocol() is opened.protocol
            opened.close()
            assert opened.transport is None
            await connector.close()


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@check("TCPConnector.close")
async def _closes_all() -> None:
    async with RawServer(hang()) as server:
        connector = TCPConnector(limit=0, force_close=True)
        target = Target(URL(server.url), tls=True)
        opened = [await open_connection(connector, target, ClientTimeout()) for _ in range(3)]
        await wait_for_io(0.1)
        assert len(server.open_connections) == 3
        assert not connector.closed
        await connector.close()
        assert connector.closed
        await wait_for_io(0.1)
        assert server.open_connections == []
        for connection in opened:
            connection.close()


@check("ClientTimeout")
async def _limits_connecting() -> None:
    with unresponsive_port() as url:
        start = now()
        assert type(await open_error(url)) is TimeoutError
        assert now() - start == pytest.approx(5.3, abs=0.01)


@check("Connection.close")
async def _closes() -> None:
    async with connected() as connection:
        transport = connection.opened.transport
        connection.opened.close()
        assert transport.is_closing()
        connection.opened.close()  # a second time does nothing


@check(
    "ResponseHandler.data_received",
    "ResponseHandler.read",
    "RawResponseMessage.code",
    "RawResponseMessage.headers",
)
async def _parses() -> None:
    async with connected() as connection:
        data = b"HTTP/1.1 103 Hints\r\n\r\n" + http(418, b"{}", [("X-Name", "value")])
        message, _ = await connection.response(data)
        assert message.code == 103
        message, _ = await connection.handler.read()
        assert message.code == 418
        assert message.headers.get("x-name") == message.headers["X-NAME"] == "value"


@check("RawResponseMessage.compression")
async def _names_the_compression() -> None:
    expected = {"gzip": "gzip", "deflate": "deflate", "x-gzip": None, "identity": None}
    for encoding, compression in expected.items():
        async with connected() as connection:
            data = http(200, b"ab", [("Content-Encoding", encoding)], length=9)
            message, _ = await connection.response(data)
            assert message.compression == compression


@check("ResponseHandler.connection_lost")
async def _ends_with_the_connection() -> None:
    async with connected() as connection:
        _, body = await connection.response(http(200, b"abc", length=None))
        assert not body.is_eof()
        connection.handler.connection_lost(None)
        assert body.is_eof()
        assert body.read_nowait() == b"abc"


@check("ResponseHandler.set_response_params", "LineTooLong", "HttpProcessingError")
async def _limits_headers() -> None:
    long = http(200, b"{}", [("X-Long", "x" * 8_900)])
    async with connected() as connection:
        await connection.response(long)
    async with connected() as connection:
        connection.prepare(8_000)
        reading = asyncio.ensure_future(connection.handler.read())
        await asyncio.sleep(0)
        connection.handler.data_received(long)
        with pytest.raises(HttpProcessingError) as caught:
            await reading
        assert isinstance(caught.value.__cause__, LineTooLong)
    async with connected() as connection:
        with pytest.raises(HttpProcessingError) as caught:
            await connection.response(b"SSH-2.0-OpenSSH_9.6\r\n")
        assert not isinstance(caught.value.__cause__, LineTooLong)


@check("ResponseHandler.should_close")
async def _knows_what_can_be_reused() -> None:
    whole = http(200, b"{}")
    cases = {
        whole: False,
        http(200, b"{}", [("Connection", "close")]): True,
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}": True,
        http(200, b"{", length=2): True,
        whole + whole: True,
        http(101, b"", [("Upgrade", "x"), ("Connection", "upgrade")]): True,
    }
    for data, should_close in cases.items():
        async with connected() as connection:
            await connection.response(data)
            assert connection.handler.should_close is should_close, data
    async with connected() as connection:
        await connection.response(whole)
        connection.handler.data_received(b"junk\r\n")
        assert connection.handler.should_close


@check(
    "StreamReader.is_eof", "StreamReader.at_eof", "StreamReader.read_nowait", "StreamReader.readany"
)
async def _reads_a_body() -> None:
    async with connected() as connection:
        _, body = await connection.response(http(200, b"abc", length=6))
        assert await body.readany() == b"abc"
        assert not body.is_eof()
        connection.handler.data_received(b"def")
        assert body.is_eof()
        assert not body.at_eof()
        assert body.read_nowait() == b"def"
        assert body.at_eof()
        _, body = await connection.response(http(200, b""))
        assert body.is_eof()
        assert body.read_nowait() == b""
        assert body.at_eof()


@check("StreamReader.exception", "StreamReader.set_exception")
async def _fails_a_body() -> None:
    async with connected() as connection:
        _, body = await connection.response(http(200, b"abc", length=6))
        assert body.exception() is None
        reading = asyncio.ensure_future(_read_all(body))
        await asyncio.sleep(0)
        body.set_exception(ClientPayloadError())
        assert isinstance(body.exception(), ClientPayloadError)
        with pytest.raises(ClientPayloadError):
            await reading


async def _read_all(body: Any) -> None:
    while not body.at_eof():
        await body.readany()


@check("ServerDisconnectedError")
async def _fails_a_head() -> None:
    for error in (None, ConnectionResetError(104, "reset"), TimeoutError()):
        async with connected() as connection:
            connection.prepare()
            connection.handler.connection_lost(error)
            with pytest.raises((ClientError, OSError)):
                await connection.handler.read()


@check("ClientPayloadError")
async def _notices_a_broken_body() -> None:
    damaged = http(200, b"not gzip", [("Content-Encoding", "gzip")], length=20)
    for data in (http(200, b"abc", length=6), damaged):
        async with connected() as connection:
            _, body = await connection.response(data)
            connection.handler.connection_lost(None)
            with pytest.raises(ClientPayloadError):
                await _read_all(body)


@check("ClientConnectorError")
async def _is_refused() -> None:
    with closed_port() as url:
        assert isinstance(await open_error(url), ClientConnectorError)


@check("ClientConnectorDNSError")
async def _has_no_address() -> None:
    with unresolvable_host() as url:
        assert isinstance(await open_error(url), ClientConnectorDNSError)


@check("ClientConnectorCertificateError")
async def _is_not_trusted() -> None:
    async with RawServer(hang(), tls=server_context()) as server:
        error = await open_error(server.url)
    assert isinstance(error, ClientConnectorCertificateError)
    assert error.certificate_error.verify_code == 20  # type: ignore[attr-defined]


@check("ClientSSLError")
async def _speaks_no_tls() -> None:
    async with untrusted_tls(drop(http(400, b"plain"), reads=False)) as url:
        error = await open_error(url)
    assert isinstance(error, ClientSSLError)
    assert not isinstance(error, ClientConnectorCertificateError)


@pytest.mark.parametrize("name", RELIED_ON)
async def test_aiohttp_works_as_the_transport_relies_on(name: str) -> None:
    """Each sentence of the table is true."""
    try:
        await CHECKS[name]()
    except Exception as error:
        error.add_note(f"aiohttp has changed: {name} {RELIED_ON[name]}")
        raise


def test_each_name_has_a_check() -> None:
    """And each imported name is in the table, alone or with a member."""
    assert set(CHECKS) == set(RELIED_ON)
    ours = {"RELIED_ON", "Message", "OpenedConnection", "Payload", "ResponseHandler", "Target"}
    imported = set(aiohttp_names.__all__) - ours - {"open_connection", "ClientError", "EofStream"}
    assert imported <= {name.partition(".")[0] for name in RELIED_ON}
