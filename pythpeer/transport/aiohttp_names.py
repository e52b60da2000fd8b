"""The names of aiohttp that the transport uses, and what it relies on. No other module names them.

aiohttp documents `TCPConnector`, `ClientTimeout` and the exceptions. The remaining names are those
that its own client uses between the connector and the response; aiohttp does not document them, so
`tests/test_aiohttp_names.py` has a test for each sentence of `RELIED_ON`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientError,
    ClientPayloadError,
    ClientSSLError,
    ClientTimeout,
    TCPConnector,
)
from aiohttp.http import HttpResponseParser
from aiohttp.http_exceptions import LineTooLong
from yarl import URL

if TYPE_CHECKING:
    import ssl

    from aiohttp import ClientRequest
    from aiohttp.base_protocol import BaseProtocol

__all__ = [
    "READ_SIZE",
    "RELIED_ON",
    "ClientConnectorCertificateError",
    "ClientConnectorDNSError",
    "ClientConnectorError",
    "ClientError",
    "ClientPayloadError",
    "ClientSSLError",
    "ClientTimeout",
    "HttpResponseParser",
    "LineTooLong",
    "Message",
    "OpenedConnection",
    "Payload",
    "PayloadProtocol",
    "ResponseParser",
    "TCPConnector",
    "Target",
    "make_parser",
    "open_connection",
]

RELIED_ON: Final[Mapping[str, str]] = MappingProxyType(
    {
        "TCPConnector.connect": (
            "opens a connection to a target, and reads no other attribute of the target than those"
            " of `Target`"
        ),
        "TCPConnector.close": "closes every connection that was not closed before",
        "ClientTimeout": "limits each address with sock_connect alone, not rounded up",
        "Connection.protocol": (
            "is a protocol of asyncio; when its `connection_lost` is called, `TCPConnector.close`"
            " does not wait for it"
        ),
        "Connection.transport": "is the transport of asyncio, and None where the peer has closed",
        "Connection.close": "closes the transport",
        "HttpResponseParser": (
            "calls `pause_reading` and `resume_reading` of a protocol where much of a body waits,"
            " and limits the size of each header"
        ),
        "HttpResponseParser.feed_data": (
            "returns the heads that are complete, interim ones too, each with its body, and whether"
            " another protocol follows; raises where it finds no HTTP"
        ),
        "HttpResponseParser.feed_eof": "ends a response that ends with the connection",
        "HttpResponseParser.pause_reading": (
            "keeps what was not decompressed, until `feed_data` is called again"
        ),
        "RawResponseMessage.code": "is the status",
        "RawResponseMessage.compression": "is the encoding that is removed from the body, or None",
        "RawResponseMessage.headers": "is a mapping of names without case",
        "RawResponseMessage.should_close": "is true unless another request may follow",
        "StreamReader.is_eof": "is true as soon as the whole body has arrived",
        "StreamReader.at_eof": "is true as soon as the whole body was returned",
        "StreamReader.read_nowait": "returns what has arrived of the body",
        "StreamReader.readany": "waits for the next part of the body, or raises its failure",
        "StreamReader.exception": "returns the failure of the body, if there is one",
        "StreamReader.set_exception": "makes `readany` raise",
        "LineTooLong": "is raised where a header is too large",
        "ClientPayloadError": "is raised where a body is incomplete or damaged",
        "ClientConnectorError": "is raised where no address accepts a connection",
        "ClientConnectorDNSError": "is raised where a host has no address",
        "ClientConnectorCertificateError": "has OpenSSL's error, with its number",
        "ClientSSLError": "is raised where TLS fails",
    }
)
"""By name, what is relied on."""


READ_SIZE: Final = 2**18
"""Bytes of a body that may wait to be read: reading is paused where there are twice as many."""


class Target:
    """What the connector reads of a request: where to connect to. It has no path and no query."""

    __slots__ = (
        "connection_key",
        "host",
        "port",
        "proxy",
        "proxy_headers",
        "server_hostname",
        "ssl",
        "url",
    )

    def __init__(self, url: URL, *, tls: ssl.SSLContext | bool) -> None:
        self.url: Final[URL] = url.origin()
        self.host: Final[str] = url.raw_host or ""
        self.port: Final[int] = url.port or 0
        self.ssl: Final[ssl.SSLContext | bool] = tls
        self.proxy: Final[None] = None
        self.proxy_headers: Final[None] = None
        self.server_hostname: Final[None] = None
        self.connection_key: Final[TargetKey] = TargetKey(self.host, self.port, self.is_ssl(), tls)

    def is_ssl(self) -> bool:
        """Return whether the connection uses TLS."""
        return self.url.scheme == "https"


class TargetKey(NamedTuple):
    """What the connector keeps connections by, and what its exceptions show."""

    host: str
    port: int
    is_ssl: bool
    ssl: ssl.SSLContext | bool


class Message(Protocol):
    """The head of a response: aiohttp's ``RawResponseMessage``."""

    @property
    def code(self) -> int: ...
    @property
    def compression(self) -> str | None: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def should_close(self) -> bool: ...


class Payload(Protocol):
    """The body of a response: aiohttp's ``StreamReader``."""

    def is_eof(self) -> bool: ...
    def at_eof(self) -> bool: ...
    def read_nowait(self) -> bytes: ...
    async def readany(self) -> bytes: ...
    def exception(self) -> BaseException | None: ...
    def set_exception(self, exc: BaseException) -> None: ...


class ResponseParser(Protocol):
    """The parser of one response: aiohttp's ``HttpResponseParser``."""

    def feed_data(
        self, data: bytes, /
    ) -> tuple[Sequence[tuple[Message, Payload]], bool, bytes]: ...
    def feed_eof(self) -> object: ...
    def pause_reading(self) -> None: ...


class PayloadProtocol(Protocol):
    """What a body uses of the protocol that it arrives at."""

    @property
    def connected(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self, resume_parser: bool = ...) -> None: ...  # noqa: FBT001


class ConnectorProtocol(Protocol):
    """The protocol with which the connector opens a connection."""

    def connection_lost(self, exc: BaseException | None) -> None: ...


class OpenedConnection(Protocol):
    """What the connector returns: aiohttp's ``Connection``."""

    @property
    def protocol(self) -> ConnectorProtocol | None: ...
    @property
    def transport(self) -> asyncio.Transport | None: ...
    def close(self) -> None: ...


async def open_connection(
    connector: TCPConnector, target: Target, timeout: ClientTimeout
) -> OpenedConnection:
    """Open a connection to *target*."""
    opened = await connector.connect(cast("ClientRequest", target), [], timeout)
    return cast("OpenedConnection", opened)


def make_parser(
    protocol: PayloadProtocol, loop: asyncio.AbstractEventLoop, max_header: int
) -> ResponseParser:
    """Create the parser of one response, whose headers are *max_header* bytes each at most."""
    parser = HttpResponseParser(
        cast("BaseProtocol", protocol),
        loop,
        READ_SIZE,
        payload_exception=ClientPayloadError,
        read_until_eof=True,
        max_line_size=max_header,
        max_field_size=max_header,
    )
    return cast("ResponseParser", parser)
