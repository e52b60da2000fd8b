"""A loopback server that answers as badly as a test wants, and records what it was asked.

It deals in bytes, so that it can send what no HTTP library would. Each request is answered by the
next of the server's steps, and the last step answers all that follow::

    async with RawServer(drop(), answer(b"{}")) as server:
        session = open_session(server.url)

It runs in the test's own loop, on whatever clock that has, and closing it closes everything.
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
from helpers import UNLIMITED

from pythpeer import Effect, Endpoint, PythpeerError, Rate, Retry, Secret, Session, SessionOptions
from pythpeer.peerbet import Peerbet
from pythpeer.pythbots import PythBots
from pythpeer.testing import VirtualTimeLoop

# -- the server -----------------------------------------------------------------------------------


class RecordedRequest(NamedTuple):
    """One request as it came: its head, the connection it came on, and the loop's time."""

    head: bytes
    connection: int
    at: float

    @property
    def target(self) -> str:
        """The request target, of a well-formed GET."""
        method, target, version = self.head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        assert (method, version) == ("GET", "HTTP/1.1")
        return target

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Every header in order, spelled as it came."""
        lines = self.head.decode("latin-1").split("\r\n")[1:-2]
        return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


class Connection:
    """A connection, as the server sees it."""

    def __init__(
        self, server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self.reader = reader
        self.writer = writer
        self.head = b""
        """The head of the request that is being answered."""

    async def send(self, data: bytes) -> None:
        """Write *data*, as fast as the client takes it."""
        self.writer.write(data)
        await self.writer.drain()

    async def wait_closed(self) -> None:
        """Wait until the client closes the connection. It has nothing more to say on it."""
        while data := await self.reader.read(65536):
            self._server.unexpected += data

    def close(self) -> None:
        """Close the connection in good order, once everything is written (FIN)."""
        self.writer.close()

    def reset(self) -> None:
        """Break the connection (RST)."""
        linger = struct.pack("ii", 1, 0)
        self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    def send_now(self, data: bytes) -> None:
        """Put *data* on the wire in this very moment: no loop gets a turn in between."""
        with socket.socket(fileno=socket.dup(self._socket().fileno())) as wire:
            wire.sendall(data)

    def close_now(self) -> None:
        """Close the connection in this very moment: no loop gets a turn in between."""
        self._socket().shutdown(socket.SHUT_RDWR)

    @property
    def is_open(self) -> bool:
        """Whether neither side has closed it, as far as is known here."""
        ended = self.reader.at_eof() or self.reader.exception() is not None
        return not ended and not self.writer.is_closing()

    def _socket(self) -> TransportSocket:
        wire: TransportSocket = self.writer.get_extra_info("socket")
        return wire


class Step(NamedTuple):
    """What the server does with one request, or with one connection before it says anything."""

    run: Callable[[Connection], Awaitable[None]]
    reads: bool = True


class RawServer:
    """``async with RawServer(*steps) as server``: listens on ``server.url``."""

    def __init__(self, *steps: Step, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._steps = steps
        self._tls = tls
        self._port = port
        self._step_index = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        """Where it listens."""
        self.requests: list[RecordedRequest] = []
        """Every request whose head came whole."""
        self.connection_count = 0
        """How many connections were made in all."""
        self._connections: list[Connection] = []
        self.unexpected = b""
        """What clients sent after their request, where a step looked for it."""

    @property
    def open_connections(self) -> list[Connection]:
        """The connections that are open."""
        return [peer for peer in self._connections if peer.is_open]

    @property
    def targets(self) -> list[str]:
        """The targets of all requests, in order."""
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
        task = asyncio.ensure_future(self._serve(self.connection_count, Connection(self, reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: int, peer: Connection) -> None:
        self._connections.append(peer)
        try:
            while peer.is_open:
                if self._steps[self._step_index].reads:
                    peer.head = await peer.reader.readuntil(b"\r\n\r\n")
                    now = asyncio.get_running_loop().time()
                    self.requests.append(RecordedRequest(peer.head, connection, now))
                step = self._steps[self._step_index]
                self._step_index = min(self._step_index + 1, len(self._steps) - 1)
                await step.run(peer)
        except (OSError, EOFError):
            pass  # the client went away
        finally:
            self._connections.remove(peer)
            if not peer.writer.is_closing():
                peer.writer.transport.abort()
            with contextlib.suppress(OSError):
                await peer.writer.wait_closed()


# -- steps ----------------------------------------------------------------------------------------

Headers = Sequence[tuple[str, str]]


def http(status: int, body: bytes, headers: Headers = (), *, length: int | None = -1) -> bytes:
    """An answer's bytes. *length* replaces what it says about its length; ``None``: nothing."""
    lines = [f"HTTP/1.1 {status} Whatever", "Content-Type: text/html"]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*chunks: bytes, headers: Headers = (), end: bytes = b"0\r\n\r\n") -> bytes:
    """A 200 in chunks."""
    head = http(200, b"", [*headers, ("Transfer-Encoding", "chunked")], length=None)
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


