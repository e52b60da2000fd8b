"""Workers, the one that polls, and the server are killed; nothing is lost, nothing is too early.

Workers are processes with a `RedisStore` and one name; the services live on here. Real processes,
real time, a real server: where there is none the summary says so.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import redis_server
from helpers import real_time
from scripted import HANG, Scripted

pytestmark = [
    pytest.mark.anyio,
    real_time,
    pytest.mark.processes,
    redis_server.needs_a_server,
]

WORKER: Final = Path(__file__).with_name("redis_worker.py")

TAKEOVER: Final = 4.0
"""Seconds within which others take over from a dead worker, on a machine that may be busy. Two are
promised, and what the benchmarks hold it to."""

START: Final = 60.0
"""Seconds within which a worker has to be there, on such a machine."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[redis_server.RealServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with redis_server.real_server(folder) as server:
        yield server


class Note(NamedTuple):
    """A line of the book: who put down what."""

    worker: int
    kind: str
    what: str


class Team:
    """Several workers, and the book they all keep."""

    def __init__(self, service: str, server: str, folder: Path) -> None:
        self._command = (sys.executable, WORKER, service, server, folder / "book")
        self._book = folder / "book"
        self._errors = folder / "errors"
        self.workers: list[asyncio.subprocess.Process] = []

    async def hire(self) -> asyncio.subprocess.Process:
        with self._errors.open("ab") as errors:
            worker = await asyncio.create_subprocess_exec(*self._command, stderr=errors)
        self.workers.append(worker)
        await self.until(lambda: self._ready(worker.pid) == 2, "a worker does not start", START)
        return worker

    def _ready(self, worker: int) -> int:
        return sum(note.kind == "ready" for note in self.notes() if note.worker == worker)

    async def kill(self, worker: asyncio.subprocess.Process) -> None:
        worker.kill()
        await worker.wait()
        self.workers.remove(worker)

    def notes(self) -> list[Note]:
        if not self._book.exists():
            return []
        lines = self._book.read_text(encoding="utf-8").splitlines()
        return [Note(int(line[0]), line[1], line[2]) for line in map(str.split, lines)]

    def done(self, kind: str) -> Counter[str]:
        return Counter(note.what for note in self.notes() if note.kind == kind)

    def twice(self) -> int:
        """How much was done more than once."""
        counts = (*self.done("chat").values(), *self.done("mail").values())
        return sum(count - 1 for count in counts)

    async def until(self, true: object, otherwise: str, within: float = 30.0) -> None:
        end = time.monotonic() + within
        while not true():  # type: ignore[operator]
            errors = self._errors.read_text(encoding="utf-8")
            assert "Traceback" not in errors, errors
            assert time.monotonic() < end, f"{otherwise}: {errors}"
            await asyncio.sleep(0.02)


@asynccontextmanager
async def team_of(
    many: int, services: Scripted, server: redis_server.RealServer, folder: Path
) -> AsyncIterator[Team]:
    team = Team(services.url, server.url, folder)
    try:
        await asyncio.gather(*(team.hire() for _ in range(many)))
        yield team
    finally:
        for worker in list(team.workers):
            await team.kill(worker)


async def be_busy(services: Scripted) -> None:
    """Have people talk and write for as long as nobody asks for quiet."""
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
    mail = {letter.text for letter in services.letters}
    return chat <= team.done("chat").keys() and mail <= team.done("mail").keys()


def shortest(services: Scripted, *kinds: str) -> float:
    """The shortest time between two requests to one endpoint."""
    times = [asked.at for asked in services.asked(*kinds)]
    return min(later - earlier for earlier, later in itertools.pairwise(times))


def longest(services: Scripted, since: float, *kinds: str) -> float:
    times = [asked.at for asked in services.asked(*kinds) if asked.at >= since]
    return max(later - earlier for earlier, later in itertools.pairwise(times))


