"""One program that follows a chat for a day on virtual time: a subprocess of `day`.

Receives a `RunSpec` on the command line, and prints a `Result`. A minimal service runs in the same
process. The memory for counting is allocated beforehand, so that the growth of the process is the
growth of the program.
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
from .competitors.polling import Reader, Reading, ServiceAccess, load_candidates
from .day_workload import DeliveryResult, ModelService, delivery_result, make_post_times
from .durable import TEXT
from .inprocess_server import answered, resident, serving
from .pythpeer_readers import reading_of, session
from .subprocesses import read_spec, run_spec

__all__ = ["READERS", "Result", "RunSpec", "setups"]

SEED: Final = 20121212

MIN_WARM_UP: Final = 600.0
"""Seconds before the first sample of memory; by then every fault has occurred once."""

SKIPPED: Final = ("aiohttp, the last 50 and a set",)
"""Programs that are measured in `loss` only: this one reads fifty messages each time."""

READERS: Final = 2
"""Readers in the program; each must receive every message."""


class RunSpec(msgspec.Struct, frozen=True):
    """The program and the duration in seconds."""

    setup: str
    seconds: float


class Result(msgspec.Struct, frozen=True):
    """The result of a program."""

    delivery_result: DeliveryResult
    requests: int
    cpu: float
    resident: tuple[int | None, int | None]
    """Resident bytes after the first hour of a day, and at its end."""


Readings = Callable[[ServiceAccess, Path], AbstractAsyncContextManager[Sequence[Reading]]]


@asynccontextmanager
async def _streams(access: ServiceAccess, store: Store) -> AsyncGenerator[Sequence[Reading]]:
    """Open one session with a named stream for each reader."""
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(session(access, store, guard=0.0))
        readings: list[Reading] = []
        for number in range(READERS):
            stream = opened.peerbet.chat_stream(name=f"reader {number}")
            readings.append(reading_of(await stack.enter_async_context(stream)))
        yield readings


@asynccontextmanager
async def _program_per_reader(
    reader: Reader, access: ServiceAccess, _: Path
) -> AsyncGenerator[Sequence[Reading]]:
    """Open a complete program for each reader."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(reader(access)) for _ in range(READERS)]


def setups() -> dict[str, Readings]:
    """Return every program by its name, the slowest first."""
    ways_by_name: dict[str, Readings] = {
        "pythpeer, SqliteStore": lambda access, folder: _streams(
            access, SqliteStore(folder / "day.sqlite")
        ),
        "pythpeer, MemoryStore": lambda access, _: _streams(access, MemoryStore()),
    }
    for name, candidate in load_candidates()[0].items():
        if candidate.chat is not None and name not in SKIPPED:
            ways_by_name[name] = partial(_program_per_reader, candidate.chat)
    ways_by_name["aiohttp, one poller, a queue per reader"] = lambda access, _: fan_out(
        access, READERS
    )
    return ways_by_name


class _Day:
    """The service, and the times at which the readers received each message."""

    def __init__(self, seconds: float) -> None:
        self.seconds: Final = seconds
        self.post_times: Final = make_post_times(seconds, SEED)
        self.service: Final = ModelService(self.post_times, seconds)
        self.received_at: Final = [
            array("d", [-1.0]) * len(self.post_times) for _ in range(READERS)
        ]
        self.duplicated = 0

    def answer(self, target: str) -> bytes | None:
        params = dict(parse_qsl(urlsplit(target).query))
        after, last = (int(params[name]) if name in params else None for name in ("mid", "last"))
        ids = self.service.page(_now(), after, last)
        if ids is None:
            return None
        return answered({"status": 1, "users_online": 3, "message_list": [*map(_line, ids)]})

    async def follow(self, reading: Reading, received_at: array[float]) -> None:
        while True:
            for text in await reading.step():
                access = int(text.partition(" ")[0]) - 1
                self.duplicated += received_at[access] >= 0.0
                if received_at[access] < 0.0:
                    received_at[access] = _now()


def _line(id: int) -> dict[str, object]:
    about = {"by": "somebody", "to": "", "date": "2012-12-12 21:12:21", "bot": 0, "my": 0, "me": 0}
    return {"id": id, "msg": f"{id} {TEXT}", **about}


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _run(spec: RunSpec, folder: Path) -> Result:
    day = _Day(spec.seconds)
    cpu = time.process_time()
    async with serving(day.answer) as url:
        access = ServiceAccess(url, url, "0123456789abcdef", "0123456789abcdef")
        async with setups()[spec.setup](access, folder) as readings:
            tasks = [
                asyncio.create_task(day.follow(*pair))
                for pair in zip(readings, day.received_at, strict=True)
            ]
            await asyncio.sleep(max(MIN_WARM_UP, spec.seconds / 24))
            first = _resident()
            await asyncio.wait(tasks, timeout=spec.seconds - _now())
            last = _resident()
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if not isinstance(result, asyncio.CancelledError):
                    raise RuntimeError(f"{spec.setup}: a reader ended") from result
            gaps = [list(reading.gaps()) for reading in readings]
    seen = delivery_result(day.post_times, day.received_at, day.duplicated, gaps)
    return Result(seen, day.service.requests, time.process_time() - cpu, (first, last))


def _resident() -> int | None:
    gc.collect()
    return resident()


def main() -> None:
    run_spec(read_spec(RunSpec), _run)


if __name__ == "__main__":
    main()
