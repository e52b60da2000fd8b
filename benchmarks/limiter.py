"""Limiters: the time of a token, the memory of a waiter, and the serving of a long queue."""

from __future__ import annotations

import asyncio
import functools
import gc
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from pythpeer import Limiter, Rate, Session
from pythpeer.pacing.queue import Priority

from .competitors.installed import OURS
from .competitors.limiting import Candidate, Get, load_candidates
from .measure import Times, alternate, interleave, retained_bytes
from .queueing import compare_queues
from .ranking import ranking
from .report import Cell, Table, ratio

__all__ = ["run"]

ACQUIRES: Final = 10_000
LIMITERS: Final = 200
WAITERS: Final = 2_000
STEP: Final = 0.001
LONG_INTERVAL: Final = 3000.0

MAX_DURATION_RATIO: Final = 3.0
"""The waiters of a queue are cancelled after this multiple of the ideal time."""

Candidates = Mapping[str, Candidate[Any]]
Wait = Callable[[], Awaitable[object]]


def run(*, quick: bool) -> list[Table]:
    """Measure time, memory, the serving of a queue, and the order of waiters."""
    other_candidates, missing = load_candidates()
    candidates = {
        OURS: Candidate(OURS, _make, _pace, functools.partial(Limiter.acquire, priority=CALL))
    }
    candidates |= other_candidates
    tables = [
        asyncio.run(_uncontended(candidates, 3 if quick else 9)),
        asyncio.run(_memory(candidates)),
        _drain(candidates, *((1, 300) if quick else (1, 10_000))),
        asyncio.run(compare_queues(candidates, quick=quick)),
    ]
    for table in tables:
        table.notes += missing
    return tables


CALL: Final = Priority.CALL


def _make(interval: float, burst: int) -> Limiter:
    return Limiter(OURS, Rate(interval, burst, guard=0.0))


async def _pace(limiter: Limiter, get: Get) -> None:
    permit = await limiter.acquire(CALL)
    permit.on_written()
    await get()
    permit.on_answered()
    permit.close()


async def _nothing() -> None:
    pass


# -- without contention ---------------------------------------------------------------------------


async def _uncontended(candidates: Candidates, rounds: int) -> Table:
    work = {
        name: functools.partial(_acquire, candidate)
        for name, candidate in candidates.items()
        if candidate.acquire is not None and candidate.bursts
    }
    others = [name for name in work if name != OURS]
    used = f"{OURS}: acquire, written, answered, closed"
    lock = "asyncio.Lock: acquire, release"
    times = await interleave(rounds, {**work, used: _full_cycle, lock: _lock})
    table = ranking(
        "Time to take an available token, by limiter",
        ("us", f"to {OURS}"),
        {
            name: (
                statistics.median(measured.wall) / ACQUIRES * 1e6,
                ratio(measured.wall, times[OURS].wall),
            )
            for name, measured in times.items()
        },
        others=others,
        targets={"us": 0.0},
        why={
            "us": (
                f"{OURS} makes an object for each token, which records when its request is "
                "written and answered, and is returned if the request is not sent; the "
                "others only count calls."
            )
        },
        notes=[
            f"{ACQUIRES:,} sequential tokens from a large burst; median of {rounds} rounds.",
            *(candidates[name].note for name in others if candidates[name].note),
        ],
    )
    table.samples.update({f"{name} s": measured.wall for name, measured in times.items()})
    return table


async def _acquire(candidate: Candidate[Any]) -> None:
    assert candidate.acquire is not None
    acquire = functools.partial(candidate.acquire, candidate.make(1.0, 10 * ACQUIRES))
    for _ in range(ACQUIRES):
        await acquire()


async def _full_cycle() -> None:
    limiter = _make(1.0, 10 * ACQUIRES)
    for _ in range(ACQUIRES):
        permit = await limiter.acquire(CALL)
        permit.on_written()
        permit.on_answered()
        permit.close()


async def _lock() -> None:
    lock = asyncio.Lock()
    for _ in range(ACQUIRES):
        await lock.acquire()
        lock.release()


# -- memory ---------------------------------------------------------------------------------------


async def _memory(candidates: Candidates) -> Table:
    bare = await _bytes_of_waiting(lambda: asyncio.get_running_loop().create_future())
    rows: dict[str, Sequence[Cell]] = {}
    for name, candidate in candidates.items():
        if candidate.pace is not None:
            waiter = await _bytes_of_waiting_for(candidate)
            rows[name] = (await _bytes_of(candidate), waiter, waiter - bare)
    others = [name for name in rows if name != OURS]
    async with Session(peerbet_key="0123456789abcdef", max_wait=10 * LONG_INTERVAL) as session:
        session.limiters["peerbet.chat.get"].pause(LONG_INTERVAL)
        waiter = await _bytes_of_waiting(session.peerbet.messages)
        rows[f"{OURS}: session.peerbet.messages()"] = (None, waiter, waiter - bare)
    rows["a bare task on a future"] = (None, bare, 0.0)
    return ranking(
        "Memory of a limiter, and of a waiting caller with its task, by limiter",
        ("limiter B", "waiter B", "over a bare task"),
        rows,
        others=others,
        targets={"limiter B": 0.0, "waiter B": 0.0},
        why={
            "limiter B": (
                "These limiters have no queue until a caller waits, or one instead of "
                "three, and record no requests; a session has six limiters."
            ),
            "waiter B": (
                "A waiter there is only a future; in pythpeer, its deadline, owner and "
                "priority are known as well."
            ),
        },
        notes=[f"{LIMITERS} limiters, {WAITERS:,} tasks waiting on one, tracemalloc."],
    )


