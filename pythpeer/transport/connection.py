"""One connection: the protocol between asyncio and aiohttp's parser."""

from __future__ import annotations

import asyncio
import functools
import select
from collections.abc import Callable
from typing import Final

from .aiohttp_names import ClientPayloadError, Message, OpenedConnection, Payload

__all__ = ["Connection"]

HEAD_END: Final = b"\r\n\r\n"
"""What ends a head."""

INTERIM_START: Final = b"HTTP/1.1 1"
"""What an interim response begins with: another head follows."""

MAX_INTERIM: Final = 100
"""Maximum number of interim responses (1xx) to one request."""


class Connection(asyncio.Protocol):
    """An open connection, in use by one request at a time.

    It passes what arrives to aiohttp's ``ResponseHandler``, each head separately: a parser that
    finds damage returns nothing of the bytes it was called with, and what follows a whole response
    must not damage it. It also knows whether anything has arrived.
    """

    __slots__ = (
        "_handler",
        "_head_tail",
        "_in_head",
        "_max_header",
        "_opened",
        "_payload",
        "_poll",
        "_transport",
        "endpoint",
        "idle_since",
        "received",
        "reused",
        "was_idle",
    )

    def __init__(self, opened: OpenedConnection, max_header: int) -> None:
        handler, transport = opened.protocol, opened.transport
        if handler is None or transport is None:
            opened.close()
            raise ConnectionResetError
        self._opened = opened
        self._handler = handler
        self._transport = transport
        self._max_header = max_header
        """Maximum size of a header of a response, in bytes."""

        self._in_head = False
        """Whether the next bytes belong to a head: set by `send`, reset by the end of a head."""

        self._head_tail = b""
        """The last bytes of a head whose end has not arrived, at most three of them."""

        self._payload: Payload | None = None
        """The body of the response under way: set by `read_head`."""

        self._poll: Callable[[], object] | None = None
        """The check of the socket: created by the first `is_usable`."""

        self.received: bool = False
        """Whether anything has arrived since the last `send`."""

        self.reused: bool = False
        """Whether the request under way is not the first one of this connection."""

        self.idle_since: float | None = None
        """When it became idle, in seconds of the event loop; ``None`` while it is in use. The pool
        changes it."""

        self.was_idle: float = 0.0
        """Seconds for which it was idle before the request under way: set by `reuse`."""

        self.endpoint: str = ""
        """The name of the endpoint that it is counted for: the pool changes it."""

        transport.set_protocol(self)

    # -- a request --------------------------------------------------------------------------------

    def send(self, head: memoryview) -> None:
        """Write a request."""
        self.received, self._in_head, self._head_tail = False, True, b""
        self._payload = None
        self._handler.set_response_params(
            read_until_eof=True, max_line_size=self._max_header, max_field_size=self._max_header
        )
        self._transport.write(head)

    async def read_head(self) -> tuple[Message, Payload]:
        """Return the head and the body of the response. Interim responses are skipped."""
        for _ in range(MAX_INTERIM):
            message, payload = await self._handler.read()
            if not 100 <= message.code < 200 or message.code == 101:
                self._payload = payload
                return message, payload
        raise ValueError("too many interim responses")

    @property
    def can_be_kept(self) -> bool:
        """Whether another request can be sent when the response under way was read to its end."""
        return not self._transport.is_closing() and not self._handler.should_close

    def is_usable(self) -> bool:
        """Return whether the idle connection is open, and nothing has arrived on it.

        The socket is checked as well, because the event loop may not have read from it yet.
        """
        if not self.can_be_kept:
            return False
        if self._poll is None:
            self._poll = _make_poll(self._transport.get_extra_info("socket").fileno())
        return not self._poll()

    def reuse(self, now: float) -> None:
        """End the idle time."""
        self.was_idle = 0.0 if self.idle_since is None else now - self.idle_since
        self.idle_since = None
        self.reused = True

    @property
    def was_stale(self) -> bool:
        """Whether it had served before, and has returned not one byte to the request under way."""
        return self.reused and not self.received

    def close(self) -> None:
        """Close the connection."""
        self._opened.close()

    # -- what asyncio calls -----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Pass *data* to the parser, each head separately."""
        self.received = True
        if self.idle_since is not None:
            self.close()  # unsolicited: it belongs to no request
            return
        start = 0
        while self._in_head and (end := self._find_head_end(data, start)):
            self._in_head = data.startswith(INTERIM_START, start)
            self._handler.data_received(data[start:end])
            start = end
        if start < len(data):
            self._handler.data_received(data[start:] if start else data)

    def _find_head_end(self, data: bytes, start: int) -> int:
        """Return where the head ends that continues at *start*; 0 where it does not end."""
        tail = self._head_tail
        self._head_tail = b""
        if tail:
            end = (tail + data[:3]).find(HEAD_END)
            if end >= 0:
                return end + len(HEAD_END) - len(tail)
        end = data.find(HEAD_END, start)
        if end >= 0:
            return end + len(HEAD_END)
        self._head_tail = (tail + data[max(start, len(data) - 3) :])[-3:]
        return 0

    def connection_lost(self, exc: BaseException | None) -> None:
        """Pass the end of the connection to the parser, and fail a body that can never end."""
        self._handler.connection_lost(exc)
        payload = self._payload
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            # The parser gives up a body without any notice where it is damaged at its end.
            payload.set_exception(ClientPayloadError())


def _make_poll(descriptor: int) -> Callable[[], object]:
    """Return a function whose result is true where *descriptor* has data to read."""
    if not hasattr(select, "poll"):  # Windows, where `select` accepts any descriptor
        return lambda: select.select([descriptor], [], [], 0)[0]
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return functools.partial(poll.poll, 0)
