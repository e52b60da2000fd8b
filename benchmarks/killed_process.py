"""A reading program that is killed while handling a text: a subprocess of `loss`.

It prints the texts that it has handled, and keeps its state between two runs in a file.
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
"""Seconds between two requests, on real time against local fake services."""

IDLE: Final = 6.0
"""Seconds without a text after which a run ends; longer than the lease of a dead leader."""

KILLED: Final = 9

Texts = AsyncGenerator[str, None]
"""A text is handled when the next one is requested."""


class KilledRun(msgspec.Struct, frozen=True):
    """The settings of a run."""

    setup: str
    access: ServiceAccess
    file: str
    kill_after: int
    """Number of the text at which the process is killed; 0 for never."""

    last: str
    """The last text of the run."""


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
    """Keep the last id in a file, written after reading a page, or after each of its messages."""
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
    params = f"personal_key={access.personal_key}&readnew"
    async with aiohttp.ClientSession() as http:
        while True:
            await asyncio.sleep(PAUSE)
            mails: list[dict[str, Any]] = await get(
                http, f"{access.pythbots_url}/api/mail.php", params
            )
            for mail in mails:
                yield mail["message"]


Setup = Callable[[ServiceAccess, Path], Texts]

CHAT: Final[dict[str, Setup]] = {
    "pythpeer, SqliteStore": _chat,
    "aiohttp, last id to a file before handling": partial(_last_id, first=True),
    "aiohttp, last id to a file after each message": partial(_last_id, first=False),
}
MAIL: Final[dict[str, Setup]] = {
    "pythpeer, SqliteStore": lambda access, file: _mail(access, SqliteStore(file)),
    "pythpeer, MemoryStore": lambda access, _: _mail(access, MemoryStore()),
    "aiohttp, readnew": lambda access, _: _readnew(access),
}


async def _run(run: KilledRun, setup: Setup) -> None:
    count = 0
    async with contextlib.aclosing(setup(run.access, Path(run.file))) as texts:
        text = ""
        while text != run.last:
            try:
                async with asyncio.timeout(IDLE):
                    text = await anext(texts)
            except TimeoutError:
                return
            count += 1
            if count == run.kill_after:
                os._exit(KILLED)  # like a kill: nothing is closed or flushed
            print(text, flush=True)


def main() -> None:
    logging.disable()
    run = msgspec.json.decode(sys.argv[2], type=KilledRun)
    setups = MAIL if sys.argv[1] == "mail" else CHAT
    asyncio.run(_run(run, setups[run.setup]))


if __name__ == "__main__":
    main()
