"""One connection: the protocol between asyncio and aiohttp's parser."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import select
from collections import deque
from collections.abc import Callable
from typing import Final

from .aiohttp_names import (
    ClientPayloadError,
    LineTooLong,
    Message,
    OpenedConnection,
    Payload,
    ResponseParser,
    make_parser,
)

__all__ = ["Connection", "HeaderTooLargeError", "NotHttpError"]

HEAD_END: Final = b"\r\n\r\n"
"""What ends a head."""

INTERIM_START: Final = b"HTTP/1.1 1"
"""What an interim response begins with: another head follows."""

MAX_INTERIM: Final = 100
"""Maximum number of interim responses (1xx) to one request."""


class NotHttpError(Exception):
    """What has arrived is not a response of HTTP."""


class HeaderTooLargeError(Exception):
    """A header of the response is larger than permitted."""


class Connection(asyncio.Protocol):
    """An open connection, in use by one request at a time.

    It passes what arrives to aiohttp's parser, each head separately: a parser that finds damage
    returns nothing of the bytes it was called with, and what follows a whole response must not
    damage it. It also knows whether anything has arrived.
    """

    __slots__ = (
        "_failure",
        "_head_tail",
        "_in_head",
        "_loop",
        "_max_header",
        "_must_close",
        "_opened",
        "_opener",
        "_parser",
        "_paused",
        "_payload",
        "_poll",
        "_responses",
        "_transport",
        "_waiter",
        "connected",
        "endpoint",
        "idle_since",
        "received",
        "reused",
        "was_idle",
    )

    def __init__(self, opened: OpenedConnection, max_header: int) -> None:
        transport = opened.transport
        if transport is None:
            opened.close()
            raise ConnectionResetError
        self._loop = asyncio.get_running_loop()
        self._opened = opened
        self._opener = opened.protocol
        """The protocol that opened the connection: it must be notified of its end."""

        self._transport = transport
        self._max_header = max_header
        """Maximum size of a header of a response, in bytes."""

        self._parser: ResponseParser | None = None
        """The parser of the response under way: a new one by each `send`, because half a head may
        have arrived after the last response."""

        self._in_head = False
        """Whether the next bytes belong to a head: set by `send`, reset by the end of a head."""

        self._head_tail = b""
        """The last bytes of a head whose end has not arrived, at most three of them."""

        self._responses: deque[tuple[Message, Payload]] = deque()
        """The responses whose heads have arrived and were not read yet: `read_head` removes."""

        self._payload: Payload | None = None
        """The body of the last of these responses, which may be under way."""

        self._waiter: asyncio.Future[None] | None = None
        """The caller of `read_head` that waits."""

        self._failure: Exception | None = None
        """Why no further head will arrive: set once."""

        self._must_close = False
        """Whether the connection ends with a response that has arrived."""

        self._paused = False
        """Whether reading is paused, because enough of the body waits to be read."""

        self._poll: Callable[[], object] | None = None
        """The check of the socket: created by the first `is_usable`."""

        self.connected: bool = True
        """Whether bytes can arrive: until `connection_lost`. The body reads it."""

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
        self._parser = make_parser(self, self._loop, self._max_header)
        self._transport.write(head)

    async def read_head(self) -> tuple[Message, Payload]:
        """Return the head and the body of the response. Interim responses are skipped."""
        for _ in range(MAX_INTERIM):
            # Not in a function of its own: each coroutine that waits is resumed separately.
            while not self._responses:
                if self._failure is not None:
                    raise self._failure
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            response = self._responses.popleft()
            if not 100 <= response[0].code < 200 or response[0].code == 101:
                return response
        raise NotHttpError

    @property
    def can_be_kept(self) -> bool:
        """Whether another request can be sent when the response under way was read to its end."""
        payload = self._payload
        return not (
            self._must_close
            or self._responses
            or self._failure is not None
            or (payload is not None and not payload.is_eof())
            or self._transport.is_closing()
        )

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
        """Pass what arrives to the parser."""
        self.received = True
        if self.idle_since is not None:
            self.close()  # unsolicited: it belongs to no request
            return
        start = 0
        while self._in_head and (end := self._find_head_end(data, start)):
            self._in_head = data.startswith(INTERIM_START, start)
            self._parse(data[start:end])
            start = end
        if start < len(data):
            self._parse(data[start:] if start else data)

    def _parse(self, data: bytes) -> None:
        """Pass bytes to the parser, and take the responses whose heads are complete."""
        parser = self._parser
        if parser is None:
            return
        try:
            responses, is_upgraded, _ = parser.feed_data(data)
        except BaseException as error:
            too_large = isinstance(error, LineTooLong)
            self._fail(HeaderTooLargeError() if too_large else NotHttpError())
            self._transport.close()
            if not isinstance(error, Exception):
                raise
            return
        for response in responses:
            message, self._payload = response
            self._must_close = self._must_close or message.should_close
            self._responses.append(response)
            self._wake()
        if is_upgraded:  # what follows is of another protocol
            self._must_close, self._parser = True, None

    def _fail(self, failure: Exception) -> None:
        """Let the head that is waited for fail, and a body that can never end."""
        self._parser = None
        if self._failure is None:
            self._failure = failure
        self._wake()
        payload, self._payload = self._payload, None
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(ClientPayloadError())

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

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
        """End a body that ends with the connection, and let everything else fail."""
        self.connected = False
        if self._parser is not None:
            with contextlib.suppress(Exception):  # the body is incomplete: `_fail` sets that
                self._parser.feed_eof()
        self._fail(ConnectionResetError())
        if self._opener is not None:
            self._opener.connection_lost(exc)

    # -- what aiohttp's body calls ----------------------------------------------------------------

    def pause_reading(self) -> None:
        """Read nothing more: enough of the body waits."""
        self._paused = True
        if self._parser is not None:
            self._parser.pause_reading()
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002
        """Continue to read, with what the parser has kept if *resume_parser*."""
        if not self._paused:
            return
        self._paused = False
        if resume_parser:
            self._parse(b"")
        if not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()


def _make_poll(descriptor: int) -> Callable[[], object]:
    """Return a function whose result is true where *descriptor* has data to read."""
    if not hasattr(select, "poll"):  # Windows, where `select` accepts any descriptor
        return lambda: select.select([descriptor], [], [], 0)[0]
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return functools.partial(poll.poll, 0)
