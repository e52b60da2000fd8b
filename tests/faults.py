"""The fault table: every fault that a network or a service can produce, as data.

A row of the table is a fault. It has an expectation, which is a rule of the public contract: what
reads and writes raise, whether reads are retried, and what streams do. It also has reproductions,
which are server steps that cause the fault, and overrides: other expectations for some calls.

``fault_cells.py`` runs a cell of the table, ``test_faults.py`` runs all cells, and
``fault_page.py`` writes the table as a page of the documentation.

Faults whose outcome depends on how Python was started are left out: lines that end in LF alone are
accepted, but not in Python's development mode.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime
from email.utils import formatdate
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import trustme
from raw_server import (
    DEFLATE,
    GZIP,
    ROLL,
    Connection,
    Step,
    answer,
    api_error,
    chunked,
    closed_port,
    drop,
    error_page,
    flood,
    hang,
    hanging_dns,
    http,
    legacy_server_context,
    reset,
    send,
    server_context,
    trickle,
    unresolvable_host,
    unresponsive_port,
    untrusted_tls,
)

from pythpeer import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    HttpStatusError,
    OutcomeUnknownError,
    PythpeerError,
    RateLimitedError,
    RequestTimeoutError,
    ResponseTooLargeError,
    TransportError,
)
from pythpeer.transport.pool import CONNECT_TIMEOUT

TIMEOUT: Final = 10.3
"""The time limit of an attempt in seconds: longer than that of a roll, with a fraction."""

MAX_WAIT: Final = 60.0
MAX_BODY: Final = 65536

# -- expectations ---------------------------------------------------------------------------------


class Expectation(NamedTuple):
    """The outcome that the contract promises for a fault."""

    read: type[PythpeerError] | None
    """The error of a read; ``None`` if there is a result."""

    single_attempt: type[PythpeerError] | None
    """The error of a call that is never retried: a write or a destructive read."""

    stream: Literal["waits", "raises", "continues"]
    """What a stream does: retry after a back-off, raise the error of a read, or read on."""

    retried: bool = False
    """Whether a read is retried before it raises. Other calls are never retried."""

    sent: bool = True
    """Whether the request may have been sent."""

    complete: bool = True
    """Whether a result has all the data of a result without a fault."""

    has_items: bool = True
    """Whether a result has items for a stream."""


NOT_SENT: Final = Expectation(TransportError, TransportError, "waits", retried=True, sent=False)
"""There is no connection, so the service cannot have received the request."""

UNTRUSTED: Final = NOT_SENT._replace(stream="raises")
"""As `NOT_SENT`, but a retry does not help: the server's certificate is invalid."""

NOT_SENT_IN_TIME: Final = Expectation(
    RequestTimeoutError, RequestTimeoutError, "waits", retried=True, sent=False
)
"""As `NOT_SENT`, with the time limit exceeded."""

BROKEN: Final = Expectation(TransportError, OutcomeUnknownError, "waits", retried=True)
"""The request may have been sent, and no readable response arrives."""

TIMED_OUT: Final = Expectation(RequestTimeoutError, OutcomeUnknownError, "waits", retried=True)
"""The request was sent, and the response is incomplete at the time limit."""

SERVER_ERROR: Final = Expectation(HttpStatusError, OutcomeUnknownError, "waits", retried=True)
"""5xx: the service may have processed a part of the request before it failed."""

UNAVAILABLE_FOR_LONG: Final = SERVER_ERROR._replace(retried=False)
"""As `SERVER_ERROR`, with a ``Retry-After`` longer than `MAX_WAIT`."""

STATUS: Final = Expectation(HttpStatusError, HttpStatusError, "raises")
"""Neither 2xx nor an API error: the request was not processed, and a retry does not help."""

TRY_LATER: Final = Expectation(HttpStatusError, HttpStatusError, "waits")
"""A 4xx that means "try again later"."""

THROTTLED: Final = Expectation(RateLimitedError, RateLimitedError, "waits", retried=True)
"""429: the request was not processed, and a later one may be."""

THROTTLED_FOR_LONG: Final = THROTTLED._replace(retried=False)
"""As `THROTTLED`, without status 429, or with a ``Retry-After`` longer than `MAX_WAIT`."""

REJECTED: Final = Expectation(ApiError, ApiError, "waits")
"""An API error: an immediate retry returns the same, so only streams retry, with a back-off."""

DENIED: Final = Expectation(AccessDeniedError, AccessDeniedError, "raises")
"""The key is rejected, and a retry does not help."""

NOT_DOCUMENTED: Final = Expectation(DecodeError, OutcomeUnknownError, "waits")
"""A complete response that is not the documented JSON; the outcome of a write is unknown."""

TOO_LARGE: Final = Expectation(ResponseTooLargeError, OutcomeUnknownError, "waits")
"""A response over the size limit, which is not read to its end."""

ACCEPTED: Final = Expectation(None, None, "continues")
"""An unusual response that is decoded."""

