"""Several programs of one machine on one file: they keep one pace, and lose nothing of each other.

Real processes, real time; the services judge when each request came.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Self

import pytest
from helpers import real_time, wait_until
from scripted import Fault, Scripted

pytestmark = [pytest.mark.anyio, real_time, pytest.mark.processes]

WORKER: Final = Path(__file__).with_name("worker.py")
INTERVAL: Final = 0.05
TOLERANCE: Final = 0.002


class Worker:
    """A process, and what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[str] = []

    async def __aenter__(self) -> Self:
        self._reading = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.said.append(line.decode().strip())

    async def says(self, what: str) -> None:
        await wait_until(lambda: what in self.said)

    def kill(self) -> None:
        self._process.kill()

    async def over(self) -> None:
        async with asyncio.timeout(20):
            await self._reading

    @property
    def items(self) -> list[str]:
        """What a stream handed out."""
        return [said for said in self.said if said not in ("ready", "following")]


@asynccontextmanager
async def working(services: Scripted, folder: Path, *works: str) -> AsyncIterator[list[Worker]]:
    """As many workers as *works*, ready."""
    async with AsyncExitStack() as stack:
        workers: list[Worker] = []
        for work in works:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(WORKER), services.url, str(folder / "shared.sqlite")),
                *work.split(),
                stdout=asyncio.subprocess.PIPE,
            )
            workers.append(await stack.enter_async_context(Worker(process)))
        for worker in workers:
            await worker.says("ready")
        yield workers


def short_gaps(services: Scripted, *kinds: str) -> list[float]:
    """The gaps between requests of these kinds that were too short."""
    times = [asked.at for asked in services.asked(*kinds)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    return [gap for gap in gaps if gap < INTERVAL - TOLERANCE]


async def test_programs_share_one_pace_and_each_gets_its_share(
    services: Scripted, tmp_path: Path
) -> None:
    """No gap is short although all of them ask all the time, and nobody is left out."""
    services.constant["get"] = Fault(after=0.005)
    async with working(services, tmp_path, "call 1", "call 2", "call 3"):
        services.requests.clear()
        await wait_until(lambda: len(services.requests) >= 60)
    assert short_gaps(services, "get") == []
    shares = Counter(asked.params["last"] for asked in services.requests[:60])
    assert min(shares.values()) >= 15
    first, last = services.requests[0].at, services.requests[59].at
    assert (last - first) / 59 < 3 * INTERVAL


async def test_a_killed_program_holds_nobody_up_for_long(
    services: Scripted, tmp_path: Path
) -> None:
    """Whatever it had in hand, or whichever place in the line, the others go on soon."""
    async with working(services, tmp_path, "call 1", "call 2", "call 3") as workers:
        for worker in workers[1:]:
            await asyncio.sleep(0.23)
            worker.kill()
            await worker.over()
            services.requests.clear()
            await wait_until(lambda: len(services.requests) > 2, 3.0)
            assert short_gaps(services, "get") == []


async def test_one_program_polls_for_all(services: Scripted, tmp_path: Path) -> None:
    """Each name is told everything once, by as many polls as one program would make."""
    async with working(services, tmp_path, "chat one", "chat two", "chat three") as workers:
        for worker in workers:
            await worker.says("following")
        services.requests.clear()
        for _ in range(20):
            services.say(3, step=2)
            await asyncio.sleep(INTERVAL)
        wanted = [str(id) for id in services.ids]
        await wait_until(lambda: all(worker.items == wanted for worker in workers))
        took = services.requests[-1].at - services.requests[0].at
        assert len(services.asked("get")) <= took / INTERVAL + 1
    assert short_gaps(services, "get") == []


async def test_another_takes_over_from_a_killed_poller(services: Scripted, tmp_path: Path) -> None:
    """In about two seconds, with everything that was said meanwhile; a new life gets it too."""
    async with working(services, tmp_path, "chat one", "chat two") as workers:
        for worker in workers:
            await worker.says("following")
        services.say(5)
        await wait_until(lambda: all(len(worker.items) == 5 for worker in workers))
        workers[0].kill()
        await workers[0].over()
        services.say(5)
        await wait_until(lambda: len(workers[1].items) == 10, 4.0)
        async with working(services, tmp_path, "chat one") as again:
            services.say(1)
            await wait_until(lambda: len(again[0].items) >= 6, 4.0)
            items = [int(item) for item in again[0].items]
    last = int(workers[0].items[-1])
    assert items in (list(range(last, 12)), list(range(last + 1, 12)))


async def test_mail_that_one_program_fetched_reaches_the_stream_of_another(
    services: Scripted, tmp_path: Path
) -> None:
    """Each of them once, whoever asked for it; and no request is too early for the two."""
    async with working(services, tmp_path, "mail me") as (follower,):
        await follower.says("following")
        texts: list[str] = []
        found: list[str] = []
        for number in range(3):
            texts.append(f"mail-{number}")
            services.deliver(texts[-1])
            async with working(services, tmp_path, "unread") as (other,):
                await other.over()
                found += other.items
        await wait_until(lambda: follower.items == texts)
        services.deliver("the last")
        await follower.says("the last")
    assert set(found) <= set(texts)
    assert short_gaps(services, "readnew", "readall") == []
