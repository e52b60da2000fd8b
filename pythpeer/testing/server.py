"""One HTTP server on one loopback port, which stops immediately and logs no request.

It starts no task that outlives a connection: the event loop accepts connections, and a task for
each serves it until it ends. Faults are real: what is closed, reset or cut here is so on the wire.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple, cast

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError, RawRequestMessage

from .faults import Fault
from .responses import FakeResponse

__all__ = ["HOST", "LoopbackServer", "listen", "stop_accepting"]

HOST: Final = "127.0.0.1"

LOOPBACK_HOST: Final = re.compile(
    r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE
)
"""A ``Host`` of this machine. Another name in it means that a browser was directed here by a DNS
server (DNS rebinding)."""

REJECTED: Final = b'{"error":"only programs on this machine may send this, no web page"}'

LINGER_ZERO: Final = struct.pack("ii", 1, 0)
"""``SO_LINGER`` with no time to linger: closing the socket sends an RST."""


def _hides_request(record: logging.LogRecord) -> bool:
    """Drop log records of requests that aiohttp cannot parse: they show targets, and so keys."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


logger: Final = logging.getLogger(__name__)
logger.addFilter(_hides_request)


class _Server(web.Server):
    """A server of aiohttp that calls *on_lost* with each connection that was closed."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        on_lost: Callable[[web.RequestHandler], None],
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)
        self._on_lost = on_lost
        """Called with each connection that was closed."""

    def abort(self) -> None:
        """Abort every connection."""
        for connection in self.connections:
            if connection.transport is not None:
                connection.transport.abort()

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        self._on_lost(handler)


class _Running(NamedTuple):
    """What a `LoopbackServer` has while it listens."""

    server: _Server
    """The connections."""
    runner: web.ServerRunner
    """Starts and stops the server."""
    listener: socket.socket
    """The socket that listens."""


class LoopbackServer:
    """Serves *answer* on 127.0.0.1, and calls *malformed* for requests that cannot be parsed.

    *on_left* is called when clients have closed every connection that they had kept open.

    It listens on *port*, or on a free one if that is 0. What a browser sends for a web page is
    rejected: every page can know the keys of the fake.
    """

    def __init__(
        self,
        answer: Callable[[web.BaseRequest], tuple[FakeResponse, Fault | None]],
        malformed: Callable[[], None],
        port: int,
        on_left: Callable[[], None],
    ) -> None:
        self._answer = answer
        """Returns the response and the fault of a request."""
        self._malformed = malformed
        """Called for a request that cannot be parsed."""
        self._on_left = on_left
        """Called when clients have closed their last connection of `_kept`."""
        self._kept: set[object] = set()
        """The open connections that clients keep after a response."""
        self._running: _Running | None = None
        """What accepts connections. Set by `start`, reset by `suspend` and `aclose`."""
        self._reserved: socket.socket | None = None
        """Keeps the port while the server is suspended. Set by `suspend`, reset by the others."""
        self.port: int = port
        """The port; `start` sets it to the one that was selected."""

    async def start(self) -> None:
        """Listen, also after `suspend`. Raises an ``OSError`` with the port in its message."""
        if self._running is not None:
            return
        server = _Server(
            self._serve,
            self._on_lost,
            request_factory=self._request,
            handler_cancellation=True,  # a client that disconnected needs no response
            access_log=None,
            logger=logger,
        )
        # Once the connections are aborted, there is nothing to wait for; 0 would mean "wait
        # indefinitely" to aiohttp.
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        try:
            listener = await listen(runner, self.port, self._reserved)
        except OSError:
            await runner.cleanup()
            raise
        self.port = int(listener.getsockname()[1])
        self._running, self._reserved = _Running(server, runner, listener), None

    async def suspend(self) -> None:
        """Do what `aclose` does, but keep the port, so that no other program gets it."""
        running = await self._stop_accepting()
        if running is None:
            return
        for site in running.runner.sites:
            await site.stop()
        with suppress(OSError):  # another program was faster
            self._reserved = _reserve(self.port)
        await self._drop(running)

    async def aclose(self) -> None:
        """Stop listening and drop every connection, in any state."""
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        running = await self._stop_accepting()
        if running is not None:
            await self._drop(running)

    @property
    def has_kept_connections(self) -> bool:
        """Whether clients keep a connection open."""
        return bool(self._kept)

    def _on_lost(self, connection: web.RequestHandler) -> None:
        if connection in self._kept:
            self._kept.remove(connection)
            if not self._kept:
                self._on_left()

    async def _stop_accepting(self) -> _Running | None:
        """Accept no further connection, and reset `_running`. Returns its value of before."""
        if self._running is not None:
            await stop_accepting(self._running.listener)
        running, self._running = self._running, None
        return running

    async def _drop(self, running: _Running) -> None:
        self._kept.clear()  # not closed by clients
        running.server.abort()
        await running.runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "UNKNOWN":  # aiohttp 4 calls this for it, 3 responds itself
            return web.Response(status=400)
        if not _is_for_this_machine(request) or _is_from_web_page(request):
            return web.Response(status=403, body=REJECTED, content_type="application/json")
        if request.keep_alive:
            self._kept.add(request.protocol)
        response, fault = self._answer(request)
        delay = response.delay + (fault.delay if fault is not None else 0.0)
        if delay:
            await asyncio.sleep(delay)
        if fault is None:
            return _as_aiohttp(response)
        response = _apply_fault(response, fault)
        if fault.end not in ("answer", "hang"):
            self._kept.discard(request.protocol)  # not closed by the client
        match fault.end:
            case "answer":
                return _as_aiohttp(response)
            case "cut":
                return await _cut(request, response)
            case "hang":
                await asyncio.get_running_loop().create_future()
            case "reset":
                _transport(request).get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO
                )
                _transport(request).abort()
            case "drop":
                _transport(request).close()
        return web.Response()  # the connection is closed: it is not sent

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
        *parser_error: object,
    ) -> web.BaseRequest:
        # aiohttp 4 adds *parser_error*: the error of a request that its parser rejected, or None.
        # The method of aiohttp's placeholder for a message that its parser rejected.
        if message.method == "UNKNOWN":
            self._malformed()
        loop = asyncio.get_running_loop()
        extra: dict[str, Any] = {"pre_handler_error": parser_error[0]} if parser_error else {}
        return web.BaseRequest(message, payload, protocol, writer, task, loop, **extra)


def _is_for_this_machine(request: web.BaseRequest) -> bool:
    return all(map(LOOPBACK_HOST.fullmatch, request.headers.getall("Host", [])))


def _is_from_web_page(request: web.BaseRequest) -> bool:
    """Return whether a browser sent a request for a page, and not for an address that was typed."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    return "Origin" in request.headers or site != "none"