PARTIAL: Final = ACCEPTED._replace(complete=False)
"""A decoded response with data left out or added."""

EMPTY: Final = PARTIAL._replace(has_items=False)
"""A decoded response without data."""

# -- rows -----------------------------------------------------------------------------------------

AddressFactory = Callable[[], AbstractAsyncContextManager[str] | AbstractContextManager[str]]
"""Makes the URL of an address to which no request can be sent."""

Overrides = Mapping[str, Expectation]
"""Expectations by the name of a call in `CALLS`."""


class Reproduction(NamedTuple):
    """One way to cause a fault, and the attributes of its error."""

    step: Step = answer()
    """What the server does with the request."""

    status: int | None = None
    message: str | None = None
    retry_after: float | None = None

    first_step: Step | None = None
    """What the server does with an earlier request, which must succeed."""

    address: AddressFactory | None = None
    """The target of the request, if it is not a `RawServer`."""

    host: str = "127.0.0.1"
    """The host in the URL of the `RawServer`."""

    kept_connection_closed: bool = False
    """Whether a read finds its kept connection closed, and is sent once more on a new one."""

    status_optional: bool = False
    """Whether the error may be without the status: a parser may read head and damage together."""


class FaultRow(NamedTuple):
    """A row of the table."""

    title: str
    """What happens, in the words of the page."""

    expectation: Expectation
    reproductions: Mapping[str, Reproduction]
    """All ways to cause the fault, by unique names."""

    seconds: float = 0.0
    """Seconds after which an attempt fails."""

    overrides: Overrides = MappingProxyType({})
    """The expectations of calls for which it is a different one."""


def fault_row(
    title: str,
    expectation: Expectation,
    steps: Mapping[str, Step],
    *,
    status: int | None = 200,
    message: str | None = None,
    retry_after: float | None = None,
    first_step: Step | None = None,
    kept_connection_closed: bool = False,
    status_optional: bool = False,
    seconds: float = 0.0,
    overrides: Overrides = MappingProxyType({}),
) -> FaultRow:
    """A row whose reproductions differ only in the server's step."""
    common = Reproduction(
        answer(),
        status,
        message,
        retry_after,
        first_step,
        kept_connection_closed=kept_connection_closed,
        status_optional=status_optional,
    )
    reproductions = {name: common._replace(step=step) for name, step in steps.items()}
    return FaultRow(title, expectation, reproductions, seconds, overrides)


def status_row(
    title: str,
    expectation: Expectation,
    content: str,
    make_step: Callable[[int], Step],
    codes: Sequence[int],
) -> FaultRow:
    """A row whose reproductions differ in their status code."""
    reproductions = {
        f"{code}, {content}": Reproduction(make_step(code), status=code) for code in codes
    }
    return FaultRow(title, expectation, reproductions)


def unreachable_row(
    title: str,
    expectation: Expectation,
    addresses: Mapping[str, AddressFactory],
    seconds: float = 0.0,
) -> FaultRow:
    """A row of addresses to which no request can be sent."""
    reproductions = {name: Reproduction(address=address) for name, address in addresses.items()}
    return FaultRow(title, expectation, reproductions, seconds)


# -- responses ------------------------------------------------------------------------------------


def document(id: int, text: bytes = b"hello", extra: bytes = b"") -> bytes:
    """A body with one message, or mail, that each call of `CALLS` decodes."""
    return (
        b'{"status":1,"mid":7,"users_online":3,"username":"tiro","messages":12,%b,"message_list":['
        b'{"id":%d,"by":"alice","to":"","msg":"%b","date":"2012-12-12 21:12:21","bot":0,"my":0,'
        b'"me":0}]%b}' % (ROLL, id, text, extra)
    )


FIRST: Final = answer(document(1))
DOCUMENT: Final = document(2)
PACKED: Final = gzip.compress(DOCUMENT)
BIG: Final = DOCUMENT.ljust(3 * MAX_BODY)
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(DOCUMENT)
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS: Final = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
PAGE: Final = b"<!DOCTYPE html><html><head><script>%s</script></head></html>" % DOCUMENT
NOTICE: Final = b"<br />\n<b>Notice</b>:  Undefined index in <b>/a.php</b> on line <b>7</b><br />\n"
MESSAGE: Final = "user not found"
NOT_OWNED: Final = b'{"error":"not yours"}'


def with_headers(*lines: bytes) -> bytes:
    """The bytes of a response with these additional header lines."""
    return HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + DOCUMENT


def encoded(encoding: str, body: bytes = DOCUMENT) -> Step:
    """Respond with *body* and this Content-Encoding."""
    return answer(body, headers=[("Content-Encoding", encoding)])


def gzip_bomb(size: int) -> bytes:
    """A gzip body of that many megabytes of spaces, compressed to about a thousandth."""
    compressor = zlib.compressobj(9, wbits=31)
    first = compressor.compress(b" " * 2**20) + compressor.flush(zlib.Z_FULL_FLUSH)
    following = compressor.compress(b" " * 2**20) + compressor.flush(zlib.Z_FULL_FLUSH)
    return first + following * (size - 1)


