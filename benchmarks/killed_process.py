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
from .competitors.polling import Place
from .pythpeer_readers import session

__all__ = ["CHAT", "KILLED", "MAIL", "Life"]

PAUSE: Final = 0.02
"""Seconds between two requests: here time is real, and the services are one's own."""

IDLE: Final = 6.0
"""Seconds after which a life ends by itself, if nothing comes: longer than a dead one leads."""

KILLED: Final = 9

Texts = AsyncGenerator[str, None]
"""A text is handled once the next one is asked for."""


class Life(msgspec.Struct, frozen=True):
    """What to do, and when to die."""

    way: str
    place: Place
    file: str
    dies_at: int
    """Die with this text in hand, if it is not 0."""

    last: str
    """The text after which nothing comes any more."""


async def _chat(place: Place, file: Path) -> Texts:
    after = None if _exists(file) else 0
    async with (
        session(place, SqliteStore(file), interval=PAUSE) as opened,
        opened.peerbet.chat_stream(name="me", after=after) as stream,
    ):
        async for message in stream:
            yield message.text


async def _mail(place: Place, store: Store) -> Texts:
    async with (
        session(place, store, interval=PAUSE) as opened,
        opened.pythbots.mail_stream(name="me") as stream,
    ):
        async for mail in stream:
            yield mail.text or ""


async def _last_id(place: Place, file: Path, *, first: bool) -> Texts:
    """The last id in a file, written when a page was read, or after each of its messages."""
    last = _read(file)
    async with aiohttp.ClientSession() as http:
        while True:
            await asyncio.sleep(PAUSE)
            page = await lines(http, place, mid=last, last=300)
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


async def _readnew(place: Place) -> Texts:
    asked = f"personalkey={place.personal_key}&readnew"
    async with aiohttp.ClientSession() as http:
        while True:
            await asyncio.sleep(PAUSE)
            found: list[dict[str, Any]] = await get(
                http, f"{place.pythbots_url}/api/mail.php", asked
            )
            for mail in found:
                yield mail["message"]


Way = Callable[[Place, Path], Texts]

CHAT: Final[dict[str, Way]] = {
    "pythpeer, SqliteStore": _chat,
    "aiohttp, last id to a file first": partial(_last_id, first=True),
    "aiohttp, last id to a file after each": partial(_last_id, first=False),
}
MAIL: Final[dict[str, Way]] = {
    "pythpeer, SqliteStore": lambda place, file: _mail(place, SqliteStore(file)),
    "pythpeer, MemoryStore": lambda place, _: _mail(place, MemoryStore()),
    "aiohttp, readnew": lambda place, _: _readnew(place),
}


async def _live(life: Life, way: Way) -> None:
    count = 0
    async with contextlib.aclosing(way(life.place, Path(life.file))) as texts:
        text = ""
        while text != life.last:
            try:
                async with asyncio.timeout(IDLE):
                    text = await anext(texts)
            except TimeoutError:
                return
            count += 1
            if count == life.dies_at:
                os._exit(KILLED)  # as a kill does: nothing is closed, nothing is flushed
            print(text, flush=True)


def main() -> None:
    logging.disable()
    life = msgspec.json.decode(sys.argv[2], type=Life)
    ways = MAIL if sys.argv[1] == "mail" else CHAT
    asyncio.run(_live(life, ways[life.way]))


if __name__ == "__main__":
    main()
