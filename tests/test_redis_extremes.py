"""The options of a Redis store at their extremes, and rates on it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from helpers import now
from redis_virtual import VirtualRedisStore

from pythpeer import Rate, RateLimitedError
from pythpeer.pacing.queue import Priority
from pythpeer.stores import RedisStore
from pythpeer.testing import FakeServices

pytestmark = pytest.mark.anyio

INT32_MAX: Final = 2**31 - 1
MAX_SECONDS: Final = sys.float_info.max


@pytest.fixture
async def server() -> AsyncIterator[VirtualRedisStore]:
    server = VirtualRedisStore(max_length=10)
    await server.open()
    yield server
    await server.aclose()


async def use_all(server: VirtualRedisStore, options: dict[str, Any]) -> None:
    """Receive a message and mail by streams and by calls."""
    async with FakeServices() as fake:
        store = RedisStore(server.url, **options)
        async with fake.session(store=store) as client:
            async with client.peerbet.chat_stream(name="bot", after=0) as chat:
                fake.chat.say("alice", "hello")
                assert (await anext(chat)).text == "hello"
                await chat.ack()
            fake.mail.deliver("bob", "one")
            async with client.pythbots.mail_stream(name="bot") as mails:
                assert (await anext(mails)).text == "one"
                await mails.ack()
            fake.mail.deliver("bob", "two")
            assert [mail.text for mail in await client.pythbots.unread_mail()] == ["two"]


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": MAX_SECONDS},
        {"timeout": 1},
        {"patience": MAX_SECONDS},
        {"patience": 0},
        {"max_length": None},
        {"max_length": 1},
        {"max_length": INT32_MAX},
        {"prefix": "p" * 100},
        {"prefix": "[*]?\\"},
    ],
    ids=str,
)
async def test_options_of_a_store(server: VirtualRedisStore, options: dict[str, Any]) -> None:
    """All that are accepted work."""
    await use_all(server, options)


@pytest.mark.parametrize(
    ("rate", "available"),
    [
        (Rate(1e-9), True),
        (Rate(1.0, burst=INT32_MAX), True),
        (Rate(MAX_SECONDS), False),
        (Rate(1.0, guard=MAX_SECONDS), False),
        (Rate(MAX_SECONDS, burst=INT32_MAX), False),
    ],
    ids=str,
)
async def test_rates(server: VirtualRedisStore, rate: Rate, available: bool) -> None:
    """The server has been running for an hour: that is all the time since which it knows tokens."""
    limiter = server.limiter("k", "x", rate)
    if available:
        permit = await limiter.acquire(Priority.CALL, 0.0)
        permit.on_written()
        permit.on_answered(200)
        permit.close()
    else:
        with pytest.raises(RateLimitedError):
            await limiter.acquire(Priority.CALL, 100.0)
    limiter.pause(MAX_SECONDS)
    await asyncio.sleep(1.0)
    assert (await server.snapshot()).endpoints[0].paused_for > 1e8
    assert now() < 120.0
