"""Every fault that a network or a service can produce, as data: the fault table.

A fault amounts to one of a few kinds, each a rule of the public contract: what a read raises and
what a write does, whether a read is asked again, what a stream makes of it. So a row of the table
is its kind, the ways in which the tests bring it about, and the calls for which it is otherwise.

``fault_cells.py`` runs a cell of the table, ``test_faults.py`` runs them all, and ``fault_page.py``
makes a page of the documentation of it.

Left out is what depends on how Python was started: lines that end in LF alone are taken, but not in
its development mode.
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
    Connection,
    Step,
    answer,
    unresponsive_port,
    chunked,
    trickle,
    drop,
    error_page,
    flood,
    hang,
    http,
    unresolvable_host,
    untrusted_tls,
    legacy_server_context,
    api_error,
    closed_port,
    reset,
    send,
    server_context,
    hanging_dns,
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
from pythpeer.transport import CONNECT_TIMEOUT

TIMEOUT: Final = 7.3
"""The time limit of an attempt here: over 5 s, and no whole number."""

MAX_WAIT: Final = 60.0
MAX_BODY: Final = 65536

# -- the rules ------------------------------------------------------------------------------------


class Expectation(NamedTuple):
    """What a fault amounts to: one rule of the contract."""

    read: type[PythpeerError] | None
    """What a read raises; ``None`` where there is an answer after all."""

    single_attempt: type[PythpeerError] | None
    """What is raised by that which must not be repeated: a write, or a consuming read."""

    stream: Literal["waits", "raises", "goes on"]
    """What a stream does. Where it raises, then what a read does."""

    repeated: bool = False
    """Whether a read is asked again before it raises. Nothing else ever is."""

    sent: bool = True
    """Whether the request may have left."""

    complete: bool = True
    """Whether an answer has in it all that an undamaged one would have."""

    has_items: bool = True
    """Whether an answer has anything in it for a stream."""


NOT_SENT: Final = Expectation(TransportError, TransportError, "waits", repeated=True, sent=False)
"""There is no connection, so the service cannot have seen the request."""

UNTRUSTED: Final = NOT_SENT._replace(stream="raises")
"""The same, and waiting does not mend it: the service cannot prove who it is."""

NOT_SENT_IN_TIME: Final = Expectation(
    RequestTimeoutError, RequestTimeoutError, "waits", repeated=True, sent=False
)
"""The same, where the time limit passes first."""

BROKEN: Final = Expectation(TransportError, OutcomeUnknownError, "waits", repeated=True)
"""The request may have left, and no answer that can be read comes back."""

TIMED_OUT: Final = Expectation(RequestTimeoutError, OutcomeUnknownError, "waits", repeated=True)
"""The request has left, and its answer is not whole when the time limit passes."""

SERVER_ERROR: Final = Expectation(HttpStatusError, OutcomeUnknownError, "waits", repeated=True)
"""5xx: the service may have got some way before it failed, whatever it says."""

UNAVAILABLE_FOR_LONG: Final = SERVER_ERROR._replace(repeated=False)
"""The same, and the service asks to be left alone for longer than a call would wait."""

STATUS: Final = Expectation(HttpStatusError, HttpStatusError, "raises")
"""Not 2xx, without the service's own words: it was not done, and will not be."""

TRY_LATER: Final = Expectation(HttpStatusError, HttpStatusError, "waits")
"""A 4xx by which HTTP means "not now"."""

THROTTLED: Final = Expectation(RateLimitedError, RateLimitedError, "waits", repeated=True)
"""429: it was not done, and will be after a while."""

THROTTLED_FOR_LONG: Final = THROTTLED._replace(repeated=False)
"""The same, by words alone, or for longer than a call would wait."""

REJECTED: Final = Expectation(ApiError, ApiError, "waits")
"""The service says no in its own words: asking again brings the same, but a stream has time."""

DENIED: Final = Expectation(AccessDeniedError, AccessDeniedError, "raises")
"""The key is the matter, and waiting does not mend it."""

NOT_DOCUMENTED: Final = Expectation(DecodeError, OutcomeUnknownError, "waits")
"""A whole answer that is not the documented JSON. Of a write it says nothing."""

TOO_LARGE: Final = Expectation(ResponseTooLargeError, OutcomeUnknownError, "waits")
"""An answer that nobody reads to its end."""

