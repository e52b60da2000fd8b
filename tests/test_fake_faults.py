"""Scripted faults happen on the wire, to the requests for which they are scripted."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import aiohttp
import anyio
import pytest
from fake_client import CHAT, INFO, MAIL, SET, Client, connect
from helpers import UNLIMITED, run_loop_turns, wait_until

from pythpeer import (
    HttpStatusError,
    InvalidRequestError,
    OutcomeUnknownError,
    PythpeerError,
    RateLimitedError,
    Retry,
    Session,
    TransportError,
)
from pythpeer.testing import FakeServices, Fault

pytestmark = pytest.mark.anyio

GET = f"{CHAT}get"
POST = f"{SET}&msg=hi"


async def response_to(fake: FakeServices, target: str) -> tuple[bytes, str]:
    """Return every byte of the response, and its end: ``"FIN"``, ``"RST"``, or ``"open"``."""
    peerbet = target.startswith("/api/chat")
    port = (fake.peerbet_url if peerbet else fake.pythbots_url).rpartition(":")[2]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\n\r\n".encode())
    received = b""
    try:
        async with asyncio.timeout(60.0):
            while data := await reader.read(65536):
                received += data
    except ConnectionResetError:
        return received, "RST"
    except TimeoutError:
        return received, "open"
    finally:
        writer.transport.abort()
    return received, "FIN"


# -- on the wire ----------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [True, False])
@pytest.mark.parametrize(
    ("fault", "end"), [(Fault.drop, "FIN"), (Fault.reset, "RST"), (Fault.hang, "open")]
)
async def test_a_fault_may_leave_no_response(
    fake: FakeServices, fault: Callable[..., Fault], end: str, *, effect: bool
) -> None:
    """The connection is closed, reset or kept, without a byte; the effect is as scripted."""
    fake.faults.add("peerbet.chat.set", fault(effect=effect))
    assert await response_to(fake, POST) == (b"", end)
    assert len(fake.chat.messages) == effect
    received, end = await response_to(fake, POST)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (len(fake.chat.messages), end) == (effect + 1, "open")


@pytest.mark.parametrize("effect", [True, False])
async def test_a_body_may_be_cut(fake: FakeServices, *, effect: bool) -> None:
    """The header has the whole length, half of the body is sent, then the connection is closed."""
    whole, _ = await response_to(fake, GET)
    fake.faults.add("peerbet.chat", Fault.cut(effect=effect), times=2)
    received, end = await response_to(fake, GET)
    head, _, body = received.partition(b"\r\n\r\n")
    assert end == "FIN"
    promised = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert len(body) == promised // 2 > 0
    assert body in whole or not effect
    await response_to(fake, POST)
    assert len(fake.chat.messages) == effect


async def test_a_response_may_be_delayed(fake: FakeServices, client: Client) -> None:
    """The effect is immediate, the response is delayed, and so is any other end."""
    fake.faults.add("peerbet.chat.set", Fault.slow(30.0), Fault.reset().after(2.0).after(3.0))
    loop = asyncio.get_running_loop()
    start = loop.time()
    post = asyncio.ensure_future(client.get(POST))
    await asyncio.sleep(1.0)
    assert len(fake.chat.messages) == 1
    assert await post == {"status": 1, "mid": 1}
    assert loop.time() - start == pytest.approx(30.0)
    assert await response_to(fake, POST) == (b"", "RST")
    assert loop.time() - start == pytest.approx(35.0)


@pytest.mark.parametrize(
    ("fault", "status", "retry_after", "effect"),
    [
        (Fault.http(503), 503, None, False),
        (Fault.http(500, effect=True), 500, None, True),
        (Fault.too_many(), 429, None, False),
        (Fault.too_many(7.5), 429, "7.5", False),
        (Fault.too_many("Wed, 21 Oct 2026 07:28:00 GMT"), 429, "Wed, 21 Oct 2026 07:28:00 GMT", 0),
        (Fault.html(), 200, None, True),
        (Fault.html(effect=False), 200, None, False),
    ],
)
async def test_a_response_may_be_an_html_page(
    fake: FakeServices,
    client: Client,
    fault: Fault,
    status: int,
    retry_after: str | None,
    *,
    effect: bool,
) -> None:
    """With a status, and with a ``Retry-After``."""
    fake.faults.add("peerbet.chat.set", fault)
    async with client.http.get(client.url(POST)) as response:
        assert response.status == status
        assert response.headers.get("Retry-After") == retry_after
        assert (await response.read()).startswith(b"<!DOCTYPE html>")
    assert len(fake.chat.messages) == effect


async def test_the_body_may_be_any(fake: FakeServices, client: Client) -> None:
    """Garbage is the given body, and an API error has the form of both services."""
    fake.faults.add("pythbots", Fault.garbage(), Fault.garbage(b"\xff"), Fault.refusal("not now"))
    for body in (b'[{"id": 1, "mess', b"\xff"):
        async with client.http.get(client.url(f"{INFO}tiro")) as response:
            assert await response.read() == body
    answer = await client.get(f"{INFO}tiro")
    assert answer == {"status": 0, "message": "not now", "error": "not now"}


async def test_a_custom_fault(fake: FakeServices, client: Client) -> None:
    """Every part of a response can be set; by default it is the service's own."""
    fake.faults.add("peerbet", Fault(status=203, headers=(("X-Cache", "HIT"),)))
    async with client.http.get(client.url(GET)) as response:
        assert (response.status, response.headers["X-Cache"]) == (203, "HIT")
        assert b'"status":1' in await response.read()


