"""`Session.stop`: every stream ends after the item it has, and nothing else does."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from helpers import now, schedule, take_ids, wait_until
from scripted import ERROR_500, HANG, Scripted, ScriptedFault
from stores import StoreFactory

from pythpeer import InvalidRequestError, Rate, Session, SessionClosedError, Stream, merge
from pythpeer.testing import FakeServices
from pythpeer.transport.pool import KEEPALIVE_TIMEOUT

pytestmark = pytest.mark.anyio


async def read_all(session: Session, *, stop_at: int | None = None) -> list[int]:
    """The ids of a stream until it ends; the session stops while *stop_at* is processed."""
    ids: list[int] = []
    async for message in session.peerbet.chat_stream(after=0, name="me"):
        ids.append(message.id)
        if message.id == stop_at:
            session.stop()
    return ids


async def is_at_end(stream: Stream[object]) -> bool:
    """Whether the stream ends without waiting."""
    async with asyncio.timeout(0.5):
        return await anext(stream, None) is None


async def test_a_loop_ends_after_the_item_it_has(services: Scripted, session: Session) -> None:
    """The item counts as acknowledged; those behind it are returned to the next stream."""
    services.say(5)
    assert await read_all(session, stop_at=3) == [1, 2, 3]
    assert session.stopping
    await session.aclose()
    async with session:
        assert not session.stopping
        assert await take_ids(session.peerbet.chat_stream(name="me"), 2) == [4, 5]


@pytest.mark.parametrize("fault", [None, HANG, ERROR_500])
async def test_a_stream_that_waits_ends_immediately(
    services: Scripted, session: Session, fault: ScriptedFault | None
) -> None:
    """It waits for a token, for a response, or for the end of a back-off."""
    if fault is not None:
        services.default_faults["get"] = fault
    start = now()
    schedule(7.3, session.stop)
    mail = session.pythbots.mail_stream()
    async with asyncio.timeout(60.0):
        results = await asyncio.gather(*(read_all(session) for _ in range(3)), anext(mail, None))
    assert results == [[], [], [], None]
    assert now() - start == pytest.approx(7.3, abs=0.2)


async def test_a_stream_that_follows_another_session_ends(
    services: Scripted, new_store: StoreFactory
) -> None:
    """A session that waits for the polls of another one stops; the other one continues."""
    store = new_store()
    async with services.session(store=store) as first, services.session(store=store) as second:
        leader = asyncio.ensure_future(read_all(first, stop_at=1))
        await wait_until(lambda: len(services.asked("get")) >= 2)
        follower = asyncio.ensure_future(read_all(second))
        await asyncio.sleep(3.0)
        second.stop()
        async with asyncio.timeout(1.0):
            assert await follower == []
        services.say()
        assert await leader == [1]


async def test_a_stream_that_is_used_later_ends(services: Scripted, session: Session) -> None:
    """No item, no request, and no wait: also for a stream that has items in its buffer."""
    services.say(3)
    begun = session.peerbet.chat_stream(after=0)
    assert await take_ids(begun, 1) == [1]
    requests = len(services.requests)
    session.stop()
    session.stop()
    assert await is_at_end(begun)
    assert await is_at_end(session.peerbet.chat_stream(after=0))
    async with session.pythbots.mail_stream() as mail:
        assert await is_at_end(mail)
    assert len(services.requests) == requests


async def test_a_merged_stream_ends(services: Scripted, session: Session) -> None:
    """The item returned last is acknowledged in its stream."""
    services.say(4)
    chat = session.peerbet.chat_stream(after=0, name="me")
    taken: list[object] = []
    async with merge(chat, session.pythbots.mail_stream(name="me")) as both:
        async for item in both:
            taken.append(item)
            if len(taken) == 2:
                session.stop()
    assert len(taken) == 2
    await session.aclose()
    async with session:
        assert await take_ids(session.peerbet.chat_stream(name="me"), 2) == [3, 4]


async def test_a_merged_stream_that_waits_ends(services: Scripted, session: Session) -> None:
    """All its tasks end with it."""
    both = merge(session.peerbet.chat_stream(), session.pythbots.mail_stream())
    schedule(5.0, session.stop)
    async with asyncio.timeout(30.0):
        assert [item async for item in both] == []
    await both.aclose()


async def test_a_merged_stream_continues_with_another_session(
    services: Scripted, session: Session
) -> None:
    """The streams of a session that stops end; those of others continue."""
    async with services.session() as other:
        both = merge(
            session.peerbet.chat_stream(after=0),
            other.pythbots.mail_stream(),
        )
        services.say(3)
        services.deliver("first")
        async with asyncio.timeout(60.0):
            assert (await anext(both)).text
            session.stop()
            services.deliver("second")
            texts = {(await anext(both)).text, "first", "second"}
        assert texts == {"first", "second"}
        await both.aclose()


async def test_mail_in_flight_is_kept(services: Scripted, session: Session) -> None:
    """The stream ends immediately, the read by itself; the next stream delivers its mail."""
    services.deliver("mail 1")
    services.script("readnew", ScriptedFault(after=3.0))
    schedule(0.9, session.stop)
    async with asyncio.timeout(1.0):
        assert [mail async for mail in session.pythbots.mail_stream(name="me")] == []
    await session.aclose()
    async with session:
        async with asyncio.timeout(60.0):
            mail = await anext(session.pythbots.mail_stream(name="me"))
    assert mail.text == "mail 1"


async def test_calls_and_posts_continue(services: Scripted, session: Session) -> None:
    """They work after the request, and those in flight end as usual."""
    services.script("set", ScriptedFault(after=2.0))
    post = asyncio.ensure_future(session.peerbet.post("in flight"))
    await wait_until(lambda: services.asked("set"))
    session.stop()
    assert await post == 1
    assert [message.text for message in (await session.peerbet.messages()).messages] == [
        "in flight"
    ]


async def test_a_pause_ends_when_the_session_stops(session: Session) -> None:
    """Also without a limit; afterwards there is no pause."""
    schedule(7.3, session.stop)
    start = now()
    assert not await session.wait_stopping(2.0)
    assert not await session.wait_stopping(0)
    assert now() - start == pytest.approx(2.0)
    async with asyncio.timeout(30.0):
        assert all(await asyncio.gather(session.wait_stopping(60.0), session.wait_stopping()))
    assert now() - start == pytest.approx(7.3, abs=0.1)
    assert await session.wait_stopping()


async def test_a_pause_ends_when_the_session_closes(session: Session) -> None:
    """With an error, unless the session was stopped before; opened again it waits again."""
    for stopped in (False, True):
        pause = asyncio.ensure_future(session.wait_stopping())
        await asyncio.sleep(1.0)
        assert not pause.done()
        if stopped:
            session.stop()
        await session.aclose()
        await asyncio.wait([pause], timeout=30.0)
        assert pause.done()
        if stopped:
            assert pause.result()
        else:
            assert isinstance(pause.exception(), SessionClosedError)
            with pytest.raises(SessionClosedError):
                await session.wait_stopping(1.0)
        await session.open()
        assert not await session.wait_stopping(1.0)


@pytest.mark.parametrize("timeout", [-1.0, math.nan, "1", True])
async def test_a_pause_has_a_valid_length(session: Session, timeout: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"^timeout must"):
        await session.wait_stopping(timeout)


async def test_a_session_that_is_not_open_does_not_stop(services: Scripted) -> None:
    """The request has no effect before it is opened, and after it was closed."""
    session = services.session()
    session.stop()
    assert not session.stopping
    async with session:
        pass
    session.stop()
    assert not session.stopping


# -- from outside the event loop, which is blocked in its selector: real time ----------------------


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if request.param == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop
    return factory


def run_until_stopped(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], arrange: Callable[[Session], None]
) -> None:
    """Wait an hour for the second poll; *arrange* is called when the first is done.

    Fails if the loop is woken up by its next timer only, that of the idle connection.
    """

    async def main() -> None:
        rates = {"peerbet.chat.get": Rate(3600.0)}
        async with FakeServices() as fake, fake.session(rates=rates) as session:
            reading = asyncio.ensure_future(read_all(session))
            await wait_until(lambda: session.health().endpoints["peerbet.chat.get"].last_success)
            started = now()
            arrange(session)
            async with asyncio.timeout(10.0):
                assert await reading == []
            assert now() - started < KEEPALIVE_TIMEOUT - 0.5

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_another_thread_can_stop_it(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """The event loop is woken up."""
    run_until_stopped(loop_factory, lambda session: threading.Timer(0.05, session.stop).start())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no timer signals")
def test_a_signal_handler_can_stop_it(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """The event loop is woken up, although a handler by `signal.signal` does not do that."""

    def arrange(session: Session) -> None:
        signal.signal(signal.SIGALRM, lambda *_: session.stop())
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    previous = signal.getsignal(signal.SIGALRM)
    try:
        run_until_stopped(loop_factory, arrange)
    finally:
        signal.signal(signal.SIGALRM, previous)
