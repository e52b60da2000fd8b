"""Which connection serves which request: kept, new, waited for, or found closed."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
import pytest
from helpers import now, wait_for_io
from raw_server import (
    CALLS,
    GOOD,
    READS,
    SINGLE_ATTEMPT,
    Connection,
    RawServer,
    Step,
    answer,
    drop,
    failure,
    hang,
    http,
    open_session,
    reset,
)

from pythpeer import (
    Endpoint,
    OutcomeUnknownError,
    Rate,
    RequestTimeoutError,
    Retry,
    Session,
    SqliteStore,
    TransportError,
)
from pythpeer.transport import connection as transport_connection
from pythpeer.transport.pool import LEARNED_FOR, LIMIT_PER_ENDPOINT, LIMIT_PER_HOST

pytestmark = pytest.mark.anyio


def by_path(connection: Connection) -> Awaitable[None]:
    """Respond to a request, unless its path contains ``slow``."""
    slow = b"/slow" in connection.head
    return hang().run(connection) if slow else connection.send(http(200, GOOD))


MIXED: Final = Step(by_path)


def endpoint(url: str, name: str, interval: float = 0.0) -> Endpoint[dict[str, object]]:
    return Endpoint(f"own.{name}", f"{url}/{name}", rate=Rate(interval))


def start(session: Session, url: str, name: str, count: int = 1) -> list[asyncio.Task[Any]]:
    """Start calls of an endpoint."""
    called = endpoint(url, name)
    return [asyncio.ensure_future(session.call(called)) for _ in range(count)]


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel calls, and wait for them."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


# -- how many -------------------------------------------------------------------------------------


async def test_a_slow_endpoint_keeps_no_other_one_waiting() -> None:
    """Requests of an endpoint that does not respond use their own connections only."""
    async with RawServer(MIXED) as server, open_session(server.url) as session:
        slow = start(session, server.url, "slow", 3 * LIMIT_PER_ENDPOINT)
        await wait_for_io(0.1)
        assert len(server.requests) == LIMIT_PER_ENDPOINT
        begin = now()
        for name in READS + SINGLE_ATTEMPT:
            await CALLS[name].run(session, server.url)
        assert now() - begin < 0.1
        await end(*slow)


async def test_many_slow_endpoints_keep_no_other_one_waiting() -> None:
    """Above the limit of a host, an endpoint without a connection still gets one."""
    async with RawServer(MIXED) as server, open_session(server.url) as session:
        slow = [
            task
            for number in range(4)
            for task in start(session, server.url, f"slow{number}", LIMIT_PER_ENDPOINT)
        ]
        await wait_for_io(0.1)
        # The first two have all that the host permits, and each later one has its first.
        assert len(server.requests) == LIMIT_PER_HOST + 2
        for _ in range(3):
            await session.peerbet.messages()
        await end(*slow)


async def test_a_request_that_waits_for_a_connection_is_in_the_health() -> None:
    """Also as JSON; and no longer when it is cancelled."""
    async with RawServer(MIXED) as server, open_session(server.url) as session:
        slow = start(session, server.url, "slow", LIMIT_PER_ENDPOINT + 2)
        await wait_for_io(0.1)
        health = session.health()
        assert health.endpoints["own.slow"].waiting_for_connection == 2
        assert health.endpoints["own.slow"].waiting == 0
        assert health.endpoints["peerbet.chat.get"].waiting_for_connection == 0
        assert b'"waiting_for_connection":2' in msgspec.json.encode(health)
        await end(*slow)
        assert session.health().endpoints["own.slow"].waiting_for_connection == 0
    assert session.health().endpoints["own.slow"].waiting_for_connection == 0


async def test_a_connection_that_a_cancelled_request_was_given_is_passed_on() -> None:
    """A request that is cancelled when its turn comes keeps no other one waiting."""
    async with RawServer(MIXED) as server, open_session(server.url) as session:
        slow = start(session, server.url, "slow", LIMIT_PER_ENDPOINT)
        await wait_for_io(0.1)
        waiting = start(session, server.url, "slow", 3)
        await wait_for_io(0.1)
        slow[0].cancel()
        # When this is called, the first that waits has its turn, and has not run yet.
        asyncio.get_running_loop().call_soon(waiting[0].cancel)
        await wait_for_io(0.1)
        assert session.health().endpoints["own.slow"].waiting_for_connection == 1
        assert len(server.requests) == LIMIT_PER_ENDPOINT + 1
        await end(*slow[1:], *waiting[1:])
        await wait_for_io(0.1)
        again = start(session, server.url, "slow", LIMIT_PER_ENDPOINT)
        await wait_for_io(0.1)
        assert len(server.requests) == 2 * LIMIT_PER_ENDPOINT + 1
        await end(*again)


# -- a kept connection that the service has closed ------------------------------------------------


def closing_after(seconds: float, *, seen: list[float]) -> Step:
    """Respond once, and close the connection when a request comes *seconds* later or more.

    That request is lost; its time is appended to *seen*.
    """

    async def run(connection: Connection) -> None:
        await connection.send(http(200, GOOD))
        idle_since = now()
        while await connection.reader.readuntil(b"\r\n\r\n"):
            if now() - idle_since >= seconds:
                seen.append(now())
                connection.close()
                return
            idle_since = now()
            await connection.send(http(200, GOOD))

    return Step(run)


@pytest.mark.parametrize("name", READS)
async def test_a_read_goes_out_again_where_its_kept_connection_was_closed(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Silently: without an error, a retry, an event or a log record above DEBUG."""
    lost: list[float] = []
    responses: list[object] = []
    async with (
        RawServer(closing_after(1.0, seen=lost)) as server,
        open_session(server.url, on_response=responses.append) as session,
    ):
        with caplog.at_level(logging.DEBUG, "pythpeer"):
            for _ in range(2):
                await CALLS[name].run(session, server.url)
                await asyncio.sleep(1.0)
        assert len(lost) == 1
        assert server.connection_count == 2
        assert len(responses) == 2
    assert all(record.levelno == logging.DEBUG for record in caplog.records)
    assert any("sending again" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("name", SINGLE_ATTEMPT)
async def test_only_a_read_goes_out_again(name: str) -> None:
    """A write or a destructive read whose connection breaks is never sent for the second time."""
    async with RawServer(answer(), drop()) as server, open_session(server.url) as session:
        await CALLS["user"].run(session, server.url)
        assert isinstance(await failure(name, session, server.url), OutcomeUnknownError)
        await wait_for_io(0.1)
        assert len(server.requests) == 2


@pytest.mark.parametrize("step", [drop(), reset()], ids=["fin", "rst"])
async def test_a_read_goes_out_twice_at_most(step: Step) -> None:
    """Where the new connection is closed as well, the read fails."""
    async with RawServer(answer(), step) as server, open_session(server.url) as session:
        await CALLS["user"].run(session, server.url)
        for count in (3, 4):
            error = await failure("user", session, server.url)
            assert isinstance(error, TransportError)
            assert error.sent
            await wait_for_io(0.1)
            assert len(server.requests) == count


async def test_both_requests_have_one_time_limit() -> None:
    """The second one has what the first has left of it."""

    async def run(connection: Connection) -> None:
        await asyncio.sleep(1.5)
        connection.close()

    async with (
        RawServer(answer(), Step(run), hang()) as server,
        open_session(server.url, timeout=2.0) as session,
    ):
        await CALLS["user"].run(session, server.url)
        begin = now()
        assert isinstance(await failure("user", session, server.url), RequestTimeoutError)
        assert now() - begin == pytest.approx(2.0)
        assert len(server.requests) == 3


async def test_the_pool_learns_how_long_a_service_keeps_connections() -> None:
    """After one loss it closes them earlier; it forgets that after ten minutes."""
    lost: list[float] = []
    async with (
        RawServer(closing_after(1.0, seen=lost)) as server,
        open_session(server.url) as session,
    ):
        for _ in range(10):
            await CALLS["user"].run(session, server.url)
            await asyncio.sleep(1.0)
        assert len(lost) == 1
        connections = server.connection_count
        for _ in range(10):  # shorter idle times than that are used as before
            await CALLS["user"].run(session, server.url)
            await asyncio.sleep(0.5)
        assert len(lost) == 1
        assert server.connection_count == connections + 1
        await asyncio.sleep(LEARNED_FOR)
        for _ in range(3):
            await CALLS["user"].run(session, server.url)
            await asyncio.sleep(1.0)
        assert len(lost) == 2


# -- pacing of the second request -----------------------------------------------------------------


async def times_of(session: Session, server: RawServer, count: int) -> list[float]:
    """The times at which the next *count* paced calls arrive at the server."""
    called = endpoint(server.url, "paced", 1.0)
    earlier = len(server.requests)
    for _ in range(count):
        await session.call(called)
    return [request.at for request in server.requests[earlier:]]


@pytest.mark.parametrize("shared", [False, True], ids=["one process", "a shared store"])
async def test_the_interval_lies_on_both_sides_of_the_second_request(
    shared: bool, folder: Path
) -> None:
    """The service may have received the first one too: it never sees two within an interval."""

    async def run(connection: Connection) -> None:
        await asyncio.sleep(0.4)
        connection.close()

    late = Step(lambda connection: _after(0.2, connection.send, http(200, GOOD)))
    async with (
        RawServer(answer(GOOD), Step(run), late, answer(GOOD)) as server,
        open_session(
            server.url, store=SqliteStore(folder / "store") if shared else None
        ) as session,
    ):
        await times_of(session, server, 1)
        first, second, third = await times_of(session, server, 2)
        assert second - first == pytest.approx(1.05, abs=0.01)
        assert third - second == pytest.approx(1.05, abs=0.01)


async def _after(seconds: float, send: Callable[[bytes], Awaitable[None]], data: bytes) -> None:
    await asyncio.sleep(seconds)
    await send(data)


async def test_there_is_no_second_request_where_the_next_token_may_be_taken() -> None:
    """It would follow that one too soon: the read fails, and a policy may repeat it."""

    async def run(connection: Connection) -> None:
        await asyncio.sleep(1.2)
        connection.close()

    async with (
        RawServer(answer(GOOD), Step(run), answer(GOOD)) as server,
        open_session(server.url, retry=Retry(attempts=2, base_delay=0.0)) as session,
    ):
        called = endpoint(server.url, "paced", 1.0)
        await session.call(called)
        async with anyio.create_task_group() as group:
            group.start_soon(session.call, called)
            await asyncio.sleep(0.01)
            group.start_soon(session.call, called)
        times = [request.at for request in server.requests]
        assert all(after - before >= 1.0 for before, after in pairwise(times))
        assert len(times) == 4


@pytest.mark.parametrize(("guard", "timeout"), [(20.0, 20.0), (0.05, 1.0)])
async def test_there_is_no_second_request_where_its_turn_is_after_the_time_limit(
    guard: float, timeout: float
) -> None:
    """The read fails as soon as the connection is closed; the next one does not wait longer."""
    async with (
        RawServer(answer(GOOD), drop(), answer(GOOD)) as server,
        open_session(server.url, timeout=timeout) as session,
    ):
        called = Endpoint[object]("own.paced", f"{server.url}/x", rate=Rate(1.0, guard=guard))
        await session.call(called)
        with pytest.raises(TransportError, match="broke before the response") as raised:
            await session.call(called)
        assert not isinstance(raised.value, RequestTimeoutError)
        assert raised.value.sent
        lost = server.requests[-1].at
        assert now() == pytest.approx(lost)
        await session.call(called)
        assert len(server.requests) == 3
        assert server.requests[-1].at == pytest.approx(lost + guard + 1.0)


# -- bodies ---------------------------------------------------------------------------------------


class PausableTransport(asyncio.Transport):
    """A transport that only knows whether reading is paused; also what the connector returns."""

    protocol = None
    paused = False

    @property
    def transport(self) -> asyncio.Transport:
        return self

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Data is passed to it by the test."""

    def is_closing(self) -> bool:
        return False

    def write(self, data: object) -> None:
        """The request does not matter."""

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


async def test_reading_is_paused_while_much_of_a_body_waits() -> None:
    """Memory is needed for what was asked for, however fast the service sends."""
    transport = PausableTransport()
    connection = transport_connection.Connection(transport, 8_190)
    connection.send(memoryview(b"GET / HTTP/1.1"))
    connection.data_received(http(200, b"", length=10**9))
    _, payload = await connection.read_head()
    for _ in range(20):
        connection.data_received(bytes(100_000))
    assert transport.paused
    assert len(await payload.readany()) > 0
    assert not transport.paused


# -- headers --------------------------------------------------------------------------------------


async def test_the_largest_header_is_an_option() -> None:
    """A legal field of 9,000 bytes is accepted; one over ``max_header`` is named."""
    policy = [("Content-Security-Policy", "x" * 9_000)]
    async with RawServer(answer(headers=policy)) as server:
        async with open_session(server.url) as session:
            await CALLS["user"].run(session, server.url)
        async with open_session(server.url, max_header=8_000) as session:
            error = await failure("user", session, server.url)
    assert str(error) == "pythbots.userinfo: a header is larger than 8000 bytes (max_header)"


async def test_interim_responses_are_limited() -> None:
    """A service that sends nothing else is no reason to read on until the time limit."""
    async with (
        RawServer(drop(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000 + http(200, GOOD))) as server,
        open_session(server.url) as session,
    ):
        error = await failure("user", session, server.url)
    assert re.fullmatch(r"pythbots\.userinfo: the response of \S+ is not HTTP", str(error))


@pytest.mark.parametrize("at", range(1, 5))
async def test_a_head_in_two_parts_is_followed_by_junk(at: int) -> None:
    """Wherever its end is divided, what follows a response does not damage it."""
    head, end_of_head, body = http(200, GOOD).partition(b"\r\n\r\n")
    first, second = head + end_of_head[:at], end_of_head[at:] + body + b"junk"

    async def run(connection: Connection) -> None:
        await connection.send(first)
        await asyncio.sleep(0.1)
        await connection.send(second)

    async with RawServer(Step(run)) as server, open_session(server.url) as session:
        await CALLS["user"].run(session, server.url)
        await wait_for_io(0.1)
        assert server.open_connections == []
