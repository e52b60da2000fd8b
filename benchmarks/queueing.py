"""Those who wait: in which order they go, and what it costs the others when some give up."""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .competitors.installed import OURS
from .competitors.limiting import Candidate
from .ranking import ranking
from .report import Cell, Table

__all__ = ["compare_queues", "inversions", "lateness", "least_gap"]

INTERVAL: Final = 0.05
ARRIVALS: Final = 40
SHORT_INTERVAL: Final = 0.02
"""The interval for those who arrive one after the other."""

OFFSETS: Final = [number * 0.00025 for number in range(-8, 9)]
"""When a waiter is cancelled: so long after it should be woken, from -2 to 2 ms."""

GIVE_UP_AFTER: Final = 40
"""Intervals after which whoever is next is given up."""

START_OFFSET: Final = 0.0043
"""Seconds between limiters, lest the loop be busy with all of them in one moment."""


async def compare_queues(candidates: Mapping[str, Candidate[Any]], *, quick: bool) -> Table:
    """All limiters at once, on one loop: nearly all of the time it waits."""
    queued = {
        name: candidate for name, candidate in candidates.items() if candidate.pace is not None
    }
    figures = await asyncio.gather(
        *(
            _figures(candidate, index, quick=quick)
            for index, candidate in enumerate(queued.values())
        )
    )
    rows = dict(zip(queued, figures, strict=True))
    return ranking(
        "Order of the waiters, and delay after cancellations, by limiter",
        (
            "inversions %",
            "5 of 10 cancelled: T",
            "cancelled at wake-up: T late",
            "burst after a pause: T",
        ),
        rows,
        others=[name for name in queued if name != OURS],
        # A loop with all of them on it is late by a millisecond or two: T is 50 of them.
        targets={
            "inversions %": 0.0,
            "5 of 10 cancelled: T": 0.1,
            "cancelled at wake-up: T late": 0.05,
        },
        notes=[
            f"T is the interval, {INTERVAL:g} s; all limiters at the same time, on one loop.",
            (
                f"inversions: pairs served in the wrong order, among {ARRIVALS} waiters "
                "that arrive one after the other."
            ),
            (
                "5 of 10 cancelled: ten wait, five are cancelled; time until the last of "
                "the others is served, ideal 5."
            ),
            "cancelled at wake-up: the next waiter is cancelled within 2 ms of its wake-up.",
            "T late: the maximum delay of the waiter after it; a dash: it is never served.",
            (
                "burst after a pause: after ten intervals five arrive at the same time; "
                "the shortest gap, ideal 1."
            ),
        ],
    )


async def _figures(candidate: Candidate[Any], index: int, *, quick: bool) -> Sequence[Cell]:
    await asyncio.sleep(index * START_OFFSET)
    orders = await asyncio.gather(*(_order(candidate, seed) for seed in range(1 if quick else 3)))
    five_of_ten = await _five_of_ten(candidate)
    late = [await _cancelled_at(candidate, offset) for offset in OFFSETS[:: 4 if quick else 1]]
    gap = await _burst_after_pause(candidate)
    worst = max(late)
    return (
        statistics.mean(map(inversions, orders)),
        five_of_ten,
        worst if worst < math.inf else None,
        gap,
    )


async def _order(candidate: Candidate[Any], seed: int) -> list[int]:
    """In which order those went who came faster than they could go."""
    chance = random.Random(seed)
    waiters = _Waiters(candidate, SHORT_INTERVAL)
    for _ in range(ARRIVALS):
        waiters.arrive()
        await asyncio.sleep(chance.uniform(0.0, SHORT_INTERVAL))
    await waiters.done()
    return list(waiters.served_at)


async def _five_of_ten(candidate: Candidate[Any]) -> float:
    """Ten wait, and every other one gives up: when the last of the others went, in intervals."""
    waiters = _Waiters(candidate, INTERVAL)
    waiters.arrive(11)
    await asyncio.sleep(0.4 * INTERVAL)
    for task in waiters.tasks[1::2]:
        task.cancel()
    await waiters.done()
    first, *_, last = waiters.served_at.values()
    return (last - first) / INTERVAL


async def _cancelled_at(candidate: Candidate[Any], offset: float) -> float:
    """The second of three gives up *offset* after their turn: by how much the third is late."""
    waiters = _Waiters(candidate, INTERVAL)
    waiters.arrive(3)
    await asyncio.sleep(0.1 * INTERVAL)  # the first did not have to wait
    await asyncio.sleep(waiters.served_at[0] + INTERVAL + offset - time.perf_counter())
    waiters.tasks[1].cancel()
    await asyncio.wait(waiters.tasks[2:], timeout=GIVE_UP_AFTER * INTERVAL)
    for task in waiters.tasks:
        task.cancel()
    await waiters.done()
    return lateness(waiters.served_at, INTERVAL)


async def _burst_after_pause(candidate: Candidate[Any]) -> float:
    """The least distance, in intervals, of five who come at once when nobody came for long."""
    waiters = _Waiters(candidate, INTERVAL)
    waiters.arrive()
    await waiters.done()
    await asyncio.sleep(10 * INTERVAL)
    waiters.arrive(5)
    await waiters.done()
    return least_gap(list(waiters.served_at.values())) / INTERVAL


class _Waiters:
    """Those who come to one limiter: their tasks, and by their numbers when they went."""

    def __init__(self, candidate: Candidate[Any], interval: float) -> None:
        assert candidate.pace is not None
        self._wait: Final = functools.partial(candidate.pace, candidate.make(interval, 1))
        self.tasks: Final[list[asyncio.Task[None]]] = []
        self.served_at: Final[dict[int, float]] = {}

    def arrive(self, count: int = 1) -> None:
        for _ in range(count):
            self.tasks.append(asyncio.create_task(self._go(len(self.tasks))))

    async def _go(self, number: int) -> None:
        async def get() -> None:
            self.served_at[number] = time.perf_counter()

        await self._wait(get)

    async def done(self) -> None:
        """Until all of them went or were cancelled."""
        await asyncio.gather(*self.tasks, return_exceptions=True)


# -- the arithmetic -------------------------------------------------------------------------------


def inversions(order: Sequence[int]) -> float:
    """How many percent of all pairs went the other way round than they came."""
    pairs = list(itertools.combinations(order, 2))
    return 100 * sum(before > after for before, after in pairs) / len(pairs)


def least_gap(times: Sequence[float]) -> float:
    """The least distance of two that followed each other."""
    return min(after - before for before, after in itertools.pairwise(times))


def lateness(served_at: Mapping[int, float], interval: float) -> float:
    """By how many intervals the third of three was late, the second of whom may have given up."""
    if 2 not in served_at:
        return math.inf
    return (served_at[2] - served_at.get(1, served_at[0])) / interval - 1
