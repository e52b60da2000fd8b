"""The interval of pacing holds at the server, over real sockets, with any network delay.

The servers here stamp a request when it *arrives*, which is some time after it was written. A whole
minute of it takes no time: the clock is virtual, and only the sockets are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from helpers import now
from raw_server import (
    GOOD,
    Connection,
    RawServer,
    Step,
    answer,
    closed_port,
    drop,
    http,
    open_session,
    unresponsive_port,
)
from scripted import Scripted
from stores import StoreFactory

from pythpeer import (
    Endpoint,
    OutcomeUnknownError,
    PythpeerError,
    Rate,
    RateLimitedError,
    RequestTimeoutError,
    Retry,
    Session,
    TransportError,
)
from pythpeer.testing import FakeServices, VirtualTimeLoop

pytestmark = pytest.mark.anyio

GUARD = 0.05
PRECISE = 1e-4
"""Tolerance of a time, in seconds."""

Chance = Callable[[], float]


class StallingLoop(VirtualTimeLoop):
    """A loop on virtual time that can be blocked: then all its timers fire late."""

    lost = 0.0

    def time(self) -> float:
        return super().time() + self.lost

    def stall(self, seconds: float) -> None:
        """Do what a blocking callback does."""
        self.lost += seconds


class Service:
    """Responds like Peerbet; `arrivals` has the time at which each request arrived.

    *latency* is how long a request is under way, *processing* how long its answer takes after that.
    """

    def __init__(self, latency: Chance = lambda: 0.0, processing: Chance = lambda: 0.0) -> None:
        self.arrivals: list[float] = []
        self._latency = latency
        self._processing = processing

    async def serve(self, peer: Connection) -> None:
        await asyncio.sleep(self._latency())
        self.arrivals.append(now())
        await asyncio.sleep(self._processing())
        await peer.send(http(200, GOOD))

    def listen(self) -> RawServer:
        return RawServer(Step(self.serve))

    @property
    def gaps(self) -> list[float]:
        """Return the seconds between consecutive arrivals."""
        return [later - previous for previous, later in pairwise(self.arrivals)]

    def relative_throughput(self, interval: float = 1.0) -> float:
        """Return the rate that was reached, as a share of the permitted one."""
        return len(self.gaps) * interval / (self.arrivals[-1] - self.arrivals[0])

    def excess_tokens(self, rate: Rate) -> float:
        """Return by how many tokens, at most, a strict bucket of this rate would be overdrawn."""
        tokens, before, worst = float(rate.burst), self.arrivals[0], 0.0
        for at in self.arrivals:
            tokens = min(rate.burst, tokens + (at - before) / rate.interval) - 1
            before = at
            worst = max(worst, -tokens)
        return worst


def session_at_rate(url: str, rate: Rate = Rate(1.0), retry: Retry = Retry(attempts=1)) -> Session:
    """Return a session for reading and posting at this rate, with unlimited waiting."""
    rates = {"peerbet.chat.get": rate, "peerbet.chat.set": rate}
    return open_session(url, rates=rates, retry=retry, max_wait=1000.0)


def random_delay(rng: random.Random, low: float, high: float) -> Chance:
    return lambda: rng.uniform(low, high)


# -- many calls together --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("slowest", [0.0, 0.3, 2.0], ids="answers-take-{}".format)
@pytest.mark.parametrize("latency", [0.0, 0.02, GUARD], ids="travel-takes-{}".format)
async def test_no_gap_is_short_and_the_rate_is_near_the_ideal(
    latency: float, slowest: float, seed: int
) -> None:
    """Forty calls together: none arrives early while the delay is at most the guard."""
    rng = random.Random(seed)
    service = Service(random_delay(rng, 0.0, latency), random_delay(rng, 0.0, slowest))
    async with service.listen() as server, session_at_rate(server.url) as session:
        await asyncio.gather(*(session.peerbet.messages() for _ in range(40)))
    assert len(service.arrivals) == 40
    assert min(service.gaps) >= 1.0 - PRECISE
    assert service.relative_throughput() >= 0.95


async def test_the_worst_case_is_within_the_guard() -> None:
    """One request is under way as long as the guard, the next not at all: still one interval."""
    delays = [GUARD, 0.0] * 10
    service = Service(lambda: delays[len(service.arrivals)], lambda: 1.5)
    async with service.listen() as server, session_at_rate(server.url) as session:
        await asyncio.gather(*(session.peerbet.messages() for _ in range(20)))
    assert min(service.gaps) == pytest.approx(1.0, abs=PRECISE)


async def test_a_delay_over_the_guard_is_measured() -> None:
    """The measure can fail: requests with a longer delay than the guard arrive too early."""
    delays = [0.5, 0.0] * 10
    service = Service(lambda: delays[len(service.arrivals)], lambda: 1.5)
    async with service.listen() as server, session_at_rate(server.url) as session:
        await asyncio.gather(*(session.peerbet.messages() for _ in range(20)))
    assert min(service.gaps) < 0.9


async def test_a_wider_guard_allows_for_longer_delays() -> None:
    """The guard is an option of the rate."""
    delays = [0.5, 0.0] * 10
    service = Service(lambda: delays[len(service.arrivals)], lambda: 1.5)
    rate = Rate(1.0, guard=0.5)
    async with service.listen() as server, session_at_rate(server.url, rate) as session:
        await asyncio.gather(*(session.peerbet.messages() for _ in range(20)))
    assert min(service.gaps) >= 1.0 - PRECISE


@pytest.mark.parametrize("rate", [Rate(1.0, 3), Rate(0.25, 5), Rate(2.0, 2)], ids=str)
async def test_bursts_never_overdraw_the_services_bucket(rate: Rate) -> None:
    """Callers in groups and alone, answered soon and late: the service has a token for each."""
    rng = random.Random(7)
    service = Service(random_delay(rng, 0.0, GUARD), random_delay(rng, 0.0, 0.6))

    async def caller(session: Session, at: float) -> None:
        await asyncio.sleep(at)
        await session.peerbet.messages()

    async with service.listen() as server, session_at_rate(server.url, rate) as session:
        bursts = [at for at in (0, 3, 3.1, 20, 60) for _ in range(7)]
        singles = [rng.uniform(0, 90) for _ in range(25)]
        await asyncio.gather(*(caller(session, at) for at in bursts + singles))
    assert len(service.arrivals) == 60
    assert service.excess_tokens(rate) <= PRECISE


async def test_reading_and_posting_are_paced_separately() -> None:
    """Each endpoint has its own bucket; together they go twice as fast."""
    async with FakeServices() as fake, fake.session(max_wait=100.0) as session:
        start = now()
        await asyncio.gather(
            *(session.peerbet.messages() for _ in range(20)),
            *(session.peerbet.post(f"{number}") for number in range(20)),
        )
        assert 18.99 <= now() - start <= 20.5
        assert len(fake.requests) == 40
        assert fake.violations == []


async def test_everything_together_keeps_the_interval(new_store: StoreFactory) -> None:
    """Streams, calls and writes of two sessions on one store, with the request checker."""
    received: list[str] = []

    async def listen(session: Session) -> None:
        async for message in session.peerbet.chat_stream(after=0):
            received.append(message.text)  # noqa: PERF401  # there is no end at which to have a list

    async with FakeServices() as fake:
        store = new_store()
        first_session, other = (fake.session(max_wait=1000.0, store=store) for _ in range(2))
        async with first_session, other:
            listeners = [asyncio.create_task(listen(session)) for session in (first_session, other)]
            await asyncio.gather(
                *(first_session.peerbet.post(f"{number}") for number in range(10)),
                *(
                    session.peerbet.messages()
                    for session in (first_session, other)
                    for _ in range(5)
                ),
                *(
                    session.pythbots.user("tiro")
                    for session in (first_session, other)
                    for _ in range(5)
                ),
                *(other.pythbots.send_mail("alice", "hi") for _ in range(4)),
                first_session.pythbots.unread_mail(),
            )
            await asyncio.sleep(10)
            for listener in listeners:
                listener.cancel()
        assert sorted(received) == sorted(str(number) for number in range(10) for _ in range(2))
        assert fake.violations == []


async def test_cancelled_calls_leave_no_long_and_no_short_gap() -> None:
    """Of sixty calls half are cancelled at random, while waiting or under way."""
    rng = random.Random(11)
    service = Service(random_delay(rng, 0.0, GUARD), random_delay(rng, 0.0, 0.4))
    async with service.listen() as server, session_at_rate(server.url) as session:
        calls = [asyncio.create_task(session.peerbet.messages()) for _ in range(60)]
        loop = asyncio.get_running_loop()
        cancelled = rng.sample(calls, 30)
        for call in cancelled:
            loop.call_later(rng.uniform(0, 45), call.cancel)
        results = await asyncio.gather(*calls, return_exceptions=True)
        for call, result in zip(calls, results, strict=True):
            assert call in cancelled or not isinstance(result, BaseException)
        assert session.limiters["peerbet.chat.get"].waiting == 0
    assert len(service.arrivals) >= 30
    assert min(service.gaps) >= 1.0 - PRECISE
    assert service.relative_throughput() >= 0.95


async def test_repetitions_are_paced_too() -> None:
    """Each further attempt of a read takes a token like any other request."""
    steps = (drop(), answer(b"", 503), answer(b"", 500), answer())
    async with RawServer(*steps) as server:
        retry = Retry(attempts=4, base_delay=0.0)
        async with session_at_rate(server.url, retry=retry) as session:
            await asyncio.gather(session.peerbet.messages(), session.peerbet.messages())
        times = [asked.at for asked in server.requests]
    assert len(times) == 5
    assert min(later - previous for previous, later in pairwise(times)) >= 1.0 - PRECISE


# -- stalls ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": StallingLoop})], ids=[""])
@pytest.mark.parametrize("seed", range(3))
async def test_a_stalled_loop_does_not_catch_up_with_a_burst(seed: int) -> None:
    """The time in which the loop was blocked is lost: the next requests keep their distance.

    The loop stalls only while no request is under way, for the service's clock is the same one.
    """
    rng = random.Random(seed)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, StallingLoop)

    def processing() -> float:
        if rng.random() < 0.4:
            loop.call_later(rng.uniform(0.1, 1.2), loop.stall, rng.choice([0.1, 0.9, 2.5, 30.0]))
        return 0.0

    service = Service(processing=processing)
    async with service.listen() as server, session_at_rate(server.url) as session:
        await asyncio.gather(*(session.peerbet.messages() for _ in range(40)))
    assert len(service.arrivals) == 40
    assert loop.lost > 5
    assert min(service.gaps) >= 1.0 - PRECISE


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": StallingLoop})], ids=[""])
async def test_after_a_stall_a_burst_is_no_greater_than_the_burst() -> None:
    """However long the loop was blocked, at most ``burst`` go immediately."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, StallingLoop)
    service = Service()
    rate = Rate(1.0, burst=3)
    async with service.listen() as server, session_at_rate(server.url, rate) as session:
        calls = [asyncio.create_task(session.peerbet.messages()) for _ in range(12)]
        await asyncio.sleep(0.5)
        loop.stall(100)
        await asyncio.gather(*calls)
    assert len(service.arrivals) == 12
    assert service.excess_tokens(rate) <= PRECISE