async def test_workers_are_killed_and_nothing_is_lost(
    server: redis_server.RealServer, tmp_path: Path
) -> None:
    """One after the other, so that the one that polls is among them; others take over in time."""
    async with Scripted() as services:
        services.say(5)
        async with team_of(3, services, server, tmp_path) as team:
            first, began = services.newest, asyncio.get_running_loop().time()
            old = list(team.workers)
            async with traffic(services):
                await team.hire()
                for worker in old:
                    await asyncio.sleep(0.4)
                    await team.kill(worker)
            ended = time.monotonic()
            await team.until(lambda: all_done(team, services, first), "something is lost")
            assert time.monotonic() - ended < TAKEOVER + 1.0
            # What a worker had in hand is done again by another, and nothing else.
            assert team.twice() <= len(old) * 60
            assert len({note.worker for note in team.notes() if note.kind == "chat"}) >= 3
        assert longest(services, began, "get") < TAKEOVER + 0.5
        assert shortest(services, "get") >= 0.199
        assert shortest(services, "readnew", "readall") >= 0.199


async def test_a_dead_worker_s_items_are_taken_over_in_time(
    server: redis_server.RealServer, tmp_path: Path
) -> None:
    """Nobody waits for longer than two seconds after the death, at the settings as they are."""
    async with Scripted() as services, team_of(2, services, server, tmp_path) as team:
        first = services.newest
        services.say(120)
        await team.until(lambda: len(team.done("chat")) > 10, "nothing comes")
        victim = team.workers[0]
        await team.kill(victim)
        died = time.monotonic()
        await team.until(lambda: all_done(team, services, first), "something is lost", TAKEOVER)
        assert time.monotonic() - died < TAKEOVER


async def test_mail_survives_the_death_of_who_asked_for_it(
    server: redis_server.RealServer, tmp_path: Path
) -> None:
    """The service marked it as read, and the answer went to a dead process."""
    async with Scripted() as services, team_of(2, services, server, tmp_path) as team:
        services.script("readnew", HANG)
        services.deliver("precious")
        asked = len(services.asked("readnew"))
        await team.until(lambda: len(services.asked("readnew")) > asked + 1, "nobody asks", 5.0)
        await asyncio.sleep(0.1)
        # Whoever asked and hangs is one of the two; the other one waits for news.
        old = list(team.workers)
        await team.hire()
        for worker in old:
            await team.kill(worker)
        await team.until(lambda: "precious" in team.done("mail"), "mail is lost", 8.0)


async def test_the_server_is_killed_and_nothing_is_lost(
    server: redis_server.RealServer, tmp_path: Path
) -> None:
    """Twice, in the middle of work. Nothing acknowledged comes again, nothing leaves too early."""
    async with Scripted() as services:
        async with team_of(2, services, server, tmp_path) as team:
            first = services.newest
            async with traffic(services):
                for away in (0.1, 1.2):
                    await asyncio.sleep(0.5)
                    server.kill()
                    await asyncio.sleep(away)
                    server.start()
                    await asyncio.sleep(0.5)
            await team.until(lambda: all_done(team, services, first), "something is lost")
            assert team.twice() <= 2 * 2 * 60
        assert shortest(services, "get") >= 0.199
        assert shortest(services, "readnew", "readall") >= 0.199


async def test_the_server_comes_back_empty_and_nothing_is_lost(
    server: redis_server.RealServer, tmp_path: Path
) -> None:
    """The chat is asked for again, mail is looked for in its history, and nobody is too early."""
    async with Scripted() as services:
        async with team_of(2, services, server, tmp_path) as team:
            first = services.newest
            async with traffic(services):
                await asyncio.sleep(0.7)
                server.stop(signal.SIGKILL)
                server.forget()
                server.start()
                await asyncio.sleep(0.7)
            await team.until(lambda: all_done(team, services, first), "something is lost")
        assert shortest(services, "get") >= 0.199
        assert shortest(services, "readnew", "readall") >= 0.199
