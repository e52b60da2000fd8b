"""Resuming in another run of the program: from the position of a name, or from the beginning."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from helpers import take_ids
from scripted import Scripted, ScriptedFault, Window

from pythpeer import Gap, GapError, OutcomeUnknownError, SqliteStore

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