async def test_a_missing_response_does_not_stop_the_others() -> None:
    """A service that stalls on one request gets the next one a guard and an interval later."""
    stalls = iter([30.0])
    service = Service(processing=lambda: next(stalls, 0.0))
    async with service.listen() as server:
        session = session_at_rate(server.url)
        async with session:
            results = await asyncio.gather(
                *(session.peerbet.messages() for _ in range(10)), return_exceptions=True
            )
    assert isinstance(results[0], RequestTimeoutError)
    assert not any(isinstance(result, BaseException) for result in results[1:])
    assert service.gaps[0] == pytest.approx(1.0 + GUARD, abs=PRECISE)
    assert min(service.gaps) >= 1.0 - PRECISE


# -- released tokens ------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["messages", "post"])
async def test_a_refused_connection_costs_no_token(call: str) -> None:
    """A request that certainly never left releases its token immediately, for any waiter."""
    with closed_port() as url:
        async with session_at_rate(url) as session:
            limiter = session.limiters[f"peerbet.chat.{'get' if call == 'messages' else 'set'}"]
            arguments = () if call == "messages" else ("hi",)
            start = now()
            calls = (getattr(session.peerbet, call)(*arguments) for _ in range(20))
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(error, TransportError)
                assert not isinstance(error, OutcomeUnknownError)
                assert error.sent is False
            assert now() - start < 0.5
            assert (limiter.available, limiter.waiting) == (1, 0)


