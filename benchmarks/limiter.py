"""A token: what it takes to get one, to wait for one, and to let a long queue through."""

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
from pythpeer.line import Priority

from .competitors.installed import OURS
from .competitors.limiting import Arm, Get, arms
from .measure import Times, kept_bytes, take_turns, turns
from .queueing import waiting
from .ranking import ranking
from .report import Cell, Table, ratio

__all__ = ["run"]

ACQUIRES: Final = 10_000
LIMITERS: Final = 200
WAITERS: Final = 2_000
STEP: Final = 0.001
LONG: Final = 3000.0

PATIENCE: Final = 3.0
"""A queue is sent home when this many times the ideal has passed."""

Arms = Mapping[str, Arm[Any]]
Wait = Callable[[], Awaitable[object]]


def run(*, quick: bool) -> list[Table]:
    """Measure time, memory, the draining of a queue, and who is served when."""
    found, absent = arms()
    everybody = {OURS: Arm(OURS, _make, _pace, functools.partial(Limiter.acquire, priority=CALL))}
    everybody |= found
    tables = [
        asyncio.run(_uncontended(everybody, 3 if quick else 9)),
        asyncio.run(_memory(everybody)),
        _drain(everybody, *((1, 300) if quick else (1, 10_000))),
        asyncio.run(waiting(everybody, quick=quick)),
    ]
    for table in tables:
        table.notes += absent
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


# -- nobody else wants one ------------------------------------------------------------------------


async def _uncontended(everybody: Arms, rounds: int) -> Table:
    work = {
        name: functools.partial(_acquire, arm)
        for name, arm in everybody.items()
        if arm.acquire is not None and arm.bursts
    }
    beside = [name for name in work if name != OURS]
    used = f"{OURS}: acquire, written, answered, closed"
    lock = "asyncio.Lock: acquire, release"
    times = await take_turns(rounds, {**work, used: _use, lock: _lock})
    table = ranking(
        "A token that is there: microseconds of one",
        ("us", f"to {OURS}"),
        {
            name: (
                statistics.median(each.wall) / ACQUIRES * 1e6,
                ratio(each.wall, times[OURS].wall),
            )
            for name, each in times.items()
        },
        beside=beside,
        judged={"us": 0.0},
        why={
            "us": f"{OURS} makes an object for each, which is told when its request is written and "
            "answered, and goes back if it never was; what others count is that somebody came."
        },
        notes=[
            f"{ACQUIRES:,} one after the other, a burst that lasts; median of {rounds} rounds.",
            *(everybody[name].note for name in beside if everybody[name].note),
        ],
    )
    table.samples.update({f"{name} s": each.wall for name, each in times.items()})
    return table


async def _acquire(arm: Arm[Any]) -> None:
    assert arm.acquire is not None
    acquire = functools.partial(arm.acquire, arm.make(1.0, 10 * ACQUIRES))
    for _ in range(ACQUIRES):
        await acquire()


async def _use() -> None:
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


# -- many wait ------------------------------------------------------------------------------------


async def _memory(everybody: Arms) -> Table:
    bare = await _bytes_of_waiting(lambda: asyncio.get_running_loop().create_future())
    rows: dict[str, Sequence[Cell]] = {}
    for name, arm in everybody.items():
        if arm.pace is not None:
            waiter = await _bytes_of_waiting_for(arm)
            rows[name] = (await _bytes_of(arm), waiter, waiter - bare)
    beside = [name for name in rows if name != OURS]
    async with Session(peerbet_key="0123456789abcdef", max_wait=10 * LONG) as session:
        session.limiters["peerbet.chat.get"].pause(LONG)
        waiter = await _bytes_of_waiting(session.peerbet.messages)
        rows[f"{OURS}: session.peerbet.messages()"] = (None, waiter, waiter - bare)
    rows["a bare task on a future"] = (None, bare, 0.0)
    return ranking(
        "Bytes of a limiter, and of a caller who waits, its task included",
        ("limiter B", "waiter B", "over a bare task"),
        rows,
        beside=beside,
        judged={"limiter B": 0.0, "waiter B": 0.0},
        why={
            "limiter B": "Theirs have no queue until somebody waits, or one and not three, and "
            "remember no requests; a session has six limiters.",
            "waiter B": "A waiter of theirs is a future and nothing else; of ours it is known how "
            "long it will wait, for whom, and which goes before which.",
        },
        notes=[f"{LIMITERS} limiters, {WAITERS:,} waiting tasks on one, tracemalloc."],
    )