async def test_a_client_that_leaves_frees_the_service() -> None:
    """A request of a client that disconnected ends, and closing does not wait for it."""
    before = asyncio.all_tasks()
    async with FakeServices(rates=UNLIMITED) as fake:
        fake.faults.add("peerbet", Fault.hang(), Fault.slow(3600.0))
        assert (await response_to(fake, GET))[1] == (await response_to(fake, GET))[1] == "open"
        await asyncio.sleep(0.1)
        assert asyncio.all_tasks() == before
        fake.faults.add("peerbet", Fault.hang())
        hanging = asyncio.ensure_future(response_to(fake, GET))
        await asyncio.sleep(1.0)
        start = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() == pytest.approx(start, abs=0.2)
    assert (await hanging)[1] in ("FIN", "RST")


async def test_nothing_is_logged(fake: FakeServices, caplog: pytest.LogCaptureFixture) -> None:
    """Faults are not errors of the fake."""
    faults = (Fault.drop(), Fault.reset(), Fault.cut(), Fault.hang())
    fake.faults.add("peerbet", *faults, *(fault.after(1.0) for fault in faults))
    for _ in range(8):
        await response_to(fake, GET)
    assert caplog.records == []


async def test_faults_are_recorded(fake: FakeServices, client: Client) -> None:
    """The record contains the fault of a request, which is still checked."""
    fake.faults.add("peerbet", Fault.drop(effect=False))
    await response_to(fake, f"{SET}&msg=a+b")
    await client.get(GET)
    assert [arrival.fault for arrival in fake.requests] == [Fault.drop(effect=False), None]
    assert [violation.rule for violation in fake.violations] == ["encoding"]


# -- which request meets which --------------------------------------------------------------------


async def statuses(client: Client, *targets: str) -> list[int]:
    return [await client.status(target) for target in targets]


async def test_faults_come_one_by_one(fake: FakeServices, client: Client) -> None:
    """In the order in which they were added, *times* times; then there is none."""
    fake.faults.add("peerbet.chat.get", Fault.http(500), Fault.http(501), times=2)
    fake.faults.add("peerbet.chat.get", Fault.http(502))
    assert await statuses(client, *[GET] * 6) == [500, 501, 500, 501, 502, 200]


async def test_faults_apply_to_their_endpoint_only(fake: FakeServices, client: Client) -> None:
    """Requests of other endpoints have no fault, and do not use it up."""
    fake.faults.add("pythbots.userinfo", Fault.http(503))
    assert await statuses(client, GET, f"{MAIL}&readnew", f"{INFO}tiro") == [200, 200, 503]


async def test_mail_has_three_operations(fake: FakeServices, client: Client) -> None:
    """Sending and both kinds of reading can be selected together or separately."""
    targets = (f"{MAIL}&user=tiro&message=hi", f"{MAIL}&readnew", f"{MAIL}&readall")
    fake.faults.always("pythbots.mail.send", Fault.http(501))
    fake.faults.always("pythbots.mail.readnew", Fault.http(502))
    fake.faults.always("pythbots.mail.readall", Fault.http(503))
    assert await statuses(client, *targets) == [501, 502, 503]
    fake.faults.add("pythbots.mail", Fault.http(504), times=3)
    assert await statuses(client, *targets) == [504, 504, 504]
    assert await statuses(client, *targets) == [501, 502, 503]