BOMB: Final = gzip_bomb(30)


def with_number(number: bytes) -> Step:
    """Respond with a body in which all numbers that calls read are *number*."""
    return answer(document(2, extra=b',"mid":%b,"users_online":%b' % (number, number)))


def idle_then(action: Callable[[Connection], object]) -> Step:
    """Respond to the first request, and call *action* while the connection is idle."""

    async def run(connection: Connection) -> None:
        await FIRST.run(connection)
        await asyncio.sleep(0.05)
        action(connection)

    return Step(run)


def idle_then_break(action: Callable[[Connection], object]) -> Step:
    """Respond to the first request, and call *action* when a second one arrives.

    That one is lost: the server does not count it.
    """

    async def run(connection: Connection) -> None:
        await FIRST.run(connection)
        await connection.reader.read(1)
        action(connection)

    return Step(run)


def idle_then_send(data: bytes) -> Step:
    """Respond to the first request, and send *data* while the connection is idle."""
    return idle_then(lambda connection: connection.writer.write(data))


# -- the table ------------------------------------------------------------------------------------

NETWORK: Final = (
    unreachable_row("the host name has no address", NOT_SENT, {"no address": unresolvable_host}),
    unreachable_row(
        "the name server does not respond",
        NOT_SENT_IN_TIME,
        {"no name server": hanging_dns},
        TIMEOUT,
    ),
    unreachable_row("the connection is refused", NOT_SENT, {"refused": closed_port}),
    unreachable_row(
        "the address does not respond",
        NOT_SENT_IN_TIME,
        {"black hole": unresponsive_port},
        CONNECT_TIMEOUT,
    ),
    FaultRow(
        "the first of the host's two addresses refuses the connection",
        ACCEPTED,
        {"second address": Reproduction(answer(DOCUMENT), host="localhost")},
    ),
    unreachable_row(
        "the certificate is not trusted, is for another name, or has expired",
        UNTRUSTED,
        {
            "unknown authority": lambda: untrusted_tls(
                answer(), lambda: server_context(ca=trustme.CA())
            ),
            "another name": lambda: untrusted_tls(answer(), lambda: server_context("example.org")),
            "expired": lambda: untrusted_tls(
                answer(), lambda: server_context(expires=datetime(2012, 12, 12))
            ),
        },
    ),
    unreachable_row(
        "the service does not support TLS, or only versions before 1.2",
        NOT_SENT,
        {
            "no TLS": lambda: untrusted_tls(drop(http(400, b"plain"), reads=False)),
            "no TLS, cut off": lambda: untrusted_tls(drop(reads=False)),
            "no TLS, reset": lambda: untrusted_tls(reset(reads=False)),
            "old TLS": lambda: untrusted_tls(answer(), legacy_server_context),
        },
    ),
    unreachable_row(
        "the TLS handshake is not completed",
        NOT_SENT_IN_TIME,
        {"silent TLS": lambda: untrusted_tls(Step(hang().run, reads=False))},
        CONNECT_TIMEOUT,
    ),
    fault_row(
        "the connection breaks before the request is read",
        BROKEN,
        {"fin at once": drop(reads=False), "rst at once": reset(reads=False)},
        status=None,
    ),
    fault_row(
        "the connection breaks before the response",
        BROKEN,
        {"fin": drop(), "rst": reset()},
        status=None,
    ),
    fault_row(
        "the connection breaks before the response, after it served an earlier request;"
        " so does a new one",
        BROKEN,
        {"fin, reused": drop(), "rst, reused": reset()},
        status=None,
        first_step=FIRST,
        kept_connection_closed=True,
    ),
    FaultRow(
        "the service closes a kept connection when the next request arrives",
        ACCEPTED,
        {
            "fin at the last moment": Reproduction(
                answer(DOCUMENT), first_step=idle_then_break(Connection.close)
            ),
            "rst at the last moment": Reproduction(
                answer(DOCUMENT), first_step=idle_then_break(Connection.reset)
            ),
        },
    ),
    fault_row("there is no response", TIMED_OUT, {"silence": hang()}, status=None, seconds=TIMEOUT),
    FaultRow(
        "the service has closed or reset an idle connection",
        ACCEPTED,
        {
            "fin while idle": Reproduction(
                answer(DOCUMENT), first_step=idle_then(Connection.close)
            ),
            "rst while idle": Reproduction(
                answer(DOCUMENT), first_step=idle_then(Connection.reset)
            ),
        },
    ),
    FaultRow(
        "a second response to an earlier request arrives, or other unexpected data",
        ACCEPTED,
        {
            "second response": Reproduction(
                answer(DOCUMENT), first_step=idle_then_send(http(200, NOT_OWNED))
            ),
            "second response immediately": Reproduction(
                answer(DOCUMENT), first_step=send(http(200, document(1)) + http(200, NOT_OWNED))
            ),
            "408 while idle": Reproduction(
                answer(DOCUMENT),
                first_step=idle_then_send(http(408, NOT_OWNED, [("Connection", "close")])),
            ),
            "half a head while idle": Reproduction(
                answer(DOCUMENT), first_step=idle_then_send(b"HTTP/1.1 200 OK\r\nContent-")
            ),
            "junk while idle": Reproduction(
                answer(DOCUMENT), first_step=idle_then_send(b"666\r\n")
            ),
        },
    ),
)

