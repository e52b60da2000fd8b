"""Going on in another life of the program: from where a name was, or from the beginning."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from helpers import take_ids
from scripted import ScriptedFault, Scripted, Window

from pythpeer import Gap, GapError, OutcomeUnknownError, SqliteStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "bot.sqlite"


async def test_a_name_goes_on_behind_its_last_acknowledged_message(path: Path) -> None:
    """The one that was handed out last comes again, unless it was acknowledged."""
    async with Scripted() as services:
        services.say(10)
        found: list[int] = []
        for first, acknowledge in ((1, False), (4, True), (8, False)):
            async with services.session(store=SqliteStore(path)) as session:
                stream = session.peerbet.chat_stream(after=0 if first == 1 else None, name="me")
                found = await take_ids(stream, 3 if first == 8 else 4)
                if acknowledge:
                    await stream.ack()
            assert found[0] == first
        assert found == [8, 9, 10]


async def test_a_new_name_is_stored_at_its_starting_place(path: Path) -> None:
    """What arrives before its next life is there, although it never acknowledged anything."""
    async with Scripted() as services:
        services.say(3)
        session = services.session(store=SqliteStore(path))
        async with session, session.peerbet.chat_stream(name="me"):
            pass
        services.say(2)
        async with services.session(store=SqliteStore(path)) as session:
            assert await take_ids(session.peerbet.chat_stream(name="me"), 2) == [4, 5]


@pytest.mark.parametrize("step", [1, 3])
async def test_a_long_absence_is_said_once(
    path: Path, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A gap where the service could not show everything; behind it, never again."""
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
        said = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(said) == 1
        services.say(1, step=step)
        async with services.session(store=SqliteStore(path)) as session:
            stream = session.peerbet.chat_stream(name="me", on_gap="raise")
            assert await take_ids(stream, 2) == [wanted[-1], services.newest]
            assert stream.gaps == ()


async def test_a_gap_of_an_absence_is_raised_once(path: Path) -> None:
    """And going on is possible."""
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
    """``after=0`` replays what the service shows no more, in order, each once, and goes on."""
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
    """Nor is what a call could not return forgotten: the next life's call has it."""
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
                found = [(await anext(stream)).text for _ in range(3)]
        assert found == ["one", "two", "three"]
