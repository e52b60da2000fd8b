"""One HTTP server on one loopback port, which stops at once and logs no request.

There is no task of its own here: the event loop accepts connections, and each of them is served by
a task that ends with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError, RawRequestMessage

__all__ = ["LoopbackServer"]


def _reveals_no_request(record: logging.LogRecord) -> bool:
    """Drop what aiohttp logs of requests it cannot read: their targets, and the keys in them."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


logger = logging.getLogger(__name__)
logger.addFilter(_reveals_no_request)


class LoopbackServer:
    """Serves *answer* on 127.0.0.1, and calls *malformed* where a request could not be read."""

    def __init__(
        self,
        answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        malformed: Callable[[], None],
    ) -> None:
        self._answer = answer
        self._malformed = malformed
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens. Raises ``RuntimeError`` while it does not."""
        if self._runner is None or not self._runner.addresses:
            raise RuntimeError("the fake services are not running: `async with` starts them")
        host, port = self._runner.addresses[0]
        return f"http://{host}:{port}"

    async def start(self) -> None:
        """Listen on a free port."""
        server = web.Server(
            self._answer, request_factory=self._request, access_log=None, logger=logger
        )
        # Nothing is left to wait for once the connections are aborted; aiohttp takes 0 for "wait
        # for ever".
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()

    async def aclose(self) -> None:
        """Stop listening and drop every connection, whatever it is doing."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for connection in runner.server.connections if runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        # aiohttp's stand-in for a message that its parser refused; no parser lets such a method by.
        if message.method == "UNKNOWN":
            self._malformed()
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop)
