"""One cell of the fault table: one call, or one stream, that meets one fault, and what comes of it.

What came of it (`ask`, `watch`) is found out without looking at what is expected (`expected`,
`expected_of_stream`), which is worked out from the table alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from faults import DOCUMENT, MAX_BODY, MAX_WAIT, TIMEOUT, FaultRow, Expectation, Reproduction
from helpers import now, wait_for_io
from raw_server import CALLS, RawServer, answer, open_session, server_context, client_context

from pythpeer import (
    ApiError,
    ChatMessage,
    Effect,
    HttpStatusError,
    Mail,
    OutcomeUnknownError,
    PythpeerError,
    RateLimitedError,
    RequestTimeoutError,
    ResponseTooLargeError,
    Retry,
    Session,
    Stream,
    TransportError,
)

ATTEMPTS: Final = 2

NO_FAULT: Final = Reproduction(answer(DOCUMENT))
"""No fault at all."""

UNFINISHED: Final = (RequestTimeoutError, ResponseTooLargeError)
"""The errors of answers that were not read to their end."""

OUTAGE_SECONDS: Final = 20.0
"""Seconds for which a stream finds nobody: over twice the time limit of an attempt."""


class SpyRetry(Retry, frozen=True):
    """A policy that notes when the reads failed that it is asked about."""

    failures: list[float] = msgspec.field(default_factory=list)

    def delay(self, error: PythpeerError, attempt: int) -> float | None:
        self.failures.append(now())
        return super().delay(error, attempt)


def session_at(url: str, retry: Retry) -> Session:
    return open_session(
        url,
        retry=retry,
        timeout=TIMEOUT,
        max_wait=MAX_WAIT,
        max_body=MAX_BODY,
        ssl_context=client_context(),
    )


@asynccontextmanager
async def reproduce(way: Reproduction, *more: Reproduction) -> AsyncIterator[tuple[str, RawServer | None]]:
    """Where requests meet this, and *more* after it; and the server, where there is one."""
    if way.address is None:
        steps = [each.step for each in (way, *more)]
        async with RawServer(*([way.first_step] if way.first_step else []), *steps) as server:
            yield server.url.replace("127.0.0.1", way.host), server
        return
    place = way.address()
    if isinstance(place, AbstractAsyncContextManager):
        async with place as url:
            yield url, None
    else:
        with place as url:
            yield url, None


# -- a call ---------------------------------------------------------------------------------------


class CallResult(NamedTuple):
    """What a caller gets, and what it took."""

    error: type[PythpeerError] | None
    endpoint: str | None
    sent: bool | None
    status: int | None
    message: str | None
    retry_after: float | None

    repeated: bool
    request_count: int
    """How many requests reached the server."""

    seconds: float
    """Seconds until the first attempt was over."""

    leaked_connections: int
    """How many connections are open that nobody may use again: they were meant for one request, or
    its answer was not read to its end."""


async def run_call(name: str, way: Reproduction) -> tuple[CallResult, object]:
    """Have a call of `CALLS` meet this. Returns what its caller got, and that itself."""
    call, retry = CALLS[name], SpyRetry(ATTEMPTS, base_delay=0.0)
    async with reproduce(way) as (url, server), session_at(url, retry) as session:
        if way.first_step:
            await call.run(session, url)
            await wait_for_io()
        before, start = len(server.requests) if server else 0, now()
        try:
            result: object = await call.run(session, url)
        except PythpeerError as raised:
            result = raised
        end = retry.failures[0] if retry.failures else now()
        await wait_for_io()
        asked = len(server.requests) - before if server else 0
        spent = call.effect is not Effect.READ or isinstance(result, UNFINISHED)
        loose = len(server.open_connections) if server and spent else 0
    error = result if isinstance(result, PythpeerError) else None
    got = CallResult(
        type(error) if error else None,
        getattr(error, "endpoint", None),
        getattr(error, "sent", None),
        getattr(error, "status", None),
        getattr(error, "message", None),
        getattr(error, "retry_after", None),
        repeated=len(retry.failures) > 1,
        request_count=asked,
        seconds=round(end - start, 1),
        leaked_connections=loose,
    )
    if way.status_optional and got.error is OutcomeUnknownError and got.status is None:
        got = got._replace(status=way.status)
    return got, result


def expected_call(name: str, fault: FaultRow, way: Reproduction) -> CallResult:
    """What the contract says that the caller gets."""
    call, kind = CALLS[name], fault.overrides.get(name, fault.expectation)
    read = call.effect is Effect.READ
    error = kind.read if read else kind.single_attempt
    repeated = kind.repeated and read
    reached = kind.sent and way.step.reads

    def told(*having: type[PythpeerError]) -> bool:
        return error is not None and issubclass(error, having)

    return CallResult(
        error,
        call.endpoint if error else None,
        kind.sent if told(TransportError) else None,
        way.status if told(OutcomeUnknownError, HttpStatusError, ApiError) else None,
        way.message if told(ApiError) else None,
        way.retry_after if told(RateLimitedError) else None,
        repeated=repeated,
        request_count=reached * (ATTEMPTS if repeated else 1),
        seconds=fault.seconds,
        leaked_connections=0,
    )


# -- a stream -------------------------------------------------------------------------------------

Item = ChatMessage | Mail

STREAMS: Final[Mapping[str, Callable[[Session], Stream[Item]]]] = MappingProxyType(
    {
        "messages": lambda session: session.peerbet.chat_stream(after=0),
        "unread_mail": lambda session: session.pythbots.mail_stream(),
    }
)
"""The streams, each by the call that asks for the same."""


class StreamResult(NamedTuple):
    """What whoever iterates gets, and what the stream asked for to give it."""

    raised: type[PythpeerError] | None
    """What was raised instead of an item, before it was asked again."""

    item: int | None
    recovered: bool
    polls: tuple[str, ...]


async def run_stream(name: str, way: Reproduction) -> StreamResult:
    """Have a stream of `STREAMS` meet this, and a service that works after it."""
    async with AsyncExitStack() as place, AsyncExitStack() as stack, asyncio.timeout(10_000.0):
        url, server = await place.enter_async_context(reproduce(way, NO_FAULT))
        session = await stack.enter_async_context(session_at(url, Retry(max_delay=2.0)))
        stream = STREAMS[name](session)
        if way.first_step:
            assert (await anext(stream)).id == 1
            await wait_for_io()
        before = len(server.requests) if server else 0
        mended = asyncio.Event()
        asking = asyncio.ensure_future(_next_item(stream, mended))
        if server is None:
            await asyncio.sleep(OUTAGE_SECONDS)
            await place.aclose()
            tls = server_context() if url.startswith("https:") else None
            working = RawServer(NO_FAULT.step, tls=tls, port=urlsplit(url).port or 0)
            server = await stack.enter_async_context(working)
        mended.set()
        raised, item = await asking
    recovered = isinstance(item, Mail) and item.recovered
    return StreamResult(raised, item.id, recovered, tuple(map(_poll_kind, server.targets[before:])))


async def _next_item(
    stream: Stream[Item], mended: asyncio.Event
) -> tuple[type[PythpeerError] | None, Item]:
    try:
        return None, await anext(stream)
    except PythpeerError as error:
        raised = type(error)
    await mended.wait()
    return raised, await anext(stream)


def _poll_kind(target: str) -> str:
    return "history" if target.endswith("&readall") else "news"


def may_lose_items(name: str, kind: Expectation) -> bool:
    """Whether a stream may have lost what it asked for: it was consumed, and never came."""
    return CALLS[name].effect is Effect.CONSUME and kind.single_attempt is OutcomeUnknownError


def expected_stream(name: str, fault: FaultRow, way: Reproduction) -> StreamResult:
    """What the contract says that the stream does."""
    kind = fault.overrides.get(name, fault.expectation)
    lost = may_lose_items(name, kind)
    polls = ["news"] if kind.sent and way.step.reads else []
    if kind.stream != "goes on" or not kind.has_items:
        polls.append("history" if lost else "news")
    return StreamResult(kind.read if kind.stream == "raises" else None, 2, lost, tuple(polls))