async def test_a_released_token_is_no_extra_token() -> None:
    """After a failed connection the next request goes immediately, an interval after the last."""
    rates = {"peerbet.chat.set": Rate(1.0)}
    async with Scripted() as services, services.session(rates=rates) as session:
        await session.peerbet.post("one")
        await asyncio.sleep(2)
        await services.stop()
        with pytest.raises(TransportError) as caught:
            await session.peerbet.post("refused")
        assert caught.value.sent is False
        await services.start()
        await asyncio.gather(*(session.peerbet.post(text) for text in ("two", "three")))
        times = [asked.at for asked in services.asked("set")]
        gaps = [later - previous for previous, later in pairwise(times)]
        assert gaps == pytest.approx([2.0, 1.0], abs=0.1)
        assert min(gaps) >= 1.0 - PRECISE


async def test_a_connection_that_times_out_costs_no_token() -> None:
    """Nothing was written when connecting took too long."""
    with unresponsive_port() as url:
        async with session_at_rate(url) as session:
            with pytest.raises(TransportError) as caught:
                await session.peerbet.messages()
            assert caught.value.sent is False
            assert session.limiters["peerbet.chat.get"].available == 1


async def test_a_call_cancelled_while_connecting_costs_no_token() -> None:
    """Cancelled before its request was written, it releases its token to the next waiter."""
    with unresponsive_port() as url:
        async with session_at_rate(url) as session:
            call = asyncio.create_task(session.peerbet.messages())
            await asyncio.sleep(1)
            limiter = session.limiters["peerbet.chat.get"]
            assert limiter.available == 0
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert limiter.available == 1


