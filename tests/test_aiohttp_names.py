"""What the transport relies on in aiohttp: one test for each name of `RELIED_ON`.

Where one fails, aiohttp has changed what the sentence says, and `pythpeer/transport` must follow.
"""

from __future__ import annotations

import asyncio
import gzip
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
    READ_SIZE,
    RELIED_ON,
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientPayloadError,
    ClientSSLError,
    ClientTimeout,
    LineTooLong,
    OpenedConnection,
    ResponseParser,
    Target,
    TCPConnector,
    make_parser,
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


class Flow:
    """The protocol that a body arrives at."""

    def __init__(self) -> None:
        self.connected = True
        self.parser: ResponseParser = make_parser(self, asyncio.get_running_loop(), 9_000)
        self.paused = False

    def pause_reading(self) -> None:
        self.paused = True
        self.parser.pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self.paused and resume_parser:
            self.paused = False
            self.parser.feed_data(b"")


def parse(data: bytes) -> tuple[Any, Any, Flow]:
    """Pass the bytes of a response to a parser; return its first head and body."""
    flow = Flow()
    message, payload = flow.parser.feed_data(data)[0][0]
    return message, payload, flow


@asynccontextmanager
async def connected(url: str | None = None) -> AsyncIterator[OpenedConnection]:
    """A connection to a server that sends nothing, or to *url*."""
    async with RawServer(hang()) as server:
        connector = TCPConnector(limit=0, force_close=True)
        target = Target(URL(url or server.url), tls=True)
        timeout = ClientTimeout(sock_connect=5.3, ceil_threshold=1e9)
        try:
            opened = await open_connection(connector, target, timeout)
            try:
                yield opened
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


@check("TCPConnector.connect", "Connection.transport")
async def _connects() -> None:
    for tls in (None, server_context()):
        async with RawServer(hang(), tls=tls) as server:
            connector = TCPConnector(limit=0, force_close=True)
            url = URL(server.url.replace("http:", "https:") if tls else server.url)
            target = StrictTarget(url / "x" % {"key": "secret"}, tls=unverified() if tls else True)
            assert str(target.url) == str(url.origin())
            opened = await open_connection(connector, target, ClientTimeout(sock_connect=5.0))
            assert isinstance(opened.transport, asyncio.Transport)
            protocol: object = opened.protocol
            assert opened.transport.get_protocol() is protocol
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


@check("Connection.protocol")
async def _is_notified_of_the_end() -> None:
    async with connected() as opened:
        assert isinstance(opened.protocol, asyncio.Protocol)
    for is_notified in (False, True):
        async with RawServer(hang()) as server:
            connector = TCPConnector(limit=0, force_close=True)
            target = Target(URL(server.url), tls=True)
            opened = await open_connection(connector, target, ClientTimeout())
            protocol, transport = opened.protocol, opened.transport
            assert protocol is not None
            assert transport is not None
            transport.set_protocol(asyncio.Protocol())  # as `pythpeer.transport.Connection` does
            closing = asyncio.ensure_future(connector.close())
            await wait_for_io(0.05)
            assert not closing.done()
            if is_notified:
                protocol.connection_lost(None)
                await wait_for_io(0.05)
                assert closing.done()
            closing.cancel()
            transport.abort()
            opened.close()


@check("ClientTimeout")
async def _limits_connecting() -> None:
    with unresponsive_port() as url:
        start = now()
        assert type(await open_error(url)) is TimeoutError
        assert now() - start == pytest.approx(5.3, abs=0.01)


@check("Connection.close")
async def _closes() -> None:
    async with connected() as opened:
        transport = opened.transport
        assert transport is not None
        opened.close()
        assert transport.is_closing()
        opened.close()  # a second time does nothing