ACCEPTED: Final = Expectation(None, None, "goes on")
"""Odd, but an answer."""

PARTIAL: Final = ACCEPTED._replace(whole=False)
"""An answer from which something is left out, or to which something is added."""

EMPTY: Final = PARTIAL._replace(news=False)
"""An answer with nothing in it."""

# -- rows -----------------------------------------------------------------------------------------

AddressFactory = Callable[[], AbstractAsyncContextManager[str] | AbstractContextManager[str]]
Overrides = Mapping[str, Expectation]


class Reproduction(NamedTuple):
    """One way to bring a fault about, and what its error has to tell."""

    step: Step = answer()
    """What the server does with the request."""

    status: int | None = None
    message: str | None = None
    retry_after: float | None = None

    first_step: Step | None = None
    """What it does with an earlier request, which it answers well."""

    address: AddressFactory | None = None
    """Where the request goes instead of to a server that answers."""

    host: str = "127.0.0.1"

    status_optional: bool = False
    """Whether a parser may meet the damage together with the head, and then tells no status."""


class FaultRow(NamedTuple):
    """A row of the table."""

    title: str
    expectation: Expectation
    reproductions: Mapping[str, Reproduction]
    seconds: float = 0.0
    """Seconds until an attempt is known to have failed."""

    overrides: Overrides = MappingProxyType({})
    """What it is instead for calls of these names."""


def fault_row(
    words: str,
    kind: Expectation,
    steps: Mapping[str, Step],
    *,
    status: int | None = 200,
    says: str | None = None,
    retry_after: float | None = None,
    first: Step | None = None,
    hasty: bool = False,
    after: float = 0.0,
    but: Overrides = MappingProxyType({}),
) -> FaultRow:
    """A row whose ways differ in nothing but what the server does."""
    way = Reproduction(answer(), status, says, retry_after, first, status_optional=hasty)
    ways = {name: way._replace(step=step) for name, step in steps.items()}
    return FaultRow(words, kind, ways, after, but)


def status_row(
    words: str, kind: Expectation, what: str, make: Callable[[int], Step], codes: Sequence[int]
) -> FaultRow:
    """A row whose ways differ in their status."""
    return FaultRow(words, kind, {f"{code}, {what}": Reproduction(make(code), code) for code in codes})


def unreachable_row(words: str, kind: Expectation, places: Mapping[str, AddressFactory], after: float = 0.0) -> FaultRow:
    """A row of addresses to which nothing can be sent."""
    return FaultRow(words, kind, {name: Reproduction(address=place) for name, place in places.items()}, after)


# -- what servers say -----------------------------------------------------------------------------


