"""Every option of a session at its extremes, on every store: chat, mail and calls, on virtual time.

Those of a Redis store alone are in `test_redis_extremes`.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest
from stores import STORES

from pythpeer import (
    OutcomeUnknownError,
    PythpeerError,
    Rate,
    ResponseTooLargeError,
    Retry,
    Session,
    TransportError,
)
from pythpeer.testing import DEFAULT_RATES, FakeServices

pytestmark = pytest.mark.anyio

INT32_MAX: Final = 2**31 - 1
MAX_SECONDS: Final = sys.float_info.max
MAX_GUARD: Final = 3000.0
"""A server that has been running for less than the guard grants no token: it does not know how late
the requests of before are counted. The server of the tests has been running for an hour."""


def all_rates(rate: Rate) -> dict[str, Rate]:
    return dict.fromkeys(DEFAULT_RATES, rate)


GREATEST: Final[Mapping[str, object]] = MappingProxyType(
    {
        "timeout": math.inf,
        "max_wait": math.inf,
        "max_body": INT32_MAX,
        "max_header": INT32_MAX,
        "idle_check": MAX_SECONDS,
        "retry": Retry(attempts=INT32_MAX, base_delay=MAX_SECONDS, max_delay=MAX_SECONDS),
        "rates": all_rates(Rate(0.5, burst=INT32_MAX, guard=MAX_GUARD)),
    }
)

OPTIONS: Final[Mapping[str, tuple[Mapping[str, object], int]]] = MappingProxyType(
    {
        "greatest": (GREATEST, INT32_MAX),
        "greatest finite": ({**GREATEST, "timeout": MAX_SECONDS, "max_wait": MAX_SECONDS}, 10_000),
        "least": (
            {
                "max_wait": 0,
                "idle_check": 1e-9,
                "retry": Retry(attempts=1, base_delay=0.0, max_delay=0.0),
                "rates": all_rates(Rate(0.0, guard=0.0)),
            },
            1,
        ),
        "least intervals": (
            {"idle_check": 0, "rates": all_rates(Rate(1e-9, guard=0.0)), "timeout": 1},
            1,
        ),
    }
)
"""By name: options of a session, and how many items each log keeps."""


async def use_chat(session: Session, fake: FakeServices) -> None:
    """Receive the messages of two sessions: the position is stored, and continued from."""
    async with session.peerbet.chat_stream(name="bot", after=0) as stream:
        for text in ("one", "two", "three"):
            fake.chat.say("alice", text)
            assert (await anext(stream)).text == text
        await stream.ack()
    fake.chat.say("alice", "four")
    async with session.peerbet.chat_stream(name="bot") as stream:
        assert (await anext(stream)).text == "four"
    assert (await session.peerbet.messages()).messages[-1].text == "four"
    assert await session.peerbet.post("five") > 0


async def use_mail(session: Session, fake: FakeServices) -> None:
    """Receive mail by a stream and by calls; nothing is lost or duplicated."""
    async with session.pythbots.mail_stream(name="bot") as stream:
        for text in ("one", "two"):
            fake.mail.deliver("bob", text)
            assert (await anext(stream)).text == text
        await stream.ack()
    fake.mail.deliver("bob", "three")
    assert [mail.text for mail in await session.pythbots.unread_mail()] == ["three"]
    assert len(await session.pythbots.all_mail()) == 3
    await session.pythbots.send_mail("bob", "hello")


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("store", STORES)
async def test_all_that_is_accepted_works(
    fake: FakeServices, folder: Path, store: str, options: tuple[Mapping[str, Any], int]
) -> None:
    """Each value is the greatest or the least one of its option."""
    settings, max_length = options
    async with fake.session(store=STORES[store](folder, max_length), **settings) as session:
        await asyncio.gather(use_chat(session, fake), use_mail(session, fake))
        await session.pythbots.user("tiro")
        assert session.health().ok
        assert len((await session._store.snapshot()).logs) == 2


TOO_SMALL: Final[Mapping[str, tuple[Mapping[str, object], type[PythpeerError]]]] = MappingProxyType(
    {
        "max_body": ({"max_body": 1}, ResponseTooLargeError),
        "max_header": ({"max_header": 1}, TransportError),
    }
)


@pytest.mark.parametrize(("settings", "error"), TOO_SMALL.values(), ids=TOO_SMALL.keys())
@pytest.mark.parametrize("store", STORES)
async def test_what_no_response_fits_into_is_an_error(
    fake: FakeServices,
    folder: Path,
    store: str,
    settings: Mapping[str, Any],
    error: type[PythpeerError],
) -> None:
    """Of each call; streams wait, and have everything when the next session has a usual value."""
    shared = STORES[store](folder, 100)
    fake.chat.say("alice", "hello")
    fake.mail.deliver("bob", "hello")
    async with fake.session(store=shared, retry=Retry(attempts=1), **settings) as session:
        for call in (session.peerbet.messages, session.pythbots.all_mail):
            with pytest.raises(error):
                await call()
        with pytest.raises((error, OutcomeUnknownError)):
            await session.peerbet.post("hi")
        streams = session.peerbet.chat_stream(after=0), session.pythbots.mail_stream()
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await asyncio.wait(waiting, timeout=10.0)
        assert not any(task.done() for task in waiting)
        assert not session.health().ok
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    async with fake.session(store=shared) as session:
        assert (await anext(session.peerbet.chat_stream(after=0))).text == "hello"
        assert (await anext(session.pythbots.mail_stream())).text == "hello"
