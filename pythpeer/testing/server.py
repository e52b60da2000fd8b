"""One HTTP server on one loopback port, which stops at once and logs no request.

There is no task of its own here: the event loop accepts connections, and each of them is served by
a task that ends with it. Faults are real: what is closed, broken or cut here is so on the wire.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, cast

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError, RawRequestMessage

from .faults import Fault
from .replies import FakeResponse

__all__ = ["HOST", "LoopbackServer", "listen"]

HOST: Final = "127.0.0.1"

LINGER_ZERO: Final = struct.pack("ii", 1, 0)
"""``SO_LINGER`` with no time to linger: closing the socket sends an RST."""


def _hides_request(record: logging.LogRecord) -> bool:
    """Drop what aiohttp logs of requests it cannot read: their targets, and the keys in them."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


logger: Final = logging.getLogger(__name__)
logger.addFilter(_hides_request)


class LoopbackServer:
    """Serves *answer* on 127.0.0.1, and calls *malformed* where a request could not be read.

    It listens on *port*, or on a free one where that is 0.
    """

    def __init__(
        self,
        answer: Callable[[web.BaseRequest], tuple[FakeResponse, Fault | None]],
        malformed: Callable[[], None],
        port: int,
    ) -> None:
        self._answer = answer
        self._malformed = malformed
        self._runner: web.ServerRunner | None = None
        self.port: int = port

    async def start(self) -> None:
        """Listen."""
        server = web.Server(
            self._serve,
            request_factory=self._request,
            handler_cancellation=True,  # nobody is kept waiting for a client that has gone
            access_log=None,
            logger=logger,
        )
        # Nothing is left to wait for once the connections are aborted; aiohttp takes 0 for "wait
        # for ever".
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        self.port = await listen(self._runner, self.port)

    async def aclose(self) -> None:
        """Stop listening and drop every connection, whatever it is doing."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for connection in runner.server.connections if runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "UNKNOWN":  # aiohttp 4 asks for an answer to it, 3 gives its own
            return web.Response(status=400)
        reply, fault = self._answer(request)
        if fault is None:
            return _response(reply)
        if fault.delay:
            await asyncio.sleep(fault.delay)
        reply = _apply_fault(reply, fault)
        match fault.end:
            case "answer":
                return _response(reply)
            case "cut":
                return await _cut(request, reply)
            case "hang":
                await asyncio.get_running_loop().create_future()
            case "reset":
                _transport(request).get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO
                )
                _transport(request).abort()
            case "drop":
                _transport(request).close()
        return web.Response()  # which is written to nobody

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
        *refusal: object,
    ) -> web.BaseRequest:
        # *refusal* is what aiohttp 4 adds: the error of a request that its parser refused, or None.
        # aiohttp's stand-in for a message that its parser refused; no parser lets such a method by.
        if message.method == "UNKNOWN":
            self._malformed()
        loop = asyncio.get_running_loop()
        more: dict[str, Any] = {"pre_handler_error": refusal[0]} if refusal else {}
        return web.BaseRequest(message, payload, protocol, writer, task, loop, **more)


async def listen(runner: web.BaseRunner, port: int) -> int:
    """Have a runner that is set up listen on loopback, and return on which port.

    Raises an ``OSError`` that says which port it was.
    """
    try:
        await web.TCPSite(runner, HOST, port).start()
    except OSError as error:
        number = error.errno or 0
        raise OSError(number, f"cannot listen on {HOST}:{port}: {os.strerror(number)}") from None
    return int(runner.addresses[0][1])


def _apply_fault(reply: FakeResponse, fault: Fault) -> FakeResponse:
    return FakeResponse(
        status=reply.status if fault.status is None else fault.status,
        body=reply.body if fault.body is None else fault.body,
        content_type=reply.content_type,
        headers=fault.headers,
    )


def _response(reply: FakeResponse) -> web.Response:
    return web.Response(
        status=reply.status,
        body=reply.body,
        content_type=reply.content_type,
        charset="utf-8",
        headers=reply.headers,
    )


async def _cut(request: web.BaseRequest, reply: FakeResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_type = reply.content_type
    response.content_length = len(reply.body)
    await response.prepare(request)
    await response.write(reply.body[: len(reply.body) // 2])
    _transport(request).close()
    return response


def _transport(request: web.BaseRequest) -> asyncio.Transport:
    # Not gone: that would have cancelled the request's task.
    return cast("asyncio.Transport", request.transport)