def document(id: int, text: bytes = b"hello", extra: bytes = b"") -> bytes:
    """An answer that every call can make sense of, with one message, or mail, in it."""
    return (
        b'{"status":1,"mid":7,"users_online":3,"username":"tiro","messages":12,"message_list":['
        b'{"id":%d,"by":"alice","to":"","msg":"%b","date":"2012-12-12 21:12:21","bot":0,"my":0,'
        b'"me":0}]%b}' % (id, text, extra)
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
WORDS: Final = "user not found"
NOT_YOURS: Final = b'{"error":"not yours"}'


def with_headers(*lines: bytes) -> bytes:
    """An answer with these lines among its headers."""
    return HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + DOCUMENT


def encoded(encoding: str, body: bytes = DOCUMENT) -> Step:
    """An answer whose body is said to be encoded so."""
    return answer(body, headers=[("Content-Encoding", encoding)])


def gzip_bomb(megabytes: int) -> bytes:
    """A gzip body of so many megabytes of blanks, in about a thousandth of that."""
    packer = zlib.compressobj(9, wbits=31)
    block = packer.compress(b" " * 2**20) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(b" " * 2**20) + packer.flush(zlib.Z_FULL_FLUSH)
    return block + again * (megabytes - 1)


BOMB: Final = gzip_bomb(30)


def with_number(number: bytes) -> Step:
    """An answer with this for every number that a call looks at."""
    return answer(document(2, extra=b',"mid":%b,"users_online":%b' % (number, number)))


def idle_then(act: Callable[[Connection], object]) -> Step:
    """Answer the first request, and do something while the connection is idle."""

    async def run(peer: Connection) -> None:
        await FIRST.run(peer)
        await asyncio.sleep(0.05)
        act(peer)

    return Step(run)


def idle_then_send(data: bytes) -> Step:
    """Answer the first request, and say something unasked while the connection is idle."""
    return idle_then(lambda peer: peer.writer.write(data))


# -- the table ------------------------------------------------------------------------------------

NETWORK: Final = (
    unreachable_row("the host name has no address", NOT_SENT, {"no address": unresolvable_host}),
    unreachable_row(
        "the name server says nothing", NOT_SENT_IN_TIME, {"no name server": hanging_dns}, TIMEOUT
    ),
    unreachable_row("the connection is refused", NOT_SENT, {"refused": closed_port}),
    unreachable_row(
        "nothing answers at the address",
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
            "unknown authority": lambda: untrusted_tls(answer(), lambda: server_context(by=trustme.CA())),
            "another name": lambda: untrusted_tls(answer(), lambda: server_context("example.org")),
            "expired": lambda: untrusted_tls(answer(), lambda: server_context(expires=datetime(2012, 12, 12))),
        },
    ),
    unreachable_row(
        "the service speaks no TLS, or only versions before 1.2",
        NOT_SENT,
        {
            "no TLS": lambda: untrusted_tls(drop(http(400, b"plain"), reads=False)),
            "no TLS, cut off": lambda: untrusted_tls(drop(reads=False)),
            "no TLS, reset": lambda: untrusted_tls(reset(reads=False)),
            "old TLS": lambda: untrusted_tls(answer(), legacy_server_context),
        },
    ),
    unreachable_row(
        "the TLS handshake does not come to its end",
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
        "the connection breaks before the answer",
        BROKEN,
        {"fin": drop(), "rst": reset()},
        status=None,
    ),
    fault_row(
        "the connection breaks before the answer, after it has served before",
        BROKEN,
        {"fin, reused": drop(), "rst, reused": reset()},
        status=None,
        first=FIRST,
    ),
    fault_row("there is no answer", TIMED_OUT, {"silence": hang()}, status=None, after=TIMEOUT),
    FaultRow(
        "the service has closed an idle connection, or broken it",
        ACCEPTED,
        {
            "fin while idle": Reproduction(answer(DOCUMENT), first_step=idle_then(Connection.close)),
            "rst while idle": Reproduction(answer(DOCUMENT), first_step=idle_then(Connection.reset)),
        },
    ),
    FaultRow(
        "a second answer comes to an earlier request, or something else unasked",
        ACCEPTED,
        {
            "second answer": Reproduction(answer(DOCUMENT), first_step=idle_then_send(http(200, NOT_YOURS))),
            "second answer at once": Reproduction(
                answer(DOCUMENT), first_step=send(http(200, document(1)) + http(200, NOT_YOURS))
            ),
            "408 while idle": Reproduction(
                answer(DOCUMENT),
                first_step=idle_then_send(http(408, NOT_YOURS, [("Connection", "close")])),
            ),
            "half a head while idle": Reproduction(
                answer(DOCUMENT), first_step=idle_then_send(b"HTTP/1.1 200 OK\r\nContent-")
            ),
            "junk while idle": Reproduction(answer(DOCUMENT), first_step=idle_then_send(b"666\r\n")),
        },
    ),
)

