"""Runs one cell of the fault table: a call, or a stream, with one reproduction of a fault.

`run_call` and `run_stream` return the outcome without using the expectations of the table.
`expected_call` and `expected_stream` return the outcome that follows from the table alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from faults import DOCUMENT, MAX_BODY, MAX_WAIT, TIMEOUT, Expectation, FaultRow, Reproduction
from helpers import now, wait_for_io
from raw_server import CALLS, RawServer, answer, client_context, open_session, server_context

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
"""Attempts of a read."""

NO_FAULT: Final = Reproduction(answer(DOCUMENT))
"""A valid response."""

INCOMPLETE: Final = (RequestTimeoutError, ResponseTooLargeError)
"""The errors of responses that were not read to their end."""

OUTAGE_SECONDS: Final = 25.0
"""Seconds until a stream can connect: more than twice the time limit of an attempt."""


class RecordingRetry(Retry, frozen=True):
    """A retry policy that records the time of each failed attempt."""

    failures: list[float] = msgspec.field(default_factory=list)
    """The loop's time at each call of `delay`, which adds it."""

    def delay(self, error: PythpeerError, attempt: int) -> float | None:
        self.failures.append(now())
        return super().delay(error, attempt)


def session_at(url: str, retry: Retry) -> Session:
    return open_session(
        url,
        retry=retry,
        timeout=TIMEOUT,
        max_wait=MAX_WAIT,
        idle_check=0.0,  # an empty page is not followed by a look
        max_body=MAX_BODY,
        ssl_context=client_context(),
    )


@asynccontextmanager
async def reproduce(
    fault: Reproduction, *following: Reproduction
) -> AsyncIterator[tuple[str, RawServer | None]]:
    """A URL at which requests meet *fault* and then *following*, and the server if there is one."""
    if fault.address is None:
        steps = [reproduction.step for reproduction in (fault, *following)]
        async with RawServer(*([fault.first_step] if fault.first_step else []), *steps) as server:
            yield server.url.replace("127.0.0.1", fault.host), server
        return
    address = fault.address()
    if isinstance(address, AbstractAsyncContextManager):
        async with address as url:
            yield url, None
    else:
        with address as url:
            yield url, None


# -- a call ---------------------------------------------------------------------------------------


class CallResult(NamedTuple):
    """The outcome of a call, and what the server received."""

    error: type[PythpeerError] | None
    endpoint: str | None
    sent: bool | None
    status: int | None
    message: str | None
    retry_after: float | None

    retried: bool
    request_count: int
    """How many requests the server received."""

    seconds: float
    """Seconds until the end of the first attempt."""

    leaked_connections: int
    """How many connections are open that must not be used again: connections for one request, and
    those whose response was not read to its end."""


async def run_call(name: str, fault: Reproduction) -> tuple[CallResult, object]:
    """Make a call of `CALLS` that meets *fault*. Returns the outcome, and the result or error."""
    call, retry = CALLS[name], RecordingRetry(ATTEMPTS, base_delay=0.0)
    async with reproduce(fault) as (url, server), session_at(url, retry) as session:
        if fault.first_step:
            await call.run(session, url)
            await wait_for_io()
        previous, start = len(server.requests) if server else 0, now()
        try:
            result: object = await call.run(session, url)
        except PythpeerError as raised:
            result = raised
        end = retry.failures[0] if retry.failures else now()
        await wait_for_io()
        request_count = len(server.requests) - previous if server else 0
        must_close = call.effect is not Effect.READ or isinstance(result, INCOMPLETE)
        leaked_connections = len(server.open_connections) if server and must_close else 0
    error = result if isinstance(result, PythpeerError) else None
    outcome = CallResult(
        type(error) if error else None,
        getattr(error, "endpoint", None),
        getattr(error, "sent", None),
        getattr(error, "status", None),
        getattr(error, "message", None),
        getattr(error, "retry_after", None),
        retried=len(retry.failures) > 1,
        request_count=request_count,
        seconds=round(end - start, 1),
        leaked_connections=leaked_connections,
    )
    if fault.status_optional and outcome.error is OutcomeUnknownError and outcome.status is None:
        outcome = outcome._replace(status=fault.status)
    return outcome, result


