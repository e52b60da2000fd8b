"""Resuming in another run of the program: from the position of a name, or from the beginning."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from helpers import take_ids
from scripted import Scripted, ScriptedFault, Window
from stores import StoreFactory

from pythpeer import Gap, GapError, OutcomeUnknownError, SqliteStore
from pythpeer.stores import Store
from pythpeer.testing import FakeServices

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "bot.sqlite"


async def test_a_name_resumes_after_its_last_acknowledged_message(path: Path) -> None:
    """The message returned last is returned again, unless it was acknowledged."""
    async with Scripted() as services:
        services.say(10)
        taken: list[int] = []
        for first, acknowledge in ((1, False), (4, True), (8, False)):
            async with services.session(store=SqliteStore(path)) as session:
                stream = session.peerbet.chat_stream(after=0 if first == 1 else None, name="me")
                taken = await take_ids(stream, 3 if first == 8 else 4)
                if acknowledge:
                    await stream.ack()
            assert taken[0] == first
        assert taken == [8, 9, 10]


async def test_a_new_name_is_stored_at_its_initial_position(path: Path) -> None:
    """What arrives before its next run is returned, although nothing was acknowledged."""
    async with Scripted() as services:
        services.say(3)
        session = services.session(store=SqliteStore(path))
        async with session, session.peerbet.chat_stream(name="me"):
            pass
        services.say(2)
        async with services.session(store=SqliteStore(path)) as session:
            assert await take_ids(session.peerbet.chat_stream(name="me"), 2) == [4, 5]


@pytest.mark.parametrize("step", [1, 3])
async def test_a_long_absence_is_reported_once(
    path: Path, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A gap where the service could not show everything; after it there is none."""
    async with Scripted(window="newest") as services:
        services.say(5, step=step)
        async with services.session(store=SqliteStore(path)) as session:
            stream = session.peerbet.chat_stream(after=0, name="me")
            await take_ids(stream, 5)
            await stream.ack()
        services.say(1000, step=step)
        wanted = services.ids[-300:]
        async with services.session(store=SqliteStore(path)) as session:
            stream = session.peerbet.chat_stream(name="me")
            assert await take_ids(stream, 300) == wanted
            assert stream.gaps == (Gap(5 * step, wanted[0]),)
            assert await take_ids(session.peerbet.chat_stream(after=5 * step), 1) == wanted[:1]
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1
        services.say(1, step=step)
        async with services.session(store=SqliteStore(path)) as session:
            stream = session.peerbet.chat_stream(name="me", on_gap="raise")
            assert await take_ids(stream, 2) == [wanted[-1], services.newest]
            assert stream.gaps == ()


async def test_a_gap_of_an_absence_is_raised_once(path: Path) -> None:
    """And the stream can continue."""
    async with Scripted(window="newest") as services:
        session = services.session(store=SqliteStore(path))
        async with session, session.peerbet.chat_stream(after=0, name="me"):
            pass
        services.say(1)
        async with services.session(store=SqliteStore(path)) as session:
            stream = session.peerbet.chat_stream(name="me")
            await take_ids(stream, 1)
            await stream.ack()
        services.say(600)
        async with services.session(store=SqliteStore(path)) as session:
            stream = session.peerbet.chat_stream(name="me", on_gap="raise")
            with pytest.raises(GapError) as caught:
                await take_ids(stream, 1)
            assert (caught.value.after, caught.value.before) == (1, 302)
            assert await take_ids(stream, 2) == [302, 303]


@pytest.mark.parametrize("window", ["newest", "oldest"])
async def test_from_the_beginning_is_from_the_store_s_own(path: Path, window: Window) -> None:
    """``after=0`` replays from the log what the service shows no more, once, and continues."""
    async with Scripted(window=window) as services:
        async with services.session(store=SqliteStore(path)) as session:
            stream = session.peerbet.chat_stream(after=0, name="archive")
            for _ in range(5):
                services.say(250)
                await take_ids(stream, 250)
        del services.chat.messages[:-100]  # the service forgets
        async with services.session(store=SqliteStore(path)) as session:
            services.say(7)
            stream = session.peerbet.chat_stream(after=0)
            assert await take_ids(stream, 1257) == list(range(1, 1258))
            assert stream.gaps == ()