HTTP: Final = (
    fault_row(
        "what comes is not HTTP/1",
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
        "the connection breaks within the head, or after an interim answer",
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
        "the head does not come to its end",
        TIMED_OUT,
        {
            "silence after half a head": hang(HEAD),
            "head by drips": trickle(HEAD, 1.0),
            "100 Continue without end": trickle(b"", 1.0, then=CONTINUE),
            "blank lines without end": trickle(b"", 1.0, then=b"\r\n"),
        },
        status=None,
        after=TIMEOUT,
    ),
    fault_row(
        "a header is none, such as a PHP warning among them",
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
        "the length is no number, or contradicts itself",
        BROKEN,
        {
            "length negative": send(http(200, DOCUMENT, [("Content-Length", "-5")], length=None)),
            "length in words": send(http(200, DOCUMENT, [("Content-Length", "ten")], length=None)),
            "two lengths": send(with_headers(b"Content-Length: 1")),
            "two equal lengths": drop(with_headers(b"Content-Length: %d" % len(DOCUMENT))),
            "length and chunks": send(with_headers(b"Transfer-Encoding: chunked")),
            "204 with a body": drop(http(204, DOCUMENT)),
        },
        status=None,
    ),
    fault_row(
        "an unusual head: interim answers, HTTP/1.0, a broken cookie, another content type",
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
        "another 2xx, with the answer",
        ACCEPTED,
        "answer",
        lambda code: answer(DOCUMENT, code),
        (201, 202, 203, 206, 299),
    ),
    status_row(
        "a redirect, wherever it leads",
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
        "a 4xx, with a page",
        STATUS,
        "page",
        error_page,
        (400, 402, 404, 405, 407, 410, 414, 418, 431, 451, 499),
    ),
    status_row("408 or 425, with a page", TRY_LATER, "page", error_page, (408, 425)),
    status_row(
        "5xx and beyond, with a page",
        SERVER_ERROR,
        "page",
        error_page,
        (500, 502, 503, 504, 520, 599, 999),
    ),
    FaultRow(
        "5xx, with an answer, with a refusal, or with a body that breaks off or is too large",
        SERVER_ERROR,
        {
            "500, and an answer": Reproduction(answer(DOCUMENT, 500), 500),
            "500, and a refusal": Reproduction(api_error("no access", 500), 500),
            "502, cut": Reproduction(drop(http(502, DOCUMENT, length=999)), 502),
            "500, too large": Reproduction(answer(BIG, 500), 500),
            "500, compress": Reproduction(answer(b"", 500, [("Content-Encoding", "compress")]), 500),
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
        "the connection breaks within a body that did not say how long it is",
        NOT_DOCUMENTED,
        {"no length, cut": drop(http(200, DOCUMENT[:30], length=None))},
    ),
    status_row(
        "the body of a 3xx or 4xx breaks off",
        BROKEN,
        "cut",
        lambda code: drop(http(code, DOCUMENT, length=999)),
        (302, 401, 404),
    ),
    fault_row(
        "the body does not come to its end",
        TIMED_OUT,
        {
            "silence after the head": hang(HEAD + b"\r\n"),
            "silence within the body": hang(HEAD + b"\r\n" + DOCUMENT[:20]),
            "silence within a chunk": hang(chunked(end=b"20\r\n{")),
            "body by drips": trickle(DOCUMENT, 1.0, first=HEAD + b"\r\n"),
            "a chunk extension without end": trickle(b"", 1.0, first=chunked(end=b"5;"), then=b"x"),
            "small chunks without end": trickle(b"", 1.0, first=chunked(end=b""), then=b"1\r\n \r\n"),
            "trailers by drips": trickle(
                b"", 1.0, first=chunked(DOCUMENT, end=b"0\r\n"), then=b"X: 1\r\n"
            ),
        },
        after=TIMEOUT,
    ),
    fault_row(
        "the body is longer than announced, or its chunks are none",
        BROKEN,
        {
            "length too small": drop(http(200, DOCUMENT, length=9)),
            "chunk size not a number": send(chunked(end=b"zz\r\n{}\r\n0\r\n\r\n")),
            "chunk size negative": send(chunked(end=b"-2\r\n{}\r\n0\r\n\r\n")),
            "chunk without its end": send(chunked(end=b"2\r\n{}0\r\n\r\n")),
            "trailers without end": flood(chunked(DOCUMENT, end=b"0\r\n"), b"X-Number: 1\r\n" * 50),
        },
        hasty=True,
    ),
    fault_row(
        "gzip or deflate that is damaged, or not packed at all",
        BROKEN,
        {
            "gzip, cut": drop(http(200, PACKED[:-20], GZIP, length=len(PACKED))),
            "gzip, bad checksum": send(http(200, PACKED[:-8] + bytes(8), GZIP)),
            "gzip, really plain": send(http(200, DOCUMENT, GZIP)),
            "gzip, damaged": send(http(200, PACKED[:15] + b"\xff\xff\xff" + PACKED[18:], GZIP)),
            "gzip, and more": send(http(200, PACKED + b"more of it", GZIP)),
            "deflate, cut": send(http(200, zlib.compress(DOCUMENT)[:20], DEFLATE)),
        },
        hasty=True,
    ),
    fault_row(
        "gzip that was cut before it was sent",
        NOT_DOCUMENTED,
        {"gzip, cut, right length": send(http(200, PACKED[:40], GZIP))},
    ),
    fault_row(
        "an encoding that nobody asked for",
        BROKEN,
        {
            "x-gzip": encoded("x-gzip", PACKED),
            "gzip twice": encoded("gzip, gzip", gzip.compress(PACKED)),
            "compress": encoded("compress"),
            "brotli": encoded("br"),
            "zstd": encoded("zstd"),
        },
        hasty=True,
    ),
    fault_row(
        "a body over `max_body`",
        TOO_LARGE,
        {
            "too large": drop(http(200, BIG)),
            "too large by its word": hang(http(200, b"", length=MAX_BODY + 1)),
            "too large in chunks": drop(chunked(*[b" " * 1000] * 100)),
            "too large, no length": drop(http(200, BIG, length=None)),
            "too large when unpacked": drop(http(200, gzip.compress(BIG), GZIP)),
            "a gzip bomb": drop(http(200, BOMB, GZIP)),
            "without end": flood(http(200, b"", length=None), bytes(65536)),
            "without end, by its word": flood(http(200, b"", length=10**12), bytes(65536)),
        },
    ),
    status_row(
        "a body over `max_body`, around a 3xx or 4xx",
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
            "gzip, shouted": encoded(" GZip ", PACKED),
            "gzip in chunks": send(chunked(PACKED, headers=GZIP)),
            "deflate": send(http(200, zlib.compress(DOCUMENT), DEFLATE)),
            "identity": encoded("identity"),
            "no length": drop(http(200, DOCUMENT, length=None)),
        },
    ),
)

