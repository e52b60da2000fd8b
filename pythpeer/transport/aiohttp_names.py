"""The names of aiohttp that the transport uses, and what it relies on. No other module names them.

aiohttp documents `TCPConnector`, `ClientTimeout` and the exceptions. The remaining names are those
that its own client uses between the connector and the response; aiohttp does not document them, so
`tests/test_aiohttp_names.py` has a test for each sentence of `RELIED_ON`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
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
    EofStream,
    TCPConnector,
)
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from yarl import URL

if TYPE_CHECKING:
    import ssl

    from aiohttp import ClientRequest

__all__ = [
    "RELIED_ON",
    "ClientConnectorCertificateError",
    "ClientConnectorDNSError",
    "ClientConnectorError",
    "ClientError",
    "ClientPayloadError",
    "ClientSSLError",
    "ClientTimeout",
    "EofStream",
    "HttpProcessingError",
    "LineTooLong",
    "Message",
    "OpenedConnection",
    "Payload",
    "ResponseHandler",
    "TCPConnector",
    "Target",
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
        "Connection.protocol": "is the ResponseHandler of the connection",
        "Connection.transport": "is the transport of asyncio, and None where the peer has closed",
        "Connection.close": "closes the transport",
        "ResponseHandler.data_received": "parses bytes that are passed to it by another protocol",
        "ResponseHandler.connection_lost": "ends a response that ends with the connection",
        "ResponseHandler.set_response_params": (
            "prepares the parser for one response, with limits for the size of a header"
        ),
        "ResponseHandler.read": "returns the head and the body of each response, interim ones too",
        "ResponseHandler.should_close": (
            "is true unless the response was whole, was the only one, and permits another request"
        ),
        "RawResponseMessage.code": "is the status",
        "RawResponseMessage.compression": "is the encoding that is removed from the body, or None",
        "RawResponseMessage.headers": "is a mapping of names without case",
        "StreamReader.is_eof": "is true as soon as the whole body has arrived",
        "StreamReader.at_eof": "is true as soon as the whole body was returned",
        "StreamReader.read_nowait": "returns what has arrived of the body",
        "StreamReader.readany": "waits for the next part of the body, or raises its failure",
        "StreamReader.exception": "returns the failure of the body, if there is one",
        "StreamReader.set_exception": "makes `readany` raise",
        "ServerDisconnectedError": "is a ClientError or an OSError, as each failure to read a head",
        "HttpProcessingError": "is raised where a head cannot be parsed, with the reason as cause",
        "LineTooLong": "is the cause where a header is too large",
        "ClientPayloadError": "is raised where a body is incomplete or damaged",
        "ClientConnectorError": "is raised where no address accepts a connection",
        "ClientConnectorDNSError": "is raised where a host has no address",
        "ClientConnectorCertificateError": "has OpenSSL's error, with its number",
        "ClientSSLError": "is raised where TLS fails",
    }
)
"""By name, what is relied on."""


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


class Payload(Protocol):
    """The body of a response: aiohttp's ``StreamReader``."""

    def is_eof(self) -> bool: ...
    def at_eof(self) -> bool: ...
    def read_nowait(self) -> bytes: ...
    async def readany(self) -> bytes: ...
    def exception(self) -> BaseException | None: ...
    def set_exception(self, exc: BaseException) -> None: ...


class ResponseHandler(Protocol):
    """The protocol of a connection: aiohttp's ``ResponseHandler``."""

    @property
    def should_close(self) -> bool: ...
    def data_received(self, data: bytes) -> None: ...
    def connection_lost(self, exc: BaseException | None) -> None: ...
    async def read(self) -> tuple[Message, Payload]: ...
    def set_response_params(
        self, *, read_until_eof: bool, max_line_size: int, max_field_size: int
    ) -> None: ...


class OpenedConnection(Protocol):
    """What the connector returns: aiohttp's ``Connection``."""

    @property
    def protocol(self) -> ResponseHandler | None: ...
    @property
    def transport(self) -> asyncio.Transport | None: ...
    def close(self) -> None: ...


async def open_connection(
    connector: TCPConnector, target: Target, timeout: ClientTimeout
) -> OpenedConnection:
    """Open a connection to *target*."""
    opened = await connector.connect(cast("ClientRequest", target), [], timeout)
    return cast("OpenedConnection", opened)
