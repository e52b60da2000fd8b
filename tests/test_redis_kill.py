"""Workers, the one that polls, and the server are killed; nothing is lost, nothing is too early.

Workers are processes with a `RedisStore` and one name; the services live on here. Real processes,
real time, a real server: where there is none the summary says so.
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
from fork_server import HANG_TIMEOUT, ForkServer
from helpers import real_time, wait_until
from processes import AppendedLines, Delays, Process, needs_fork
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
"""Seconds within which others take over from a dead worker, besides what this machine is late. Two
are promised, and what the benchmarks hold it to."""


@pytest.fixture
def server(folder: Path) -> Iterator[redis_server.RealServer]:
    (folder / "redis").mkdir()
    with redis_server.real_server(folder / "redis") as server:
        yield server


class Note(NamedTuple):
    """A line of the log: which worker did what."""

    worker: int
    kind: str
    text: str


class Team:
    """Several workers, and the log to which all of them write."""

    def __init__(
        self, process_server: ForkServer, service: str, server: str, folder: Path, timeout: float
    ) -> None:
        self._process_server = process_server
        self._arguments = (service, server, folder / "book", timeout)
        self._folder = folder
        self._log = AppendedLines(folder / "book")
        self.workers: list[Process] = []

    def start(self) -> Process:
        worker = Process(
            *(self._process_server, "proc_redis_worker", *self._arguments),
            folder=self._folder,
            name="worker",
        )
        self.workers.append(worker)
        return worker

    async def start_workers(self, count: int = 1) -> None:
        """Have more workers, who are ready then."""
        new = {self.start().pid for _ in range(count)}
        await self.until(lambda: self._ready(new) == 2 * count, "a worker does not start")

    def _ready(self, workers: set[int]) -> int:
        return sum(note.kind == "ready" for note in self.notes() if note.worker in workers)

    async def kill(self, worker: Process) -> None:
        worker.kill()
        await worker.wait_ended()
        self.workers.remove(worker)

    def notes(self) -> list[Note]:
        return [Note(int(line[0]), line[1], line[2]) for line in map(str.split, self._log())]

    def done(self, kind: str) -> Counter[str]:
        return Counter(note.text for note in self.notes() if note.kind == kind)

    def done_by(self, worker: Process) -> int:
        """How much one worker has done."""
        return sum(note.kind != "ready" for note in self.notes() if note.worker == worker.pid)

    def repeats(self) -> int:
        """How much was done more than once."""
        counts = (*self.done("chat").values(), *self.done("mail").values())
        return sum(count - 1 for count in counts)

    async def until(self, true: Callable[[], object], message: str) -> None:
        """Wait until *true* returns a true value. Fails immediately if a worker fails."""

        def check() -> object:
            for worker in self.workers:
                assert "Traceback" not in worker.errors, worker.errors
            return true()

        await wait_until(check, problem=message)

    async def does_more(self, worker: Process, items: int) -> None:
        """Wait until one worker has done so many more items."""
        wanted = self.done_by(worker) + items
        await self.until(lambda: self.done_by(worker) >= wanted, "a worker has nothing to do")

    async def gets_on(self, items: int = 20) -> None:
        """Wait until so many more items are done."""
        wanted = sum(note.kind != "ready" for note in self.notes()) + items
        await self.until(
            lambda: sum(note.kind != "ready" for note in self.notes()) >= wanted, "nothing comes"
        )


@asynccontextmanager
async def team_of(
    count: int,
    services: Scripted,
    server: redis_server.RealServer,
    *,
    process_server: ForkServer,
    timeout: float = 2.0,
) -> AsyncIterator[Team]:
    team = Team(process_server, services.url, server.url, server.folder.parent, timeout)
    try:
        await team.start_workers(count)
        yield team
    finally:
        for worker in list(team.workers):
            await team.kill(worker)


async def be_busy(services: Scripted) -> None:
    """Add messages and mails until this is cancelled."""
    for number in itertools.count():
        services.say(3)
        if number % 5 == 0:
            services.deliver(f"mail-{number}")
        await asyncio.sleep(0.02)


@asynccontextmanager
async def traffic(services: Scripted) -> AsyncIterator[None]:
    busy = asyncio.ensure_future(be_busy(services))
    try:
        yield
    finally:
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)


def all_done(team: Team, services: Scripted, first: int) -> bool:
    chat = {str(id) for id in services.ids if id > first}
    mail = {letter.text for letter in services.mails}
    return chat <= team.done("chat").keys() and mail <= team.done("mail").keys()


def shortest(services: Scripted, *kinds: str) -> float:
    """The shortest time between two requests to one endpoint."""
    times = [asked.at for asked in services.asked(*kinds)]
    return min(later - previous for previous, later in itertools.pairwise(times))


def longest(services: Scripted, since: float, *kinds: str) -> float:
    times = [asked.at for asked in services.asked(*kinds) if asked.at >= since]
    return max(later - previous for previous, later in itertools.pairwise(times))


async def test_workers_are_killed_and_nothing_is_lost(
    server: redis_server.RealServer, process_server: ForkServer
) -> None:
    """One after the other, so that the one that polls is among them; others take over in time.

    It takes long because workers follow real time, several at the same time.
    """
    async with Scripted() as services:
        services.say(5)
        async with (
            team_of(3, services, server, process_server=process_server) as team,
            Delays() as delays,
        ):
            first, start = services.newest, asyncio.get_running_loop().time()
            old = list(team.workers)
            async with traffic(services):
                await team.start_workers()
                for worker in old:
                    await team.does_more(worker, random.randrange(1, 20))
                    await team.kill(worker)
            ended = time.monotonic()
            await team.until(lambda: all_done(team, services, first), "something is lost")
            assert time.monotonic() - ended < delays.allowed(TAKEOVER + 1.0)
            # Unacknowledged items of a worker are done again by another, and nothing else.
            assert team.repeats() <= len(old) * 60
            assert len({note.worker for note in team.notes() if note.kind == "chat"}) >= 3
        assert longest(services, start, "get") < delays.allowed(TAKEOVER + 0.5)
        assert shortest(services, "get") >= 0.199
        assert shortest(services, "readnew", "readall") >= 0.199


async def test_a_dead_worker_s_items_are_taken_over_in_time(
    server: redis_server.RealServer, process_server: ForkServer
) -> None:
    """Within two seconds of its death, with the default settings."""
    async with (
        Scripted() as services,
        team_of(2, services, server, process_server=process_server) as team,
        Delays() as delays,
    ):
        first = services.newest
        killed = team.workers[0]
        while True:  # until it has unacknowledged items
            services.say(120)
            await team.does_more(killed, 1)
            if not all_done(team, services, first):
                break
        await team.kill(killed)
        killed_at = time.monotonic()
        await team.until(lambda: all_done(team, services, first), "something is lost")
        assert time.monotonic() - killed_at < delays.allowed(TAKEOVER)


async def test_mail_survives_the_death_of_the_process_that_fetched_it(
    server: redis_server.RealServer, process_server: ForkServer
) -> None:
    """The service marked it as read, and the answer went to a dead process.

    A worker that waited for the answer would wait for longer than the test waits for the mail.
    """
    async with (
        Scripted() as services,
        team_of(
            2, services, server, process_server=process_server, timeout=10 * HANG_TIMEOUT
        ) as team,
    ):
        services.script("readnew", HANG)
        services.deliver("precious")
        # One of the two waits for the response, the other one for an append.
        await team.until(lambda: services.mails[0].read, "nobody asks")
        old = list(team.workers)
        await team.start_workers()
        # On a machine that is so busy that a heartbeat comes too late, a worker counts as dead.
        assert services.asked("readall") or "precious" not in team.done("mail")
        for worker in old:
            await team.kill(worker)
        await team.until(lambda: "precious" in team.done("mail"), "mail is lost")
        assert services.asked("readall")  # in the history, because its response reached no process


async def test_the_server_is_killed_and_nothing_is_lost(
    server: redis_server.RealServer, process_server: ForkServer
) -> None:
    """Twice, during work. Nothing acknowledged is redelivered, nothing is sent too early."""
    async with Scripted() as services:
        async with team_of(2, services, server, process_server=process_server) as team:
            first = services.newest
            async with traffic(services):
                for away in (0.05, 0.6):  # the second is longer than a call waits for Redis
                    await team.gets_on()
                    server.kill()
                    await asyncio.sleep(away)
                    server.start()
                    await team.gets_on()
            await team.until(lambda: all_done(team, services, first), "something is lost")
            assert team.repeats() <= 2 * 2 * 60
        assert shortest(services, "get") >= 0.199
        assert shortest(services, "readnew", "readall") >= 0.199


async def test_the_server_comes_back_empty_and_nothing_is_lost(
    server: redis_server.RealServer, process_server: ForkServer
) -> None:
    """The chat is read again, mail is read from its history, and no request is too early."""
    async with Scripted() as services:
        async with team_of(2, services, server, process_server=process_server) as team:
            first = services.newest
            async with traffic(services):
                await team.gets_on()
                server.stop(signal.SIGKILL)
                server.delete_data()
                server.start()
                await team.gets_on()
            await team.until(lambda: all_done(team, services, first), "something is lost")
        assert shortest(services, "get") >= 0.199
        assert shortest(services, "readnew", "readall") >= 0.199
