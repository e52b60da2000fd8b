"""A key is in the request only: no failure and no inspection shows it elsewhere.

The keys here are canaries: each has a word in it that survives every encoding, and that word must
never show. Frames of these tests hold no key either, so that whole tracebacks can be searched.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import hashlib
import html
import json
import logging
import pickle
import sys
import traceback
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote

import anyio
import msgspec
import pytest
from faults import BROKEN, DROPPED_RESPONSES, NOT_DOCUMENTED, TIMED_OUT, steps_of
from helpers import DEEP, freeze_collector
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from raw_server import (
    CALLS,
    GOOD,
    Call,
    Connection,
    Headers,
    RawServer,
    Step,
    answer,
    api_error,
    closed_port,
    custom_call,
    drop,
    error_page,
    hang,
    http,
    open_session,
    send,
    unresponsive_port,
)
from yarl import URL

from pythpeer import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    Effect,
    Endpoint,
    HttpStatusError,
    InvalidRequestError,
    OutcomeUnknownError,
    PythpeerError,
    Rate,
    RateLimitedError,
    Retry,
    Secret,
    Session,
    Telemetry,
)
from pythpeer.calls import MAX_CALL_KEYS
from pythpeer.otel import OpenTelemetry
from pythpeer.stores import SqliteStore, store_from_url
from pythpeer.wire.request import Request

pytestmark = pytest.mark.anyio

CANARY: Final = "canary7f3a9"
"""What must never show, in any case."""

SPECIAL_CHARS: Final = ' /+&<>"\\=%~'
"""Characters that each encoding writes differently."""

KEYS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "peerbet_key": f"peer{CANARY}{SPECIAL_CHARS}é",
        "personal_key": f"pers{CANARY}{SPECIAL_CHARS}\N{GRINNING FACE}",
        "pythbots_api_key": f"api{CANARY}{SPECIAL_CHARS}z",
    }
)
OWN_KEY: Final = f"own{CANARY}{SPECIAL_CHARS}z"

KEYED: Final[Mapping[str, Call]] = MappingProxyType(
    {
        name: custom_call(call.effect, Secret(OWN_KEY)) if name.startswith("own_") else call
        for name, call in CALLS.items()
    }
)
"""Every kind of call, with a canary for each key."""

SAMPLE_CALLS: Final = ("messages", "own_read", "unread_mail", "post")
"""Each key, in the URL and in the header, and each effect."""


DEBUGGED: Final = ("own_read", "unread_mail")
"""The calls that also run in asyncio's debug mode: with a custom key, and with two."""


def leaks(text: str | bytes) -> bool:
    """Return whether *text* contains a key."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace") + text.decode("utf-16", "replace")
    return CANARY in text.lower()


def keyed_session(url: str, **options: Any) -> Session:
    """Return a session with a canary for each key."""
    return open_session(url, **dict[str, Any](KEYS), **options)


CACHE: Final = functools._lru_cache_wrapper
"""The type of a function with a cache."""


def cached_texts() -> set[str]:
    """The texts in all caches of functions, of every library: in arguments and in results."""
    globals_ = [value for module in [*sys.modules.values()] for value in vars(module).values()]
    found = [one for one in (*globals_, *gc.get_objects()) if type(one) is CACHE]
    links = [link for cache in found for link in gc.get_referents(cache)]
    texts: set[str] = set()
    seen: set[int] = set()
    while links:
        link = links.pop()
        if isinstance(link, str):
            texts.add(link)
        elif id(link) not in seen and not callable(link) and not isinstance(link, ModuleType):
            seen.add(id(link))
            links += gc.get_referents(link)
    return texts


# -- where to search ------------------------------------------------------------------------------


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield *error*, its causes, contexts and attributes, also those a traceback leaves out."""
    seen: set[int] = set()
    links: list[BaseException | None] = [error]
    while links:
        link = links.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        links += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            links += link.exceptions


def texts_of(error: BaseException) -> Iterator[str | bytes]:
    """Yield every form in which Python shows an exception."""
    for link in chain(error):
        yield str(link)
        yield repr(link)
        yield repr(link.args)
        yield repr(vars(link))
        yield repr(getattr(link, "__notes__", ()))
        for name in dir(link):
            if not name.startswith("__"):
                yield repr(getattr(link, name, None))
        shown = traceback.TracebackException.from_exception(link, capture_locals=True)
        yield "".join(shown.format())
        if isinstance(link, PythpeerError):
            yield pickle.dumps(link)


def check_error(error: BaseException) -> None:
    """Fail where *error* shows a key."""
    assert not [text for text in texts_of(error) if leaks(text)]


class LogCapture(logging.Handler):
    """Collects what asyncio logs in its debug mode: too much for `caplog` to keep."""

    def __init__(self) -> None:
        super().__init__()
        self.received: set[str] = set()
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        assert not leaks(message)
        self.received.add(message[:20])
        if record.exc_info and record.exc_info[1]:
            self.errors.append(record.exc_info[1])


