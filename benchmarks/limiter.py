"""A token: what it takes to get one, to wait for one, and to let a long queue through."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from aiolimiter import AsyncLimiter

from pythpeer import Limiter, Rate, Session
from pythpeer.line import Priority

from .measure import Times, kept_bytes, take_turns, turns
from .report import Table, ratio

__all__ = ["run"]

ACQUIRES: Final = 20_000
WAITERS: Final = 2_000
STEP: Final = 0.001
LONG: Final = 3000.0

Work = Callable[[], Awaitable[object]]
Waiting = Callable[[], Coroutine[Any, Any, object]]


def run(*, quick: bool) -> list[Table]:
    """Measure time, memory and the draining of a queue."""
    return [
        asyncio.run(_uncontended(3 if quick else 9)),
        asyncio.run(_memory()),
        asyncio.run(_drain(*((1, 1_000) if quick else (3, 10_000)))),
    ]


# -- nobody else wants one ------------------------------------------------------------------------


async def _uncontended(rounds: int) -> Table:
    arms: dict[str, Work] = {
        "pythpeer acquire": _acquire,
        "pythpeer acquire, written, answered, closed": _use,
        "aiolimiter acquire": _aiolimiter,
        "asyncio.Lock acquire, release": _lock,
    }
    times = await take_turns(rounds, arms)
    table = Table(
        "A token that is there: microseconds of one",
        ("what", "us", "to aiolimiter", "target", "met"),
        notes=[f"{ACQUIRES:,} one after the other, a burst that lasts; median of {rounds} rounds."],
    )
    for name in arms:
        each = statistics.median(times[name].wall) / ACQUIRES * 1e6
        ours = name == "pythpeer acquire"
        table.add(
            name,
            each,
            ratio(times[name].wall, times["aiolimiter acquire"].wall),
            "< 1" if ours else None,
            each < 1.0 if ours else None,
        )
        table.samples[f"{name} s"] = times[name].wall
    return table


async def _acquire() -> None:
    limiter = Limiter("benchmark", Rate(1.0, 10 * ACQUIRES))
    for _ in range(ACQUIRES):
        await limiter.acquire(Priority.CALL)


async def _use() -> None:
    limiter = Limiter("benchmark", Rate(1.0, 10 * ACQUIRES))
    for _ in range(ACQUIRES):
        permit = await limiter.acquire(Priority.CALL)
        permit.on_written()
        permit.on_answered()
        permit.close()


async def _aiolimiter() -> None:
    limiter = AsyncLimiter(10 * ACQUIRES, 10 * ACQUIRES)
    for _ in range(ACQUIRES):
        await limiter.acquire()


async def _lock() -> None:
    lock = asyncio.Lock()
    for _ in range(ACQUIRES):
        await lock.acquire()
        lock.release()


# -- many wait ------------------------------------------------------------------------------------


async def _memory() -> Table:
    table = Table(
        "A waiting caller: bytes, its task included",
        ("what waits", "bytes", "over a bare task", "target", "met"),
        notes=[f"{WAITERS:,} waiting tasks, tracemalloc."],
    )
    bare: float | None = None
    async with Session(peerbet_key="0123456789abcdef", max_wait=10 * LONG) as session:
        session.limiters["peerbet.chat.get"].pause(LONG)
        limiter = Limiter("benchmark", Rate(LONG))
        limiter.pause(LONG)
        lock = asyncio.Lock()
        await lock.acquire()
        full = AsyncLimiter(1, LONG)
        await full.acquire()

        async def on_future() -> None:
            await asyncio.get_running_loop().create_future()

        arms: dict[str, Waiting] = {
            "bare task on a future": on_future,
            "pythpeer limiter.acquire()": lambda: limiter.acquire(Priority.CALL),
            "pythpeer session.peerbet.messages()": session.peerbet.messages,
            "asyncio.Lock acquire()": lock.acquire,
            "aiolimiter acquire()": full.acquire,
        }
        for name, wait in arms.items():
            each = await _bytes_of_waiting(wait)
            ours = name.startswith("pythpeer")
            bare = each if bare is None else bare
            target = "< 1500" if ours else None
            table.add(name, each, each - bare, target, each < 1500 if ours else None)
    return table


async def _bytes_of_waiting(wait: Waiting) -> float:
    await _cancel(await _start(wait, 100))  # whatever is made once is there from now on
    tasks: list[asyncio.Task[object]] = []

    async def build() -> None:
        tasks.extend(await _start(wait, WAITERS))

    each = await kept_bytes(WAITERS, build)
    if any(task.done() for task in tasks):
        raise RuntimeError("somebody did not wait")
    await _cancel(tasks)
    return each


async def _start(wait: Waiting, count: int) -> list[asyncio.Task[object]]:
    tasks: list[asyncio.Task[object]] = [asyncio.create_task(wait()) for _ in range(count)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def _cancel(tasks: Sequence[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# -- a long queue ---------------------------------------------------------------------------------


async def _drain(rounds: int, waiters: int) -> Table:
    arms = {"pythpeer": _drain_ours, "aiolimiter": _drain_aiolimiter}
    times = {name: Times() for name in arms}
    for name in turns(rounds, list(arms)):
        await _drain_once(arms[name], waiters, times[name])
    ideal = (waiters - 1) * STEP
    table = Table(
        f"{waiters:,} waiters, one each millisecond: seconds until the last has gone",
        ("limiter", "seconds", "over ideal", "CPU s"),
        notes=[f"Ideal: {ideal:.2f} s; median of {rounds} rounds, in turns."],
    )
    for name in arms:
        wall = statistics.median(times[name].wall)
        table.add(name, wall, wall / ideal, statistics.median(times[name].cpu))
        table.samples[f"{name} s"] = times[name].wall
    return table


async def _drain_once(
    queue: Callable[[], Callable[[], Awaitable[None]]], waiters: int, times: Times
) -> None:
    """Let all of them through: from the first to go to the last."""
    wait = queue()
    first = last = math.nan

    async def one() -> None:
        nonlocal first, last
        await wait()
        last = time.perf_counter()
        first = last if math.isnan(first) else first

    cpu = time.process_time()
    async with asyncio.timeout(10 * waiters * STEP + 10), asyncio.TaskGroup() as group:
        for _ in range(waiters):
            group.create_task(one())
    times.cpu.append(time.process_time() - cpu)
    times.wall.append(last - first)


def _drain_ours() -> Callable[[], Awaitable[None]]:
    limiter = Limiter("benchmark", Rate(STEP, guard=0.0))

    async def wait() -> None:
        permit = await limiter.acquire(Priority.CALL)
        permit.on_written()
        permit.close()

    return wait


def _drain_aiolimiter() -> Callable[[], Awaitable[None]]:
    return AsyncLimiter(1, STEP).acquire