async def _bytes_of(arm: Arm[Any]) -> float:
    arm.make(LONG, 1)  # whatever is made once is there from now on

    async def build() -> list[object]:
        return [arm.make(LONG, 1) for _ in range(LIMITERS)]

    return await kept_bytes(LIMITERS, build)


async def _bytes_of_waiting_for(arm: Arm[Any]) -> float:
    assert arm.pace is not None
    limiter = arm.make(LONG, 1)
    pace = functools.partial(arm.pace, limiter, _nothing)
    first = await _start(pace, 1)
    bare = arm.acquire and functools.partial(arm.acquire, limiter)
    each = await _bytes_of_waiting(bare or pace)
    await _cancel(first)
    return each


async def _bytes_of_waiting(wait: Wait) -> float:
    await _cancel(await _start(wait, 100))
    tasks: list[asyncio.Task[object]] = []

    async def build() -> None:
        tasks.extend(await _start(wait, WAITERS))

    each = await kept_bytes(WAITERS, build)
    if any(task.done() for task in tasks):
        raise RuntimeError("somebody did not wait")
    await _cancel(tasks)
    return each


async def _start(wait: Wait, count: int) -> list[asyncio.Task[object]]:
    tasks = [asyncio.create_task(_coroutine(wait())) for _ in range(count)]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


def _coroutine(awaitable: Awaitable[object]) -> Coroutine[Any, Any, object]:
    """*awaitable*, without a frame round it unless a task takes none of its kind."""
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


def _drain(everybody: Arms, rounds: int, waiters: int) -> Table:
    times = {name: Times() for name in everybody}
    through: dict[str, list[int]] = {name: [] for name in everybody}
    for name in turns(rounds, list(everybody)):
        gc.collect()
        through[name].append(asyncio.run(_drain_once(everybody[name], waiters, times[name])))
    ideal = (waiters - 1) * STEP
    rows: dict[str, Sequence[Cell]] = {}
    for name in everybody:
        least = min(through[name])
        wall, cpu = statistics.median(times[name].wall), statistics.median(times[name].cpu)
        slots = max(1, least - 1)
        rows[name] = (least, wall, wall / slots / STEP, cpu / max(1, least) * 1e6)
    table = ranking(
        f"{waiters:,} waiters, one each millisecond",
        ("went through", "seconds", "over ideal", "CPU us each"),
        rows,
        beside=[name for name in everybody if name != OURS],
        # By how late timers are two runs of the same differ by more than this.
        judged={"over ideal": 0.02, "CPU us each": 0.0},
        why={
            "over ideal": "They count from when a timer should have gone off, so that what follows "
            "a late one is early at the server.",
            "CPU us each": f"{OURS} looks at its queue twice for each token: when it is due, and "
            "when its request is written, from which the next one counts. A bare loop that "
            "wakes a task each millisecond takes three fifths of the time.",
        },
        notes=[
            f"Ideal: {ideal:.2f} s from the first to the last; figures are of those who went.",
            f"Who still waits after {PATIENCE:g} times the ideal is sent home.",
            *(arm.note for arm in everybody.values() if arm.note),
        ],
    )
    table.samples.update({f"{name} s": each.wall for name, each in times.items()})
    return table


async def _drain_once(arm: Arm[Any], waiters: int, times: Times) -> int:
    """Let all of them through: from the first to go to the last. Returns how many went."""
    gone = 0
    first = last = math.nan

    async def get() -> None:
        nonlocal gone, first, last
        last = time.perf_counter()
        first = last if not gone else first
        gone += 1

    cpu = time.process_time()
    try:
        async with asyncio.timeout(PATIENCE * waiters * STEP):
            await arm.send(arm.make(STEP, 1), get, waiters, waiters)
    except TimeoutError:
        pass
    times.cpu.append(time.process_time() - cpu)
    times.wall.append(last - first)
    return gone
