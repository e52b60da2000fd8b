"""Bare aiohttp: a loop with a request and a pause."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import aiohttp

from .polling import Candidate, Reading, ServiceAccess

__all__ = ["CANDIDATES", "FAILURES", "by_last_id", "get", "lines"]

PAUSE: Final = 1.0
"""Seconds between two requests, as both services require."""

FAILURES: Final = (aiohttp.ClientError, TimeoutError)

Params = Mapping[str, str | int]


async def get(http: aiohttp.ClientSession, url: str, params: Params | str) -> Any:
    """Send a request and return its JSON."""
    async with http.get(url, params=params) as response:
        response.raise_for_status()
        return await response.json(content_type=None)


async def lines(
    http: aiohttp.ClientSession, access: ServiceAccess, **params: int
) -> list[dict[str, Any]]:
    """Return messages of the chat, the oldest first."""
    asked: Params = {"action": "get", "key": access.peerbet_key, **params}
    page = await get(http, f"{access.peerbet_url}/api/chat/", asked)
    return sorted(page["message_list"], key=lambda line: line["id"])


async def _mails(
    http: aiohttp.ClientSession, access: ServiceAccess, which: str
) -> list[dict[str, Any]]:
    asked = f"personal_key={access.personal_key}&{which}"
    return list(await get(http, f"{access.pythbots_url}/api/mail.php", asked))


@asynccontextmanager
async def by_last_id(access: ServiceAccess) -> AsyncGenerator[Reading]:
    """Read the messages after the last id."""
    last = 0

    async def step() -> Sequence[str]:
        nonlocal last
        await asyncio.sleep(PAUSE)
        try:
            page = await lines(http, access, mid=last, last=300)
        except FAILURES:
            return []
        if page:
            last = page[-1]["id"]
        return [line["msg"] for line in page]

    async with aiohttp.ClientSession() as http:
        yield Reading(step)


@asynccontextmanager
async def _by_seen(access: ServiceAccess) -> AsyncGenerator[Reading]:
    seen: set[int] = set()

    async def step() -> Sequence[str]:
        await asyncio.sleep(PAUSE)
        try:
            page = await lines(http, access)
        except FAILURES:
            return []
        new = [line for line in page if line["id"] not in seen]
        seen.update(line["id"] for line in new)
        return [line["msg"] for line in new]

    async with aiohttp.ClientSession() as http:
        yield Reading(step)


@asynccontextmanager
async def _unread(access: ServiceAccess, attempts: int) -> AsyncGenerator[Reading]:
    async def step() -> Sequence[str]:
        for _ in range(attempts):
            await asyncio.sleep(PAUSE)
            with contextlib.suppress(*FAILURES):
                return [mail["message"] for mail in await _mails(http, access, "readnew")]
        return []

    async with aiohttp.ClientSession() as http:
        yield Reading(step)


@asynccontextmanager
async def _all_mail(access: ServiceAccess) -> AsyncGenerator[Reading]:
    seen: set[str] = set()

    async def step() -> Sequence[str]:
        await asyncio.sleep(PAUSE)
        try:
            texts = [mail["message"] for mail in await _mails(http, access, "readall")]
        except FAILURES:
            return []
        new = [text for text in texts if text not in seen]
        seen.update(new)
        return new

    async with aiohttp.ClientSession() as http:
        yield Reading(step)


@asynccontextmanager
async def _post(
    access: ServiceAccess, attempts: int
) -> AsyncGenerator[Callable[[str], Awaitable[object]]]:
    async def post(text: str) -> None:
        asked = {"action": "set", "key": access.peerbet_key, "msg": text}
        for attempt in range(1, attempts + 1):
            try:
                await get(http, f"{access.peerbet_url}/api/chat/", asked)
            except FAILURES:
                if attempt == attempts:
                    raise
                await asyncio.sleep(PAUSE)
            else:
                return

    async with aiohttp.ClientSession() as http:
        yield post


CANDIDATES: Final = (
    Candidate("aiohttp, the last id", chat=by_last_id),
    Candidate("aiohttp, the last 50 and a set", chat=_by_seen),
    Candidate("aiohttp, readnew", mail=partial(_unread, attempts=1)),
    Candidate("aiohttp, readnew, three attempts", mail=partial(_unread, attempts=3)),
    Candidate(
        "aiohttp, readall and a set",
        mail=_all_mail,
        note=(
            "readall and a set of texts: each response holds all mail ever received, and "
            "two equal mails count as one."
        ),
    ),
    Candidate("aiohttp, get()", post=partial(_post, attempts=1)),
    Candidate("aiohttp, get(), three attempts", post=partial(_post, attempts=3)),
)