async def test_the_longer_name_precedes(fake: FakeServices, client: Client) -> None:
    """Added faults precede constant ones; in each, the longer name precedes the shorter."""
    fake.faults.always("peerbet", Fault.http(501))
    fake.faults.always("peerbet.chat.get", Fault.http(502))
    fake.faults.add("peerbet", Fault.http(503))
    fake.faults.add("peerbet.chat", Fault.http(504))
    assert await statuses(client, GET, GET, GET, POST) == [504, 503, 502, 501]
    assert await statuses(client, f"{CHAT}delete", "/favicon.ico") == [501, 404]


async def test_a_fault_of_a_service_applies_to_unknown_paths(
    fake: FakeServices, client: Client
) -> None:
    """A fault of the whole service applies to unknown paths, too."""
    fake.faults.add("pythbots", Fault.http(503))
    assert await statuses(client, "/favicon.ico", "/favicon.ico") == [503, 404]


async def test_chance_is_decided_by_the_seed() -> None:
    """With equal seeds, a fault with a chance applies to the same requests."""

    async def failed_requests(seed: int) -> list[int]:
        async with FakeServices(rates=UNLIMITED, seed=seed) as fake, connect() as http:
            fake.faults.always("peerbet", Fault.http(503), chance=0.3)
            return await statuses(Client(fake, http), *[GET] * 100)

    first = await failed_requests(1)
    assert first == await failed_requests(1)
    assert first != await failed_requests(2)
    assert 10 < Counter(first)[503] < 50


async def test_faults_can_be_cleared(fake: FakeServices, client: Client) -> None:
    """All of them, or those for a name and whatever begins with it."""
    fake.faults.always("pythbots", Fault.http(503))
    fake.faults.always("pythbots.mail.readnew", Fault.http(503))
    fake.faults.add("pythbots.mail", Fault.http(503))
    fake.faults.add("peerbet", Fault.http(503))
    fake.faults.clear("pythbots.mail")
    assert fake.faults.pending == {"peerbet": (Fault.http(503),)}
    assert fake.faults.constant == {"pythbots": Fault.http(503)}
    fake.faults.clear()
    assert await statuses(client, GET, f"{INFO}tiro") == [200, 200]


def test_scripted_faults_can_be_read() -> None:
    """The faults to come and the constant ones can be read."""
    fake = FakeServices()
    assert repr(fake.faults) == "<Faults none>"
    fake.faults.add("peerbet.chat.set", Fault.drop(effect=False), Fault.slow(2.0))
    fake.faults.always("pythbots", Fault.hang(), chance=0.5)
    fake.faults.always("peerbet", Fault.reset())
    assert repr(fake.faults) == (
        "<Faults peerbet.chat.set: Fault(end='drop', effect=False), Fault(delay=2.0);"
        " pythbots: always Fault(end='hang'), chance 0.5; peerbet: always Fault(end='reset')>"
    )


def test_invalid_faults_are_rejected() -> None:
    """An unknown name, no times, an invalid chance, a negative delay."""
    faults = FakeServices().faults
    wrong: list[tuple[str, Callable[[], object]]] = [
        ("peerbet.chat.got", lambda: faults.add("peerbet.chat.got", Fault.drop())),
        ("mail", lambda: faults.always("mail", Fault.drop())),
        ("bot", lambda: faults.clear("bot")),
        ("times", lambda: faults.add("peerbet", Fault.drop(), times=0)),
        ("chance", lambda: faults.always("peerbet", Fault.drop(), chance=1.5)),
        ("delay", lambda: Fault.slow(-1.0)),
    ]
    faults.always("peerbet", Fault.drop())
    for words, call in wrong:
        with pytest.raises(InvalidRequestError, match=words):
            call()


# -- outages --------------------------------------------------------------------------------------


async def test_an_outage_refuses_connections(fake: FakeServices, client: Client) -> None:
    """Open connections are dropped, new ones are refused, and then everything works again."""
    url = fake.peerbet_url
    assert await client.ids() == []
    async with fake.outage("peerbet"):
        assert fake.peerbet_url == url
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.ids()
        assert await client.status(f"{INFO}tiro") == 200
    assert fake.peerbet_url == url
    assert await client.ids() == []
    async with fake.outage():
        for target in (GET, f"{INFO}tiro"):
            with pytest.raises(aiohttp.ClientConnectorError):
                await client.status(target)


@pytest.mark.parametrize("turns", range(10))
@pytest.mark.parametrize("ends", [False, True], ids=["outage", "end"])
async def test_a_connection_is_dropped_whenever_it_was_opened(*, turns: int, ends: bool) -> None:
    """Also where the loop has not accepted it yet, or only just: no client waits in vain."""
    async with FakeServices() as fake:
        host, _, port = fake.peerbet_url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.setblocking(False)
            await run_loop_turns(turns)
            async with AsyncExitStack() as stack:
                if ends:
                    await fake.aclose()
                else:
                    await stack.enter_async_context(fake.outage("peerbet"))
                with suppress(ConnectionResetError):
                    async with asyncio.timeout(1.0):
                        assert await asyncio.get_running_loop().sock_recv(connection, 1) == b""


