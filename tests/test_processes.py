"""Several programs of one machine on one file: they keep one pace, and lose nothing of each other.

Real processes, real time; the services record when each request arrived.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from fork_server import ForkServer
from helpers import real_time, wait_until
from processes import Delays, Process, needs_fork
from scripted import Scripted, ScriptedFault

pytestmark = [pytest.mark.anyio, real_time, pytest.mark.processes, needs_fork]
pytest_plugins = ("processes",)

INTERVAL: Final = 0.05
TOLERANCE: Final = 0.002


class Worker:
    """A process, and what it has said so far."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.kill = process.kill
        self.over = process.wait_ended

    @property
    def printed(self) -> list[str]:
        return self._process.output()

    async def wait_for_output(self, text: str) -> None:
        await wait_until(lambda: text in self.printed, problem=f"nobody says {text}")

    @property
    def items(self) -> list[str]:
        """What a stream handed out."""
        return [line for line in self.printed if line not in ("ready", "following")]


Working = Callable[..., AbstractAsyncContextManager[list[Worker]]]


@pytest.fixture
def working(process_server: ForkServer, services: Scripted, folder: Path) -> Working:
    """Has as many workers as there are works, ready."""
    numbers = itertools.count()

    @asynccontextmanager
    async def working(*works: str) -> AsyncIterator[list[Worker]]:
        processes = [
            Process(
                *(process_server, "proc_worker", services.url, folder / "shared.sqlite"),
                *work.split(),
                folder=folder,
                name=f"worker-{next(numbers)}",
            )
            for work in works
        ]
        try:
            workers = [Worker(process) for process in processes]
            for worker in workers:
                await worker.wait_for_output("ready")
            yield workers
        finally:
            for process in processes:
                process.kill()
                await process.wait_ended()
                assert process.errors == ""

    return working


def short_gaps(services: Scripted, *kinds: str) -> list[float]:
    """The gaps between requests of these kinds that were too short."""
    times = [asked.at for asked in services.asked(*kinds)]
    gaps = [later - previous for previous, later in itertools.pairwise(times)]
    return [gap for gap in gaps if gap < INTERVAL - TOLERANCE]


async def _asked(services: Scripted, count: int) -> None:
    """Wait until there were so many requests."""
    await wait_until(lambda: len(services.requests) >= count)


async def test_programs_share_one_pace_and_each_gets_its_share(
    services: Scripted, working: Working
) -> None:
    """No gap is short although all of them ask all the time, and each has its share."""
    services.default_faults["get"] = ScriptedFault(after=0.005)
    async with working("call 1", "call 2", "call 3"), Delays() as delays:
        services.requests.clear()
        await wait_until(lambda: len(services.requests) >= 60)
    assert short_gaps(services, "get") == []
    shares = Counter(asked.params["last"] for asked in services.requests[:60])
    assert min(shares.values()) >= 15
    first, last = services.requests[0].at, services.requests[59].at
    # On its way a request meets this process and two others, which may be late as well.
    assert (last - first) / 59 < 3 * INTERVAL + 3 * delays.mean


async def test_a_killed_program_delays_no_other_for_long(
    services: Scripted, working: Working
) -> None:
    """With a token or in the queue, wherever it was killed: the others continue soon."""
    async with working("call 1", "call 2", "call 3") as workers, Delays() as delays:
        for worker in workers[1:]:
            asked = len(services.requests)
            await _asked(services, asked + 4)
            await asyncio.sleep(random.uniform(0.0, INTERVAL))
            worker.kill()
            await worker.over()
            killed = time.monotonic()
            services.requests.clear()
            await wait_until(lambda: len(services.requests) > 2)
            assert time.monotonic() - killed < delays.allowed(3.0)
            assert short_gaps(services, "get") == []


async def test_one_program_polls_for_all(services: Scripted, working: Working) -> None:
    """Each name receives each item once, by as many polls as one program would make."""
    async with working("chat one", "chat two", "chat three") as workers:
        for worker in workers:
            await worker.wait_for_output("following")
        services.requests.clear()
        for number in range(1, 11):
            services.say(3, step=2)
            await _asked(services, number)
        wanted = [str(id) for id in services.ids]
        await wait_until(lambda: all(worker.items == wanted for worker in workers))
        elapsed = services.requests[-1].at - services.requests[0].at
        assert len(services.asked("get")) <= elapsed / INTERVAL + 1
    assert short_gaps(services, "get") == []


async def test_another_takes_over_from_a_killed_poller(
    services: Scripted, working: Working
) -> None:
    """In about two seconds, with all messages of that time; a new process receives them too."""
    async with working("chat one", "chat two") as workers, Delays() as delays:
        for worker in workers:
            await worker.wait_for_output("following")
        services.say(5)
        await wait_until(lambda: all(len(worker.items) == 5 for worker in workers))
        workers[0].kill()
        await workers[0].over()
        killed = time.monotonic()
        services.say(5)
        await wait_until(lambda: len(workers[1].items) == 10)
        assert time.monotonic() - killed < delays.allowed(4.0)
        async with working("chat one") as again:
            start = time.monotonic()
            services.say(1)
            await wait_until(lambda: len(again[0].items) >= 6)
            assert time.monotonic() - start < delays.allowed(4.0)
            items = [int(item) for item in again[0].items]
    last = int(workers[0].items[-1])
    assert items in (list(range(last, 12)), list(range(last + 1, 12)))


async def test_mail_that_one_program_fetched_reaches_the_stream_of_another(
    services: Scripted, working: Working
) -> None:
    """Each mail once, whichever program fetched it; and no request of the two is too early."""
    async with working("mail me") as (follower,):
        await follower.wait_for_output("following")
        texts: list[str] = []
        received: list[str] = []
        for number in range(3):
            texts.append(f"mail-{number}")
            services.deliver(texts[-1])
            async with working("unread") as (other,):
                await other.over()
                received += other.items
        await wait_until(lambda: follower.items == texts)
        services.deliver("the last")
        await follower.wait_for_output("the last")
    assert set(received) <= set(texts)
    assert short_gaps(services, "readnew", "readall") == []
