"""A loopback server that sends any bytes, valid HTTP or not, and records its requests.

It works on bytes because no HTTP library sends invalid responses. A server has a list of steps: it
answers each request with the next step, and repeats the last one::

    async with RawServer(drop(), answer(b"{}")) as server:
        session = open_session(server.url)

It runs in the event loop of the test, on the clock of that loop. Closing it closes all connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
import ssl
import struct
import warnings
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType, TracebackType
from typing import Any, Final, NamedTuple, Self, Unpack

import pytest
import trustme
from helpers import UNLIMITED, free_port

from pythpeer import Effect, Endpoint, PythpeerError, Rate, Retry, Secret, Session, SessionOptions
from pythpeer.peerbet import Peerbet
from pythpeer.pythbots import PythBots
from pythpeer.testing import VirtualTimeLoop

MAX_FLOOD: Final = 64 * 2**20
"""The bytes that `flood` writes at most: no client may read so many."""

# -- the server -----------------------------------------------------------------------------------


class RecordedRequest(NamedTuple):
    """One request: its raw head, the number of its connection from 1, and the loop's time."""

    head: bytes
    connection: int
    at: float

    @property
    def target(self) -> str:
        """The request target. The request must be a well-formed GET."""
        method, target, version = self.head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        assert (method, version) == ("GET", "HTTP/1.1")
        return target

    @property
    def headers(self) -> list[tuple[str, str]]:
        """All headers in order, with their names in the case in which they were sent."""
        lines = self.head.decode("latin-1").split("\r\n")[1:-2]
        return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


class Connection:
    """The server's side of a connection."""

    def __init__(
        self, server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self.reader = reader
        self.writer = writer
        self.head = b""
        """The head of the request to which a step responds. The server sets it."""

    async def send(self, data: bytes) -> None:
        """Write *data*, and wait until the client has room for more."""
        self.writer.write(data)
        await self.writer.drain()

    async def wait_closed(self) -> None:
        """Wait until the client closes the connection; what it sends is `RawServer.unexpected`."""
        while data := await self.reader.read(65536):
            self._server.unexpected += data

    def close(self) -> None:
        """Close the connection after everything is written (FIN)."""
        self.writer.close()

    def reset(self) -> None:
        """Reset the connection (RST)."""
        linger = struct.pack("ii", 1, 0)
        self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    def send_now(self, data: bytes) -> None:
        """Send *data* synchronously: the event loop runs nothing in between."""
        with socket.socket(fileno=socket.dup(self._socket().fileno())) as wire:
            wire.sendall(data)

    def close_now(self) -> None:
        """Close the connection synchronously: the event loop runs nothing in between."""
        self._socket().shutdown(socket.SHUT_RDWR)

    @property
    def is_open(self) -> bool:
        """Whether neither side is known to have closed it."""
        ended = self.reader.at_eof() or self.reader.exception() is not None
        return not ended and not self.writer.is_closing()

    def _socket(self) -> TransportSocket:
        wire: TransportSocket = self.writer.get_extra_info("socket")
        return wire


class Step(NamedTuple):
    """What the server does with one request, or with a connection before any request."""

    run: Callable[[Connection], Awaitable[None]]
    reads: bool = True
    """Whether the server reads the head of a request first."""


class RawServer:
    """A server that listens on ``server.url``: ``async with RawServer(*steps) as server``.

    *port* is that of 127.0.0.1, 0 for any free one. Invariant: `_step_index` only grows, and all
    connections take their steps from it.
    """

    def __init__(self, *steps: Step, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._steps = steps
        self._tls = tls
        self._port = port
        self._step_index = 0
        """The index of the step for the next request."""
        self._server: asyncio.Server | None = None
        """The listening server, from `__aenter__` on."""
        self._tasks: set[asyncio.Task[None]] = set()
        """One task per open connection; a task removes itself when it is done."""
        self.url = ""
        """The base URL, from `__aenter__` on."""
        self.requests: list[RecordedRequest] = []
        """The requests in the order in which their heads were complete."""
        self.connection_count = 0
        """How many connections were accepted, open or closed."""
        self._connections: list[Connection] = []
        """The connections that have a task."""
        self.unexpected = b""
        """What clients sent after their request, as far as a step has read it."""

    @property
    def open_connections(self) -> list[Connection]:
        """The connections that neither side has closed."""
        return [connection for connection in self._connections if connection.is_open]

    @property
    def targets(self) -> list[str]:
        """The targets of all requests in order."""
        return [asked.target for asked in self.requests]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self._port, ssl=self._tls, limit=2**20
        )
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        task = asyncio.ensure_future(
            self._serve(self.connection_count, Connection(self, reader, writer))
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, number: int, connection: Connection) -> None:
        self._connections.append(connection)
        try:
            while connection.is_open:
                if self._steps[self._step_index].reads:
                    connection.head = await connection.reader.readuntil(b"\r\n\r\n")
                    now = asyncio.get_running_loop().time()
                    self.requests.append(RecordedRequest(connection.head, number, now))
                step = self._steps[self._step_index]
                self._step_index = min(self._step_index + 1, len(self._steps) - 1)
                await step.run(connection)
        except (OSError, EOFError):
            pass  # the client has closed the connection
        finally:
            self._connections.remove(connection)
            if not connection.writer.is_closing():
                connection.writer.transport.abort()
            with contextlib.suppress(OSError):
                await connection.writer.wait_closed()


# -- steps ----------------------------------------------------------------------------------------

Headers = Sequence[tuple[str, str]]


def http(status: int, body: bytes, headers: Headers = (), *, length: int | None = -1) -> bytes:
    """The bytes of a response. *length* replaces its Content-Length; ``None`` omits the header."""
    lines = [f"HTTP/1.1 {status} Whatever", "Content-Type: text/html"]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*chunks: bytes, headers: Headers = (), end: bytes = b"0\r\n\r\n") -> bytes:
    """The bytes of a response with status 200 and a chunked body."""
    head = http(200, b"", [*headers, ("Transfer-Encoding", "chunked")], length=None)
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