def _reserve(port: int) -> socket.socket:
    """Bind a socket that does not listen to *port*, so that connections are refused."""
    reserved = _bind(port)
    # With the option, another program that sets it could bind the port, too.
    _set_reuse_address(reserved, 0)
    return reserved


def _bind(port: int) -> socket.socket:
    """Return a socket that is bound to *port* on loopback."""
    bound = socket.socket(proto=socket.IPPROTO_TCP)  # otherwise asyncio sets no TCP_NODELAY
    try:
        # To bind needs the option, because earlier connections still count as users of the port.
        _set_reuse_address(bound, 1)
        bound.bind((HOST, port))
    except OSError:
        bound.close()
        raise
    return bound


def _set_reuse_address(sock: socket.socket, value: Literal[0, 1]) -> None:
    """Set ``SO_REUSEADDR``, as asyncio does; on Windows it would share ports with any program."""
    if os.name == "posix":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, value)


async def listen(
    runner: web.BaseRunner, port: int, reserved: socket.socket | None = None
) -> socket.socket:
    """Make a runner that is set up listen on loopback, and return the socket, which it closes.

    *reserved* is a socket that is bound to the port already. Raises an ``OSError`` with the port in
    its message.
    """
    try:
        listener = reserved or _bind(port)
        try:
            _set_reuse_address(listener, 1)
            await web.SockSite(runner, listener).start()
        except OSError:
            if reserved is None:
                listener.close()
            raise
    except OSError as error:
        number = error.errno or 0
        raise OSError(number, f"cannot listen on {HOST}:{port}: {os.strerror(number)}") from None
    return listener


async def stop_accepting(listener: socket.socket) -> None:
    """Accept no further connection; when this returns, the server knows all that were accepted.

    A server of asyncio that is closed sooner leaves the last of them open and unread: its client
    would wait for a response until its time limit.
    """
    with suppress(NotImplementedError):  # the loop of Windows that accepts in another way
        asyncio.get_running_loop().remove_reader(listener)
    for _ in range(2):  # in the first turn they get a transport, in the second it calls the server
        await asyncio.sleep(0)


def _apply_fault(response: FakeResponse, fault: Fault) -> FakeResponse:
    return FakeResponse(
        status=response.status if fault.status is None else fault.status,
        body=response.body if fault.body is None else fault.body,
        content_type=response.content_type,
        headers=fault.headers,
    )


def _as_aiohttp(response: FakeResponse) -> web.Response:
    return web.Response(
        status=response.status,
        body=response.body,
        content_type=response.content_type,
        charset="utf-8",
        headers=response.headers,
    )


async def _cut(request: web.BaseRequest, fake_response: FakeResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=fake_response.status, headers=fake_response.headers)
    response.content_type = fake_response.content_type
    response.content_length = len(fake_response.body)
    await response.prepare(request)
    await response.write(fake_response.body[: len(fake_response.body) // 2])
    _transport(request).close()
    return response


def _transport(request: web.BaseRequest) -> asyncio.Transport:
    # Not None: a lost connection would have cancelled the request's task.
    return cast("asyncio.Transport", request.transport)
