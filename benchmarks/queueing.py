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
from .competitors.limiting import Arm
from .ranking import ranking
from .report import Cell, Table

__all__ = ["inversions", "lateness", "least_gap", "waiting"]

T: Final = 0.05
ARRIVALS: Final = 40
FAST: Final = 0.02
"""The interval for those who arrive one after the other."""

OFFSETS: Final = [number * 0.00025 for number in range(-8, 9)]
"""When a waiter is cancelled: so long after it should be woken, from -2 to 2 ms."""

NEVER: Final = 40
"""Intervals after which whoever is next is given up."""

APART: Final = 0.0043
"""Seconds between limiters, lest the loop be busy with all of them in one moment."""


async def waiting(everybody: Mapping[str, Arm[Any]], *, quick: bool) -> Table:
    """All limiters at once, on one loop: nearly all of the time it waits."""
    queued = {name: arm for name, arm in everybody.items() if arm.pace is not None}
    found = await asyncio.gather(
        *(_figures(arm, place, quick=quick) for place, arm in enumerate(queued.values()))
    )
    rows = dict(zip(queued, found, strict=True))
    return ranking(
        "Those who wait: their order, and what it costs when some give up",
        ("inversions %", "5 of 10 left: T", "cancelled at wake-up: T late", "after a rest: T"),
        rows,
        beside=[name for name in queued if name != OURS],
        # A loop with all of them on it is late by a millisecond or two: T is 50 of them.
        judged={"inversions %": 0.0, "5 of 10 left: T": 0.1, "cancelled at wake-up: T late": 0.05},
        notes=[
            f"T is the interval, {T:g} s; all limiters at once, on one loop.",
            f"inversions: among pairs of {ARRIVALS} who came one by one.",
            "5 of 10 left: ten wait, five give up; until the last of the others went: ideal 5.",
            "cancelled at wake-up: one whose turn it is, within 2 ms.",
            "T late: by how much the next one is late then, at worst; a dash: for ever.",
            "after a rest: ten intervals, then five at once; the least distance of two: ideal 1.",
        ],
    )


async def _figures(arm: Arm[Any], place: int, *, quick: bool) -> Sequence[Cell]:
    await asyncio.sleep(place * APART)
    orders = await asyncio.gather(*(_order(arm, seed) for seed in range(1 if quick else 3)))
    left = await _five_of_ten(arm)
    late = [await _cancelled_at(arm, offset) for offset in OFFSETS[:: 4 if quick else 1]]
    gap = await _after_a_rest(arm)
    worst = max(late)
    return statistics.mean(map(inversions, orders)), left, worst if worst < math.inf else None, gap


async def _order(arm: Arm[Any], seed: int) -> list[int]:
    """In which order those went who came faster than they could go."""
    chance = random.Random(seed)
    those = _Those(arm, FAST)
    for _ in range(ARRIVALS):
        those.come()
        await asyncio.sleep(chance.uniform(0.0, FAST))
    await those.done()
    return list(those.went)


async def _five_of_ten(arm: Arm[Any]) -> float:
    """Ten wait, and every other one gives up: when the last of the others went, in intervals."""
    those = _Those(arm, T)
    those.come(11)
    await asyncio.sleep(0.4 * T)
    for task in those.tasks[1::2]:
        task.cancel()
    await those.done()
    first, *_, last = those.went.values()
    return (last - first) / T


async def _cancelled_at(arm: Arm[Any], offset: float) -> float:
    """The second of three gives up *offset* after their turn: by how much the third is late."""
    those = _Those(arm, T)
    those.come(3)
    await asyncio.sleep(0.1 * T)  # the first did not have to wait
    await asyncio.sleep(those.went[0] + T + offset - time.perf_counter())
    those.tasks[1].cancel()
    await asyncio.wait(those.tasks[2:], timeout=NEVER * T)
    for task in those.tasks:
        task.cancel()
    await those.done()
    return lateness(those.went, T)


async def _after_a_rest(arm: Arm[Any]) -> float:
    """The least distance, in intervals, of five who come at once when nobody came for long."""
    those = _Those(arm, T)
    those.come()
    await those.done()
    await asyncio.sleep(10 * T)
    those.come(5)
    await those.done()
    return least_gap(list(those.went.values())) / T


class _Those:
    """Those who come to one limiter: their tasks, and by their numbers when they went."""

    def __init__(self, arm: Arm[Any], interval: float) -> None:
        assert arm.pace is not None
        self._wait: Final = functools.partial(arm.pace, arm.make(interval, 1))
        self.tasks: Final[list[asyncio.Task[None]]] = []
        self.went: Final[dict[int, float]] = {}

    def come(self, count: int = 1) -> None:
        for _ in range(count):
            self.tasks.append(asyncio.create_task(self._go(len(self.tasks))))

    async def _go(self, number: int) -> None:
        async def get() -> None:
            self.went[number] = time.perf_counter()

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


def lateness(went: Mapping[int, float], interval: float) -> float:
    """By how many intervals the third of three was late, the second of whom may have given up."""
    if 2 not in went:
        return math.inf
    return (went[2] - went.get(1, went[0])) / interval - 1
