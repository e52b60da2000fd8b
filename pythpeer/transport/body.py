"""The body of a response, read in parts up to a limit."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from ..errors import ResponseTooLargeError, Result, TransportError
from .aiohttp_names import ClientPayloadError, Message, Payload

__all__ = ["try_read_body"]


async def try_read_body(
    message: Message, payload: Payload, limit: int, endpoint: str
) -> Result[bytes]:
    """Return the decompressed body, *limit* bytes at most. Raises where it breaks."""
    if message.code == 101:  # the bytes that follow are of another protocol
        return b""
    encoding = message.headers.get("Content-Encoding")
    if encoding is not None:
        encoding = encoding.strip().lower()
        if encoding not in ("identity", "gzip", "deflate", "x-gzip"):
            return TransportError("unexpected Content-Encoding", endpoint=endpoint)
    if payload.is_eof():
        body = payload.read_nowait()
        if not payload.at_eof():
            body += await _read_parts(payload, limit - len(body))
    elif _content_length(message.headers) > limit:
        return _too_large(limit, endpoint)
    else:
        body = await _read_parts(payload, limit)
    if encoding in ("gzip", "x-gzip") and not message.compression:
        body = _gunzip(body, limit)
    return body if len(body) <= limit else _too_large(limit, endpoint)


async def _read_parts(payload: Payload, limit: int) -> bytes:
    """Return the rest of a body, or more than *limit* bytes of it."""
    parts: list[bytes] = []
    size = 0
    while size <= limit and not payload.at_eof():
        part = await payload.readany()
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _content_length(headers: Mapping[str, str]) -> int:
    return int(headers.get("Content-Length", 0))


def _gunzip(data: bytes, limit: int) -> bytes:
    """Return *data* decompressed, or more than *limit* bytes of it.

    aiohttp decompresses ``gzip``, but not its old name ``x-gzip`` (RFC 9110, section 8.4.1.3), and
    not every version of it a name with white space around it.
    """
    unpacker = zlib.decompressobj(wbits=31)
    try:
        body = unpacker.decompress(data, limit + 1)
    except zlib.error:
        raise ClientPayloadError from None
    if unpacker.unused_data:
        raise ClientPayloadError
    return body


def _too_large(limit: int, endpoint: str) -> ResponseTooLargeError:
    return ResponseTooLargeError(
        f"the body is larger than {limit} bytes (max_body)", endpoint=endpoint, limit=limit
    )
