"""The order of the waiters, and the delay of the others when some are cancelled."""

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
"""The interval for waiters that arrive one after the other."""

OFFSETS: Final = [number * 0.00025 for number in range(-8, 9)]
"""Times of a cancellation, from 2 ms before the waiter is due to 2 ms after, in seconds."""

TIMEOUT_INTERVALS: Final = 40
"""Intervals after which a waiter counts as never served."""

START_OFFSET: Final = 0.0043
"""Seconds between the starts of the limiters, so that they are not all due at the same time."""


async def compare_queues(candidates: Mapping[str, Candidate[Any]], *, quick: bool) -> Table:
    """Measure all limiters at the same time on one loop, which waits nearly all of the time."""
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
        # The loop with all limiters is late by a millisecond or two; T is 50 ms.
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
    """Return the order in which waiters were served that arrived faster than the rate."""
    chance = random.Random(seed)
    waiters = _Waiters(candidate, SHORT_INTERVAL)
    for _ in range(ARRIVALS):
        waiters.arrive()
        await asyncio.sleep(chance.uniform(0.0, SHORT_INTERVAL))
    await waiters.done()
    return list(waiters.served_at)


async def _five_of_ten(candidate: Candidate[Any]) -> float:
    """Cancel every other of ten waiters; return when the last was served, in intervals."""
    waiters = _Waiters(candidate, INTERVAL)
    waiters.arrive(11)
    await asyncio.sleep(0.4 * INTERVAL)
    for task in waiters.tasks[1::2]:
        task.cancel()
    await waiters.done()
    first, *_, last = waiters.served_at.values()
    return (last - first) / INTERVAL


async def _cancelled_at(candidate: Candidate[Any], offset: float) -> float:
    """Cancel the second of three *offset* after it is due; return the delay of the third."""
    waiters = _Waiters(candidate, INTERVAL)
    waiters.arrive(3)
    await asyncio.sleep(0.1 * INTERVAL)  # the first does not wait
    await asyncio.sleep(waiters.served_at[0] + INTERVAL + offset - time.perf_counter())
    waiters.tasks[1].cancel()
    await asyncio.wait(waiters.tasks[2:], timeout=TIMEOUT_INTERVALS * INTERVAL)
    for task in waiters.tasks:
        task.cancel()
    await waiters.done()
    return lateness(waiters.served_at, INTERVAL)


async def _burst_after_pause(candidate: Candidate[Any]) -> float:
    """Return the shortest gap, in intervals, of five that arrive together after a pause."""
    waiters = _Waiters(candidate, INTERVAL)
    waiters.arrive()
    await waiters.done()
    await asyncio.sleep(10 * INTERVAL)
    waiters.arrive(5)
    await waiters.done()
    return least_gap(list(waiters.served_at.values())) / INTERVAL


class _Waiters:
    """The waiters of one limiter: their tasks, and the times at which they were served."""

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
        """Wait until all are served or cancelled."""
        await asyncio.gather(*self.tasks, return_exceptions=True)


# -- the arithmetic -------------------------------------------------------------------------------


def inversions(order: Sequence[int]) -> float:
    """Return the percentage of pairs that were served in the wrong order."""
    pairs = list(itertools.combinations(order, 2))
    return 100 * sum(before > after for before, after in pairs) / len(pairs)


def least_gap(times: Sequence[float]) -> float:
    """Return the shortest gap between two consecutive times."""
    return min(after - before for before, after in itertools.pairwise(times))


def lateness(served_at: Mapping[int, float], interval: float) -> float:
    """Return the delay of the third of three, in intervals; the second may be cancelled."""
    if 2 not in served_at:
        return math.inf
    return (served_at[2] - served_at.get(1, served_at[0])) / interval - 1