HTTP: Final = (
    fault_row(
        "the response is not HTTP/1",
        BROKEN,
        {
            "garbage": send(b"\x00\x01\x02 this is not HTTP\r\n\r\n"),
            "another protocol": send(b"SSH-2.0-OpenSSH_9.6\r\n"),
            "no head": drop(DOCUMENT),
            "HTTP/2": send(b"HTTP/2 200" + with_headers()[12:]),
            "status 99": send(b"HTTP/1.1 99 What\r\nContent-Length: 2\r\n\r\n{}"),
            "status not a number": send(b"HTTP/1.1 2OO OK\r\nContent-Length: 2\r\n\r\n{}"),
        },
        status=None,
    ),
    fault_row(
        "the connection breaks within the head, or after an interim response",
        BROKEN,
        {
            "status line, fin": drop(b"HTTP/1.1 200 OK\r\n"),
            "partial head, fin": drop(b"HTTP/1.1 200 OK\r\nContent-Le"),
            "partial head, rst": reset(b"HTTP/1.1 200 OK\r\nContent-Le"),
            "100 Continue, fin": drop(CONTINUE),
            "103 Early Hints, fin": drop(HINTS),
        },
        status=None,
    ),
    fault_row(
        "the head does not end",
        TIMED_OUT,
        {
            "silence after half a head": hang(HEAD),
            "head by drips": trickle(HEAD, 1.0),
            "100 Continue without end": trickle(b"", 1.0, then=CONTINUE),
            "blank lines without end": trickle(b"", 1.0, then=b"\r\n"),
        },
        status=None,
        seconds=TIMEOUT,
    ),
    fault_row(
        "a header line is invalid, such as a PHP warning",
        BROKEN,
        {
            "PHP warning among the headers": send(with_headers(b"Warning without a colon")),
            "header without a name": send(with_headers(b": 1")),
        },
        status=None,
    ),
    fault_row(
        "the head is too large",
        BROKEN,
        {
            "one header too long": send(with_headers(b"X-Long: " + b"x" * 20_000)),
            "too many headers": send(with_headers(*[b"X-Number: 1"] * 200)),
            "headers without end": flood(HEAD, b"X-Number: 1\r\n" * 50),
        },
        status=None,
    ),
    fault_row(
        "the length is not a number, or contradictory",
        BROKEN,
        {
            "length negative": send(http(200, DOCUMENT, [("Content-Length", "-5")], length=None)),
            "length in words": send(http(200, DOCUMENT, [("Content-Length", "ten")], length=None)),
            "two lengths": send(with_headers(b"Content-Length: 1")),
            "two equal lengths": drop(with_headers(b"Content-Length: %d" % len(DOCUMENT))),
            "length and chunks": send(with_headers(b"Transfer-Encoding: chunked")),
        },
        status=None,
    ),
    fault_row(
        "an unusual head: interim responses, HTTP/1.0, a broken cookie, another content type",
        ACCEPTED,
        {
            "100, then 200": send(CONTINUE + with_headers()),
            "103, then 200": send(HINTS + with_headers()),
            "HTTP/1.0": drop(b"HTTP/1.0" + with_headers()[8:]),
            "blank lines first": send(b"\r\n\r\n" + with_headers()),
            "no reason": send(b"HTTP/1.1 200" + with_headers()[15:]),
            "a header over two lines": send(with_headers(b"X-Long: a", b" b")),
            "a header beyond ASCII": send(with_headers("X-Name: ä".encode())),
            "a broken cookie": send(with_headers(b"Set-Cookie: \x80=\xff; Expires=never")),
            "a broken content type": send(with_headers(b"Content-Type: ;;=")),
            "bytes": send(with_headers(b"Content-Type: application/octet-stream")),
        },
    ),
    status_row(
        "another 2xx, with a valid response",
        ACCEPTED,
        "answer",
        lambda code: answer(DOCUMENT, code),
        (201, 202, 203, 206, 299),
    ),
    status_row(
        "a redirect to any target",
        STATUS,
        "redirect",
        lambda code: answer(b"", code, [("Location", "/there")]),
        (301, 302, 303, 307, 308),
    ),
    status_row(
        "another 1xx or 3xx",
        STATUS,
        "no body",
        lambda code: answer(b"", code, [("Upgrade", "x"), ("Connection", "upgrade")]),
        (101, 300, 304, 305),
    ),
    status_row(
        "a 4xx, with an HTML page",
        STATUS,
        "page",
        error_page,
        (400, 402, 404, 405, 407, 410, 414, 418, 431, 451, 499),
    ),
    status_row("408 or 425, with an HTML page", TRY_LATER, "page", error_page, (408, 425)),
    status_row(
        "5xx and higher, with an HTML page",
        SERVER_ERROR,
        "page",
        error_page,
        (500, 502, 503, 504, 520, 599, 999),
    ),
    FaultRow(
        "5xx, with a valid response, an API error, or a body that is incomplete or too large",
        SERVER_ERROR,
        {
            "500, and a response": Reproduction(answer(DOCUMENT, 500), 500),
            "500, and an API error": Reproduction(api_error("no access", 500), 500),
            "502, cut": Reproduction(drop(http(502, DOCUMENT, length=999)), 502),
            "500, too large": Reproduction(answer(BIG, 500), 500),
            "500, compress": Reproduction(
                answer(b"", 500, [("Content-Encoding", "compress")]), 500
            ),
        },
    ),
    fault_row(
        "503 with a `Retry-After` up to `max_wait`",
        SERVER_ERROR,
        {"503, in 3 s": error_page(503, [("Retry-After", "3")])},
        status=503,
    ),
    fault_row(
        "503 with a longer `Retry-After`",
        UNAVAILABLE_FOR_LONG,
        {"503, in an hour": error_page(503, [("Retry-After", "3600")])},
        status=503,
    ),
)

