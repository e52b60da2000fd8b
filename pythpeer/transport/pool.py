"""The connections of a transport: their number, which one serves a request, and how long they live.

Reads take an idle connection if there is one. Writes and destructive reads take a new one each,
which is closed afterwards: they must not fail because a connection was idle for too long.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from typing import Final

from yarl import URL

from ..validation import checks_peer, is_loopback, parse_address
from .aiohttp_names import (
    ClientTimeout,
    OpenedConnection,
    Target,
    TCPConnector,
    open_connection,
)
from .connection import Connection
from .failures import UntrustedError

__all__ = ["ConnectTimeoutError", "Host", "Pool"]

CONNECT_TIMEOUT: Final = 5.0
"""Seconds within which one address must accept a connection."""

KEEPALIVE_TIMEOUT: Final = 4.0
"""Seconds for which an idle connection is kept: Apache closes its side after 5 by default."""

LEARNED_FOR: Final = 600.0
"""Seconds for which a shorter keep-alive time that was observed at a host is used."""

LIMIT_PER_ENDPOINT: Final = 8
"""Maximum number of connections that requests of one endpoint use at a time."""

LIMIT_PER_HOST: Final = 16
"""Maximum number of connections in use to one host, where each endpoint has at least one."""


UNCHECKED: Final = (
    "ssl_context was changed, and does not check certificates and host names any more"
)
"""Why nothing is sent: other code of the program has the same context."""

NOT_LOOPBACK: Final = "the name leads to another machine, and http is for loopback only"
"""Why nothing is sent: the address of a name, of ``localhost`` too, is what a resolver returns."""


class ConnectTimeoutError(Exception):
    """No address has accepted a connection within `CONNECT_TIMEOUT`."""


class Host:
    """The connections to one host and port.

    Invariant: no caller waits for whom `admits` is true.
    """

    __slots__ = (
        "_keepalive",
        "_learned_at",
        "idle",
        "in_use",
        "is_tls",
        "must_be_loopback",
        "target",
        "waiters",
    )

    def __init__(self, target: Target) -> None:
        self.target: Final[Target] = target
        """What the connector connects to."""

        self.is_tls: Final[bool] = target.is_ssl()
        """Whether the connections use TLS."""

        self.must_be_loopback: Final[bool] = not self.is_tls and parse_address(target.host) is None
        """Whether the address of each connection is checked: a resolver has chosen it, and there is
        no certificate."""

        self.idle: list[Connection] = []
        """The idle connections, the one used last at the end. Changed by the pool."""

        self.in_use: dict[str, int] = {}
        """By endpoint name, the number of its connections in use or being opened, 1 or more."""

        self.waiters: dict[asyncio.Future[None], str] = {}
        """The callers that wait for a connection, in their order, each with its endpoint name."""

        self._keepalive = KEEPALIVE_TIMEOUT
        """Seconds for which an idle connection is used again: shortened by `on_stale`."""

        self._learned_at = -math.inf
        """When it was shortened, in seconds of the event loop; minus infinity where never."""

    def admits(self, endpoint: str) -> bool:
        """Return whether a request of this endpoint may use one more connection.

        An endpoint without any may always: slow requests of others must not keep it waiting.
        """
        count = self.in_use.get(endpoint, 0)
        return not count or (
            count < LIMIT_PER_ENDPOINT and sum(self.in_use.values()) < LIMIT_PER_HOST
        )

    def occupy(self, endpoint: str) -> None:
        """Count one more connection of this endpoint."""
        self.in_use[endpoint] = self.in_use.get(endpoint, 0) + 1

    def vacate(self, endpoint: str) -> None:
        """Count one connection of this endpoint less, and let callers have it that wait."""
        count = self.in_use.pop(endpoint) - 1
        if count:
            self.in_use[endpoint] = count
        if self.waiters:
            self._admit_waiters()

    def _admit_waiters(self) -> None:
        for waiter, endpoint in list(self.waiters.items()):
            if waiter.done():
                del self.waiters[waiter]
            elif self.admits(endpoint):
                del self.waiters[waiter]
                self.occupy(endpoint)
                waiter.set_result(None)

    def close_expired(self, now: float) -> list[float]:
        """Close the connections that were idle for too long. Returns when the others will be."""
        idle, self.idle = self.idle, []
        ends: list[float] = []
        for connection in idle:
            # The sum is what the timer is set to: a difference could be less by a rounding error.
            end = (connection.idle_since or 0.0) + KEEPALIVE_TIMEOUT
            if end > now and connection.can_be_kept:
                self.idle.append(connection)
                ends.append(end)
            else:
                connection.close()
        return ends

    def keepalive(self, now: float) -> float:
        """Return the number of seconds for which an idle connection is used again."""
        if now - self._learned_at > LEARNED_FOR:
            self._keepalive = KEEPALIVE_TIMEOUT
        return self._keepalive

    def on_stale(self, idle: float, now: float) -> None:
        """Use no connection that was idle this long: the host had closed one, in seconds."""
        self._keepalive = min(self.keepalive(now), 0.9 * idle)
        self._learned_at = now


def _is_to_loopback(opened: OpenedConnection) -> bool:
    transport = opened.transport
    peer = None if transport is None else transport.get_extra_info("peername")
    return peer is None or is_loopback(peer[0])  # None: it has ended


class Pool:
    """All connections of a transport. It must be created in a running event loop."""

    def __init__(self, *, tls: ssl.SSLContext | bool, max_header: int) -> None:
        self._tls = tls
        """TLS settings; ``True`` for those of aiohttp."""

        self._max_header = max_header
        """Maximum size of a header of a response, in bytes."""

        # This pool counts and keeps the connections: the connector only opens and closes them.
        self._connector = TCPConnector(limit=0, force_close=True, ssl=tls)
        self._connect_timeout = ClientTimeout(sock_connect=CONNECT_TIMEOUT, ceil_threshold=1e9)
        self._loop = asyncio.get_running_loop()

        self._hosts: dict[tuple[str, int, bool], Host] = {}
        """By host, port and whether TLS is used: added by `host`."""

        self._sweep_timer: asyncio.TimerHandle | None = None
        """The next call of `_sweep`: set while there are idle connections."""

    def host(self, url: URL) -> Host:
        """Return the connections to the host of *url*."""
        target = Target(url, tls=self._tls)
        key = target.host, target.port, target.is_ssl()
        return self._hosts.setdefault(key, Host(target))

    def waiting(self, endpoint: str) -> int:
        """Return how many callers of this endpoint wait for a connection."""
        hosts = self._hosts.values()
        return sum(name == endpoint for host in hosts for name in host.waiters.values())

    async def acquire(self, host: Host, endpoint: str, *, single_use: bool) -> Connection:
        """Return a connection for one request, when there is one: a new one where *single_use*.

        Raises `ConnectTimeoutError`, or an error of aiohttp. The caller must `release` it.
        """
        if host.admits(endpoint):
            host.occupy(endpoint)
        else:
            await self._wait(host, endpoint)
        try:
            connection = None if single_use else self._take_idle(host)
            if connection is None:
                connection = await self._connect(host)
        except BaseException:
            host.vacate(endpoint)
            raise
        connection.endpoint = endpoint
        return connection

    async def _wait(self, host: Host, endpoint: str) -> None:
        waiter = self._loop.create_future()
        host.waiters[waiter] = endpoint
        try:
            await waiter
        except BaseException:
            if host.waiters.pop(waiter, None) is None and not waiter.cancelled():
                host.vacate(endpoint)  # it was admitted at the same time: the next one may be
            raise

    def _take_idle(self, host: Host) -> Connection | None:
        now = self._loop.time()
        keepalive = host.keepalive(now)
        while host.idle:
            connection = host.idle.pop()
            since = connection.idle_since
            if since is not None and now - since <= keepalive and connection.is_usable():
                connection.reuse(now)
                return connection
            connection.close()
        return None

    async def _connect(self, host: Host) -> Connection:
        if isinstance(self._tls, ssl.SSLContext) and not checks_peer(self._tls):
            raise UntrustedError(UNCHECKED)
        try:
            opened = await open_connection(self._connector, host.target, self._connect_timeout)
        except TimeoutError:
            raise ConnectTimeoutError from None
        if host.must_be_loopback and not _is_to_loopback(opened):
            opened.close()
            raise UntrustedError(NOT_LOOPBACK)
        return Connection(opened, self._max_header)

    async def replace(self, host: Host, stale: Connection) -> Connection:
        """Return a new connection in place of one that the host had closed while it was idle.

        The caller must `release` the new one, and still the old one if this raises.
        """
        host.on_stale(stale.was_idle, self._loop.time())
        stale.close()
        connection = await self._connect(host)
        connection.endpoint = stale.endpoint
        return connection

    def release(self, host: Host, connection: Connection, *, keep: bool) -> None:
        """End the use of a connection: it is idle from now on where *keep*, otherwise closed."""
        if keep and not self._connector.closed and connection.can_be_kept:
            connection.idle_since = self._loop.time()
            host.idle.append(connection)
            if self._sweep_timer is None:
                self._sweep_timer = self._loop.call_later(KEEPALIVE_TIMEOUT, self._sweep)
        else:
            connection.close()
        host.vacate(connection.endpoint)

    def _sweep(self) -> None:
        """Close the connections that were idle for too long."""
        self._sweep_timer = None
        now = self._loop.time()
        ends: list[float] = []
        for host in self._hosts.values():
            ends += host.close_expired(now)
        if ends:
            self._sweep_timer = self._loop.call_at(min(ends), self._sweep)

    async def aclose(self) -> None:
        """Close every connection."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        for host in self._hosts.values():
            for connection in host.idle:
                connection.close()
            host.idle.clear()
        await self._connector.close()