GZIP: Final[Headers] = (("Content-Encoding", "gzip"),)
DEFLATE: Final[Headers] = (("Content-Encoding", "deflate"),)

ROLL: Final = (
    b'"game_cur":10,"game_bet":"0.10000000","game_won":"0.20000000","dice_roll":17.7777,'
    b'"dice_target":"< 49.5000","user_balance":"7.00000000","server_seed":"c2","client_seed":"7"'
)
"""The fields of a roll of the dice."""

GOOD: Final = b'{"status":1,"mid":7,"users_online":0,%b,"message_list":[]}' % ROLL
"""A body that each call of both services decodes."""


def answer(body: bytes = GOOD, status: int = 200, headers: Headers = ()) -> Step:
    """Send a response, and keep the connection open."""
    return send(http(status, body, headers))


def error_page(status: int, headers: Headers = ()) -> Step:
    """Respond with the error page of a proxy."""
    return answer(b"<html><body><h1>Sorry</h1></body></html>", status, headers)


def api_error(message: str, status: int = 200) -> Step:
    """Respond with an error of the services' API."""
    return answer(json.dumps({"status": 0, "message": message, "error": message}).encode(), status)


def send(data: bytes) -> Step:
    """Write *data*, and keep the connection open."""
    return Step(lambda connection: connection.send(data))


def drop(data: bytes = b"", *, reads: bool = True) -> Step:
    """Write *data*, then close the connection (FIN); with ``reads=False`` before any request."""

    async def run(connection: Connection) -> None:
        await connection.send(data)
        connection.close()

    return Step(run, reads=reads)


def reset(data: bytes = b"", *, reads: bool = True) -> Step:
    """Write *data*, then reset the connection (RST); with ``reads=False`` before any request."""

    async def run(connection: Connection) -> None:
        if data:
            await connection.send(data)
            await asyncio.sleep(0.01)  # a reset discards data that was not read yet
        connection.reset()

    return Step(run, reads=reads)


