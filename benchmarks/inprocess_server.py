"""A minimal HTTP server in the process, and on the event loop, of its client."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from .server import http_answer

__all__ = ["Answer", "answered", "resident", "serving"]

Answer = Callable[[str], bytes | None]
"""Returns the response for a request target; ``None`` breaks the connection."""


def answered(document: object, status: str = "200 OK") -> bytes:
    """Return a response whose body is *document* as JSON."""
    return http_answer(json.dumps(document).encode(), status)


@asynccontextmanager
async def serving(answer: Answer) -> AsyncGenerator[str]:
    """Serve the responses of *answer*, and yield the URL."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(answer), "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class _Connection(asyncio.Protocol):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if not separator or not isinstance(self._transport, asyncio.Transport):
            return
        self._received = rest
        answer = self._answer(head.split(b" ", 2)[1].decode())
        if answer is None:
            self._transport.abort()
        else:
            self._transport.write(answer)


def resident() -> int | None:
    """Return the resident bytes of this process; ``None`` if the system does not report them."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