BODY: Final = (
    fault_row(
        "the connection breaks within the body",
        BROKEN,
        {
            "length too big": drop(http(200, DOCUMENT, length=999)),
            "length too big, reset": reset(http(200, DOCUMENT, length=999)),
            "chunks cut": drop(chunked(DOCUMENT[:20], end=b"23\r\n{")),
            "chunks cut between": drop(chunked(DOCUMENT[:20], end=b"")),
        },
    ),
    fault_row(
        "the connection breaks within a body without a length",
        NOT_DOCUMENTED,
        {"no length, cut": drop(http(200, DOCUMENT[:30], length=None))},
    ),
    status_row(
        "the connection breaks within the body of a 3xx or 4xx",
        BROKEN,
        "cut",
        lambda code: drop(http(code, DOCUMENT, length=999)),
        (302, 401, 404),
    ),
    fault_row(
        "the body does not end",
        TIMED_OUT,
        {
            "silence after the head": hang(HEAD + b"\r\n"),
            "silence within the body": hang(HEAD + b"\r\n" + DOCUMENT[:20]),
            "silence within a chunk": hang(chunked(end=b"20\r\n{")),
            "body by drips": trickle(DOCUMENT, 1.0, first=HEAD + b"\r\n"),
            "a chunk extension without end": trickle(b"", 1.0, first=chunked(end=b"5;"), then=b"x"),
            "small chunks without end": trickle(
                b"", 1.0, first=chunked(end=b""), then=b"1\r\n \r\n"
            ),
            "trailers by drips": trickle(
                b"", 1.0, first=chunked(DOCUMENT, end=b"0\r\n"), then=b"X: 1\r\n"
            ),
        },
        seconds=TIMEOUT,
    ),
    fault_row(
        "the chunks of the body are invalid",
        BROKEN,
        {
            "chunk size not a number": send(chunked(end=b"zz\r\n{}\r\n0\r\n\r\n")),
            "chunk size negative": send(chunked(end=b"-2\r\n{}\r\n0\r\n\r\n")),
            "chunk without its end": send(chunked(end=b"2\r\n{}0\r\n\r\n")),
            "trailers without end": flood(chunked(DOCUMENT, end=b"0\r\n"), b"X-Number: 1\r\n" * 50),
        },
        status_optional=True,
    ),
    fault_row(
        "gzip or deflate that is damaged or not compressed",
        BROKEN,
        {
            "gzip, cut": drop(http(200, PACKED[:-20], GZIP, length=len(PACKED))),
            "gzip, bad checksum": send(http(200, PACKED[:-8] + bytes(8), GZIP)),
            "gzip, really plain": send(http(200, DOCUMENT, GZIP)),
            "gzip, damaged": send(http(200, PACKED[:15] + b"\xff\xff\xff" + PACKED[18:], GZIP)),
            "gzip, and more": send(http(200, PACKED + b"more of it", GZIP)),
            "deflate, cut": send(http(200, zlib.compress(DOCUMENT)[:20], DEFLATE)),
        },
        status_optional=True,
    ),
    fault_row(
        "the body is longer than its length: the rest is ignored",
        NOT_DOCUMENTED,
        {"length too small": drop(http(200, DOCUMENT, length=9))},
    ),
    fault_row(
        "bytes that are not HTTP follow a complete response, in the same packet or later",
        ACCEPTED,
        {
            "junk behind": send(http(200, DOCUMENT) + b"666\r\n"),
            "junk behind chunks": send(chunked(DOCUMENT) + b"\0\1\2"),
            "junk behind, with an interim response": send(CONTINUE + http(200, DOCUMENT) + b"junk"),
            "half a head behind": send(http(200, DOCUMENT) + b"HTTP/1.1 200 OK\r\nContent-"),
            "junk behind, and the end": drop(
                http(200, DOCUMENT, [("Connection", "close")]) + b"666\r\n"
            ),
        },
    ),
    fault_row(
        "gzip that is incomplete, with the right length",
        NOT_DOCUMENTED,
        {"gzip, cut, right length": send(http(200, PACKED[:40], GZIP))},
    ),
    fault_row(
        "a Content-Encoding that was not requested",
        BROKEN,
        {
            "gzip twice": encoded("gzip, gzip", gzip.compress(PACKED)),
            "compress": encoded("compress"),
            "brotli": encoded("br"),
            "zstd": encoded("zstd"),
        },
        status_optional=True,
    ),
    fault_row(
        "a body over `max_body`",
        TOO_LARGE,
        {
            "too large": drop(http(200, BIG)),
            "too large by its length": hang(http(200, b"", length=MAX_BODY + 1)),
            "too large in chunks": drop(chunked(*[b" " * 1000] * 100)),
            "too large, no length": drop(http(200, BIG, length=None)),
            "too large when unpacked": drop(http(200, gzip.compress(BIG), GZIP)),
            "a gzip bomb": drop(http(200, BOMB, GZIP)),
            "without end": flood(http(200, b"", length=None), bytes(65536)),
            "without end, by its length": flood(http(200, b"", length=10**12), bytes(65536)),
        },
    ),
    status_row(
        "a 3xx or 4xx with a body over `max_body`",
        TOO_LARGE,
        "too large",
        lambda code: answer(BIG, code),
        (302, 401, 404),
    ),
    fault_row(
        "chunks, gzip, deflate, or no length at all",
        ACCEPTED,
        {
            "chunks": send(chunked(DOCUMENT[:20], DOCUMENT[20:])),
            "small chunks": send(chunked(*(bytes([byte]) for byte in DOCUMENT))),
            "gzip": send(http(200, PACKED, GZIP)),
            "gzip, in capitals": encoded(" GZip ", PACKED),
            "x-gzip": encoded("x-gzip", PACKED),
            "gzip in chunks": send(chunked(PACKED, headers=GZIP)),
            "deflate": send(http(200, zlib.compress(DOCUMENT), DEFLATE)),
            "identity": encoded("identity"),
            "no length": drop(http(200, DOCUMENT, length=None)),
        },
    ),
)

