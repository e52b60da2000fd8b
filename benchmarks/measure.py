"""Measuring: alternating rounds that cancel drift, and the time and memory of a function."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TypeVar

__all__ = ["Times", "alternate", "interleave", "retained_bytes"]

K = TypeVar("K")


class Times:
    """Wall and CPU seconds of each round of one function."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    async def add(self, work: Callable[[], Awaitable[object]]) -> None:
        """Call *work* once and add its times, without the garbage collection of earlier calls."""
        gc.collect()
        cpu, wall = time.process_time(), time.perf_counter()
        await work()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def alternate(rounds: int, works: Sequence[K]) -> Iterator[K]:
    """Yield every name once a round, in reverse order every other round: A B, B A, A B."""
    for number in range(rounds):
        yield from works if number % 2 == 0 else reversed(works)


async def interleave(
    rounds: int, works: Mapping[str, Callable[[], Awaitable[object]]]
) -> dict[str, Times]:
    """Measure every function in alternating rounds, after one round that does not count."""
    times = {name: Times() for name in works}
    for name in works:
        await Times().add(works[name])
    for name in alternate(rounds, list(works)):
        await times[name].add(works[name])
    return times


async def retained_bytes(count: int, build: Callable[[], Awaitable[object]]) -> float:
    """Return the bytes, divided by *count*, that remain allocated when *build* returns."""
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
