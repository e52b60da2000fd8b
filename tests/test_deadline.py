"""The time limit of attempts works as ``asyncio.timeout`` does, with one timer for all of them."""

from __future__ import annotations

import asyncio
import math

import anyio
import pytest
from helpers import now, run_loop_turns

from pythpeer.transport.deadline import DeadlinePassedError, Deadlines, TransportClosedError

pytestmark = pytest.mark.anyio


async def attempt(deadlines: Deadlines, seconds: float, limit: float | None = None) -> float:
    """Wait *seconds* as an attempt, with a *limit* of its own. Returns how long it has taken."""
    start = now()
    with deadlines.start(limit):
        await asyncio.sleep(seconds)
    return now() - start


async def test_an_attempt_ends_at_its_limit() -> None:
    """And the task is not left cancelled."""
    deadlines, start = Deadlines(2.5), now()
    with pytest.raises(DeadlinePassedError):
        await attempt(deadlines, 9.0)
    assert now() - start == pytest.approx(2.5)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await attempt(deadlines, 2.0) == pytest.approx(2.0)


async def test_each_attempt_has_its_own_limit() -> None:
    """Although one timer serves all: each ends at its limit, in whatever order others end."""
    deadlines, start, ends = Deadlines(2.0), now(), list[float]()

    async def run(after: float, seconds: float) -> None:
        await asyncio.sleep(after)
        try:
            await attempt(deadlines, seconds)
        except DeadlinePassedError:
            ends.append(now() - start)

    async with anyio.create_task_group() as group:
        for after, seconds in ((0.0, 0.5), (0.3, 9.0), (0.7, 0.1), (1.1, 9.0), (1.9, 1.0)):
            group.start_soon(run, after, seconds)
    assert ends == pytest.approx([2.3, 3.1])


async def test_limits_of_single_attempts_change_no_other_limit() -> None:
    """Whether they began before the others, and end after them, or not at all."""
    deadlines, start, ends = Deadlines(2.0), now(), dict[float | None, float]()

    async def run(limit: float | None) -> None:
        try:
            await attempt(deadlines, 50.0, limit)
        except DeadlinePassedError:
            ends[limit] = now() - start

    async with anyio.create_task_group() as group:
        for limit in (math.inf, 30.0, 0.5, None, 1.5, 3.0):
            group.start_soon(run, limit)
    assert ends == pytest.approx({0.5: 0.5, 1.5: 1.5, None: 2.0, 3.0: 3.0, 30.0: 30.0})


async def test_without_a_limit_nothing_ends_an_attempt() -> None:
    """Infinity is no limit."""
    assert await attempt(Deadlines(math.inf), 1e6) == pytest.approx(1e6)


async def test_a_cancellation_passes_through() -> None:
    """Also where the limit passes at the same time: the task was cancelled."""
    for delay in (1.0, 2.0):
        task = asyncio.ensure_future(attempt(Deadlines(2.0), 9.0))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(delay, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("outer", [1.0, 2.0, 3.0])
async def test_a_limit_within_another_one(outer: float) -> None:
    """The earlier one ends it; where both pass at the same time, the outer one does."""
    start = now()
    expected = DeadlinePassedError if outer > 2.0 else TimeoutError
    with pytest.raises(expected):
        async with asyncio.timeout(outer):
            await attempt(Deadlines(2.0), 9.0)
    assert now() - start == pytest.approx(min(outer, 2.0))
    start = now()
    with pytest.raises(expected):
        with anyio.fail_after(outer):
            await attempt(Deadlines(2.0), 9.0)
    await run_loop_turns()  # nothing is cancelled later
    assert now() - start == pytest.approx(min(outer, 2.0))


async def test_an_error_passes_through() -> None:
    """Also where the limit passes while it is raised."""
    deadlines = Deadlines(1.0)
    with pytest.raises(LookupError), deadlines.start():
        raise LookupError

    async def fail_at_the_limit() -> None:
        with deadlines.start():
            try:
                await asyncio.sleep(9.0)
            except asyncio.CancelledError:
                raise LookupError from None

    with pytest.raises(LookupError):
        await fail_at_the_limit()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_closing_ends_all_attempts() -> None:
    """Immediately, with another error."""
    deadlines, start = Deadlines(5.0), now()
    limits = (None, 7.0, math.inf)
    tasks = [asyncio.ensure_future(attempt(deadlines, 9.0, limit)) for limit in limits]
    await asyncio.sleep(1.0)
    deadlines.close()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in ended] == [TransportClosedError] * 3
    assert now() - start == pytest.approx(1.0)