@check("HttpResponseParser.feed_data", "RawResponseMessage.code", "RawResponseMessage.headers")
async def _parses() -> None:
    data = b"HTTP/1.1 103 Hints\r\n\r\n" + http(418, b"{}", [("X-Name", "value")])
    responses, is_upgraded, _ = Flow().parser.feed_data(data)
    assert [message.code for message, _ in responses] == [103, 418]
    headers = responses[1][0].headers
    assert headers.get("x-name") == headers["X-NAME"] == "value"
    assert not is_upgraded
    head = http(101, b"", [("Upgrade", "x"), ("Connection", "upgrade")], length=None)
    responses, is_upgraded, _ = Flow().parser.feed_data(head + b"more")
    assert len(responses) == 1
    assert is_upgraded
    parser = Flow().parser
    assert not parser.feed_data(b"HTTP/1.1 200 OK\r\n")[0]
    assert len(parser.feed_data(b"Content-Length: 2\r\n\r\n")[0]) == 1
    with pytest.raises(Exception, match=r"\S") as caught:
        Flow().parser.feed_data(b"SSH-2.0-OpenSSH_9.6\r\n")
    assert not isinstance(caught.value, LineTooLong)


@check("RawResponseMessage.compression")
async def _names_the_compression() -> None:
    expected = {"gzip": "gzip", "deflate": "deflate", "x-gzip": None, "identity": None}
    for encoding, compression in expected.items():
        message, _, _ = parse(http(200, b"ab", [("Content-Encoding", encoding)], length=9))
        assert message.compression == compression


@check("HttpResponseParser.feed_eof")
async def _ends_with_the_connection() -> None:
    _, body, flow = parse(http(200, b"abc", length=None))
    assert not body.is_eof()
    flow.parser.feed_eof()
    assert body.is_eof()
    assert body.read_nowait() == b"abc"


@check("LineTooLong")
async def _limits_headers() -> None:
    parse(http(200, b"{}", [("X-Long", "x" * 8_900)]))
    with pytest.raises(LineTooLong):
        parse(http(200, b"{}", [("X-Long", "x" * 9_100)]))


@check("HttpResponseParser", "HttpResponseParser.pause_reading")
async def _holds_back_much() -> None:
    size = 10 * READ_SIZE
    data = gzip.compress(bytes(size))
    _, body, flow = parse(http(200, data, [("Content-Encoding", "gzip")]))
    assert flow.paused
    assert not body.is_eof()
    parts = [body.read_nowait()]
    assert len(parts[0]) < size / 2
    while not body.at_eof():
        parts.append(await body.readany())
        assert len(parts[-1]) < size / 2
    assert b"".join(parts) == bytes(size)


@check("RawResponseMessage.should_close")
async def _knows_what_can_be_reused() -> None:
    cases = {
        http(200, b"{}"): False,
        http(200, b"{}", [("Connection", "close")]): True,
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}": True,
        http(200, b"{}", length=None): True,
    }
    for data, should_close in cases.items():
        message, _, _ = parse(data)
        assert message.should_close is should_close, data


@check(
    "StreamReader.is_eof", "StreamReader.at_eof", "StreamReader.read_nowait", "StreamReader.readany"
)
async def _reads_a_body() -> None:
    _, body, flow = parse(http(200, b"abc", length=6))
    assert await body.readany() == b"abc"
    assert not body.is_eof()
    flow.parser.feed_data(b"def")
    assert body.is_eof()
    assert not body.at_eof()
    assert body.read_nowait() == b"def"
    assert body.at_eof()
    _, body, _ = parse(http(200, b""))
    assert body.is_eof()
    assert body.read_nowait() == b""
    assert body.at_eof()


@check("StreamReader.exception", "StreamReader.set_exception")
async def _fails_a_body() -> None:
    _, body, _ = parse(http(200, b"abc", length=6))
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


@check("ClientPayloadError")
async def _notices_a_damaged_body() -> None:
    _, body, _ = parse(http(200, b"not gzip", [("Content-Encoding", "gzip")], length=20))
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
    ours = {
        *(
            "READ_SIZE",
            "RELIED_ON",
            "Message",
            "OpenedConnection",
            "Payload",
            "PayloadProtocol",
            "Target",
        ),
        *("ResponseParser", "make_parser", "open_connection"),
    }
    imported = set(aiohttp_names.__all__) - ours - {"ClientError"}
    assert imported <= {name.partition(".")[0] for name in RELIED_ON}
