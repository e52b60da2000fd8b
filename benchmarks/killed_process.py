"""A program that reads and is killed in the middle of it: a process of its own, for `loss`.

It prints what it has handled. What it keeps from one life to the next is a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from pythpeer import MemoryStore, SqliteStore
from pythpeer.stores.base import Store

from .competitors.bare_loops import get, lines
from .competitors.polling import ServiceAccess
from .pythpeer_readers import session

__all__ = ["CHAT", "KILLED", "MAIL", "KilledRun"]

PAUSE: Final = 0.02
"""Seconds between two requests: here time is real, and the services are one's own."""

IDLE: Final = 6.0
"""Seconds after which a life ends by itself, if nothing comes: longer than a dead one leads."""

KILLED: Final = 9

Texts = AsyncGenerator[str, None]
"""A text is handled once the next one is asked for."""


class KilledRun(msgspec.Struct, frozen=True):
    """What to do, and when to die."""

    way: str
    access: ServiceAccess
    file: str
    kill_after: int
    """Die with this text in hand, if it is not 0."""

    last: str
    """The text after which nothing comes any more."""


async def _chat(access: ServiceAccess, file: Path) -> Texts:
    after = None if _exists(file) else 0
    async with (
        session(access, SqliteStore(file), interval=PAUSE) as opened,
        opened.peerbet.chat_stream(name="me", after=after) as stream,
    ):
        async for message in stream:
            yield message.text


async def _mail(access: ServiceAccess, store: Store) -> Texts:
    async with (
        session(access, store, interval=PAUSE) as opened,
        opened.pythbots.mail_stream(name="me") as stream,
    ):
        async for mail in stream:
            yield mail.text or ""


async def _last_id(access: ServiceAccess, file: Path, *, first: bool) -> Texts:
    """The last id in a file, written when a page was read, or after each of its messages."""
    last = _read(file)
    async with aiohttp.ClientSession() as http:
        while True:
            await asyncio.sleep(PAUSE)
            page = await lines(http, access, mid=last, last=300)
            if page and first:
                last = page[-1]["id"]
                _write(file, last)
            for line in page:
                yield line["msg"]
                if not first:
                    last = line["id"]
                    _write(file, last)


def _exists(file: Path) -> bool:
    return file.exists()


def _read(file: Path) -> int:
    return int(file.read_text("ascii")) if file.exists() else 0


def _write(file: Path, last: int) -> None:
    file.write_text(str(last), "ascii")


async def _readnew(access: ServiceAccess) -> Texts:
    params = f"personalkey={access.personal_key}&readnew"
    async with aiohttp.ClientSession() as http:
        while True:
            await asyncio.sleep(PAUSE)
            mails: list[dict[str, Any]] = await get(
                http, f"{access.pythbots_url}/api/mail.php", params
            )
            for mail in mails:
                yield mail["message"]


Way = Callable[[ServiceAccess, Path], Texts]

CHAT: Final[dict[str, Way]] = {
    "pythpeer, SqliteStore": _chat,
    "aiohttp, last id to a file before handling": partial(_last_id, first=True),
    "aiohttp, last id to a file after each message": partial(_last_id, first=False),
}
MAIL: Final[dict[str, Way]] = {
    "pythpeer, SqliteStore": lambda access, file: _mail(access, SqliteStore(file)),
    "pythpeer, MemoryStore": lambda access, _: _mail(access, MemoryStore()),
    "aiohttp, readnew": lambda access, _: _readnew(access),
}


async def _run(run: KilledRun, way: Way) -> None:
    count = 0
    async with contextlib.aclosing(way(run.access, Path(run.file))) as texts:
        text = ""
        while text != run.last:
            try:
                async with asyncio.timeout(IDLE):
                    text = await anext(texts)
            except TimeoutError:
                return
            count += 1
            if count == run.kill_after:
                os._exit(KILLED)  # as a kill does: nothing is closed, nothing is flushed
            print(text, flush=True)


def main() -> None:
    logging.disable()
    run = msgspec.json.decode(sys.argv[2], type=KilledRun)
    ways = MAIL if sys.argv[1] == "mail" else CHAT
    asyncio.run(_run(run, ways[run.way]))


if __name__ == "__main__":
    main()
