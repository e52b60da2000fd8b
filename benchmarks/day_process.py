"""One program that follows a chat for a day, in a process of its own, on virtual time.

Started by `day` with an order on the command line; prints what came of it. The service is in the
same process, and no more than what a poll asks of it. Whatever is counted has its room beforehand,
so that what the process grows by is the program's.
"""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from pythpeer import MemoryStore, SqliteStore
from pythpeer.stores.base import Store

from .competitors.fan_out import fan_out
from .competitors.polling import Place, Reader, Reading, arms
from .day_workload import Receipt, Room, receipt, timetable
from .durable import TEXT
from .inprocess_server import answered, resident, serving
from .pythpeer_readers import reading_of, session
from .subprocesses import obey, order_of

__all__ = ["READERS", "Order", "Result", "ways"]

SEED: Final = 20121212

FIRST: Final = 600.0
"""Seconds before which memory is not looked at: by then everything has gone wrong once."""

TOO_LONG: Final = ("aiohttp, the last 50 and a set",)
"""What `loss` has shown enough of: it reads fifty messages each time."""

READERS: Final = 2
"""Parts of the program that want every message."""


class Order(msgspec.Struct, frozen=True):
    """What to do, and for how long."""

    way: str
    seconds: float


class Result(msgspec.Struct, frozen=True):
    """What came of it."""

    receipt: Receipt
    requests: int
    cpu: float
    resident: tuple[int | None, int | None]
    """Bytes after the first hour of a day, and at its end."""


Readings = Callable[[Place, Path], AbstractAsyncContextManager[Sequence[Reading]]]


@asynccontextmanager
async def _streams(place: Place, store: Store) -> AsyncGenerator[Sequence[Reading]]:
    """One session, and a stream with a name for each reader."""
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(session(place, store, guard=0.0))
        readings: list[Reading] = []
        for number in range(READERS):
            stream = opened.peerbet.chat_stream(name=f"reader {number}")
            readings.append(reading_of(await stack.enter_async_context(stream)))
        yield readings


@asynccontextmanager
async def _each(reader: Reader, place: Place, _: Path) -> AsyncGenerator[Sequence[Reading]]:
    """A whole program for each reader."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(reader(place)) for _ in range(READERS)]


def ways() -> dict[str, Readings]:
    """Every way by its name, those that take longest first."""
    found: dict[str, Readings] = {
        "pythpeer, SqliteStore": lambda place, folder: _streams(
            place, SqliteStore(folder / "day.sqlite")
        ),
        "pythpeer, MemoryStore": lambda place, _: _streams(place, MemoryStore()),
    }
    for name, arm in arms()[0].items():
        if arm.chat is not None and name not in TOO_LONG:
            found[name] = partial(_each, arm.chat)
    found["aiohttp, one poller, a queue each"] = lambda place, _: fan_out(place, READERS)
    return found


class _Day:
    """The service, and what the readers got of it."""

    def __init__(self, seconds: float) -> None:
        self.seconds: Final = seconds
        self.moments: Final = timetable(seconds, SEED)
        self.room: Final = Room(self.moments, seconds)
        self.came: Final = [array("d", [-1.0]) * len(self.moments) for _ in range(READERS)]
        self.doubled = 0

    def answer(self, target: str) -> bytes | None:
        asked = dict(parse_qsl(urlsplit(target).query))
        after, last = (int(asked[name]) if name in asked else None for name in ("mid", "last"))
        ids = self.room.page(_now(), after, last)
        if ids is None:
            return None
        return answered({"status": 1, "users_online": 3, "message_list": [*map(_line, ids)]})

    async def follow(self, reading: Reading, came: array[float]) -> None:
        while True:
            for text in await reading.step():
                place = int(text.partition(" ")[0]) - 1
                self.doubled += came[place] >= 0.0
                if came[place] < 0.0:
                    came[place] = _now()


def _line(id: int) -> dict[str, object]:
    about = {"by": "somebody", "to": "", "date": "2012-12-12 21:12:21", "bot": 0, "my": 0, "me": 0}
    return {"id": id, "msg": f"{id} {TEXT}", **about}


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _run(order: Order, folder: Path) -> Result:
    day = _Day(order.seconds)
    cpu = time.process_time()
    async with serving(day.answer) as url:
        place = Place(url, url, "0123456789abcdef", "0123456789abcdef")
        async with ways()[order.way](place, folder) as readings:
            tasks = [
                asyncio.create_task(day.follow(*each))
                for each in zip(readings, day.came, strict=True)
            ]
            await asyncio.sleep(max(FIRST, order.seconds / 24))
            first = _held()
            await asyncio.wait(tasks, timeout=order.seconds - _now())
            last = _held()
            for task in tasks:
                task.cancel()
            for over in await asyncio.gather(*tasks, return_exceptions=True):
                if not isinstance(over, asyncio.CancelledError):
                    raise RuntimeError(f"{order.way}: a reader ended") from over
            gaps = [list(reading.gaps()) for reading in readings]
    seen = receipt(day.moments, day.came, day.doubled, gaps)
    return Result(seen, day.room.requests, time.process_time() - cpu, (first, last))


def _held() -> int | None:
    gc.collect()
    return resident()


def main() -> None:
    obey(order_of(Order), _run)


if __name__ == "__main__":
    main()