def hang(data: bytes = b"") -> Step:
    """Write *data*, and send nothing more."""

    async def run(connection: Connection) -> None:
        await connection.send(data)
        await connection.wait_closed()

    return Step(run)


def trickle(data: bytes, every: float, *, first: bytes = b"", then: bytes = b"") -> Step:
    """Write *first*, then the bytes of *data*, then *then* repeatedly; pause *every* seconds."""

    async def run(connection: Connection) -> None:
        if first:
            await connection.send(first)
        for byte in data:
            await connection.send(bytes([byte]))
            await asyncio.sleep(every)
        while then:
            await connection.send(then)
            await asyncio.sleep(every)
        await connection.wait_closed()

    return Step(run)


def flood(head: bytes, data: bytes, counter: list[int] | None = None) -> Step:
    """Write *head*, then *data* until the client closes; append the number of bytes to *counter*.

    The client's tasks run after each piece, so that the count does not depend on network buffers.
    It ends after `MAX_FLOOD` bytes, so that a client which reads on fails and does not hang.
    """

    async def run(connection: Connection) -> None:
        await connection.send(head)
        for _ in range(MAX_FLOOD // len(data)):
            await connection.send(data)
            if counter is not None:
                counter.append(len(data))
            await asyncio.sleep(0)

    return Step(run)


def echo(make_response: Callable[[str], bytes]) -> Step:
    """Respond with the bytes that *make_response* returns for the request's head."""
    return Step(
        lambda connection: connection.send(make_response(connection.head.decode("latin-1")))
    )


# -- addresses without a server -------------------------------------------------------------------


@contextlib.contextmanager
def closed_port() -> Iterator[str]:
    """The URL of a port that is in use but not listening, so that it refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", free_port()))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextlib.contextmanager
def unresponsive_port() -> Iterator[str]:
    """The URL of a port that does not respond to connection attempts: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class StubDnsLoop(VirtualTimeLoop):
    """A loop that resolves host names without a name server.

    Each name has two addresses, and no server listens at the first one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hosts_exist = True
        """Whether host names have addresses; `unresolvable_host` clears it."""
        self.dns_responds = asyncio.Event()
        """Set unless look-ups hang; `hanging_dns` clears it."""
        self.dns_responds.set()

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        await self.dns_responds.wait()
        if not self.hosts_exist:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in ("127.0.0.2", "127.0.0.1")
        ]


@contextlib.contextmanager
def unresolvable_host() -> Iterator[str]:
    """A URL whose host has no address; the loop must be a `StubDnsLoop`."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, StubDnsLoop)
    with closed_port() as url:
        loop.hosts_exist = False
        yield url.replace("127.0.0.1", "localhost")
        loop.hosts_exist = True


@contextlib.contextmanager
def hanging_dns() -> Iterator[str]:
    """A URL whose host is looked up without a response; the loop must be a `StubDnsLoop`."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, StubDnsLoop)
    with closed_port() as url:
        loop.dns_responds.clear()
        yield url.replace("127.0.0.1", "localhost")
        loop.dns_responds.set()


# -- TLS ------------------------------------------------------------------------------------------


@functools.cache
def local_ca() -> trustme.CA:
    """The certificate authority that the tests trust."""
    return trustme.CA()


@functools.cache
def client_context() -> ssl.SSLContext:
    """The context of a client that trusts `local_ca`."""
    context = ssl.create_default_context()
    local_ca().configure_trust(context)
    return context


def server_context(
    name: str = "127.0.0.1", ca: trustme.CA | None = None, expires: datetime | None = None
) -> ssl.SSLContext:
    """The context of a server whose certificate is for *name* and from *ca*, or `local_ca`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (ca or local_ca()).issue_cert(name, not_after=expires).configure_cert(context)
    return context


def legacy_server_context() -> ssl.SSLContext:
    """The context of a server that supports only versions of TLS before 1.2."""
    context = server_context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


@contextlib.asynccontextmanager
async def untrusted_tls(
    step: Step, tls: Callable[[], ssl.SSLContext] | None = None
) -> AsyncIterator[str]:
    """The https URL of a server whose TLS fails: no client may send a request to it."""
    async with RawServer(step, tls=tls() if tls else None) as server:
        yield server.url.replace("http:", "https:")
        assert server.requests == []


# -- calls ----------------------------------------------------------------------------------------


def open_session(url: str, **options: Unpack[SessionOptions]) -> Session:
    """A session for both services at *url*, with all keys, without rate limits and retries."""
    all_options: SessionOptions = {
        "peerbet_url": url,
        "pythbots_url": url,
        "peerbet_key": "peerbet-key",
        "personal_key": "personal-key",
        "pythbots_api_key": "api-key",
        "rates": {**UNLIMITED},
        "retry": Retry(attempts=1),
    }
    all_options.update(options)
    return Session(**all_options)


class Call(NamedTuple):
    """A call that the tests make. *run* takes a session and the URL of the server."""

    effect: Effect
    endpoint: str
    run: Callable[[Session, str], Awaitable[object]]


CUSTOM_KEY: Final = Secret("users-key")


def custom_call(effect: Effect, key: Secret = CUSTOM_KEY) -> Call:
    """A call of an endpoint that the user declares, with the user's key."""
    name = f"own.{effect.value}"

    def run(session: Session, url: str) -> Awaitable[object]:
        endpoint = Endpoint(name, f"{url}/own", effect=effect, rate=Rate(0.0))
        return session.call(endpoint, token=key)

    return Call(effect, name, run)


def peerbet(effect: Effect, action: str, run: Callable[[Peerbet], Awaitable[object]]) -> Call:
    """A call of a method of `Peerbet`."""
    return Call(effect, f"peerbet.chat.{action}", lambda session, _: run(session.peerbet))


def pythbots(effect: Effect, action: str, run: Callable[[PythBots], Awaitable[object]]) -> Call:
    """A call of a method of `PythBots`."""
    return Call(effect, f"pythbots.{action}", lambda session, _: run(session.pythbots))


CALLS: Final[Mapping[str, Call]] = MappingProxyType(
    {
        "messages": peerbet(Effect.READ, "get", lambda chat: chat.messages()),
        "user": pythbots(Effect.READ, "userinfo", lambda bots: bots.user("tiro")),
        "staff": pythbots(Effect.READ, "crank", lambda bots: bots.staff(220531305)),
        "stats": pythbots(Effect.READ, "cstats", lambda bots: bots.stats(220531305)),
        "all_mail": pythbots(Effect.READ, "mail", lambda bots: bots.all_mail()),
        "own_read": custom_call(Effect.READ),
        "unread_mail": pythbots(Effect.CONSUME, "mail", lambda bots: bots.unread_mail()),
        "own_consume": custom_call(Effect.CONSUME),
        "post": peerbet(Effect.WRITE, "set", lambda chat: chat.post("hello there")),
        "roll": Call(
            Effect.WRITE,
            "peerbet.dice.roll",
            lambda session, _: session.peerbet.roll("0.1", target="49.5", side="low", seed=7),
        ),
        "send_mail": pythbots(Effect.WRITE, "mail", lambda bots: bots.send_mail("a", "b c")),
        "own_write": custom_call(Effect.WRITE),
    }
)
"""All calls of the public interface, by name."""

READS: Final = [name for name, call in CALLS.items() if call.effect is Effect.READ]
"""The names of the calls that may be retried."""

SINGLE_ATTEMPT: Final = [name for name, call in CALLS.items() if call.effect is not Effect.READ]
"""The names of the calls that are never retried."""


async def failure(name: str, session: Session, url: str) -> PythpeerError:
    """Run a call of `CALLS`, and return the error that it must raise."""
    with pytest.raises(PythpeerError) as caught:
        await CALLS[name].run(session, url)
    return caught.value
