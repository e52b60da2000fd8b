"""How to measure: turns that cancel drift, and the time and memory that a piece of work takes."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TypeVar

__all__ = ["Times", "alternate", "interleave", "retained_bytes"]

K = TypeVar("K")


class Times:
    """Wall and CPU seconds of each round of one arm."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    async def add(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do *work* once and add what it took. Garbage of those before is not charged to it."""
        gc.collect()
        cpu, wall = time.process_time(), time.perf_counter()
        await work()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def alternate(rounds: int, works: Sequence[K]) -> Iterator[K]:
    """Every arm once a round, in opposite order every other round: A B, B A, A B."""
    for number in range(rounds):
        yield from works if number % 2 == 0 else reversed(works)


async def interleave(
    rounds: int, works: Mapping[str, Callable[[], Awaitable[object]]]
) -> dict[str, Times]:
    """Measure every arm *rounds* times, in turns, after one round that does not count."""
    times = {name: Times() for name in works}
    for name in works:
        await Times().add(works[name])
    for name in alternate(rounds, list(works)):
        await times[name].add(works[name])
    return times


async def retained_bytes(count: int, build: Callable[[], Awaitable[object]]) -> float:
    """Bytes allocated, for each of *count*, by what *build* leaves alive when it returns."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = await build()
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        del result
    finally:
        tracemalloc.stop()
    return (after - before) / count