GZIP: Final[Headers] = (("Content-Encoding", "gzip"),)
DEFLATE: Final[Headers] = (("Content-Encoding", "deflate"),)

GOOD: Final = b'{"status":1,"mid":7,"users_online":0,"message_list":[]}'
"""An answer that every call of both services can make sense of."""


def answer(body: bytes = GOOD, status: int = 200, headers: Headers = ()) -> Step:
    """Answer, and keep the connection."""
    return send(http(status, body, headers))


def error_page(status: int, headers: Headers = ()) -> Step:
    """What a proxy in front says."""
    return answer(b"<html><body><h1>Sorry</h1></body></html>", status, headers)


def api_error(message: str, status: int = 200) -> Step:
    """What the services say when they say no."""
    return answer(json.dumps({"status": 0, "message": message, "error": message}).encode(), status)


def send(data: bytes) -> Step:
    """Write *data*, and keep the connection."""
    return Step(lambda peer: peer.send(data))


def drop(data: bytes = b"", *, reads: bool = True) -> Step:
    """Write *data*, then close the connection (FIN); with ``reads=False`` before any request."""

    async def run(peer: Connection) -> None:
        await peer.send(data)
        peer.close()

    return Step(run, reads=reads)


def reset(data: bytes = b"", *, reads: bool = True) -> Step:
    """Write *data*, then break the connection (RST); with ``reads=False`` before any request."""

    async def run(peer: Connection) -> None:
        if data:
            await peer.send(data)
            await asyncio.sleep(0.01)  # a reset overtakes what it follows
        peer.reset()

    return Step(run, reads=reads)


def hang(data: bytes = b"") -> Step:
    """Write *data*, and then nothing more."""

    async def run(peer: Connection) -> None:
        await peer.send(data)
        await peer.wait_closed()

    return Step(run)


def trickle(data: bytes, every: float, *, first: bytes = b"", then: bytes = b"") -> Step:
    """Write *first*, then *data* byte by byte, then *then* for ever: every so many seconds."""

    async def run(peer: Connection) -> None:
        if first:
            await peer.send(first)
        for byte in data:
            await peer.send(bytes([byte]))
            await asyncio.sleep(every)
        while then:
            await peer.send(then)
            await asyncio.sleep(every)
        await peer.wait_closed()

    return Step(run)


def flood(head: bytes, data: bytes, counter: list[int] | None = None) -> Step:
    """Write *head*, then *data* for as long as the client takes it; count the bytes it took.

    The client has its turn after each piece: how many come does not depend on network buffers.
    """

    async def run(peer: Connection) -> None:
        await peer.send(head)
        while True:
            await peer.send(data)
            if counter is not None:
                counter.append(len(data))
            await asyncio.sleep(0)

    return Step(run)


def echo(reply: Callable[[str], bytes]) -> Step:
    """Answer with what *reply* makes of the request's head."""
    return Step(lambda peer: peer.send(reply(peer.head.decode("latin-1"))))


# -- addresses that do not answer -----------------------------------------------------------------