class LeakWatch:
    """What was logged and warned about during a test."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self._capture = LogCapture()
        self._warnings: list[warnings.WarningMessage] = []
        self._unraisable: list[str] = []

    def has_logged(self, beginning: str) -> bool:
        """Return whether asyncio has logged a message that begins so."""
        return beginning[:20] in self._capture.received

    def check_error(self) -> None:
        """Fail where a key was shown, or where an object was left to the garbage collector."""
        formatter = logging.Formatter("%(name)s %(message)s")
        for record in self._caplog.records:
            assert not leaks(formatter.format(record))
            assert not leaks(repr(vars(record)))
        for error in self._capture.errors:
            check_error(error)
        assert [str(warning.message) for warning in self._warnings] == []
        assert self._unraisable == []

    @contextmanager
    def debug(self) -> Iterator[None]:
        """Switch asyncio's debug mode on."""
        loop, log = asyncio.get_running_loop(), logging.getLogger("asyncio")
        before = loop.get_debug(), loop.slow_callback_duration, loop.get_exception_handler()
        loop.set_debug(True)
        loop.slow_callback_duration = 0.0  # every iteration of the loop is reported
        loop.set_exception_handler(None)
        log.addHandler(self._capture)
        log.propagate = False
        try:
            yield
        finally:
            log.propagate = True
            log.removeHandler(self._capture)
            loop.set_debug(before[0])
            loop.slow_callback_duration = before[1]
            loop.set_exception_handler(before[2])

    @contextmanager
    def warnings(self) -> Iterator[None]:
        """Record warnings, and failures that cannot be raised."""
        hook = sys.unraisablehook
        sys.unraisablehook = lambda event: self._unraisable.append(repr(event.exc_value))
        try:
            with warnings.catch_warnings(record=True) as self._warnings:
                warnings.simplefilter("always")
                yield
        finally:
            sys.unraisablehook = hook


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> None:
    """Make garbage collection, which is called often here, ignore earlier objects."""
    freeze_collector()


@asynccontextmanager
async def watching(
    caplog: pytest.LogCaptureFixture, *, debug: bool = False
) -> AsyncIterator[LeakWatch]:
    """Record all that is logged and warned about, and search it at the end."""
    watch = LeakWatch(caplog)
    with contextlib.ExitStack() as stack:
        stack.enter_context(caplog.at_level(logging.DEBUG))
        stack.enter_context(watch.warnings())
        if debug:
            stack.enter_context(watch.debug())
        yield watch
        await asyncio.sleep(0.1)
        if debug:
            gc.collect()
            await asyncio.sleep(0.1)
    watch.check_error()


async def caught(call: Call, session: Session, url: str) -> BaseException:
    """Return what a call raises."""
    try:
        await call.run(session, url)
    except PythpeerError as error:
        return error
    pytest.fail("the call did not fail")


async def assert_no_leak(
    url: str,
    caplog: pytest.LogCaptureFixture,
    *,
    debugged: Sequence[str] = DEBUGGED,
    **options: Any,
) -> None:
    """Let every call fail at *url*, and search everywhere; *debugged* ones in debug mode too."""
    async with watching(caplog):
        for name in SAMPLE_CALLS:
            async with keyed_session(url, **options) as session:
                error = await caught(KEYED[name], session, url)
                check_error(error)
                assert not leaks(repr(session))
    async with watching(caplog, debug=True) as watch:
        for name in debugged:
            async with keyed_session(url, **options) as session:
                task = asyncio.ensure_future(KEYED[name].run(session, url))
                await asyncio.wait([task])
                assert not leaks(repr(task))
                del task  # with its exception, which was not retrieved
    assert watch.has_logged("Task exception was never retrieved")
    assert watch.has_logged("Executing <Task finished")


# -- failures of the wire -------------------------------------------------------------------------

STATUSES: Final[Mapping[str, Step]] = MappingProxyType(
    {f"status {status}": error_page(status) for status in (302, 404, 401, 403, 429, 500, 503)}
)
BAD: Final[Mapping[str, Step]] = MappingProxyType({**steps_of(BROKEN, NOT_DOCUMENTED), **STATUSES})
SILENT: Final = steps_of(TIMED_OUT)


