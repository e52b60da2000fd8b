"""A client that sends raw requests to `FakeServices`, and helpers of the tests of them."""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec
import pytest
from helpers import VIRTUAL
from yarl import URL

from pythpeer.testing import FakeServices

on_virtual_time = pytest.mark.parametrize("anyio_backend", [VIRTUAL], ids=["virtual"])

CHAT = "/api/chat/?action="
MAIL = "/api/mail.php?personal_key=fake-personal-key"
SET = f"{CHAT}set&key=fake-peerbet-key"
INFO = "/api/userinfo.php?user="


class Client:
    """Sends raw queries, byte for byte, and decodes the responses."""

    def __init__(self, fake: FakeServices, http: aiohttp.ClientSession) -> None:
        self.fake = fake
        self.http = http

    def url(self, target: str) -> URL:
        of_peerbet = target.startswith("/api/chat")
        base = self.fake.peerbet_url if of_peerbet else self.fake.pythbots_url
        return URL(base + target, encoded=True)

    async def get(self, target: str, **headers: str) -> Any:
        async with self.http.get(self.url(target), headers=headers) as response:
            return msgspec.json.decode(await response.read())

    async def status(self, target: str, method: str = "GET") -> int:
        async with self.http.request(method, self.url(target)) as response:
            return response.status

    async def ids(self, query: str = "") -> list[int]:
        """Return the ids of the messages in the response to a get with this query added."""
        answer = await self.get(f"{CHAT}get{query}")
        return [message["id"] for message in answer["message_list"]]


class ManualClock:
    """A clock that stands still until it is advanced, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def connect() -> aiohttp.ClientSession:
    """Open a client session for a test that creates its fake itself."""
    return aiohttp.ClientSession(headers={"User-Agent": "test"})


def add_messages(fake: FakeServices, count: int) -> None:
    for number in range(count):
        fake.chat.say("alice", f"message {number}")