@contextlib.contextmanager
def closed_port() -> Iterator[str]:
    """The URL of a port that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # taken, but nobody listens
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextlib.contextmanager
def unresponsive_port() -> Iterator[str]:
    """The URL of a port where connecting leads to nothing at all: its backlog is full."""
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
    """A loop that knows the addresses of names itself, unless it is told not to.

    Every name has two, and nobody listens at the first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hosts_exist = True
        self.dns_responds = asyncio.Event()
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
    """A URL whose host has no address, in a `Town`."""
    town = asyncio.get_running_loop()
    assert isinstance(town, StubDnsLoop)
    with closed_port() as url:
        town.hosts_exist = False
        yield url.replace("127.0.0.1", "localhost")
        town.hosts_exist = True


@contextlib.contextmanager
def hanging_dns() -> Iterator[str]:
    """A URL whose host may have an address, in a `Town` where nobody says which."""
    town = asyncio.get_running_loop()
    assert isinstance(town, StubDnsLoop)
    with closed_port() as url:
        town.dns_responds.clear()
        yield url.replace("127.0.0.1", "localhost")
        town.dns_responds.set()


# -- TLS ------------------------------------------------------------------------------------------


@functools.cache
def local_ca() -> trustme.CA:
    """Whose certificates the tests trust."""
    return trustme.CA()


@functools.cache
def client_context() -> ssl.SSLContext:
    """What a user gives who trusts the authority."""
    context = ssl.create_default_context()
    local_ca().configure_trust(context)
    return context


def server_context(
    name: str = "127.0.0.1", by: trustme.CA | None = None, expires: datetime | None = None
) -> ssl.SSLContext:
    """What a server uses for whose *name* an authority has vouched."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (by or local_ca()).issue_cert(name, not_after=expires).configure_cert(context)
    return context


def legacy_server_context() -> ssl.SSLContext:
    """What a server uses that speaks no version of TLS from 1.2 on."""
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
    """The https URL of a server that nobody who looks at its TLS would talk to."""
    async with RawServer(step, tls=tls() if tls else None) as server:
        yield server.url.replace("http:", "https:")
        assert server.requests == []


# -- what is asked --------------------------------------------------------------------------------


def open_session(url: str, **options: Unpack[SessionOptions]) -> Session:
    """A session for both services at *url*, with every key, without pacing or repetition."""
    whole: SessionOptions = {
        "peerbet_url": url,
        "pythbots_url": url,
        "peerbet_key": "peerbet-key",
        "personal_key": "personal-key",
        "pythbots_api_key": "api-key",
        "rates": {**UNLIMITED},
        "retry": Retry(attempts=1),
    }
    whole.update(options)
    return Session(**whole)


class Call(NamedTuple):
    """One way to ask, given a session and where the server is."""

    effect: Effect
    endpoint: str
    run: Callable[[Session, str], Awaitable[object]]


CUSTOM_KEY: Final = Secret("users-key")


def custom_call(effect: Effect, key: Secret = CUSTOM_KEY) -> Call:
    """A call of an endpoint that the user declares, with a key of the user's own."""
    name = f"own.{effect.value}"

    def run(session: Session, url: str) -> Awaitable[object]:
        endpoint = Endpoint(name, f"{url}/own", effect=effect, rate=Rate(0.0))
        return session.call(endpoint, token=key)

    return Call(effect, name, run)


def peerbet(effect: Effect, action: str, run: Callable[[Peerbet], Awaitable[object]]) -> Call:
    """A call of Peerbet."""
    return Call(effect, f"peerbet.chat.{action}", lambda session, _: run(session.peerbet))


def pythbots(effect: Effect, action: str, run: Callable[[PythBots], Awaitable[object]]) -> Call:
    """A call of PythBots."""
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
        "send_mail": pythbots(Effect.WRITE, "mail", lambda bots: bots.send_mail("a", "b c")),
        "own_write": custom_call(Effect.WRITE),
    }
)
READS: Final = [name for name, call in CALLS.items() if call.effect is Effect.READ]
SINGLE_ATTEMPT: Final = [name for name, call in CALLS.items() if call.effect is not Effect.READ]


async def failure(name: str, session: Session, url: str) -> PythpeerError:
    """The error that a call of `CALLS` ends in."""
    with pytest.raises(PythpeerError) as caught:
        await CALLS[name].run(session, url)
    return caught.value
