"""`RedisProxy`: a proxy for a Redis server, with troubles of the network and of servers."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Self

from helpers import ReusablePort


class RedisProxy:
    """Forwards commands to the server at a port, except in the trouble that its attributes state.

    `url` is its address, from the first `start` on. Commands must arrive whole, as those of
    redis-py do, unless they are only forwarded.
    """

    def __init__(self, port: int) -> None:
        self.upstream_port = port
        self._port = ReusablePort()
        """The port on which it listens, the same each time."""
        self._server: asyncio.Server | None = None
        self.clients: set[_Client] = set()
        """The open connections, which add and remove themselves."""
        self.lose = 0
        """How many of the next responses are lost, each with its connection."""
        self.error: bytes | None = None
        """The error that each command receives, and that the server does not see."""
        self.is_silent = False
        """Whether commands are neither forwarded nor answered."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port.number}/0"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self), sock=self._port.listener())

    async def stop(self) -> None:
        """Refuse new connections, and close the open ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._port.reserve()
        for client in list(self.clients):
            client.close()
        await asyncio.sleep(0.001)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    def reset(self) -> None:
        """Reset all connections."""
        for client in list(self.clients):
            client.reset()


class _Client(asyncio.Protocol):
    """A connection from a client, and one to the server."""

    _transport: asyncio.Transport

    def __init__(self, proxy: RedisProxy) -> None:
        self._proxy = proxy
        self._received: bytes | None = b""
        """What waits for the connection to the server; ``None`` when there is one."""
        self._upstream: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._proxy.clients.add(self)
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            self._upstream, _ = await loop.create_connection(
                lambda: _Upstream(self), "127.0.0.1", self._proxy.upstream_port
            )
            self._upstream.write(self._received or b"")
            self._received = None
            return
        self.close()

    def data_received(self, data: bytes) -> None:
        if self._proxy.is_silent:
            return
        if self._proxy.error is not None:
            responses = _count_commands(data)
            self._transport.write(responses * (b"-" + self._proxy.error + b"\r\n"))
        elif self._upstream is None:
            self._received = (self._received or b"") + data
        else:
            self._upstream.write(data)

    def responded(self, data: bytes) -> None:
        if self._proxy.lose:
            self._proxy.lose -= 1
            self.close()
        else:
            self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.close()

    def close(self) -> None:
        self._proxy.clients.discard(self)
        self._connecting.cancel()
        self._transport.close()
        if self._upstream is not None:
            self._upstream.abort()

    def reset(self) -> None:
        wire = self._transport.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
        self.close()


class _Upstream(asyncio.Protocol):
    """A connection to the server."""

    def __init__(self, client: _Client) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.responded(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.close()


def _count_commands(data: bytes) -> int:
    """Return how many commands there are: arrays of texts, each with its length."""
    count = position = 0
    while position < len(data):
        end = data.index(b"\r\n", position)
        texts, position = int(data[position + 1 : end]), end + 2
        for _ in range(texts):
            end = data.index(b"\r\n", position)
            position = end + 2 + int(data[position + 1 : end]) + 2
        count += 1
    return count