JSON: Final = (
    fault_row(
        "an empty body, or white space only",
        NOT_DOCUMENTED,
        {"empty body": answer(b""), "blank body": answer(b" \r\n"), "BOM": answer(b"\xef\xbb\xbf")},
    ),
    fault_row(
        "204, which has no body, also if bytes follow",
        NOT_DOCUMENTED,
        {"204": answer(b"", 204), "204 with a body": drop(http(204, DOCUMENT))},
        status=204,
    ),
    fault_row(
        "an HTML page, also if it contains JSON",
        NOT_DOCUMENTED,
        {
            "a page": answer(PAGE),
            "a page behind a notice": answer(NOTICE + PAGE),
            "a page behind JSON": answer(DOCUMENT + PAGE),
        },
    ),
    fault_row(
        "text, or JSON with text before or after it",
        NOT_DOCUMENTED,
        {
            "text": answer(b"Database error"),
            "text before JSON": answer(b"oops " + DOCUMENT),
            "text after JSON": answer(DOCUMENT + b" oops"),
            "JSONP": answer(b"done(" + DOCUMENT + b")"),
            "two documents": answer(DOCUMENT + DOCUMENT),
        },
    ),
    fault_row(
        "JSON that is incomplete, damaged, or in another encoding",
        NOT_DOCUMENTED,
        {
            "JSON cut": answer(DOCUMENT[:-1]),
            "JSON cut behind a notice": answer(NOTICE + b"[]" + DOCUMENT[:-1]),
            "bad escape": answer(document(2, rb"it\'s")),
            "not UTF-8": answer(b"\xff\xfe\xfa{}"),
            "UTF-16": answer(DOCUMENT.decode().encode("utf-16")),
        },
    ),
    fault_row(
        "`NaN`, `Infinity`, `1e999`, or a number with thousands of digits",
        NOT_DOCUMENTED,
        {
            "NaN": answer(b"NaN"),
            "NaN within": with_number(b"NaN"),
            "Infinity": with_number(b"-Infinity"),
            "1e999": with_number(b"1e999"),
            "5000 digits": with_number(b"9" * 5000),
        },
    ),
    fault_row(
        "nesting or text that does not end",
        NOT_DOCUMENTED,
        {
            "nested too deep": answer(b"[" * 20_000 + b"]" * 20_000),
            "nested within": answer(document(2, extra=b',"x":' + b"[" * 20_000)),
            "open lists": answer(b"[" * MAX_BODY),
            "open objects": answer(b'{"a":' * (MAX_BODY // 5)),
            "open text": answer(b'["' + b"x" * (MAX_BODY - 2)),
            "open notices": answer((NOTICE + b"[") * 600),
        },
    ),
    fault_row("`null`", NOT_DOCUMENTED, {"null": answer(b"null")}),
    fault_row(
        "only `1`, `true`, or a word that means success",
        NOT_DOCUMENTED,
        {"1": answer(b"1"), "true": answer(b"true"), "done": answer(b'"done"')},
        overrides={"send_mail": EMPTY},
    ),
    fault_row(
        "only another number, `false`, or another text",
        NOT_DOCUMENTED,
        {
            "0": answer(b"0"),
            "7": answer(b"7"),
            "false": answer(b"false"),
            "text in quotes": answer(b'"user not found"'),
        },
    ),
    fault_row(
        "an empty list",
        NOT_DOCUMENTED,
        {"an empty list": answer(b"[]")},
        overrides=dict.fromkeys(("staff", "all_mail", "unread_mail"), EMPTY),
    ),
    fault_row(
        "an empty object",
        NOT_DOCUMENTED,
        {"an empty object": answer(b"{}")},
        overrides=dict.fromkeys(
            ("staff", "all_mail", "own_read", "unread_mail", "own_consume", "own_write"), EMPTY
        ),
    ),
    fault_row(
        "an object without a known field",
        NOT_DOCUMENTED,
        {"an object": answer(b'{"surprise":5}')},
        overrides=dict.fromkeys(
            ("user", "stats", "own_read", "own_consume", "send_mail", "own_write"), EMPTY
        ),
    ),
    fault_row(
        "`null` instead of the list",
        PARTIAL,
        {"null for a list": answer(DOCUMENT[: DOCUMENT.index(b"[")] + b"null}")},
        overrides={
            "messages": EMPTY,
            **dict.fromkeys(("staff", "all_mail", "unread_mail"), NOT_DOCUMENTED),
        },
    ),
    fault_row(
        "an item of the list that is not an object",
        PARTIAL,
        {
            "a null item": answer(DOCUMENT.replace(b"[", b"[null,")),
            "a number as an item": answer(DOCUMENT.replace(b"[", b"[5,")),
        },
        overrides={"staff": NOT_DOCUMENTED},
    ),
    fault_row(
        "the response to a post without an id, or with one that is not a positive Int32",
        PARTIAL,
        {
            "no mid": answer(DOCUMENT.replace(b'"mid":7,', b"")),
            **{
                f"mid {id}": answer(DOCUMENT.replace(b'"mid":7', b'"mid":%d' % id))
                for id in (-7, 0, 2**31)
            },
        },
        overrides={"post": NOT_DOCUMENTED},
    ),
    fault_row(
        "the response to a roll without one of its fields, or with an amount that is not a number",
        PARTIAL,
        {
            "no balance": answer(DOCUMENT.replace(b'"user_balance":"7.00000000",', b"")),
            "no seed": answer(DOCUMENT.replace(b',"client_seed":"7"', b"")),
            "payout in words": answer(DOCUMENT.replace(b'"0.20000000"', b'"much"')),
            "negative payout": answer(DOCUMENT.replace(b'"0.20000000"', b'"-0.20000000"')),
        },
        overrides={"roll": NOT_DOCUMENTED},
    ),
    fault_row(
        "an object with numeric keys instead of the list, a zero date",
        PARTIAL,
        {
            "numeric keys": answer(DOCUMENT.replace(b"[", b'{"0":').replace(b"]", b"}")),
            "zero date": answer(DOCUMENT.replace(b"2012-12-12 21:12:21", b"0000-00-00 00:00:00")),
        },
    ),
    fault_row(
        "numbers and bits as text, unknown fields, a field twice, an empty `error`",
        ACCEPTED,
        {
            "numbers as text": answer(re.sub(rb'":([0-9.]+)', rb'":"\1"', DOCUMENT)),
            "unknown fields": answer(document(2, extra=b',"new":{"a":[1]},"big":%d' % 2**64)),
            "a field twice": answer(document(2, extra=b',"mid":7')),
            "error null": answer(document(2, extra=b',"error":null')),
            "error empty": answer(document(2, extra=b',"error":""')),
        },
    ),
    fault_row(
        "invalid UTF-8, half a character, or control characters within a text",
        ACCEPTED,
        {
            "bad byte": answer(document(2, b"hel\xfflo")),
            "lone surrogate": answer(document(2, rb"hel\ud800lo")),
            "control characters": answer(document(2, b"hel\n\t\x01lo")),
        },
    ),
    fault_row(
        "a byte-order mark before JSON; white space, NULs or a comment after it",
        ACCEPTED,
        {
            "BOM and JSON": answer(b"\xef\xbb\xbf" + DOCUMENT),
            "NULs after JSON": answer(DOCUMENT + b"\r\n\0\0"),
            "a comment after JSON": answer(DOCUMENT + b"<!-- 0.02 s -->"),
        },
    ),
    fault_row(
        "PHP notices before or after JSON",
        ACCEPTED,
        {
            "a notice before": answer(NOTICE + DOCUMENT),
            "a notice after": answer(DOCUMENT + NOTICE),
            "a plain notice": answer(b"PHP Notice:  a in b.php on line 7\n" + DOCUMENT),
        },
    ),
)

API_ERRORS: Final = (
    FaultRow(
        "an API error with a 2xx or 4xx",
        REJECTED,
        {
            **{
                f"API error, {code}": Reproduction(api_error(MESSAGE, code), code, MESSAGE)
                for code in (200, 202, 400, 404, 409)
            },
            "error alone": Reproduction(answer(b'{"error":"%b"}' % MESSAGE.encode()), 200, MESSAGE),
            "error behind a notice": Reproduction(
                answer(NOTICE + b'{"error":"%b"}' % MESSAGE.encode()), 200, MESSAGE
            ),
            "no success": Reproduction(
                answer(b'{"success":false,"message":"%b"}' % MESSAGE.encode()), 200, MESSAGE
            ),
            "status 0 alone": Reproduction(
                answer(b'{"status":0}'), 200, "rejected without an error message"
            ),
            "error in numbers": Reproduction(
                answer(b'{"error":{"code":5}}'), 200, "rejected without an error message"
            ),
        },
    ),
    FaultRow(
        "an API error about the key or access; 401 or 403 with any body",
        DENIED,
        {
            "no access": Reproduction(api_error("no access"), 200, "no access"),
            "invalid key": Reproduction(api_error("invalid key", 400), 400, "invalid key"),
            "401": Reproduction(error_page(401), 401, ""),
            "403": Reproduction(api_error("go away", 403), 403, "go away"),
            "403, empty": Reproduction(answer(b"", 403), 403, ""),
        },
    ),
    FaultRow(
        "an API error about too many requests",
        THROTTLED_FOR_LONG,
        {
            f"limit, {code}": Reproduction(api_error("Request limit reached", code), code)
            for code in (200, 400, 403)
        },
    ),
    fault_row(
        "429 without a valid `Retry-After`",
        THROTTLED,
        {
            "429": error_page(429),
            "429, empty": answer(b"", 429),
            "429, with an API error": api_error("no access", 429),
            "429, soon": error_page(429, [("Retry-After", "soon")]),
            "429, negative": error_page(429, [("Retry-After", "-1")]),
        },
        status=429,
    ),
    fault_row(
        "429 with a `Retry-After` up to `max_wait`",
        THROTTLED,
        {
            "429, in 3 s": error_page(429, [("Retry-After", "3")]),
            "429, at a time": error_page(
                429,
                [("Date", formatdate(0, usegmt=True)), ("Retry-After", formatdate(3, usegmt=True))],
            ),
            "429, cut": drop(http(429, DOCUMENT, [("Retry-After", "3")], length=999)),
            "429, too large": answer(BIG, 429, [("Retry-After", "3")]),
        },
        status=429,
        retry_after=3.0,
    ),
    fault_row(
        "429 with a longer `Retry-After`",
        THROTTLED_FOR_LONG,
        {"429, in an hour": error_page(429, [("Retry-After", "3600")])},
        status=429,
        retry_after=3600.0,
    ),
)

TABLE: Final[Mapping[str, tuple[FaultRow, ...]]] = MappingProxyType(
    {
        "The network": NETWORK,
        "HTTP": HTTP,
        "The body": BODY,
        "JSON": JSON,
        "API errors": API_ERRORS,
    }
)
"""All faults, in groups by title."""

FAULTS: Final[Mapping[str, FaultRow]] = MappingProxyType(
    {row.title: row for rows in TABLE.values() for row in rows}
)
"""All faults by title."""

REPRODUCTIONS: Final[Mapping[str, Reproduction]] = MappingProxyType(
    {
        name: reproduction
        for row in FAULTS.values()
        for name, reproduction in row.reproductions.items()
    }
)
"""All reproductions by name."""


def steps_of(*expectations: Expectation) -> dict[str, Step]:
    """The steps that cause a fault with one of these expectations for each call, by name.

    Faults that need more than a step for one request are left out.
    """
    return {
        name: reproduction.step
        for row in FAULTS.values()
        if row.expectation in expectations and not row.overrides
        for name, reproduction in row.reproductions.items()
        if not (reproduction.address or reproduction.first_step) and reproduction.step.reads
    }


DROPPED_RESPONSES: Final[Mapping[str, Step]] = MappingProxyType(
    {name: step for name, step in steps_of(BROKEN).items() if name.endswith(("fin", "rst"))}
)
"""The steps after which aiohttp itself would send a second request."""