def expected_call(name: str, row: FaultRow, fault: Reproduction) -> CallResult:
    """The outcome of a call that the contract promises."""
    call, expectation = CALLS[name], row.overrides.get(name, row.expectation)
    is_read = call.effect is Effect.READ
    error = expectation.read if is_read else expectation.single_attempt
    retried = expectation.retried and is_read
    request_count = 0
    if expectation.sent and fault.step.reads:
        request_count = ATTEMPTS if retried else 1
        request_count += fault.kept_connection_closed and is_read

    def is_one_of(*types: type[PythpeerError]) -> bool:
        return error is not None and issubclass(error, types)

    has_status = is_one_of(OutcomeUnknownError, HttpStatusError, ApiError)
    return CallResult(
        error,
        call.endpoint if error else None,
        expectation.sent if is_one_of(TransportError) else None,
        fault.status if has_status else None,
        fault.message if is_one_of(ApiError) else None,
        fault.retry_after if is_one_of(RateLimitedError) else None,
        retried=retried,
        request_count=request_count,
        seconds=row.seconds,
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
"""The streams, each by the name of the call that makes the same request."""


class StreamResult(NamedTuple):
    """What a stream raised and returned, and its requests."""

    error: type[PythpeerError] | None
    """What was raised instead of an item at first."""

    item: int | None
    """The id of the item."""

    recovered: bool
    polls: tuple[str, ...]
    """``"new"`` or ``"history"`` for each request."""


async def run_stream(name: str, fault: Reproduction) -> StreamResult:
    """Read one item of a stream of `STREAMS` that meets *fault*, and then a working service."""
    async with AsyncExitStack() as outage, AsyncExitStack() as stack, asyncio.timeout(10_000.0):
        url, server = await outage.enter_async_context(reproduce(fault, NO_FAULT))
        session = await stack.enter_async_context(session_at(url, Retry(max_delay=2.0)))
        stream = STREAMS[name](session)
        if fault.first_step:
            assert (await anext(stream)).id == 1
            await wait_for_io()
        previous = len(server.requests) if server else 0
        works = asyncio.Event()
        reading = asyncio.ensure_future(_next_item(stream, works))
        if server is None:
            await asyncio.sleep(OUTAGE_SECONDS)
            await outage.aclose()
            tls = server_context() if url.startswith("https:") else None
            working = RawServer(NO_FAULT.step, tls=tls, port=urlsplit(url).port or 0)
            server = await stack.enter_async_context(working)
        works.set()
        error, item = await reading
    recovered = isinstance(item, Mail) and item.recovered
    return StreamResult(
        error, item.id, recovered, tuple(map(_poll_kind, server.targets[previous:]))
    )


async def _next_item(
    stream: Stream[Item], works: asyncio.Event
) -> tuple[type[PythpeerError] | None, Item]:
    """Return the next item, and what the stream raised before it, once the service *works*."""
    try:
        return None, await anext(stream)
    except PythpeerError as raised:
        error = type(raised)
    await works.wait()
    return error, await anext(stream)


def _poll_kind(target: str) -> str:
    return "history" if target.endswith("&readall") else "new"


def may_lose_items(name: str, expectation: Expectation) -> bool:
    """Whether the read of a stream may have changed the service although its response is lost."""
    destructive = CALLS[name].effect is Effect.CONSUME
    return destructive and expectation.single_attempt is OutcomeUnknownError


def expected_stream(name: str, row: FaultRow, fault: Reproduction) -> StreamResult:
    """The outcome of a stream that the contract promises."""
    expectation = row.overrides.get(name, row.expectation)
    lost = may_lose_items(name, expectation)
    polls = ["new"] if expectation.sent and fault.step.reads else []
    if expectation.stream != "continues" or not expectation.has_items:
        polls.append("history" if lost else "new")
    error = expectation.read if expectation.stream == "raises" else None
    return StreamResult(error, 2, lost, tuple(polls))