@pytest.mark.parametrize("step", [drop(), answer(b"", 500), answer(b"nonsense")])
async def test_a_request_that_was_written_stays_spent(step: Step) -> None:
    """With any outcome, because the service may have counted it."""
    async with RawServer(step) as server, session_at_rate(server.url) as session:
        with pytest.raises(PythpeerError):
            await session.peerbet.messages()
        assert session.limiters["peerbet.chat.get"].available == 0


# -- throttling -----------------------------------------------------------------------------------


async def test_no_request_is_sent_before_a_retry_after() -> None:
    """One caller's 429 delays all of them, until the time that the service named."""
    steps = (answer(), answer(b"", 429, [("Retry-After", "30")]), answer())
    async with RawServer(*steps) as server:
        retry = Retry(attempts=2)
        async with session_at_rate(server.url, retry=retry) as session:
            await asyncio.gather(*(session.peerbet.messages() for _ in range(5)))
        times = [asked.at for asked in server.requests]
    gaps = [later - previous for previous, later in pairwise(times)]
    assert len(gaps) == 5
    assert gaps[1] == pytest.approx(30.0, abs=0.1)
    assert min(gaps) >= 1.0 - PRECISE


async def test_a_retry_after_fails_callers_with_a_shorter_max_wait() -> None:
    """A caller that would wait longer than ``max_wait`` fails immediately, not at its end."""
    steps = (answer(b"", 429, [("Retry-After", "90")]), answer())
    async with RawServer(*steps) as server:
        rates = {"peerbet.chat.get": Rate(1.0)}
        async with open_session(server.url, rates=rates, max_wait=20.0) as session:
            start = now()
            calls = (session.peerbet.messages() for _ in range(5))
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(error, RateLimitedError)
                assert error.retry_after is not None
                assert error.retry_after >= 89.9
            assert now() - start < 0.5
        assert len(server.requests) == 1