async def test_mail_that_a_direct_call_has_returned_is_not_returned_again(path: Path) -> None:
    """What a call could not return is returned by a call of the next run."""
    async with Scripted() as services:
        services.deliver("one", "two")
        async with services.session(store=SqliteStore(path)) as session:
            assert [mail.text for mail in await session.pythbots.unread_mail()] == ["one", "two"]
        services.deliver("three")
        services.script("readnew", ScriptedFault(end="drop"))
        async with services.session(store=SqliteStore(path)) as session:
            with pytest.raises(OutcomeUnknownError):
                await session.pythbots.unread_mail()
        async with services.session(store=SqliteStore(path)) as session:
            assert [mail.text for mail in await session.pythbots.unread_mail()] == ["three"]
            assert await session.pythbots.unread_mail() == ()
            stream = session.pythbots.mail_stream()
            async with asyncio.timeout(60):
                taken = [(await anext(stream)).text for _ in range(3)]
        assert taken == ["one", "two", "three"]


# -- another key ----------------------------------------------------------------------------------


async def texts_with_key(
    fake: FakeServices, store: Store, key: str | None, after: int | None = None
) -> list[str]:
    """Return what the stream "bot" gets in a session with this key, and acknowledge it."""
    texts: list[str] = []
    async with fake.session(store=store, peerbet_key=key) as session:
        stream = session.peerbet.chat_stream(name="bot", after=after)
        with anyio.move_on_after(6.0):
            async for message in stream:
                texts.append(message.text)  # noqa: PERF401  # what arrived in time is returned
        await stream.ack()
    return texts


@pytest.fixture
async def chat() -> AsyncIterator[FakeServices]:
    """Services with a second account, whose key is "second-key"."""
    async with FakeServices() as fake:
        fake.chat.register("second", "second-key")
        yield fake


@pytest.mark.parametrize("keys", [(None, "second-key"), ("fake-peerbet-key", "second-key")])
async def test_a_name_continues_with_a_new_key(
    new_store: StoreFactory, chat: FakeServices, keys: tuple[str | None, str]
) -> None:
    """And with the old one again, whichever was used last; nothing is redelivered."""
    store = new_store()
    chat.chat.say("alice", "before")
    assert await texts_with_key(chat, store, keys[0], after=0) == ["before"]
    for number in range(4):
        chat.chat.say("alice", f"missed {number}")
        texts = await texts_with_key(chat, store, keys[1 - number % 2])
        assert texts == [f"missed {number}"]


async def test_private_messages_of_another_account_are_not_returned(
    new_store: StoreFactory, chat: FakeServices
) -> None:
    """Each account sees its own, although both have the same name of a stream."""
    store = new_store()
    chat.chat.say("alice", "to the first", to=chat.username)
    chat.chat.say("alice", "to the second", to="second")
    chat.chat.say("second", "to all")
    first = await texts_with_key(chat, store, chat.peerbet_key, after=0)
    assert first == ["to the first", "to all"]
    assert await texts_with_key(chat, store, "second-key", after=0) == ["to the second", "to all"]
    async with chat.session(store=store, peerbet_key="second-key") as session:
        message = await anext(session.peerbet.chat_stream(after=2))
        assert message.is_mine


async def test_an_explicit_position_counts_for_every_key(
    new_store: StoreFactory, chat: FakeServices
) -> None:
    """A name that was moved backwards with one key stays there with the other."""
    store = new_store()
    for number in range(4):
        chat.chat.say("alice", f"message {number}")
    assert len(await texts_with_key(chat, store, "second-key", after=0)) == 4
    assert len(await texts_with_key(chat, store, None)) == 0
    session = chat.session(store=store, peerbet_key=None)
    async with session, session.peerbet.chat_stream(name="bot", after=1):
        pass
    assert len(await texts_with_key(chat, store, "second-key")) == 3


async def test_another_address_has_other_positions(new_store: StoreFactory) -> None:
    """A name belongs to a service and its address."""
    store = new_store()
    async with Scripted() as one, Scripted() as other:
        one.say(5)
        other.say(3)
        async with one.session(store=store) as session:
            await take_ids(session.peerbet.chat_stream(after=0, name="bot"), 5)
        session = other.session(store=store)
        async with session, session.peerbet.chat_stream(name="bot") as stream:
            other.say()
            assert await take_ids(stream, 1) == [4]
