"""Health of a session, its endpoints and its streams."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from helpers import running
from raw_server import CALLS, RawServer, answer, api_error, drop, error_page, hang, open_session
from scripted import DENIED, DROP_WITHOUT_EFFECT, ERROR_503, FAST, GARBAGE, Scripted, ScriptedFault
from stores import InterceptingStore, StoreFactory

from pythpeer import (
    AccessDeniedError,
    ChatMessage,
    EndpointHealth,
    MemoryStore,
    PythpeerError,
    Rate,
    Retry,
    Session,
    SessionHealth,
    StoreError,
    Stream,
    StreamHealth,
    merge,
)

pytestmark = pytest.mark.anyio

CHAT = "peerbet.chat.get"


def seconds(later: datetime | None, previous: datetime | None) -> float:
    """Return the difference of two times, in seconds."""
    assert later is not None
    assert previous is not None
    return (later - previous).total_seconds()


# -- endpoints ------------------------------------------------------------------------------------


def test_a_session_that_is_not_open_is_not_ok() -> None:
    """Its endpoints are listed, without any outcome."""
    health = Session().health()
    assert (health.ok, health.open, health.streams) == (False, False, ())
    assert list(health.endpoints) == list(Session().limiters)
    assert health.endpoints[CHAT] == EndpointHealth(
        last_success=None, failures=0, last_error=None, waiting=0, next_token=0.0, paused_for=0.0
    )


async def test_a_success_is_dated() -> None:
    """In UTC, and it keeps that time until there is another."""
    async with RawServer(answer()) as server, open_session(server.url) as session:
        assert session.health().ok
        before = datetime.now(UTC)
        await session.peerbet.messages()
        after = datetime.now(UTC)
        health = session.health()
        first = health.endpoints[CHAT].last_success
        assert first is not None
        assert before <= first <= after <= health.at <= datetime.now(UTC)
        assert session.health().endpoints[CHAT] == health.endpoints[CHAT]
        await session.peerbet.messages()
        assert seconds(session.health().endpoints[CHAT].last_success, after) > 0
    assert health.endpoints["peerbet.chat.set"].last_success is None


async def test_failures_in_a_row_are_counted_until_one_succeeds() -> None:
    """And the last failure is named."""
    steps = (answer(), drop(b"HTTP/1.1 200 OK\r\n"), error_page(500), hang(), answer())
    async with RawServer(*steps) as server, open_session(server.url, timeout=2.0) as session:
        counted = []
        for _ in steps:
            with contextlib.suppress(PythpeerError):
                await session.peerbet.messages()
            health = session.health()
            endpoint = health.endpoints[CHAT]
            counted.append((endpoint.failures, endpoint.last_error, health.ok))
            assert endpoint.last_success is not None
    assert counted == [
        (0, None, True),
        (1, "TransportError", False),
        (2, "HttpStatusError", False),
        (3, "RequestTimeoutError", False),
        (0, None, True),
    ]


async def test_an_api_error_is_a_success_unless_the_key_is_rejected() -> None:
    """A service that does not know a user is well; one that rejects the key is not."""
    steps = api_error("User not found"), api_error("who are you", 401)
    async with RawServer(*steps) as server, open_session(server.url) as session:
        with pytest.raises(PythpeerError):
            await session.pythbots.user("nobody")
        endpoint = session.health().endpoints["pythbots.userinfo"]
        assert (endpoint.failures, endpoint.last_success is None) == (0, False)
        with pytest.raises(AccessDeniedError):
            await session.pythbots.user("nobody")
        endpoint = session.health().endpoints["pythbots.userinfo"]
        assert (endpoint.failures, endpoint.last_error) == (1, "AccessDeniedError")


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_is_recorded(name: str) -> None:
    """Reads, writes, destructive reads, and custom endpoints."""
    async with RawServer(answer()) as server, open_session(server.url) as session:
        await CALLS[name].run(session, server.url)
        observed = {
            endpoint
            for endpoint, health in session.health().endpoints.items()
            if health.last_success is not None
        }
    assert observed == {CALLS[name].endpoint}


async def test_waiters_and_their_wait_are_shown() -> None:
    """Callers in the queue, seconds until the next token, and a pause."""
    async with (
        RawServer(answer()) as server,
        open_session(server.url, rates={CHAT: Rate(10.0, 1, 0.0)}) as session,
    ):
        await session.peerbet.messages()
        tasks = [asyncio.ensure_future(session.peerbet.messages()) for _ in range(3)]
        await asyncio.sleep(4.0)
        endpoint = session.health().endpoints[CHAT]
        assert endpoint.waiting == 3
        assert endpoint.next_token == pytest.approx(6.0, abs=0.1)
        session.limiters[CHAT].pause(30.0)
        assert session.health().endpoints[CHAT].paused_for == pytest.approx(30.0, abs=0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert session.health().endpoints[CHAT].waiting == 0


# -- streams --------------------------------------------------------------------------------------


async def test_a_stream_shows_its_cursor() -> None:
    """Its cursor is the item that was delivered last, and its lag the items after that."""
    async with Scripted() as services, services.session() as session:
        services.say(250)
        stream = session.peerbet.chat_stream(after=0, name="mine")
        fresh = stream.health()
        assert fresh == StreamHealth(
            endpoint=CHAT,
            name="mine",
            closed=False,
            last_success=None,
            failures=0,
            last_error=None,
            polling=False,
            next_poll=None,
            cursor=None,
            lag=0,
            gaps=0,
            skipped=0,
        )
        at = []
        for _ in range(250):
            await anext(stream)
            at.append((stream.health().cursor, stream.health().lag))
        assert at == [(number, 250 - number) for number in range(1, 251)]
        await stream.ack()
        assert stream.health().cursor == 250
        assert session.health().streams == (stream.health(),)
        await stream.aclose()
        assert stream.health().closed
        assert session.health().streams == ()


async def test_the_start_of_a_stream_is_a_cursor() -> None:
    """Starting now means from the newest message that exists."""
    async with Scripted() as services, services.session() as session:
        services.say(7)
        async with session.peerbet.chat_stream() as stream:
            assert (stream.health().cursor, stream.health().lag) == (7, 0)


async def test_lag_does_not_count_what_cannot_be_read() -> None:
    """A stream is not behind because of messages that it has skipped."""
    async with Scripted() as services, services.session() as session:
        services.say(2)
        services.show(3, {"id": 3, "by": 7, "msg": []})
        async with session.peerbet.chat_stream(after=0) as stream:
            await anext(stream)
            assert (stream.health().lag, stream.health().skipped) == (2, 1)
            await anext(stream)
            assert (stream.health().cursor, stream.health().lag) == (2, 0)


async def test_the_next_poll_has_a_time() -> None:
    """While a consumer waits, and no poll is under way."""
    rates = {CHAT: Rate(10.0, 1, 0.0)}
    async with Scripted() as services, services.session(rates=rates) as session:
        stream = session.peerbet.chat_stream(after=0)
        async with stream:
            task = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(3.0)
            health = session.health()
            assert seconds(health.streams[0].next_poll, health.at) == pytest.approx(7.0, abs=0.1)
            assert health.streams[0].last_success is not None
            task.cancel()
            await asyncio.wait([task])
            assert stream.health().next_poll is None


async def test_a_poll_under_way_is_shown() -> None:
    """Then the time of the next poll is not known."""
    async with RawServer(hang()) as server, open_session(server.url) as session:
        stream = session.peerbet.chat_stream(after=0)
        async with stream:
            task = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(1.0)
            assert (stream.health().polling, stream.health().next_poll) == (True, None)
            task.cancel()
            await asyncio.wait([task])
            assert not stream.health().polling


async def test_a_stream_that_waits_a_failure_out_shows_it() -> None:
    """The number of failures in a row, the last one, and the time of the next poll."""
    async with Scripted() as services, services.session() as session:
        services.script("get", DROP_WITHOUT_EFFECT, GARBAGE, ERROR_503)
        async with session.peerbet.chat_stream(after=0, on_gap="raise") as stream:
            task = asyncio.ensure_future(anext(stream))
            seen: list[tuple[int, str | None]] = []
            while not task.done():
                whole = session.health()
                (health,) = whole.streams
                if (health.failures, health.last_error) not in seen:
                    seen.append((health.failures, health.last_error))
                if health.next_poll is not None and health.failures:
                    assert -0.1 <= seconds(health.next_poll, whole.at) <= 8.0
                    assert not whole.ok
                if len(services.requests) == 4:
                    services.say()
                await asyncio.sleep(0.01)
            assert seen[1:4] == [
                (1, "TransportError"),
                (2, "DecodeError"),
                (3, "HttpStatusError"),
            ]
            assert (stream.health().failures, stream.health().last_error) == (0, None)
            assert session.health().ok


async def test_a_stream_whose_key_is_rejected_shows_it() -> None:
    """An error that is raised is a failure too, each time."""
    async with Scripted() as services, services.session() as session:
        services.default_faults["get"] = DENIED
        async with session.peerbet.chat_stream(after=0) as stream:
            for failures in (1, 2):
                with pytest.raises(AccessDeniedError):
                    await anext(stream)
                health = stream.health()
                assert (health.failures, health.last_error) == (failures, "AccessDeniedError")


async def test_a_gap_is_counted() -> None:
    """As in `Stream.gaps`."""
    async with Scripted() as services, services.session() as session:
        services.say(400)
        async with session.peerbet.chat_stream(after=1) as stream:
            await anext(stream)
            assert stream.health().gaps == 1


async def test_a_merged_stream_shows_each_of_its_streams() -> None:
    """One value for each of its streams."""
    async with Scripted() as services, services.session() as session:
        chat, mail = session.peerbet.chat_stream(after=0), session.pythbots.mail_stream()
        async with merge(chat, mail) as both:
            assert [health.endpoint for health in both.health()] == [CHAT, "pythbots.mail"]
            listed = session.health().streams
            assert [health.endpoint for health in listed] == [CHAT, "pythbots.mail"]


async def test_a_stream_without_references_is_not_listed() -> None:
    """A session does not keep streams alive in order to list them."""
    async with Scripted() as services, services.session() as session:
        session.peerbet.chat_stream(after=0)
        gc.collect()
        assert session.health().streams == ()


class NoStore(MemoryStore):
    """A store whose logs cannot be written."""

    def log(self, topic: Any) -> Any:
        log = super().log(topic)

        async def append(*args: object, **options: object) -> None:
            raise StoreError("no space left")

        log.append = append  # type: ignore[method-assign, assignment]
        return log


async def test_a_store_that_fails_is_a_failure_of_the_stream() -> None:
    """The service is well, and the stream is not."""
    store = NoStore()
    async with Scripted() as services, services.session(store=store) as session:
        services.say()
        async with session.peerbet.chat_stream(after=0) as stream:
            with pytest.raises(StoreError):
                await anext(stream)
            assert (stream.health().failures, stream.health().last_error) == (1, "StoreError")
            health = session.health()
            assert (health.endpoints[CHAT].failures, health.ok) == (0, False)


# -- sessions that share a store ------------------------------------------------------------------


class BrokenStore(InterceptingStore):
    """The store of one program that cannot append for a while, as if its quota were used up."""

    is_broken = False

    async def intercept(self, work: Any, /, *args: Any, **kwargs: Any) -> Any:
        if self.is_broken and work.__name__.startswith("append"):
            raise StoreError("no space left", transient=True)
        return await work(*args, **kwargs)


async def follow(stream: Stream[ChatMessage]) -> None:
    async for _ in stream:
        pass


async def test_a_session_leaves_the_polls_to_another_while_its_store_fails(
    new_store: StoreFactory,
) -> None:
    """Both receive everything then, and the health of the other one is ok, because items flow."""
    shared = new_store()
    broken = BrokenStore(shared)
    async with (
        Scripted() as services,
        services.session(store=broken, retry=Retry(max_delay=0.1)) as first,
        services.session(store=shared) as second,
    ):
        streams = [session.peerbet.chat_stream(after=0) for session in (first, second)]
        async with running(follow(streams[0])):
            await asyncio.sleep(5.0)
            broken.is_broken = True
            async with running(follow(streams[1])):
                for _ in range(5):
                    services.say()
                    await asyncio.sleep(6.0)
                    assert [stream.health().cursor for stream in streams] == [services.newest] * 2
                assert second.health().ok


async def test_a_request_that_failed_is_forgotten_while_another_session_polls(
    new_store: StoreFactory,
) -> None:
    """Of the streams, and of the endpoint: no further request of this session would show it."""
    store = new_store()
    async with (
        Scripted() as services,
        services.session(store=store, timeout=0.5) as impatient,
        services.session(store=store) as patient,
        running(follow(impatient.peerbet.chat_stream(after=0))),
    ):
        await asyncio.sleep(5.0)
        services.default_faults["get"] = ScriptedFault(after=1.0)
        await asyncio.sleep(10.0)
        assert not impatient.health().ok
        async with running(follow(patient.peerbet.chat_stream(after=0))):
            await asyncio.sleep(60.0)
            assert [session.health().ok for session in (impatient, patient)] == [True, True]
            assert impatient.health().endpoints[CHAT].last_error is None


# -- health as a value ----------------------------------------------------------------------------


async def test_health_is_frozen_and_turns_into_json() -> None:
    """It can be sent and read back unchanged."""
    async with Scripted() as services, services.session(rates={CHAT: FAST}) as session:
        services.say()
        async with session.peerbet.chat_stream(after=0, name="mine") as stream:
            await anext(stream)
            health = session.health()
    with pytest.raises(AttributeError):
        health.ok = False  # type: ignore[misc]
    encoded = msgspec.json.encode(health)
    assert msgspec.json.decode(encoded, type=SessionHealth) == health
    document = json.loads(encoded)
    assert document["ok"] is True
    assert document["streams"][0]["cursor"] == 1
    date = document["endpoints"][CHAT]["last_success"]
    assert datetime.fromisoformat(date) - health.at < timedelta(0)


async def test_health_can_be_read_from_a_closed_session() -> None:
    """Its last state is kept, whether or not its clock has stopped."""
    async with Scripted() as services:
        session = services.session()
        async with session:
            await session.peerbet.messages()
            stream = session.peerbet.chat_stream(after=0)
        assert stream.health().closed
        health = session.health()
    assert (health.ok, health.open, health.streams) == (False, False, ())
    assert health.endpoints[CHAT].last_success is not None
