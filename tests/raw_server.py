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
import gzip
import json
import socket
import ssl
import struct
import zlib
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Final, NamedTuple, Self, Unpack

from pythpeer import Effect, Endpoint, Rate, Retry, Secret, Session, SessionOptions

# -- the server -----------------------------------------------------------------------------------


class Asked(NamedTuple):
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


class Peer:
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

    async def gone(self) -> None:
        """Wait until the client closes the connection. It has nothing more to say on it."""
        while data := await self.reader.read(65536):
            self._server.stray += data

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

    run: Callable[[Peer], Awaitable[None]]
    reads: bool = True


class RawServer:
    """``async with RawServer(*steps) as server``: listens on ``server.url``."""

    def __init__(self, *steps: Step, tls: ssl.SSLContext | None = None) -> None:
        self._steps = steps
        self._tls = tls
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        """Where it listens."""
        self.asked: list[Asked] = []
        """Every request whose head came whole."""
        self.connections = 0
        """How many connections were made in all."""
        self._peers: list[Peer] = []
        self.stray = b""
        """What clients sent after their request, where a step looked for it."""

    @property
    def peers(self) -> list[Peer]:
        """The connections that are open."""
        return [peer for peer in self._peers if peer.is_open]

    @property
    def targets(self) -> list[str]:
        """The targets of all requests, in order."""
        return [asked.target for asked in self.asked]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, ssl=self._tls, limit=2**20
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
        self.connections += 1
        task = asyncio.ensure_future(self._serve(self.connections, Peer(self, reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: int, peer: Peer) -> None:
        self._peers.append(peer)
        try:
            while peer.is_open:
                if self._steps[self._turn].reads:
                    peer.head = await peer.reader.readuntil(b"\r\n\r\n")
                    now = asyncio.get_running_loop().time()
                    self.asked.append(Asked(peer.head, connection, now))
                step = self._steps[self._turn]
                self._turn = min(self._turn + 1, len(self._steps) - 1)
                await step.run(peer)
        except (OSError, EOFError):
            pass  # the client went away
        finally:
            self._peers.remove(peer)
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


GOOD: Final = b'{"status":1,"mid":7,"users_online":0,"message_list":[]}'
"""An answer that every call of both services can make sense of."""


def answer(body: bytes = GOOD, status: int = 200, headers: Headers = ()) -> Step:
    """Answer, and keep the connection."""
    return send(http(status, body, headers))


def send(data: bytes) -> Step:
    """Write *data*, and keep the connection."""
    return Step(lambda peer: peer.send(data))


def drop(data: bytes = b"", *, reads: bool = True) -> Step:
    """Write *data*, then close the connection (FIN); with ``reads=False`` before any request."""

    async def run(peer: Peer) -> None:
        await peer.send(data)
        peer.close()

    return Step(run, reads=reads)


def reset(data: bytes = b"", *, reads: bool = True) -> Step:
    """Write *data*, then break the connection (RST); with ``reads=False`` before any request."""

    async def run(peer: Peer) -> None:
        if data:
            await peer.send(data)
            await asyncio.sleep(0.01)  # a reset overtakes what it follows
        peer.reset()

    return Step(run, reads=reads)


def hang(data: bytes = b"") -> Step:
    """Write *data*, and then nothing more."""

    async def run(peer: Peer) -> None:
        await peer.send(data)
        await peer.gone()

    return Step(run)


def drip(data: bytes, every: float, *, first: bytes = b"", then: bytes = b"") -> Step:
    """Write *first*, then *data* byte by byte, then *then* for ever: every so many seconds."""

    async def run(peer: Peer) -> None:
        if first:
            await peer.send(first)
        for byte in data:
            await peer.send(bytes([byte]))
            await asyncio.sleep(every)
        while then:
            await peer.send(then)
            await asyncio.sleep(every)
        await peer.gone()

    return Step(run)


def flood(head: bytes, data: bytes, counter: list[int] | None = None) -> Step:
    """Write *head*, then *data* for as long as the client takes it; count the bytes it took."""

    async def run(peer: Peer) -> None:
        await peer.send(head)
        while True:
            await peer.send(data)
            if counter is not None:
                counter.append(len(data))

    return Step(run)


def echo(reply: Callable[[str], bytes]) -> Step:
    """Answer with what *reply* makes of the request's head."""
    return Step(lambda peer: peer.send(reply(peer.head.decode("latin-1"))))


# -- addresses that do not answer -----------------------------------------------------------------


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """The URL of a port that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # taken, but nobody listens
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
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


# -- what is asked --------------------------------------------------------------------------------

AT_WILL: Final = MappingProxyType(
    dict.fromkeys(
        (
            "peerbet.chat.get",
            "peerbet.chat.set",
            "pythbots.userinfo",
            "pythbots.crank",
            "pythbots.cstats",
            "pythbots.mail",
        ),
        Rate(0.0),
    )
)
"""No pacing, for tests about something else."""


def open_session(url: str, **options: Unpack[SessionOptions]) -> Session:
    """A session for both services at *url*, with every key, without pacing or repetition."""
    whole: SessionOptions = {
        "peerbet_url": url,
        "pythbots_url": url,
        "peerbet_key": "peerbet-key",
        "personal_key": "personal-key",
        "pythbots_api_key": "api-key",
        "rates": {**AT_WILL},
        "retry": Retry(attempts=1),
    }
    whole.update(options)
    return Session(**whole)


class Call(NamedTuple):
    """One way to ask, given a session and where the server is."""

    effect: Effect
    run: Callable[[Session, str], Awaitable[object]]


USERS_KEY: Final = Secret("users-key")


def users_own(effect: Effect, key: Secret = USERS_KEY) -> Call:
    """A call of an endpoint that the user declares, with a key of the user's own."""

    def run(session: Session, url: str) -> Awaitable[object]:
        endpoint = Endpoint(f"own.{effect.value}", f"{url}/own", effect=effect, rate=Rate(0.0))
        return session.call(endpoint, token=key)

    return Call(effect, run)


CALLS: Final[Mapping[str, Call]] = MappingProxyType(
    {
        "messages": Call(Effect.READ, lambda session, _: session.peerbet.messages()),
        "user": Call(Effect.READ, lambda session, _: session.pythbots.user("tiro")),
        "all_mail": Call(Effect.READ, lambda session, _: session.pythbots.all_mail()),
        "own_read": users_own(Effect.READ),
        "unread_mail": Call(Effect.CONSUME, lambda session, _: session.pythbots.unread_mail()),
        "own_consume": users_own(Effect.CONSUME),
        "post": Call(Effect.WRITE, lambda session, _: session.peerbet.post("hello there")),
        "send_mail": Call(Effect.WRITE, lambda session, _: session.pythbots.send_mail("a", "b c")),
        "own_write": users_own(Effect.WRITE),
    }
)
READS: Final = [name for name, call in CALLS.items() if call.effect is Effect.READ]
ONCE: Final = [name for name, call in CALLS.items() if call.effect is not Effect.READ]


# -- what can go wrong ----------------------------------------------------------------------------

DROPS: Final[Mapping[str, Step]] = MappingProxyType(
    {
        "fin": drop(),
        "rst": reset(),
        "status line, fin": drop(b"HTTP/1.1 200 OK\r\n"),
        "partial head, fin": drop(b"HTTP/1.1 200 OK\r\nContent-Le"),
        "partial head, rst": reset(b"HTTP/1.1 200 OK\r\nContent-Le"),
        "100 Continue, fin": drop(b"HTTP/1.1 100 Continue\r\n\r\n"),
        "103 Early Hints, fin": drop(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    }
)
"""What aiohttp by itself answers with a second request."""

PACKED: Final = gzip.compress(GOOD)
GZIP: Final[Headers] = (("Content-Encoding", "gzip"),)
DEFLATE: Final[Headers] = (("Content-Encoding", "deflate"),)
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 55\r\n"

MALFORMED: Final[Mapping[str, Step]] = MappingProxyType(
    {
        "garbage": send(b"\x00\x01\x02 this is not HTTP\r\n\r\n"),
        "another protocol": send(b"SSH-2.0-OpenSSH_9.6\r\n"),
        "status 99": send(b"HTTP/1.1 99 What\r\nContent-Length: 2\r\n\r\n{}"),
        "status not a number": send(b"HTTP/1.1 2OO OK\r\nContent-Length: 2\r\n\r\n{}"),
        "length too big": drop(http(200, GOOD, length=999)),
        "length too big, rst": reset(http(200, GOOD, length=999)),
        "length too small": drop(http(200, GOOD, length=9)),
        "length negative": send(http(200, GOOD, [("Content-Length", "-5")], length=None)),
        "two lengths": send(http(200, GOOD, [("Content-Length", "1")])),
        "two equal lengths": drop(http(200, GOOD, [("Content-Length", str(len(GOOD)))])),
        "length and chunks": send(http(200, GOOD, [("Transfer-Encoding", "chunked")])),
        "chunks cut": drop(chunked(GOOD[:20], end=b"23\r\n{")),
        "chunks cut between": drop(chunked(GOOD[:20], end=b"")),
        "chunk size not a number": send(chunked(end=b"zz\r\n{}\r\n0\r\n\r\n")),
        "php warning among the headers": send(
            b"HTTP/1.1 200 OK\r\nWarning without a colon\r\n" + HEAD[17:] + b"\r\n" + GOOD
        ),
        "status 204 with a body": drop(http(204, GOOD)),
        "status 101": send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
        ),
        "one header too long": send(http(200, GOOD, [("X-Long", "x" * 20_000)])),
        "headers without end": flood(HEAD, b"X-Number: 1\r\n" * 50),
        "trailers without end": flood(chunked(GOOD, end=b"0\r\n"), b"X-Number: 1\r\n" * 50),
        "body without length, cut": drop(http(200, GOOD[:30], length=None)),
        "gzip, cut": drop(http(200, PACKED[:-20], GZIP)),
        "gzip, cut, right length": send(http(200, PACKED[:40], GZIP)),
        "gzip, bad checksum": send(http(200, PACKED[:-8] + bytes(8), GZIP)),
        "gzip, really plain": send(http(200, GOOD, GZIP)),
        "gzip, damaged": send(http(200, PACKED[:15] + b"\xff\xff\xff" + PACKED[18:], GZIP)),
        "deflate, cut": send(http(200, zlib.compress(GOOD)[:20], DEFLATE)),
        "x-gzip": send(http(200, PACKED, [("Content-Encoding", "x-gzip")])),
        "gzip twice": send(http(200, gzip.compress(PACKED), [("Content-Encoding", "gzip, gzip")])),
        "compress": send(http(200, GOOD, [("Content-Encoding", "compress")])),
        "brotli": send(http(200, GOOD, [("Content-Encoding", "br")])),
        "zstd": send(http(200, GOOD, [("Content-Encoding", "zstd")])),
        "empty body": answer(b""),
        "blank body": answer(b" \r\n"),
        "not UTF-8": answer(b"\xff\xfe\xfa{}"),
        "JSON cut": answer(GOOD[:-1]),
        "NaN": answer(b"NaN"),
        "null": answer(b"null"),
        "nested too deep": answer(b"[" * 20_000 + b"]" * 20_000),
        "an HTML page": answer(b"<!DOCTYPE html><html><script>{}</script></html>"),
    }
)
"""Answers that are none, every one on the whole time limit at most."""

SILENT: Final[Mapping[str, Step]] = MappingProxyType(
    {
        "silence": hang(),
        "silence after half a head": hang(HEAD),
        "silence after the head": hang(HEAD + b"\r\n"),
        "silence within the body": hang(HEAD + b"\r\n" + GOOD[:20]),
        "silence within a chunk": hang(chunked(end=b"20\r\n{")),
        "head by drips": drip(HEAD, 1.0),
        "body by drips": drip(GOOD, 1.0, first=HEAD + b"\r\n"),
        "100 Continue without end": drip(b"", 1.0, then=b"HTTP/1.1 100 Continue\r\n\r\n"),
        "blank lines without end": drip(b"", 1.0, then=b"\r\n"),
        "a chunk extension without end": drip(b"", 1.0, first=chunked(end=b"5;"), then=b"x"),
        "small chunks without end": drip(b"", 1.0, first=chunked(end=b""), then=b"1\r\n \r\n"),
        "trailers by drips": drip(b"", 1.0, first=chunked(GOOD, end=b"0\r\n"), then=b"X: 1\r\n"),
    }
)
"""Answers that never come to an end. A limit for each single read would not stop the drips."""


def error_page(status: int) -> Step:
    """What a proxy in front says."""
    return answer(b"<html><body><h1>Sorry</h1></body></html>", status)


def refusal(message: str, status: int = 200) -> Step:
    """What the services say when they say no."""
    return answer(json.dumps({"status": 0, "message": message, "error": message}).encode(), status)
