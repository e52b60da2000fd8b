"""Workers, the leader and the server are killed: nothing is lost, and no request is too early.

Workers are processes with a `RedisStore` and one name; the services run in this process. Real
processes, real time, a real server: without one the tests are skipped.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import redis_server
from helpers import real_time, wait_until
from processes import HANG_TIMEOUT, Delays, Forker, AppendedLines, Process, needs_fork
from scripted import HANG, Scripted

pytestmark = [
    pytest.mark.anyio,
    real_time,
    pytest.mark.processes,
    needs_fork,
    redis_server.needs_a_server,
]
pytest_plugins = ("processes",)

TAKEOVER: Final = 4.0
"""Seconds within which others take over from a dead worker, in addition to delays of this machine.
Two are promised, and measured by the benchmarks."""


@pytest.fixture
def server(folder: Path) -> Iterator[redis_server.RealServer]:
    (folder / "redis").mkdir()
    with redis_server.real_server(folder / "redis") as server:
        yield server


class LogLine(NamedTuple):
    """A line of the log file: a worker, and what it has processed."""

    worker: int
    kind: str
    label: str


class WorkerPool:
    """Several workers, and the file that all of them log to."""

    def __init__(
        self, forker: Forker, service: str, server: str, folder: Path, timeout: float
    ) -> None:
        self._forker = forker
        self._arguments = (service, server, folder / "book", timeout)
        self._folder = folder
        self._log_file = AppendedLines(folder / "book")
        self.workers: list[Process] = []

    def _start_one(self) -> Process:
        worker = self._forker.fork(
            "redis_worker", *self._arguments, folder=self._folder, name="worker"
        )
        self.workers.append(worker)
        return worker

    async def start(self, count: int = 1) -> None:
        """Start more workers, and wait until they are ready."""
        new = {self._start_one().pid for _ in range(count)}
        await self.until(lambda: self._ready(new) == 2 * count, "a worker does not start")

    def _ready(self, workers: set[int]) -> int:
        return sum(line.kind == "ready" for line in self.lines() if line.worker in workers)

    async def kill(self, worker: Process) -> None:
        worker.kill()
        await worker.wait_ended()
        self.workers.remove(worker)

    def lines(self) -> list[LogLine]:
        return [
            LogLine(int(pid), kind, label) for pid, kind, label in map(str.split, self._log_file())
        ]

    def done(self, kind: str) -> Counter[str]:
        return Counter(line.label for line in self.lines() if line.kind == kind)

    def done_by(self, worker: Process) -> int:
        """Return how many items one worker has processed."""
        return sum(line.kind != "ready" for line in self.lines() if line.worker == worker.pid)

    def duplicates(self) -> int:
        """Return how many items were processed more than once."""
        counts = (*self.done("chat").values(), *self.done("mail").values())
        return sum(count - 1 for count in counts)

    async def until(self, condition: Callable[[], object], problem: str) -> None:
        await wait_until(condition, problem=problem)
        for worker in self.workers:
            assert "Traceback" not in worker.errors, worker.errors

    async def wait_for_items(self, worker: Process, items: int) -> None:
        """Wait until one worker has processed so many more items."""
        wanted = self.done_by(worker) + items
        await self.until(lambda: self.done_by(worker) >= wanted, "a worker has nothing to do")

    async def process_more(self, items: int = 20) -> None:
        """Wait until so many more items are processed."""
        wanted = sum(line.kind != "ready" for line in self.lines()) + items
        await self.until(
            lambda: sum(line.kind != "ready" for line in self.lines()) >= wanted,
            "no item is processed",
        )


@asynccontextmanager
async def pool_of(
    count: int,
    services: Scripted,
    server: redis_server.RealServer,
    *,
    forker: Forker,
    timeout: float = 2.0,
) -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(forker, services.url, server.url, server.folder.parent, timeout)
    try:
        await pool.start(count)
        yield pool
    finally:
        for worker in list(pool.workers):
            await pool.kill(worker)


async def generate_load(services: Scripted) -> None:
    """Add chat messages and mail until it is cancelled."""
    for number in itertools.count():
        services.say(3)
        if number % 5 == 0:
            services.deliver(f"mail-{number}")
        await asyncio.sleep(0.02)


@asynccontextmanager
async def traffic(services: Scripted) -> AsyncIterator[None]:
    busy = asyncio.ensure_future(generate_load(services))
    try:
        yield
    finally:
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)


def all_done(pool: WorkerPool, services: Scripted, first: int) -> bool:
    chat = {str(id) for id in services.ids if id > first}
    mail = {letter.text for letter in services.mails}
    return chat <= pool.done("chat").keys() and mail <= pool.done("mail").keys()


def shortest_interval(services: Scripted, *kinds: str) -> float:
    """Return the shortest time between two requests to one endpoint."""
    times = [request.at for request in services.asked(*kinds)]
    return min(later - earlier for earlier, later in itertools.pairwise(times))


def longest_interval(services: Scripted, since: float, *kinds: str) -> float:
    times = [request.at for request in services.asked(*kinds) if request.at >= since]
    return max(later - earlier for earlier, later in itertools.pairwise(times))


async def test_workers_are_killed_and_nothing_is_lost(
    server: redis_server.RealServer, forker: Forker
) -> None:
    """One after the other, so that the leader is among them; others take over in time.

    It takes long because several workers run in real time.
    """
    async with Scripted() as services:
        services.say(5)
        async with pool_of(3, services, server, forker=forker) as pool, Delays() as delays:
            first, started = services.newest, asyncio.get_running_loop().time()
            old = list(pool.workers)
            async with traffic(services):
                await pool.start()
                for worker in old:
                    await pool.wait_for_items(worker, random.randrange(1, 20))
                    await pool.kill(worker)
            ended = time.monotonic()
            await pool.until(lambda: all_done(pool, services, first), "something is lost")
            assert time.monotonic() - ended < delays.allowed(TAKEOVER + 1.0)
            # Pending items of a worker are processed again by another one, and no others.
            assert pool.duplicates() <= len(old) * 60
            assert len({line.worker for line in pool.lines() if line.kind == "chat"}) >= 3
        assert longest_interval(services, started, "get") < delays.allowed(TAKEOVER + 0.5)
        assert shortest_interval(services, "get") >= 0.199
        assert shortest_interval(services, "readnew", "readall") >= 0.199


async def test_a_dead_worker_s_items_are_taken_over_in_time(
    server: redis_server.RealServer, forker: Forker
) -> None:
    """Within two seconds after the death, with the default settings."""
    async with (
        Scripted() as services,
        pool_of(2, services, server, forker=forker) as pool,
        Delays() as delays,
    ):
        first = services.newest
        victim = pool.workers[0]
        while True:  # until it has pending items
            services.say(120)
            await pool.wait_for_items(victim, 1)
            if not all_done(pool, services, first):
                break
        await pool.kill(victim)
        died = time.monotonic()
        await pool.until(lambda: all_done(pool, services, first), "something is lost")
        assert time.monotonic() - died < delays.allowed(TAKEOVER)


async def test_mail_survives_the_death_of_the_program_that_fetches_it(
    server: redis_server.RealServer, forker: Forker
) -> None:
    """The service has marked it as read, and the response is lost with the process.

    The time limit of the request is longer than the wait for the mail.
    """
    async with (
        Scripted() as services,
        pool_of(2, services, server, forker=forker, timeout=10 * HANG_TIMEOUT) as pool,
    ):
        services.script("readnew", HANG)
        services.deliver("precious")
        # One of the two has sent the request and hangs; the other one waits for an append.
        await pool.until(lambda: services.mails[0].read, "no request is sent")
        old = list(pool.workers)
        await pool.start()
        assert "precious" not in pool.done("mail")
        for worker in old:
            await pool.kill(worker)
        await pool.until(lambda: "precious" in pool.done("mail"), "mail is lost")


async def test_the_server_is_killed_and_nothing_is_lost(
    server: redis_server.RealServer, forker: Forker
) -> None:
    """Twice, during work. No acknowledged item is returned again, no request is too early."""
    async with Scripted() as services:
        async with pool_of(2, services, server, forker=forker) as pool:
            first = services.newest
            async with traffic(services):
                for seconds in (0.05, 0.6):  # the second is longer than a call retries
                    await pool.process_more()
                    server.kill()
                    await asyncio.sleep(seconds)
                    server.start()
                    await pool.process_more()
            await pool.until(lambda: all_done(pool, services, first), "something is lost")
            assert pool.duplicates() <= 2 * 2 * 60
        assert shortest_interval(services, "get") >= 0.199
        assert shortest_interval(services, "readnew", "readall") >= 0.199


async def test_the_server_loses_its_data_and_nothing_is_lost(
    server: redis_server.RealServer, forker: Forker
) -> None:
    """The chat is fetched again, mail is recovered from its history, no request is too early."""
    async with Scripted() as services:
        async with pool_of(2, services, server, forker=forker) as pool:
            first = services.newest
            async with traffic(services):
                await pool.process_more()
                server.stop(signal.SIGKILL)
                server.delete_data()
                server.start()
                await pool.process_more()
            await pool.until(lambda: all_done(pool, services, first), "something is lost")
        assert shortest_interval(services, "get") >= 0.199
        assert shortest_interval(services, "readnew", "readall") >= 0.199
