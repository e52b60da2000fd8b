"""Several programs of one machine on one file: they share pacing, and lose no items.

Real processes, real time; the services record the time of each request.
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
from helpers import real_time, wait_until
from processes import Delays, Forker, Process, needs_fork
from scripted import ScriptedFault, Scripted

pytestmark = [pytest.mark.anyio, real_time, pytest.mark.processes, needs_fork]
pytest_plugins = ("processes",)

INTERVAL: Final = 0.05
TOLERANCE: Final = 0.002


class Worker:
    """A process, and the lines that it has printed."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.kill = process.kill
        self.over = process.wait_ended

    @property
    def output(self) -> list[str]:
        return self._process.output()

    async def prints(self, line: str) -> None:
        await wait_until(lambda: line in self.output, problem=f"no worker prints {line}")

    @property
    def items(self) -> list[str]:
        """The items of a stream."""
        return [line for line in self.output if line not in ("ready", "following")]


Working = Callable[..., AbstractAsyncContextManager[list[Worker]]]


@pytest.fixture
def working(forker: Forker, services: Scripted, folder: Path) -> Working:
    """Starts a worker for each command; all are ready then."""
    numbers = itertools.count()

    @asynccontextmanager
    async def working(*commands: str) -> AsyncIterator[list[Worker]]:
        processes = [
            forker.fork(
                *("worker", services.url, folder / "shared.sqlite"),
                *command.split(),
                folder=folder,
                name=f"worker-{next(numbers)}",
            )
            for command in commands
        ]
        try:
            workers = [Worker(process) for process in processes]
            for worker in workers:
                await worker.prints("ready")
            yield workers
        finally:
            for process in processes:
                process.kill()
                await process.wait_ended()
                assert process.errors == ""

    return working


def short_intervals(services: Scripted, *kinds: str) -> list[float]:
    """Return the intervals between requests of these kinds that were too short."""
    times = [request.at for request in services.asked(*kinds)]
    intervals = [later - earlier for earlier, later in itertools.pairwise(times)]
    return [interval for interval in intervals if interval < INTERVAL - TOLERANCE]


async def _wait_for_requests(services: Scripted, count: int) -> None:
    """Wait until there were so many requests."""
    await wait_until(lambda: len(services.requests) >= count)


async def test_programs_share_pacing_and_each_gets_its_share(
    services: Scripted, working: Working
) -> None:
    """No interval is too short although all of them request all the time, and none starves."""
    services.default_faults["get"] = ScriptedFault(seconds=0.005)
    async with working("call 1", "call 2", "call 3"), Delays() as delays:
        services.requests.clear()
        await wait_until(lambda: len(services.requests) >= 60)
    assert short_intervals(services, "get") == []
    shares = Counter(request.params["last"] for request in services.requests[:60])
    assert min(shares.values()) >= 15
    first, last = services.requests[0].at, services.requests[59].at
    # A request is delayed by this process and by two others.
    assert (last - first) / 59 < 3 * INTERVAL + 3 * delays.mean


async def test_a_killed_program_delays_the_others_only_shortly(
    services: Scripted, working: Working
) -> None:
    """With an outstanding token or at any position in the queue: the others continue soon."""
    async with working("call 1", "call 2", "call 3") as workers, Delays() as delays:
        for worker in workers[1:]:
            count = len(services.requests)
            await _wait_for_requests(services, count + 4)
            await asyncio.sleep(random.uniform(0.0, INTERVAL))
            worker.kill()
            await worker.over()
            killed = time.monotonic()
            services.requests.clear()
            await wait_until(lambda: len(services.requests) > 2)
            assert time.monotonic() - killed < delays.allowed(3.0)
            assert short_intervals(services, "get") == []


async def test_one_program_polls_for_all(services: Scripted, working: Working) -> None:
    """Each name gets all messages once, with as many polls as one program would make."""
    async with working("chat one", "chat two", "chat three") as workers:
        for worker in workers:
            await worker.prints("following")
        services.requests.clear()
        for number in range(1, 11):
            services.say(3, step=2)
            await _wait_for_requests(services, number)
        expected = [str(id) for id in services.ids]
        await wait_until(lambda: all(worker.items == expected for worker in workers))
        seconds = services.requests[-1].at - services.requests[0].at
        assert len(services.asked("get")) <= seconds / INTERVAL + 1
    assert short_intervals(services, "get") == []


async def test_another_program_takes_over_from_a_killed_leader(
    services: Scripted, working: Working
) -> None:
    """In about two seconds, with all messages since then; a new process gets them as well."""
    async with working("chat one", "chat two") as workers, Delays() as delays:
        for worker in workers:
            await worker.prints("following")
        services.say(5)
        await wait_until(lambda: all(len(worker.items) == 5 for worker in workers))
        workers[0].kill()
        await workers[0].over()
        killed = time.monotonic()
        services.say(5)
        await wait_until(lambda: len(workers[1].items) == 10)
        assert time.monotonic() - killed < delays.allowed(4.0)
        async with working("chat one") as restarted:
            started = time.monotonic()
            services.say(1)
            await wait_until(lambda: len(restarted[0].items) >= 6)
            assert time.monotonic() - started < delays.allowed(4.0)
            items = [int(item) for item in restarted[0].items]
    last = int(workers[0].items[-1])
    assert items in (list(range(last, 12)), list(range(last + 1, 12)))


async def test_mail_that_one_program_fetched_reaches_the_stream_of_another(
    services: Scripted, working: Working
) -> None:
    """Each mail once, of any program's request; and no request of the two is too early."""
    async with working("mail me") as (follower,):
        await follower.prints("following")
        texts: list[str] = []
        fetched: list[str] = []
        for number in range(3):
            texts.append(f"mail-{number}")
            services.deliver(texts[-1])
            async with working("unread") as (other,):
                await other.over()
                fetched += other.items
        await wait_until(lambda: follower.items == texts)
        services.deliver("the last")
        await follower.prints("the last")
    assert set(fetched) <= set(texts)
    assert short_intervals(services, "readnew", "readall") == []