@pytest.mark.parametrize("fault", BAD)
async def test_no_broken_answer_shows_a_key(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the error, its cause and its context, not in a log, a warning or a pickle."""
    # Debug mode costs most: in the small run each fault meets one call in it, the next the other.
    offset = list(BAD).index(fault) % len(DEBUGGED)
    debugged = DEBUGGED if DEEP else DEBUGGED[offset : offset + 1]
    async with RawServer(BAD[fault]) as server:
        await assert_no_leak(server.url, caplog, debugged=debugged)
        assert all(leaks(asked.head) for asked in server.requests)
        assert len(server.requests) == len(SAMPLE_CALLS) + len(debugged)


@pytest.mark.parametrize("fault", SILENT)
async def test_no_timeout_shows_a_key(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """At any point of the request."""
    async with RawServer(SILENT[fault]) as server:
        await assert_no_leak(server.url, caplog, timeout=3.0)


async def test_no_refused_connection_shows_a_key(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does one that is never made, or is not trusted."""
    with closed_port() as url:
        await assert_no_leak(url, caplog)
        await assert_no_leak(url.replace("http:", "https:"), caplog)
    with unresponsive_port() as url:
        await assert_no_leak(url, caplog)
        await assert_no_leak(url, caplog, timeout=1.0)


async def test_no_failed_handshake_shows_a_key(caplog: pytest.LogCaptureFixture) -> None:
    """Where the server sends something other than TLS."""
    plain = Step(drop(http(400, b"this is plain HTTP")).run, reads=False)
    silent = Step(hang().run, reads=False)
    cases: list[tuple[Step, dict[str, Any]]] = [(plain, {}), (silent, {"timeout": 2.0})]
    for step, options in cases:
        async with RawServer(step) as server:
            await assert_no_leak(server.url.replace("http:", "https:"), caplog, **options)


async def test_no_body_over_the_limit_shows_a_key(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does a response that is too large."""
    async with RawServer(answer(b" " * 5000)) as server:
        await assert_no_leak(server.url, caplog, max_body=1000)


async def test_no_repetition_shows_a_key(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does a retry."""
    async with RawServer(
        *DROPPED_RESPONSES.values(), answer(b"", 429, [("Retry-After", "3")])
    ) as server:
        await assert_no_leak(server.url, caplog, retry=Retry(10, base_delay=0.1))


async def test_no_closing_shows_a_key(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does a session that is closed during a request, or that is not open at all."""
    async with RawServer(hang()) as server:
        for call in KEYED.values():
            async with watching(caplog):
                session = keyed_session(server.url)
                check_error(await caught(call, session, server.url))
                await session.open()
                task = asyncio.ensure_future(caught(call, session, server.url))
                await asyncio.sleep(0.1)
                await session.aclose()
                check_error(await task)


# -- a service that repeats the keys --------------------------------------------------------------


def keys_of(head: str) -> list[str]:
    """Return the keys of a request, decoded."""
    keys = [key for key in (*KEYS.values(), OWN_KEY) if quote(key, safe="") in head]
    return keys + [key for key in KEYS.values() if f"X-API-Key: {key}" in head]


def lower_case(key: str) -> str:
    """Return *key* percent-encoded in lower case."""
    encoded = quote(key, safe="")
    return "".join(
        letter.lower() if "%" in encoded[max(0, at - 2) : at] else letter
        for at, letter in enumerate(encoded)
    )


FORMS: Final[Mapping[str, Callable[[str], str]]] = MappingProxyType(
    {
        "raw": lambda key: key,
        "percent-encoded": lambda key: quote(key, safe=""),
        "percent-encoded in small letters": lower_case,
        "percent-encoded but for slashes": quote,
        "percent-encoded twice": lambda key: quote(quote(key, safe=""), safe=""),
        "form-encoded": quote_plus,
        "as JSON": lambda key: json.dumps(key)[1:-1],
        "as JSON in UTF-8": lambda key: json.dumps(key, ensure_ascii=False)[1:-1],
        "as PHP's JSON": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
        "as HTML": html.escape,
        "as HTML but for quotes": lambda key: html.escape(key, quote=False),
        "in capitals": str.upper,
    }
)


def echoing(reply: Callable[[str], bytes], form: str) -> Step:
    """Respond with what *reply* makes of the received keys, written in that form."""

    async def run(peer: Connection) -> None:
        keys = keys_of(peer.head.decode("latin-1")) or ["nothing"]
        await peer.send(reply(" ".join(FORMS[form](key) for key in keys)))

    return Step(run)


def with_words(status: int, words: str, name: str = "error") -> Callable[[str], bytes]:
    """Return an error envelope with an echo in its message."""

    def reply(echo: str) -> bytes:
        return http(status, json.dumps({"status": 0, name: f"{words} {echo} today"}).encode())

    return reply


def with_location(echo: str) -> bytes:
    """Return a redirect that repeats the query."""
    location = quote(echo, safe="%")
    return http(302, b"moved", [("Location", f"https://elsewhere.example/?key={location}")])


def with_headers(echo: str) -> bytes:
    """Return a response that repeats the key in its headers."""
    headers: Headers = [("Set-Cookie", f"key={quote(echo)}"), ("X-Key", quote(echo))]
    return http(500, b"", headers)


ECHOES: Final[Mapping[str, tuple[Callable[[str], bytes], type[PythpeerError]]]] = MappingProxyType(
    {
        "refusal": (with_words(200, "not today,"), ApiError),
        "refusal as 404": (with_words(404, "not here,", "message"), ApiError),
        "access": (with_words(200, "no access with"), AccessDeniedError),
        "status 401": (with_words(401, "who is"), AccessDeniedError),
        "status 403": (lambda echo: http(403, echo.encode()), AccessDeniedError),
        "limit": (with_words(200, "limit reached for"), RateLimitedError),
        "status 429": (with_words(429, "slow down,"), RateLimitedError),
        "page": (lambda echo: http(404, f"<html>{echo}</html>".encode()), HttpStatusError),
        "server error": (lambda echo: http(500, echo.encode()), HttpStatusError),
        "redirect": (with_location, HttpStatusError),
        "headers": (with_headers, HttpStatusError),
        "text": (lambda echo: http(200, f"you said {echo} and".encode()), DecodeError),
        "page under 200": (
            lambda echo: http(200, f"<html><title>{echo}</title></html>".encode()),
            DecodeError,
        ),
        "cut by the excerpt": (lambda echo: http(200, b"x" * 190 + echo.encode()), DecodeError),
        "other JSON": (lambda echo: http(200, f'"{echo * 9}"'.encode()), DecodeError),
    }
)


@pytest.mark.parametrize("form", FORMS)
async def test_no_echo_shows_a_key(form: str, caplog: pytest.LogCaptureFixture) -> None:
    """A key that a service repeats, in any form, is replaced in what an error shows."""
    for reply, kind in ECHOES.values():
        async with (
            RawServer(echoing(reply, form)) as server,
            watching(caplog),
            keyed_session(server.url) as session,
        ):
            for name in ("messages", "all_mail", "own_read"):
                error = await caught(KEYED[name], session, server.url)
                assert type(error) is kind
                check_error(error)
            for name in ("post", "unread_mail"):
                check_error(await caught(KEYED[name], session, server.url))


UNRELATED_KEYS: Final = {
    "peerbet_key": "Tr0ub4dor3",
    "personal_key": "correct-horse",
    "pythbots_api_key": "x9Zq7LmW2v",
}
"""Keys that have no part in common: where one is masked, the others are not."""


@pytest.mark.parametrize("name", ["messages", "post", "user", "staff", "all_mail", "own_read"])
async def test_no_other_key_of_the_session_is_shown(name: str) -> None:
    """A service may repeat a key that it got with another request."""
    echo = " ".join(UNRELATED_KEYS.values())
    for reply, _ in ECHOES.values():
        async with (
            RawServer(send(reply(echo))) as server,
            open_session(server.url, **dict[str, Any](UNRELATED_KEYS)) as session,
        ):
            shown = repr(await caught(KEYED[name], session, server.url))
            assert not [key for key in UNRELATED_KEYS.values() if key in shown]


async def test_no_key_of_an_earlier_call_is_shown() -> None:
    """In an error of any later request: a service may repeat what it got before."""
    key = "c4n4ryOfTheCallBefore"
    for reply, _ in ECHOES.values():
        async with (
            RawServer(answer(b"{}"), send(reply(key))) as server,
            open_session(server.url, **dict[str, Any](UNRELATED_KEYS)) as session,
        ):
            await session.call(Endpoint("mine", f"{server.url}/a"), key=Secret(key))
            for name in ("own_read", "messages", "unread_mail"):
                assert key not in repr(await caught(KEYED[name], session, server.url))


async def test_a_bounded_number_of_keys_of_earlier_calls_is_masked() -> None:
    """The latest different ones, as the page about secrecy states; each error searches for all."""
    keys = [hashlib.sha256(bytes([number])).hexdigest() for number in range(MAX_CALL_KEYS + 1)]
    page = (Path(__file__).parent.parent / "docs" / "secrecy.md").read_text(encoding="utf-8")
    assert f"last {MAX_CALL_KEYS} different ones that were given to `session.call()`" in page

    async def repeat(peer: Connection) -> None:
        await peer.send(with_words(200, "no")(peer.head.decode()))

    async with RawServer(Step(repeat)) as server, open_session(server.url) as session:
        endpoint = Endpoint("mine", server.url, query={"action": "x"}, rate=Rate(0.0))
        for key in (keys[0], *keys, keys[1], keys[1]):
            with pytest.raises(ApiError):
                await session.call(endpoint, key=Secret(key))
        shown = [key async for key in _shown(session, endpoint, keys)]
    assert shown == keys[:1]


async def _shown(
    session: Session, endpoint: Endpoint[Any], keys: Sequence[str]
) -> AsyncIterator[str]:
    """Yield the keys that an error shows when the service repeats them, sent as plain text."""
    for key in keys:
        with pytest.raises(ApiError) as error:
            await session.call(endpoint, key=key)
        if key in str(error.value):
            yield key


@pytest.mark.parametrize("form", FORMS)
async def test_no_note_shows_a_key(form: str, caplog: pytest.LogCaptureFixture) -> None:
    """A note on an error shows as little as the error."""
    reading = answer(b'{"status":1,"users_online":0,"message_list":[]}')
    async with (
        RawServer(reading, drop(), echoing(with_words(200, "not today,"), form)) as server,
        watching(caplog),
        keyed_session(server.url) as session,
    ):
        with pytest.raises(OutcomeUnknownError) as caught:
            await session.peerbet.post_long("hello there", confirm=True)
        reason, parts = caught.value.__notes__
        assert reason == "reading back failed: peerbet.chat.get: not today, *** today"
        assert parts == "0 of 1 parts were posted before this"
        check_error(caught.value)


@pytest.mark.parametrize("form", ["raw", "percent-encoded"])
@pytest.mark.parametrize("missing", [0, 1, 3])
async def test_no_excerpt_begins_with_most_of_a_key(form: str, missing: int) -> None:
    """Where only the beginning of a body is searched, a key across its end is not shown."""

    def reply(echo: str) -> bytes:
        body = echo.encode()
        return http(200, b" " * (64 * 1024 - len(body) + missing) + body + b" and so on")

    async with RawServer(echoing(reply, form)) as server, keyed_session(server.url) as session:
        for name in ("messages", "own_read"):
            error = await caught(KEYED[name], session, server.url)
            assert isinstance(error, DecodeError)
            check_error(error)


async def test_the_rest_of_an_echo_is_kept() -> None:
    """Only the key is replaced: the rest of the message stays."""
    async with (
        RawServer(echoing(with_words(200, "bad key"), "raw")) as server,
        keyed_session(server.url) as session,
    ):
        error = await caught(KEYED["messages"], session, server.url)
    assert isinstance(error, AccessDeniedError)
    assert error.message == "bad key *** today"
    assert str(error).startswith("peerbet.chat.get: bad key *** today (")


async def test_no_stream_shows_a_key(caplog: pytest.LogCaptureFixture) -> None:
    """What a stream logs while it keeps retrying, and what it raises at last, shows no key."""
    words = with_words(200, "not today,")
    steps = (
        *(echoing(words, form) for form in FORMS),
        echoing(lambda echo: http(200, echo.encode()), "raw"),
        *DROPPED_RESPONSES.values(),
        hang(),
        echoing(with_words(200, "no access with"), "raw"),
    )
    streams: list[Callable[[Session], Any]] = [
        lambda session: session.peerbet.chat_stream(after=0),
        lambda session: session.peerbet.chat_stream(),
        lambda session: session.pythbots.mail_stream(),
    ]
    for open_stream in streams:
        async with (
            RawServer(*steps) as server,
            watching(caplog),
            keyed_session(server.url) as session,
        ):
            stream = open_stream(session)
            with pytest.raises(AccessDeniedError) as raised:
                await anext(stream)
            check_error(raised.value)
            assert not leaks(repr(stream))
            assert len(server.requests) >= len(steps)
        assert any(record.levelno == logging.WARNING for record in caplog.records)


# -- hooks ----------------------------------------------------------------------------------------


class RecordingTelemetry(Telemetry):
    """Shows every event in every form, and then fails with the event in a local variable.

    Another telemetry, if there is one, receives it before.
    """

    def __init__(self, other: Telemetry | None = None) -> None:
        self.shown: list[str | bytes] = []
        for kind in ("request", "response", "retry", "gap", "store", "delivery"):
            before = getattr(other or Telemetry(), f"on_{kind}")
            setattr(self, f"on_{kind}", functools.partial(self._forward, before))

    def _forward(self, before: Callable[[object], None], event: object) -> None:
        before(event)
        self.show(event)

    def show(self, event: object) -> None:
        self.shown += [repr(event), msgspec.json.encode(event), pickle.dumps(event)]
        raise LookupError(event)


@contextmanager
def exporting() -> Iterator[tuple[OpenTelemetry, Callable[[], str]]]:
    """Yield a telemetry, and a function that shows its exports; aiohttp is instrumented as well."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    telemetry = OpenTelemetry(tracer_provider=tracers, meter_provider=meters)
    instrumentor = AioHttpClientInstrumentor()
    instrumentor.instrument(tracer_provider=tracers, meter_provider=meters, skip_dep_check=True)

    def exported() -> str:
        data = reader.get_metrics_data()
        return "".join(
            [
                *(span.to_json(indent=None) for span in spans.get_finished_spans()),
                data.to_json(indent=None) if data else "",
            ]
        )

    try:
        yield telemetry, exported
    finally:
        instrumentor.uninstrument()
        tracers.shutdown()
        meters.shutdown()


def check_health(session: Session) -> None:
    """Fail where the health of a session shows a key."""
    health = session.health()
    assert not leaks(repr(health))
    assert not leaks(msgspec.json.encode(health))


async def assert_no_leak_to_hooks(
    url: str, caplog: pytest.LogCaptureFixture, **options: Any
) -> None:
    """Let every call and every stream fail at *url*, and search what hooks and exporters get."""
    with exporting() as (telemetry, exported):
        recorder = RecordingTelemetry(telemetry)
        hooks = dict.fromkeys(("on_request", "on_response", "on_retry", "on_gap"), recorder.show)
        options = {"telemetry": recorder, **hooks, **options}
        async with watching(caplog):
            async with keyed_session(url, **options) as session:
                for name in SAMPLE_CALLS:
                    with contextlib.suppress(TimeoutError, PythpeerError):
                        async with asyncio.timeout(20.0):
                            await KEYED[name].run(session, url)
                    check_health(session)
            async with keyed_session(url, **options) as session:
                streams = session.peerbet.chat_stream(), session.pythbots.mail_stream()
                for stream in streams:
                    with contextlib.suppress(TimeoutError, PythpeerError):
                        async with asyncio.timeout(20.0):
                            await anext(stream)
                    check_health(session)
            for record in caplog.records:
                if record.exc_info and record.exc_info[1]:
                    check_error(record.exc_info[1])
        seen = exported()
        assert "url.full" in seen
        assert "http.client.request.duration" in seen
        assert not leaks(seen)
    assert recorder.shown
    assert not [text for text in recorder.shown if leaks(text)]


FAULTS: Final[Mapping[str, Step]] = MappingProxyType({**dict(BAD), **dict(SILENT)})


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_hook_receives_a_key(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not in an event, a span, a metric, in health, or in the log of a broken hook."""
    async with RawServer(FAULTS[fault]) as server:
        await assert_no_leak_to_hooks(server.url, caplog, timeout=3.0)
        assert server.requests


async def test_no_hook_receives_a_key_of_a_request_that_never_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where connections are refused, are not accepted, or are not trusted."""
    with closed_port() as url:
        await assert_no_leak_to_hooks(url, caplog)
        await assert_no_leak_to_hooks(url.replace("http:", "https:"), caplog)
    with unresponsive_port() as url:
        await assert_no_leak_to_hooks(url, caplog, timeout=1.0)


async def test_no_hook_receives_a_key_that_is_echoed(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does the error message of a service."""
    for form, name in (("raw", "refusal"), ("percent-encoded", "status 401"), ("as JSON", "text")):
        async with RawServer(echoing(ECHOES[name][0], form)) as server:
            await assert_no_leak_to_hooks(server.url, caplog)


# -- cancellation from outside --------------------------------------------------------------------


async def by_timeout(call: Call, session: Session, url: str) -> None:
    async with asyncio.timeout(1.0):
        await call.run(session, url)


async def by_fail_after(call: Call, session: Session, url: str) -> None:
    with anyio.fail_after(1.0):
        await call.run(session, url)


async def by_wait_for(call: Call, session: Session, url: str) -> None:
    await asyncio.wait_for(call.run(session, url), 1.0)


async def by_cancel(call: Call, session: Session, url: str) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(1.0, task.cancel)
    await call.run(session, url)


def raise_lookup_error() -> None:
    raise LookupError


async def by_failed_task(call: Call, session: Session, url: str) -> None:
    async def run() -> None:
        await call.run(session, url)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await asyncio.sleep(1.0)
        raise_lookup_error()


async def by_nested(call: Call, session: Session, url: str) -> None:
    try:
        async with asyncio.timeout(1.0):
            await call.run(session, url)
    except TimeoutError as error:
        raise LookupError from error


CANCELLATIONS: Final = (
    by_timeout,
    by_fail_after,
    by_wait_for,
    by_cancel,
    by_failed_task,
    by_nested,
)


async def interrupt(
    cancel_by: Callable[[Call, Session, str], Any], url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Cancel every call in one way, and search everywhere."""
    for name in SAMPLE_CALLS:
        debug = name == "post"
        async with watching(caplog, debug=debug), keyed_session(url, timeout=8.0) as session:
            task = asyncio.ensure_future(cancel_by(KEYED[name], session, url))
            with pytest.raises(BaseException) as ended:  # of any class
                await task
            assert not isinstance(ended.value, (AssertionError, NameError, TypeError))
            check_error(ended.value)
            assert not leaks(repr(task))


@pytest.mark.parametrize("cancel_by", CANCELLATIONS)
@pytest.mark.parametrize("fault", ["silence", "silence within the body", "head by drips"])
async def test_no_cancelled_request_shows_a_key(
    fault: str, cancel_by: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A cancellation passes through the frames that held the key."""
    async with RawServer(SILENT[fault]) as server:
        await interrupt(cancel_by, server.url, caplog)
        assert len(server.requests) == len(SAMPLE_CALLS)


@pytest.mark.parametrize("cancel_by", CANCELLATIONS)
async def test_no_cancelled_connection_shows_a_key(
    cancel_by: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor do those of a request that waits for its connection."""
    with unresponsive_port() as url:
        await interrupt(cancel_by, url, caplog)


async def test_no_cancelled_wait_shows_a_key(caplog: pytest.LogCaptureFixture) -> None:
    """Nor do those of a call that waits for its token, or for its next attempt."""
    async with RawServer(error_page(500)) as server:
        for name in ("messages", "all_mail", "own_read"):
            options: dict[str, Any] = {"retry": Retry(9, base_delay=9e9, max_delay=9e9)}
            async with watching(caplog), keyed_session(server.url, **options) as session:
                with pytest.raises(TimeoutError) as ended:
                    await by_timeout(KEYED[name], session, server.url)
                check_error(ended.value)
            pacing_options = {
                "rates": {"peerbet.chat.get": Rate(50.0), "pythbots.mail": Rate(50.0)}
            }
            async with watching(caplog), keyed_session(server.url, **pacing_options) as session:
                await caught(KEYED[name], session, server.url)
                if name != "own_read":
                    with pytest.raises(TimeoutError) as ended:
                        await by_timeout(KEYED[name], session, server.url)
                    check_error(ended.value)


@pytest.mark.parametrize("cancel_by", CANCELLATIONS)
async def test_no_hook_receives_a_key_of_a_cancelled_request(
    cancel_by: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Hooks receive the event, and inherit nothing of the exception that is raised."""
    async with RawServer(hang()) as server:
        recorder = RecordingTelemetry()
        with exporting() as (telemetry, exported):
            for listener in (telemetry, recorder):
                for name in SAMPLE_CALLS:
                    async with (
                        watching(caplog),
                        keyed_session(
                            server.url, telemetry=listener, on_response=recorder.show, timeout=8.0
                        ) as session,
                    ):
                        task = asyncio.ensure_future(cancel_by(KEYED[name], session, server.url))
                        with pytest.raises(BaseException) as ended:  # of any class
                            await task
                        check_error(ended.value)
                    for record in caplog.records:
                        if record.exc_info and record.exc_info[1]:
                            check_error(record.exc_info[1])
            assert '"cancelled"' in exported()
            assert not leaks(exported())
        assert not [text for text in recorder.shown if leaks(text)]


# -- representations ------------------------------------------------------------------------------


async def test_nothing_that_holds_a_key_shows_it() -> None:
    """The reprs of a session and of all its parts can be logged."""
    async with RawServer(answer()) as server, keyed_session(server.url) as session:
        for call in KEYED.values():
            await call.run(session, server.url)
        endpoint = Endpoint("own", f"{server.url}/own", query={"k": Secret(OWN_KEY)})
        request = Request(endpoint, {"k2": Secret(OWN_KEY)}, {"X-Key": Secret(OWN_KEY)})
        things = [
            session,
            session.peerbet,
            session.pythbots,
            session.limiters,
            *session.limiters.values(),
            session.peerbet.chat_stream(),
            session.pythbots.mail_stream(name="mine"),
            endpoint,
            request,
            request.segments,
            request.secrets(),
            vars(session),
            vars(session.peerbet),
            vars(session.pythbots),
        ]
        for thing in things:
            assert not leaks(f"{thing!r} {thing!s} {thing}")
        assert "***" in repr(request)


async def test_nothing_that_holds_a_key_is_pickled() -> None:
    """Pickling an object with a key raises an error, or the pickle has no key in it."""
    async with RawServer(answer()) as server, keyed_session(server.url) as session:
        request = Request(Endpoint("own", server.url), {"k": Secret(OWN_KEY)})
        for thing in (session, session.peerbet, session.pythbots, request, request.segments):
            with pytest.raises((TypeError, pickle.PicklingError)) as raised:
                pickle.dumps(thing)
            check_error(raised.value)


async def test_the_results_and_the_store_hold_no_key() -> None:
    """The result of a call and the stored data have no key that was only sent."""
    page = http(
        200,
        b'{"status":1,"users_online":1,"message_list":'
        b'[{"id":1,"by":"a","to":"","msg":"b","date":"","bot":0,"my":0,"me":0}]}',
    )
    async with (
        RawServer(Step(lambda peer: peer.send(page))) as server,
        keyed_session(server.url) as session,
    ):
        results = [await KEYED[name].run(session, server.url) for name in ("messages", "user")]
        stream = session.peerbet.chat_stream(after=0, name="mine")
        results.append(await anext(stream))
        assert not leaks(repr(results))
        store = session._store
        assert not leaks(f"{store!r} {vars(store)!r}")


# -- settings -------------------------------------------------------------------------------------

WRONG_KEYS: Final[Mapping[str, Callable[[], Any]]] = MappingProxyType(
    {
        "bytes": OWN_KEY.encode,
        "a list": lambda: [OWN_KEY],
        "a mapping": lambda: {"key": OWN_KEY},
        "an exception": lambda: ValueError(OWN_KEY),
        "a line break": lambda: f"{OWN_KEY}\n",
        "a carriage return": lambda: f"{OWN_KEY}\r\nX: y",
        "a NUL": lambda: f"{OWN_KEY}\0",
        "a control character": lambda: f"{OWN_KEY}\x85",
        "a lone surrogate": lambda: f"{OWN_KEY}\ud800",
        "an object": functools.partial(type, OWN_KEY, (), {}),
    }
)


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("wrong", WRONG_KEYS)
def test_no_wrong_key_is_shown(wrong: str, name: str) -> None:
    """The error about a key does not show it, wherever the key was passed."""
    with pytest.raises(InvalidRequestError) as raised:
        Session(**{**KEYS, name: WRONG_KEYS[wrong]()})
    check_error(raised.value)
    with pytest.raises(InvalidRequestError) as raised:
        Session.from_env(**{**KEYS, name: WRONG_KEYS[wrong]()})
    check_error(raised.value)


def test_no_key_that_does_not_fit_a_header_is_shown() -> None:
    """A key that is sent in a header must be ASCII, and is not shown where it is not."""
    for make in (Session, Session.from_env):
        with pytest.raises(InvalidRequestError) as raised:
            make(pythbots_api_key=KEYS["peerbet_key"])
        check_error(raised.value)


WRONG_OPTIONS: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "url": {"peerbet_url": "http://www.peerbet.org"},
        "other url": {"pythbots_url": "ftp://pythbots.com"},
        "timeout": {"timeout": -1},
        "max_wait": {"max_wait": "long"},
        "max_body": {"max_body": 0},
        "rates": {"rates": {"peerbet.chat.get": 1.0}},
        "retry": {"retry": 4},
        "store": {"store": "memory"},
        "key parameter": {"personal_key_param": ""},
        "ssl_context": {"ssl_context": False},
    }
)


@pytest.mark.parametrize("wrong", WRONG_OPTIONS)
def test_no_wrong_option_shows_a_key(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error about another option does not show the valid keys."""
    with pytest.raises(InvalidRequestError) as raised:
        Session(**{**KEYS, **WRONG_OPTIONS[wrong]})  # type: ignore[arg-type]  # on purpose
    check_error(raised.value)
    for name, variable in (
        ("peerbet_key", "PYTHPEER_PEERBET_KEY"),
        ("personal_key", "PYTHPEER_PERSONAL_KEY"),
        ("pythbots_api_key", "PYTHPEER_PYTHBOTS_API_KEY"),
    ):
        monkeypatch.setenv(variable, KEYS[name])
    with pytest.raises(InvalidRequestError) as raised:
        Session.from_env(**WRONG_OPTIONS[wrong])  # type: ignore[arg-type]  # on purpose
    check_error(raised.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PYTHPEER_PEERBET_KEY", f"{OWN_KEY}\x01"),
        ("PYTHPEER_PERSONAL_KEY", f"{OWN_KEY}\r\nx"),
        ("PYTHPEER_PYTHBOTS_API_KEY", f"{OWN_KEY}é"),
        ("PYTHPEER_PEERBET_URL", "http://www.peerbet.org"),
        ("PYTHPEER_STORE", "nonsense://x"),
    ],
    ids=["peerbet", "personal", "api", "url", "store"],
)
def test_no_wrong_variable_shows_a_key(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of the environment are as safe as those passed as arguments."""
    monkeypatch.setenv("PYTHPEER_PEERBET_KEY", KEYS["peerbet_key"])
    monkeypatch.setenv("PYTHPEER_PERSONAL_KEY", KEYS["personal_key"])
    monkeypatch.setenv("PYTHPEER_PYTHBOTS_API_KEY", KEYS["pythbots_api_key"])
    monkeypatch.setenv(variable, value)
    del value
    with pytest.raises(InvalidRequestError) as raised:
        Session.from_env()
    check_error(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis:/:{}@host/0",
        "redis::{}@host/0",
        "redis:{}@host",
        "REDISS:/user:{}@host",
        "redis//:{}@host/0",
        "valkey:{}",
        "//:{}@host",
        "user:{}@host:6379",
        "{}@host:6379/0",
        "{}@h:1",
        "/{}@host:6379/0",
        "host:6379:{}",
        "host:6379/0?password={}",
        "host/0?password={}",
        " redis:/:{}@host",
        "redis://:{}@host/" + "9" * 5000,
        "redis://:{}@host:" + "9" * 5000,
        "redis://:{}@host/0?password=x",
        "http://:{}@host",
        "redis://:{}@[host/0",
        "~{}/store.sqlite",
        "{}\0",
        "{}\ud800",
    ],
)
def test_no_mistyped_store_shows_a_password(url: str) -> None:
    """It is taken neither for a path, which errors show, nor for another URL."""
    error = store_from_url(url.format(KEYS["peerbet_key"]))
    assert type(error) is InvalidRequestError
    assert str(error).startswith("PYTHPEER_STORE: ")
    assert len(str(error)) < 200
    check_error(error)


@pytest.mark.parametrize(
    "path",
    [
        "bot.sqlite",
        "redis.sqlite",
        "redis/a",
        "/a/b@c/d",
        "C:\\me@home\\a",
        "a:b",
        "x@y",
        "./a:63",
        "a:1",
    ],
)
def test_a_path_is_no_mistyped_url(path: str) -> None:
    """Names of files may have most characters."""
    assert isinstance(store_from_url(path), SqliteStore)


async def test_no_wrong_argument_shows_a_key() -> None:
    """A call that raises before it is sent shows no key that would have been sent with it."""
    async with keyed_session("https://www.peerbet.org") as session:
        endpoint = Endpoint("own", "https://www.peerbet.org/own", query={"a": "b"})
        wrong: list[Callable[[], Any]] = [
            functools.partial(session.peerbet.post, "x" * 251),
            lambda: session.pythbots.send_mail("", "x"),
            lambda: session.peerbet.messages(after=-1),
            lambda: session.call(endpoint, token=Secret(OWN_KEY), other=float("nan")),
            lambda: session.call(endpoint, token=Secret(OWN_KEY), a="twice"),
        ]
        for ask in wrong:
            with pytest.raises(InvalidRequestError) as raised:
                await ask()
            check_error(raised.value)


# -- the tests themselves -------------------------------------------------------------------------


def test_the_search_finds_what_is_there() -> None:
    """A key in a text, an attribute, a frame or behind ``from None`` is found."""

    def fail() -> None:
        local = OWN_KEY
        try:
            int("no number", len(local))
        except ValueError:
            raise ValueError("hidden") from None

    for leak in (ValueError(OWN_KEY), ValueError([quote(OWN_KEY)]), ApiError(message=OWN_KEY)):
        with pytest.raises(AssertionError):
            check_error(leak)
    with pytest.raises(ValueError) as leaked:
        fail()
    with pytest.raises(AssertionError):
        check_error(leaked.value)
    assert leaks(OWN_KEY.encode())
    assert all(leaks(form(key)) for form in FORMS.values() for key in KEYS.values())
    assert unquote(lower_case(OWN_KEY)) == OWN_KEY
    check_error(ValueError("nothing of interest"))
    assert GOOD.isascii()
    assert isinstance(api_error("no"), Step)


async def test_no_cache_keeps_a_key() -> None:
    """Not those of yarl, which outlive the session: no URL with a key is ever made."""
    key = "kept-in-no-cache"  # other tests leave the usual canaries in caches of urllib
    keys = dict.fromkeys(KEYS, key)
    calls = [call for name, call in CALLS.items() if not name.startswith("own_")]
    async with (
        RawServer(answer()) as server,
        open_session(server.url, **dict[str, Any](keys)) as session,
    ):
        for call in (*calls, *(custom_call(effect, Secret(key)) for effect in Effect)):
            await call.run(session, server.url)
    URL("https://cached.example/?key=of-the-test")
    texts = cached_texts()
    assert any("of-the-test" in text for text in texts)
    assert not any(key in text for text in texts)