JSON: Final = (
    fault_row(
        "nothing, or nothing but blanks",
        NOT_DOCUMENTED,
        {"empty body": answer(b""), "blank body": answer(b" \r\n"), "BOM": answer(b"\xef\xbb\xbf")},
    ),
    fault_row("204, with nothing", NOT_DOCUMENTED, {"204": answer(b"", 204)}, status=204),
    fault_row(
        "a page, even with JSON in it",
        NOT_DOCUMENTED,
        {
            "a page": answer(PAGE),
            "a page behind a notice": answer(NOTICE + PAGE),
            "a page behind JSON": answer(DOCUMENT + PAGE),
        },
    ),
    fault_row(
        "text, or text around JSON",
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
        "JSON that is cut, damaged, or in another encoding",
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
        "nesting, or text, without end",
        NOT_DOCUMENTED,
        {
            "nested too deep": answer(b"[" * 20_000 + b"]" * 20_000),
            "nested within": answer(document(2, extra=b',"x":' + b"[" * 20_000 + b"]" * 20_000)),
            "open lists": answer(b"[" * MAX_BODY),
            "open objects": answer(b'{"a":' * (MAX_BODY // 5)),
            "open text": answer(b'["' + b"x" * (MAX_BODY - 2)),
            "open notices": answer((NOTICE + b"[") * 600),
        },
    ),
    fault_row("`null`", NOT_DOCUMENTED, {"null": answer(b"null")}),
    fault_row(
        "a bare `1`, `true`, or word for success",
        NOT_DOCUMENTED,
        {"1": answer(b"1"), "true": answer(b"true"), "done": answer(b'"done"')},
        but={"send_mail": EMPTY},
    ),
    fault_row(
        "another bare number, `false`, or another text",
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
        but=dict.fromkeys(("staff", "all_mail", "unread_mail"), EMPTY),
    ),
    fault_row(
        "an empty object",
        NOT_DOCUMENTED,
        {"an empty object": answer(b"{}")},
        but=dict.fromkeys(
            ("staff", "all_mail", "own_read", "unread_mail", "own_consume", "own_write"), EMPTY
        ),
    ),
    fault_row(
        "an object with no field that is known",
        NOT_DOCUMENTED,
        {"an object": answer(b'{"surprise":5}')},
        but=dict.fromkeys(
            ("user", "stats", "own_read", "own_consume", "send_mail", "own_write"), EMPTY
        ),
    ),
    fault_row(
        "`null` where the list is due",
        PARTIAL,
        {"null for a list": answer(DOCUMENT[: DOCUMENT.index(b"[")] + b"null}")},
        but={
            "messages": EMPTY,
            **dict.fromkeys(("staff", "all_mail", "unread_mail"), NOT_DOCUMENTED),
        },
    ),
    fault_row(
        "an item of the list that is none",
        PARTIAL,
        {
            "a null item": answer(DOCUMENT.replace(b"[", b"[null,")),
            "a number as an item": answer(DOCUMENT.replace(b"[", b"[5,")),
        },
        but={"staff": NOT_DOCUMENTED},
    ),
    fault_row(
        "a post without the new message's id, or with one that is no Int32 over 0",
        PARTIAL,
        {
            "no mid": answer(DOCUMENT.replace(b'"mid":7,', b"")),
            **{
                f"mid {id}": answer(DOCUMENT.replace(b'"mid":7', b'"mid":%d' % id))
                for id in (-7, 0, 2**31)
            },
        },
        but={"post": NOT_DOCUMENTED},
    ),
    fault_row(
        "an object with numeric keys for the list, a zero date",
        PARTIAL,
        {
            "numeric keys": answer(DOCUMENT.replace(b"[", b'{"0":').replace(b"]", b"}")),
            "zero date": answer(DOCUMENT.replace(b"2012-12-12 21:12:21", b"0000-00-00 00:00:00")),
        },
    ),
    fault_row(
        "numbers and bits as text, unknown fields, a field twice, an `error` that is nothing",
        ACCEPTED,
        {
            "numbers as text": answer(re.sub(rb'":([0-9]+)', rb'":"\1"', DOCUMENT)),
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
        "a byte-order mark before JSON; blanks, NULs or a comment after it",
        ACCEPTED,
        {
            "BOM and JSON": answer(b"\xef\xbb\xbf" + DOCUMENT),
            "NULs after JSON": answer(DOCUMENT + b"\r\n\0\0"),
            "a comment after JSON": answer(DOCUMENT + b"<!-- 0.02 s -->"),
        },
    ),
    fault_row(
        "PHP's notices before or after JSON",
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
        "a refusal, under 2xx or 4xx",
        REJECTED,
        {
            **{
                f"refused, {code}": Reproduction(api_error(WORDS, code), code, WORDS)
                for code in (200, 202, 400, 404, 409)
            },
            "error alone": Reproduction(answer(b'{"error":"%b"}' % WORDS.encode()), 200, WORDS),
            "error behind a notice": Reproduction(
                answer(NOTICE + b'{"error":"%b"}' % WORDS.encode()), 200, WORDS
            ),
            "no success": Reproduction(
                answer(b'{"success":false,"message":"%b"}' % WORDS.encode()), 200, WORDS
            ),
            "status 0 alone": Reproduction(answer(b'{"status":0}'), 200, "refused without a reason"),
            "error in numbers": Reproduction(
                answer(b'{"error":{"code":5}}'), 200, "refused without a reason"
            ),
        },
    ),
    FaultRow(
        "a refusal that speaks of the key or of access; 401 or 403, with anything",
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
        "a refusal that speaks of too many requests",
        THROTTLED_FOR_LONG,
        {
            f"limit, {code}": Reproduction(api_error("Request limit reached", code), code)
            for code in (200, 400, 403)
        },
    ),
    fault_row(
        "429, without a sensible `Retry-After`",
        THROTTLED,
        {
            "429": error_page(429),
            "429, empty": answer(b"", 429),
            "429, in words": api_error("no access", 429),
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
        "The service's own no": API_ERRORS,
    }
)
"""Every fault, in groups."""

FAULTS: Final[Mapping[str, FaultRow]] = MappingProxyType(
    {fault.title: fault for group in TABLE.values() for fault in group}
)
"""Every fault by its words."""

REPRODUCTIONS: Final[Mapping[str, Reproduction]] = MappingProxyType(
    {name: way for fault in FAULTS.values() for name, way in fault.reproductions.items()}
)
"""Every way to bring a fault about, by its name."""


def steps_of(*kinds: Expectation) -> dict[str, Step]:
    """What a server does with one request to bring about a fault that is of these for any call."""
    return {
        name: way.step
        for fault in FAULTS.values()
        for name, way in fault.reproductions.items()
        if fault.expectation in kinds and not (fault.overrides or way.address or way.first_step) and way.step.reads
    }


DROPPED_RESPONSES: Final[Mapping[str, Step]] = MappingProxyType(
    {name: step for name, step in steps_of(BROKEN).items() if name.endswith(("fin", "rst"))}
)
"""What aiohttp by itself answers with a second request."""