async def test_an_outage_breaks_requests_that_are_under_way(fake: FakeServices) -> None:
    """None has a response, also not one that would be ready soon."""
    fake.faults.add("peerbet.chat.get", Fault.slow(0.05))
    async with connect() as http:
        asking = asyncio.ensure_future(Client(fake, http).ids())
        await wait_until(lambda: fake.requests)
        async with fake.outage("peerbet"):
            with pytest.raises(aiohttp.ClientError):
                await asking


async def test_an_outage_keeps_the_port(fake: FakeServices, client: Client) -> None:
    """No other program can listen on it, although there were connections on it."""
    assert await client.ids() == []
    port = int(fake.peerbet_url.rpartition(":")[2])
    async with fake.outage():
        with pytest.raises(OSError, match=f":{port}:"):
            await FakeServices(peerbet_port=port).start()
        with pytest.raises(OSError, match="in use"), socket.socket() as other:
            other.bind(("127.0.0.1", port))
    assert await client.ids() == []


async def test_the_first_of_two_outages_to_end_ends_both(
    fake: FakeServices, client: Client
) -> None:
    async with fake.outage():
        async with fake.outage("peerbet"):
            pass
        assert await client.ids() == []
    assert await client.ids() == []


async def test_closing_ends_an_outage() -> None:
    """Services that are closed during an outage stay closed, and their ports are free."""
    fake = FakeServices()
    await fake.start()
    port = int(fake.peerbet_url.rpartition(":")[2])
    async with fake.outage():
        await fake.aclose()
        async with FakeServices(peerbet_port=port):
            pass
    with pytest.raises(RuntimeError, match="not running"):
        _ = fake.peerbet_url


# -- with the library -----------------------------------------------------------------------------


async def get(session: Session) -> object:
    return await session.peerbet.messages()


async def post(session: Session) -> object:
    return await session.peerbet.post("hi")


NO_RETRY = Retry(attempts=1)


@pytest.mark.parametrize(
    ("fault", "read", "write"),
    [
        (Fault.drop(), TransportError, OutcomeUnknownError),
        (Fault.reset(effect=False), TransportError, OutcomeUnknownError),
        (Fault.cut(), TransportError, OutcomeUnknownError),
        (Fault.hang(), TransportError, OutcomeUnknownError),
        (Fault.http(503), HttpStatusError, OutcomeUnknownError),
        (Fault.html(), PythpeerError, OutcomeUnknownError),
        (Fault.garbage(), PythpeerError, OutcomeUnknownError),
        (Fault.too_many(9), RateLimitedError, RateLimitedError),
        (Fault.refusal("not now"), PythpeerError, PythpeerError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
async def test_a_session_reports_each_fault(
    fake: FakeServices, fault: Fault, read: type[PythpeerError], write: type[PythpeerError]
) -> None:
    """A read fails, and the outcome of a write is unknown, as the errors state."""
    calls: list[tuple[Callable[[Session], Awaitable[Any]], type[PythpeerError]]] = [
        (get, read),
        (post, write),
    ]
    fake.faults.always("peerbet", fault)
    async with fake.session(retry=NO_RETRY) as session:
        for call, error in calls:
            with pytest.raises(error):
                await call(session)
    assert fake.violations == []


async def test_a_stream_outlives_every_fault() -> None:
    """With 180 faults, messages are delivered once, in order, and no rule is broken.

    They take some 1,700 seconds, most of which are back-offs, whose jitter differs in each run.
    """
    async with FakeServices(seed=5) as fake, fake.session(timeout=5.0) as session:
        faults = [Fault.drop(), Fault.reset(), Fault.cut(), Fault.hang(), Fault.http(503)]
        faults += [Fault.html(), Fault.garbage(), Fault.too_many(3), Fault.slow(4.0)]
        fake.faults.add("peerbet.chat.get", *faults, times=20)
        fake.people.add("alice").says("hello", every=(1.0, 25.0))
        received: list[int] = []
        async with session.peerbet.chat_stream(after=0) as stream:
            with anyio.move_on_after(2400.0):
                while True:
                    received.append((await anext(stream)).id)
        assert not fake.faults.pending
        assert len(received) > 100
        assert received == list(range(1, len(received) + 1))
        assert fake.violations == []