async def _bytes_of(candidate: Candidate[Any]) -> float:
    candidate.make(LONG_INTERVAL, 1)  # creates all one-time state

    async def build() -> list[object]:
        return [candidate.make(LONG_INTERVAL, 1) for _ in range(LIMITERS)]

    return await retained_bytes(LIMITERS, build)


async def _bytes_of_waiting_for(candidate: Candidate[Any]) -> float:
    assert candidate.pace is not None
    limiter = candidate.make(LONG_INTERVAL, 1)
    pace = functools.partial(candidate.pace, limiter, _nothing)
    first = await _start(pace, 1)
    bare = candidate.acquire and functools.partial(candidate.acquire, limiter)
    size = await _bytes_of_waiting(bare or pace)
    await _cancel(first)
    return size


async def _bytes_of_waiting(wait: Wait) -> float:
    await _cancel(await _start(wait, 100))
    tasks: list[asyncio.Task[object]] = []

    async def build() -> None:
        tasks.extend(await _start(wait, WAITERS))

    size = await retained_bytes(WAITERS, build)
    if any(task.done() for task in tasks):
        raise RuntimeError("a task did not wait")
    await _cancel(tasks)
    return size


async def _start(wait: Wait, count: int) -> list[asyncio.Task[object]]:
    tasks = [asyncio.create_task(_coroutine(wait())) for _ in range(count)]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


def _coroutine(awaitable: Awaitable[object]) -> Coroutine[Any, Any, object]:
    """Return *awaitable* itself if it is a coroutine, else a coroutine that awaits it."""
    if isinstance(awaitable, Coroutine):
        return awaitable

    async def wait() -> object:
        return await awaitable

    return wait()


async def _cancel(tasks: Sequence[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# -- a long queue ---------------------------------------------------------------------------------


def _drain(candidates: Candidates, rounds: int, waiters: int) -> Table:
    times = {name: Times() for name in candidates}
    served_counts: dict[str, list[int]] = {name: [] for name in candidates}
    for name in alternate(rounds, list(candidates)):
        gc.collect()
        served_counts[name].append(asyncio.run(_drain_once(candidates[name], waiters, times[name])))
    ideal = (waiters - 1) * STEP
    rows: dict[str, Sequence[Cell]] = {}
    for name in candidates:
        least = min(served_counts[name])
        wall, cpu = statistics.median(times[name].wall), statistics.median(times[name].cpu)
        slots = max(1, least - 1)
        rows[name] = (least, wall, wall / slots / STEP, cpu / max(1, least) * 1e6)
    table = ranking(
        f"Time to serve {waiters:,} waiters, one per millisecond, by limiter",
        ("served", "seconds", "over ideal", "CPU us each"),
        rows,
        others=[name for name in candidates if name != OURS],
        # Late timers make two runs of the same limiter differ by less than this.
        targets={"over ideal": 0.02, "CPU us each": 0.0},
        why={
            "over ideal": (
                "It counts from the time at which a timer was due, so that the request "
                "after a late timer is too early at the server."
            ),
            "CPU us each": (
                f"{OURS} processes its queue twice for each token: when the token is due, "
                "and when its request is written, which starts the next interval. A bare "
                "loop that wakes a task each millisecond takes three fifths of the time."
            ),
        },
        notes=[
            (
                f"Ideal: {ideal:.2f} s from the first to the last; the figures are of the "
                "served waiters."
            ),
            f"A waiter that still waits after {MAX_DURATION_RATIO:g} times the ideal is cancelled.",
            *(candidate.note for candidate in candidates.values() if candidate.note),
        ],
    )
    table.samples.update({f"{name} s": measured.wall for name, measured in times.items()})
    return table


async def _drain_once(candidate: Candidate[Any], waiters: int, times: Times) -> int:
    """Serve all waiters, add the time from first to last; return how many were served."""
    served = 0
    first = last = math.nan

    async def get() -> None:
        nonlocal served, first, last
        last = time.perf_counter()
        first = last if not served else first
        served += 1

    cpu = time.process_time()
    try:
        async with asyncio.timeout(MAX_DURATION_RATIO * waiters * STEP):
            await candidate.send(candidate.make(STEP, 1), get, waiters, waiters)
    except TimeoutError:
        pass
    times.cpu.append(time.process_time() - cpu)
    times.wall.append(last - first)
    return served
