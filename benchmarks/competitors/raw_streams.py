"""The lower bound: asyncio's streams and msgspec, without an HTTP client.

A connection is kept for each concurrent call. Nothing is checked or limited, and a response without
a Content-Length is an error.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlencode, urlsplit

from ..server import PAGE_PATH, SMALL_PATH
from .calling import Calls, Candidate, page_params, roll_params
from .msgspec_structs import Message, decode_page, decode_roll, plain

__all__ = ["CANDIDATES"]

_SIZE: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Calls, None]:
    server = urlsplit(url)
    idle: list[_Connection] = []

    async def get(path: str, params: dict[str, str | int]) -> bytes:
        connection = idle.pop() if idle else await _connect(server.hostname, server.port)
        reader, writer = connection
        head = f"GET {path}?{urlencode(params)} HTTP/1.1\r\nHost: {server.netloc}\r\n\r\n"
        writer.write(head.encode())
        try:
            body = await _read(reader)
        except BaseException:
            writer.close()
            raise
        idle.append(connection)
        return body

    async def roll(number: int) -> object:
        return decode_roll(await get(SMALL_PATH, roll_params(number)))

    async def page(after: int) -> list[Message]:
        return decode_page(await get(PAGE_PATH, page_params(after))).message_list

    yield Calls(roll, page)
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> bytes:
    match = _SIZE.search(await reader.readuntil(b"\r\n\r\n"))
    if match is None:
        raise RuntimeError("a response without Content-Length")
    return await reader.readexactly(int(match[1]))


async def _connect(host: str | None, port: int | None) -> _Connection:
    # Enough buffer for a page, so that reading is not paused within it.
    return await asyncio.open_connection(host, port, limit=2**18)


CANDIDATES: Final = (
    Candidate(
        "asyncio streams + msgspec",
        _open,
        plain,
        note="asyncio streams: the lower bound, without an HTTP client.",
    ),
)