async def test_after_a_429_the_distance_is_larger() -> None:
    """A service that counts more strictly than the guard allows gets a wider guard."""
    allowed_from = [0.0]

    async def strict(peer: Connection) -> None:
        early = now() < allowed_from[0]
        allowed_from[0] = now() + 1.2
        await asyncio.sleep(2.0)
        await peer.send(http(429, b"") if early else http(200, GOOD))

    guards = [GUARD]
    late = -1
    async with RawServer(Step(strict)) as server, session_at_rate(server.url) as session:
        for _ in range(4):
            calls = (session.peerbet.messages() for _ in range(3))
            results = await asyncio.gather(*calls, return_exceptions=True)
            guards.append(session.limiters["peerbet.chat.get"].guard)
            late = sum(isinstance(result, RateLimitedError) for result in results)
    assert guards == sorted(guards)
    assert guards[-1] > GUARD
    assert late == 0


# -- one bucket for all callers -------------------------------------------------------------------


async def test_a_custom_endpoint_is_paced_at_the_server() -> None:
    """What holds for the services' endpoints holds for custom ones."""
    rng = random.Random(3)
    service = Service(random_delay(rng, 0.0, GUARD), random_delay(rng, 0.0, 1.0))
    async with service.listen() as server, Session(max_wait=1000.0) as session:
        own = Endpoint("own", server.url, rate=Rate(0.5))
        await asyncio.gather(*(session.call(own, number=number) for number in range(30)))
    assert len(service.arrivals) == 30
    assert min(service.gaps) >= 0.5 - PRECISE


async def test_streams_and_calls_share_the_bucket() -> None:
    """A stream's polls and direct calls keep their distance from each other."""
    async with Scripted() as services:
        rates = {"peerbet.chat.get": Rate(1.0)}
        async with services.session(rates=rates) as session:
            stream = session.peerbet.chat_stream(after=0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10.5), asyncio.TaskGroup() as group:
                    group.create_task(anext(stream))
                    for _ in range(4):
                        group.create_task(session.peerbet.messages())
        times = [asked.at for asked in services.asked("get")]
    gaps = [later - previous for previous, later in pairwise(times)]
    assert len(gaps) >= 8
    assert min(gaps) >= 1.0 - PRECISE


async def test_a_mail_is_sent_before_reads_that_came_earlier() -> None:
    """All mail requests share one bucket, and a write does not wait for reads."""
    rates = {"pythbots.mail": Rate(1.0)}
    async with RawServer(answer()) as server, open_session(server.url, rates=rates) as session:
        mail = session.pythbots
        async with asyncio.TaskGroup() as group:
            for call in (mail.all_mail, mail.all_mail, mail.all_mail):
                group.create_task(call())
            await asyncio.sleep(0.5)
            group.create_task(mail.send_mail("tiro", "hello"))
        sent = ["message=" in target for target in server.targets]
        assert sent == [False, True, False, False]


async def test_an_idle_second_is_one_token() -> None:
    """With burst 1 no token is stored beyond one, however long no request was sent."""
    service = Service()
    async with service.listen() as server, session_at_rate(server.url) as session:
        await session.peerbet.messages()
        await asyncio.sleep(3600)
        await asyncio.gather(*(session.peerbet.messages() for _ in range(3)))
    assert service.gaps[0] >= 3600
    assert service.gaps[1:] == pytest.approx([1.0, 1.0], abs=0.01)
