"""The time limit of one call: ``timeout=`` of each method, and `Endpoint.with_timeout`."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import pytest
from helpers import now, wait_for_io, wait_until
from raw_server import Connection, RawServer, Step, answer, failure, hang, open_session

from pythpeer import (
    Effect,
    Endpoint,
    InvalidRequestError,
    OutcomeUnknownError,
    Peerbet,
    PythBots,
    PythpeerError,
    Rate,
    RequestTimeoutError,
    Retry,
    Session,
)
from pythpeer.testing import FakeServices, Fault

pytestmark = pytest.mark.anyio

Run = Callable[[Session, str, Any], Awaitable[object]]
"""Makes a call, with the URL of the server and a time limit."""


class Limited(NamedTuple):
    """A call with a time limit of its own, and whether it must not be repeated."""

    run: Run
    sent_once: bool = False


def custom(effect: Effect) -> Limited:
    """A call of an endpoint that the user declares."""

    async def run(session: Session, url: str, timeout: float) -> object:
        endpoint = Endpoint("own", f"{url}/own", effect=effect, rate=Rate(0.0))
        return await session.call(endpoint.with_timeout(timeout), a=1)

    return Limited(run, effect is not Effect.READ)


CALLS: Final = {
    "messages": Limited(lambda session, _, limit: session.peerbet.messages(timeout=limit)),
    "post": Limited(lambda session, _, limit: session.peerbet.post("a", timeout=limit), True),
    "post_long": Limited(
        lambda session, _, limit: session.peerbet.post_long("a " * 200, timeout=limit), True
    ),
    "roll": Limited(
        lambda session, _, limit: session.peerbet.roll("1", target=50, side="low", timeout=limit),
        True,
    ),
    "user": Limited(lambda session, _, limit: session.pythbots.user("a", timeout=limit)),
    "staff": Limited(lambda session, _, limit: session.pythbots.staff(7, timeout=limit)),
    "stats": Limited(lambda session, _, limit: session.pythbots.stats(7, timeout=limit)),
    "send_mail": Limited(
        lambda session, _, limit: session.pythbots.send_mail("a", "b", timeout=limit), True
    ),
    "unread_mail": Limited(
        lambda session, _, limit: session.pythbots.unread_mail(timeout=limit), True
    ),
    "all_mail": Limited(lambda session, _, limit: session.pythbots.all_mail(timeout=limit)),
    "own_read": custom(Effect.READ),
    "own_consume": custom(Effect.CONSUME),
    "own_write": custom(Effect.WRITE),
}
"""Each call of the public interface."""

ON_SERVICES: Final = [name for name in CALLS if not name.startswith("own_")]
"""Those of the two services."""


def test_each_awaited_call_can_have_a_time_limit() -> None:
    """``timeout`` is a keyword, and by default the limit is that of the session."""
    methods = {
        name: method
        for service in (Peerbet, PythBots)
        for name, method in inspect.getmembers(service, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    assert methods.keys() == set(ON_SERVICES)
    for method in methods.values():
        timeout = inspect.signature(method).parameters["timeout"]
        assert timeout.kind is inspect.Parameter.KEYWORD_ONLY
        assert timeout.default is None


@pytest.mark.parametrize("limit", [10.25, 61.0])
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_ends_at_its_own_limit(name: str, limit: float) -> None:
    """Whether that of the session is longer or shorter; the error states the limit that passed."""
    session_limit = 20.0
    async with (
        RawServer(hang()) as server,
        open_session(server.url, timeout=session_limit) as session,
    ):
        start = now()
        with pytest.raises(PythpeerError, match=rf"time limit of {limit:g} s") as caught:
            await CALLS[name].run(session, server.url, limit)
        assert now() - start == pytest.approx(limit, abs=1e-3)
        assert type(caught.value) is (
            OutcomeUnknownError if CALLS[name].sent_once else RequestTimeoutError
        )
        assert len(server.requests) == 1
        error = await failure("own_read", session, server.url)  # without a limit of its own
        assert f"time limit of {session_limit:g} s" in str(error)
        assert now() - start == pytest.approx(limit + session_limit, abs=1e-3)


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_without_a_limit_waits(name: str) -> None:
    """Infinity is no limit, also in a session that has one."""

    async def close_late(connection: Connection) -> None:
        await asyncio.sleep(1000.0)
        connection.close()

    async with (
        RawServer(Step(close_late)) as server,
        open_session(server.url, timeout=1.0) as session,
    ):
        start = now()
        with pytest.raises(PythpeerError):
            await CALLS[name].run(session, server.url, math.inf)
        assert now() - start == pytest.approx(1000.0, abs=1e-2)


INVALID: Final = (0, 0.0, -1.0, math.nan, -math.inf, True, "5", b"5", [5.0])
"""Values that are no time limit."""


@pytest.mark.parametrize(
    ("name", "value"), [*((name, 0.0) for name in CALLS), *(("user", value) for value in INVALID)]
)
async def test_a_limit_that_is_not_valid_raises_before_anything_is_sent(
    name: str, value: object
) -> None:
    """And takes no token; the error names the argument and the endpoint."""
    async with RawServer(answer()) as server, open_session(server.url, rates={}) as session:
        before = {limiter: limiter.available for limiter in session.limiters.values()}
        with pytest.raises(InvalidRequestError, match=r"^[a-z.]+: timeout must be ") as caught:
            await CALLS[name].run(session, server.url, value)
        assert caught.value.endpoint is not None
        assert {limiter: limiter.available for limiter in session.limiters.values()} == before
        assert server.connection_count == 0


async def test_the_limit_of_a_roll_is_ten_seconds_at_least() -> None:
    """A shorter one is rejected: the service sends the result of small bets late."""
    async with RawServer(answer()) as server, open_session(server.url) as session:
        for value in (0.5, 9.99):
            with pytest.raises(InvalidRequestError, match=r"timeout must be 10 seconds or more"):
                await session.peerbet.roll("1", target=50, side="low", timeout=value)
        assert server.connection_count == 0


async def test_each_attempt_of_a_read_has_the_limit() -> None:
    """It limits one attempt, as that of the session does."""
    retry = Retry(attempts=3, base_delay=0.0)
    async with RawServer(hang()) as server, open_session(server.url, retry=retry) as session:
        start = now()
        with pytest.raises(RequestTimeoutError):
            await session.pythbots.user("a", timeout=2.0)
        assert now() - start == pytest.approx(6.0, abs=1e-2)
        assert len(server.requests) == 3


async def test_the_read_before_a_confirmed_post_has_the_limit() -> None:
    """Nothing is sent after it."""
    async with FakeServices() as fake, fake.session(retry=Retry(attempts=1)) as session:
        fake.faults.add("peerbet.chat.get", Fault.hang())
        with pytest.raises(RequestTimeoutError, match=r"limit of 1\.5 s"):
            await session.peerbet.post("hello", confirm=True, timeout=1.5)
        assert [request.endpoint for request in fake.requests] == ["peerbet.chat.get"]


async def test_the_search_for_a_confirmed_post_has_the_limit() -> None:
    """Its reads are attempts of the same call."""
    async with FakeServices() as fake, fake.session(retry=Retry(attempts=1)) as session:
        fake.faults.add("peerbet.chat.set", Fault.drop())
        posting = asyncio.ensure_future(session.peerbet.post("hello", confirm=True, timeout=1.5))
        await wait_until(lambda: len(fake.requests) == 2)
        fake.faults.add("peerbet.chat.get", Fault.hang())
        with pytest.raises(OutcomeUnknownError) as caught:
            await posting
        assert "limit of 1.5 s" in "".join(caught.value.__notes__)


async def test_each_part_of_a_long_post_has_the_limit() -> None:
    """Not all of them together."""
    async with FakeServices() as fake, fake.session() as session:
        fake.faults.add("peerbet.chat.set", Fault.slow(1.2))
        assert len(await session.peerbet.post_long("word " * 200, timeout=1.5)) == 4


@pytest.mark.parametrize("limit", [30.0, math.inf])
@pytest.mark.parametrize("name", CALLS)
async def test_closing_the_session_ends_a_call_with_a_limit(name: str, limit: float) -> None:
    """Immediately; for unread mail, which was marked as read, after the limit of the call."""
    async with RawServer(hang()) as server:
        session = await open_session(server.url).open()
        task = asyncio.ensure_future(CALLS[name].run(session, server.url, limit))
        await wait_for_io(0.1)
        start = now()
        await session.aclose()
        with pytest.raises(PythpeerError):
            await task
        drained = min(limit, 301.0) if name == "unread_mail" else 0.0
        assert now() - start == pytest.approx(drained, abs=0.2)


async def test_limits_of_many_lengths_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The timers of calls that have ended are cancelled."""
    loop = asyncio.get_running_loop()
    timers: set[asyncio.TimerHandle] = set()
    call_at = loop.call_at

    def recording(*args: Any, **options: Any) -> asyncio.TimerHandle:
        timer = call_at(*args, **options)
        timers.add(timer)
        return timer

    async with RawServer(answer(b"{}")) as server, open_session(server.url) as session:
        endpoint = Endpoint("own", f"{server.url}/own", rate=Rate(0.0))
        monkeypatch.setattr(loop, "call_at", recording)
        for number in range(100):
            await session.call(endpoint.with_timeout(1000.0 + number))
        own = [timer for timer in timers if timer.when() >= now() + 900.0]
        assert len(own) == 100
        assert all(timer.cancelled() for timer in own)


def test_an_endpoint_with_a_limit_is_another_one() -> None:
    """The first one is unchanged; ``None`` returns it."""
    endpoint = Endpoint("own", "https://api.example/own", rate=Rate(3.0), answer=list[int])
    limited = endpoint.with_timeout(5)
    assert (endpoint.timeout, limited.timeout) == (None, 5)
    assert endpoint.with_timeout(None) is endpoint
    assert (limited.name, limited.url, limited.rate) == (endpoint.name, endpoint.url, endpoint.rate)
    assert limited.decode(b"[1]") == [1]
    assert limited.with_timeout(7).timeout == 7


async def test_an_endpoint_with_a_limit_shares_the_token_bucket() -> None:
    """Both wait for the same interval."""
    async with RawServer(answer(b"{}")) as server, open_session(server.url, rates={}) as session:
        endpoint = Endpoint("own", f"{server.url}/own", rate=Rate(5.0))
        await session.call(endpoint)
        start = now()
        await session.call(endpoint.with_timeout(1.0))
        assert now() - start >= 4.9
