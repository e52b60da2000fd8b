"""Callers wait for a token of one endpoint, receive it in order, and can be cancelled.

Most callers here write their request when they receive their token, and are answered at the same
time: then one is served per interval, and every time is a whole number.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import random
import sys
import tracemalloc
from itertools import pairwise
from typing import Any, TypeVar

import anyio
import pytest
from helpers import examples, now, run_loop_turns, run_on_virtual_time, warns_renamed
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import needs_fork

from pythpeer import InvalidRequestError, Limiter, Rate, RateLimitedError, SessionClosedError
from pythpeer.pacing.limiter import Permit, loop_clock
from pythpeer.pacing.queue import Priority
from pythpeer.testing import VirtualTimeLoop

pytestmark = pytest.mark.anyio

T = TypeVar("T")

WRITE, CALL, POLL = Priority.WRITE, Priority.CALL, Priority.POLL
GUARD = 0.05
ONE = Rate(1.0)
THREE = Rate(1.0, burst=3)


class Callers:
    """Callers of one limiter: `served` has the name and the time of each that was served."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self.served: list[tuple[str, float]] = []
        self.start = now()
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def names(self) -> str:
        return "".join(name for name, _ in self.served)

    @property
    def times(self) -> list[float]:
        return [at for _, at in self.served]

    async def _go(
        self, name: str, priority: Priority, max_wait: float, owner: object, answered: bool
    ) -> None:
        permit = await self.limiter.acquire(priority, max_wait, owner)
        self.served.append((name, round(now() - self.start, 6)))
        permit.on_written()
        if answered:
            permit.on_answered()
        permit.close()

    def begin(
        self,
        name: str = "-",
        priority: Priority = CALL,
        max_wait: float = math.inf,
        owner: object = None,
        *,
        answered: bool = True,
    ) -> None:
        """Start one more caller."""
        going = self._go(name, priority, max_wait, owner, answered)
        self.tasks.append(asyncio.ensure_future(going))

    async def enqueue(
        self,
        name: str = "-",
        priority: Priority = CALL,
        max_wait: float = math.inf,
        owner: object = None,
        *,
        answered: bool = True,
    ) -> None:
        """Start one more caller, and run it until it waits."""
        self.begin(name, priority, max_wait, owner, answered=answered)
        await asyncio.sleep(0)

    @property
    def newest(self) -> asyncio.Task[None]:
        """Return the task of the caller that was started last."""
        return self.tasks[-1]

    async def wait_all(self) -> None:
        """Wait for all callers; ignore the errors of those that were cancelled or failed."""
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def acquire(limiter: Limiter, max_wait: float = math.inf) -> Permit:
    return await limiter.acquire(CALL, max_wait)


async def send_request(limiter: Limiter) -> None:
    """Send one request that is answered at the same time."""
    permit = await acquire(limiter)
    permit.on_written()
    permit.on_answered()
    permit.close()


# -- the order of service -------------------------------------------------------------------------


async def test_first_come_first_served() -> None:
    """Callers of one class are served in the order of arrival, one per interval."""
    callers = Callers(Limiter("x", ONE))
    for name in "abcdef":
        await callers.enqueue(name)
    await callers.wait_all()
    assert callers.served == [(name, float(at)) for at, name in enumerate("abcdef")]


async def test_writes_go_before_calls_and_calls_before_polls() -> None:
    """Waiters are served by class first, by arrival second."""
    callers = Callers(Limiter("x", ONE))
    await callers.enqueue("-")
    for name, priority in [("p", POLL), ("c", CALL), ("w", WRITE), ("q", POLL), ("v", WRITE)]:
        await callers.enqueue(name, priority)
    await callers.wait_all()
    assert callers.names == "-wvcpq"


@pytest.mark.parametrize("overtaken", [CALL, POLL])
async def test_a_class_overtaken_five_times_goes_next(overtaken: Priority) -> None:
    """Writes overtake other classes five times in a row, then another class is served."""
    callers = Callers(Limiter("x", ONE))
    await callers.enqueue("-")
    await callers.enqueue("x", overtaken)
    for _ in range(12):
        await callers.enqueue("w", WRITE)
    await callers.enqueue("y", overtaken)
    await callers.wait_all()
    assert callers.names == "-" + "wwwwwx" + "wwwwwy" + "ww"


async def test_no_class_starves_with_waiters_in_all() -> None:
    """With writes, calls and polls waiting at all times, every class is served."""
    callers = Callers(Limiter("x", ONE))
    await callers.enqueue("-")
    for name, priority in [("w", WRITE), ("c", CALL), ("p", POLL)]:
        for _ in range(10):
            await callers.enqueue(name, priority)
    await callers.wait_all()
    contended = callers.names[1 : callers.names.rindex("w") + 1]
    for name in "cp":
        gaps = [later - previous for previous, later in pairwise(_positions(contended, name))]
        assert max(gaps, default=99) <= 7, callers.names


def _positions(names: str, name: str) -> list[int]:
    return [-1, *(index for index, letter in enumerate(names) if letter == name)]


async def test_the_count_of_overtaking_is_not_inherited() -> None:
    """A new poll was not overtaken yet, although earlier polls were."""
    callers = Callers(Limiter("x", ONE))
    await callers.enqueue("-")
    await callers.enqueue("p", POLL)
    cancelled = callers.newest
    for _ in range(6):
        await callers.enqueue("w", WRITE)
    await asyncio.sleep(5.5)
    assert callers.names == "-wwwww"
    cancelled.cancel()
    await run_loop_turns()
    await callers.enqueue("q", POLL)
    await callers.wait_all()
    assert callers.names == "-wwwwwwq"


async def test_no_caller_overtakes_the_queue_of_a_late_loop() -> None:
    """A caller that arrives when a token is due, but not granted yet, is queued."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    await callers.enqueue("-")
    await callers.enqueue("a")
    asyncio.get_running_loop().call_at(callers.start + 1.0, callers.begin, "b")
    await asyncio.sleep(5)
    assert callers.served == [("-", 0.0), ("a", 1.0), ("b", 2.0)]


# -- the invariant of pacing ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answered_after", "due"),
    [
        pytest.param(0.0, 1.0, id="immediately"),
        pytest.param(0.02, 1.02, id="within-the-guard"),
        pytest.param(0.05, 1.05, id="as-the-guard-ends"),
        pytest.param(0.7, 1.05, id="slowly"),
        pytest.param(None, 1.05, id="never"),
    ],
)
async def test_the_next_is_due_an_interval_after_the_answer_or_the_guard(
    answered_after: float | None, due: float
) -> None:
    """With burst 1: due at ``min(t_written + interval + guard, t_answered + interval)``."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    permit = await acquire(limiter)
    permit.on_written()
    await callers.enqueue("next")
    if answered_after is not None:
        await asyncio.sleep(answered_after)
        permit.on_answered()
    await callers.wait_all()
    permit.close()
    assert callers.times == [pytest.approx(due)]


async def test_time_counts_from_the_writing_not_from_the_token() -> None:
    """A token can be held while a connection is made: the interval starts at the write."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    permit = await acquire(limiter)
    await callers.enqueue("next")
    await asyncio.sleep(7)
    permit.on_written()
    await callers.wait_all()
    assert callers.times == [pytest.approx(7 + 1 + GUARD)]


async def test_no_token_is_granted_while_one_is_reserved_and_not_written() -> None:
    """Until a request is written, it is not known when the next token is due."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    permit = await acquire(limiter)
    await callers.enqueue("next")
    await asyncio.sleep(1000)
    assert callers.served == []
    assert (limiter.available, limiter.waiting) == (0, 1)
    permit.on_written()
    await callers.wait_all()
    assert callers.times == [pytest.approx(1000 + 1 + GUARD)]


async def test_a_burst_goes_immediately_and_is_then_paced() -> None:
    """With burst 3, three go immediately; the others follow one per interval, after one guard."""
    callers = Callers(Limiter("x", THREE))
    for _ in range(6):
        await callers.enqueue(answered=False)
    await callers.wait_all()
    first = 1 + GUARD
    assert callers.times == [0.0, 0.0, 0.0, *map(pytest.approx, (first, first + 1, first + 2))]


async def test_an_early_answer_to_the_first_of_a_burst_counts() -> None:
    """The bucket started to refill when its first request was answered, at the latest."""
    callers = Callers(Limiter("x", THREE))
    for _ in range(5):
        await callers.enqueue(answered=True)
    await callers.wait_all()
    assert callers.times == [0.0, 0.0, 0.0, 1.0, 2.0]


async def test_no_more_than_the_burst_is_saved_up() -> None:
    """However long no request is sent, only ``burst`` go immediately afterwards."""
    limiter = Limiter("x", THREE)
    await send_request(limiter)
    await asyncio.sleep(3600)
    callers = Callers(limiter)
    for _ in range(5):
        await callers.enqueue()
    await callers.wait_all()
    assert callers.times == [0.0, 0.0, 0.0, 1.0, 2.0]


async def test_a_burst_counts_reserved_tokens() -> None:
    """Three callers can hold the tokens; the fourth waits until the first request is written."""
    limiter = Limiter("x", THREE)
    held = [await acquire(limiter) for _ in range(3)]
    callers = Callers(limiter)
    await callers.enqueue("fourth", answered=False)
    await asyncio.sleep(10)
    assert callers.served == []
    for permit in held:
        permit.on_written()
    await callers.wait_all()
    assert callers.times == [pytest.approx(10 + 1 + GUARD)]


@settings(max_examples=examples(100))
@given(
    burst=st.integers(1, 4),
    callers=st.lists(
        st.tuples(
            st.floats(0, 12), st.floats(0, 0.3), st.floats(0, GUARD), st.none() | st.floats(0, 3)
        ),
        min_size=2,
        max_size=12,
    ),
)
def test_the_bucket_of_the_service_is_never_overdrawn(
    burst: int, callers: list[tuple[float, float, float, float | None]]
) -> None:
    """Whenever callers arrive, write and are answered, a strict service has a token for each.

    Each comes at a time, connects for a while, and its request travels at most the guard; the
    service answers after some time of its own, or never.
    """
    arrivals: list[float] = []

    async def caller(
        limiter: Limiter, at: float, connecting: float, latency: float, processing: float | None
    ) -> None:
        await asyncio.sleep(at)
        permit = await acquire(limiter)
        await asyncio.sleep(connecting)
        permit.on_written()
        arrivals.append(now() + latency)
        if processing is not None:
            await asyncio.sleep(latency + processing)
            permit.on_answered()
        permit.close()

    async def scenario() -> None:
        limiter = Limiter("x", Rate(1.0, burst))
        await asyncio.gather(*(caller(limiter, *arguments) for arguments in callers))

    run_on_virtual_time(scenario())
    assert len(arrivals) == len(callers)
    tokens, before = float(burst), 0.0
    for at in sorted(arrivals):
        tokens = min(burst, tokens + at - before)
        before = at
        assert tokens > 1 - 1e-4
        tokens -= 1


async def test_an_interval_of_zero_is_no_pacing() -> None:
    """With interval 0 every caller is served immediately, whatever the burst."""
    callers = Callers(Limiter("x", Rate(0.0, guard=0.0)))
    for _ in range(50):
        await callers.enqueue()
    await callers.wait_all()
    assert callers.times == [0.0] * 50


# -- permits --------------------------------------------------------------------------------------


async def test_a_token_that_was_never_spent_is_released() -> None:
    """A request that certainly never left costs nothing: the next one goes immediately."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    permit = await acquire(limiter)
    await callers.enqueue("next")
    await asyncio.sleep(3)
    assert callers.served == []
    permit.close()
    await callers.wait_all()
    assert callers.times == [3.0]
    assert not permit.written


async def test_a_token_is_released_once() -> None:
    """Closing again releases nothing more: there is one token, not two."""
    limiter = Limiter("x", THREE)
    held = [await acquire(limiter) for _ in range(3)]
    held[0].close()
    held[0].close()
    assert limiter.available == 1


async def test_a_token_that_was_spent_stays_spent() -> None:
    """After the head is written, closing releases nothing, with or without a response."""
    limiter = Limiter("x", ONE)
    permit = await acquire(limiter)
    permit.on_written()
    permit.close()
    assert permit.written
    assert limiter.available == 0


async def test_a_token_is_spent_once() -> None:
    """The second report that a head is written has no effect."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    permit = await acquire(limiter)
    permit.on_written()
    await asyncio.sleep(0.6)
    permit.on_written()
    permit.close()
    await callers.enqueue("next")
    await callers.wait_all()
    assert callers.times == [1.0 + GUARD]


async def test_a_late_answer_does_not_move_a_later_request() -> None:
    """Only the response to the latest request can change when the next token is due."""
    limiter = Limiter("x", ONE)
    first = await acquire(limiter)
    first.on_written()
    second = await acquire(limiter)
    assert now() == pytest.approx(1 + GUARD)
    second.on_written()
    first.on_answered()
    callers = Callers(limiter)
    await callers.enqueue("third")
    await callers.wait_all()
    assert callers.times == [pytest.approx(1 + GUARD)]


# -- leaving the queue ----------------------------------------------------------------------------


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_a_cancelled_waiter_delays_no_other(cancelled: int) -> None:
    """A waiter can leave from any position of the queue; the others are served as without it."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    await callers.enqueue("-")
    for name in "abc":
        await callers.enqueue(name)
    waiters = callers.tasks[-3:]
    await asyncio.sleep(0.5)
    waiters[cancelled].cancel()
    await run_loop_turns()
    assert limiter.waiting == 2
    await callers.wait_all()
    rest = "abc".replace("abc"[cancelled], "")
    assert callers.served == [("-", 0.0), (rest[0], 1.0), (rest[1], 2.0)]


async def test_a_waiter_cancelled_before_it_ever_ran_was_never_there() -> None:
    """A task that is cancelled before its first step leaves no trace."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    task = asyncio.ensure_future(acquire(limiter))
    task.cancel()
    await callers.enqueue("a")
    await callers.wait_all()
    assert task.cancelled()
    assert callers.times == [0.0]


async def test_a_waiter_cancelled_at_the_time_of_its_grant_passes_the_token_on() -> None:
    """Granted, and cancelled before it ran: the next waiter receives the token immediately."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    permit = await acquire(limiter)
    await callers.enqueue("a")
    cancelled = callers.newest
    await callers.enqueue("b")
    await asyncio.sleep(3)
    permit.close()  # grants the token to "a"
    assert cancelled.cancel()
    await run_loop_turns()
    assert cancelled.cancelled()
    assert callers.served == [("b", 3.0)]


async def test_the_last_waiter_cancelled_at_the_time_of_its_grant_releases_the_token() -> None:
    """With no waiter behind it, the token is available to the next caller."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    permit = await acquire(limiter)
    await callers.enqueue("a")
    cancelled = callers.newest
    permit.close()
    cancelled.cancel()
    await run_loop_turns()
    assert (limiter.available, limiter.waiting) == (1, 0)
    await callers.enqueue("b")
    assert callers.served == [("b", 0.0)]


async def test_a_waiter_cancelled_just_before_its_grant_is_passed_over() -> None:
    """Cancelled, not run yet, and then first in the queue: the next waiter receives the token."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    permit = await acquire(limiter)
    await callers.enqueue("a")
    cancelled = callers.newest
    await callers.enqueue("b")
    cancelled.cancel()
    permit.close()
    await run_loop_turns()
    assert callers.served == [("b", 0.0)]


@pytest.mark.parametrize("late", [-0.001, 0.0, 0.001])
async def test_a_time_limit_that_ends_as_the_token_comes_blocks_nothing(late: float) -> None:
    """A caller's own time limit can end just before, at, or after the time of its grant."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    await callers.enqueue("-")
    start = now()

    async def caller_with_limit() -> None:
        async with asyncio.timeout_at(start + 1.0 + late):
            permit = await acquire(limiter)
            try:
                await asyncio.sleep(0.0005)
                permit.on_written()
                permit.on_answered()
            finally:
                permit.close()

    task = asyncio.ensure_future(caller_with_limit())
    await asyncio.sleep(0)
    await callers.enqueue("b")
    await callers.wait_all()
    await asyncio.gather(task, return_exceptions=True)
    spent = task.exception() is None
    assert callers.served[1][1] == pytest.approx(2.0005 if spent else 1.0, abs=0.001)
    assert limiter.waiting == 0


async def test_a_cancelled_scope_releases_the_token() -> None:
    """Cancellation by an anyio scope, which never cancels a finished wait, loses no token."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    permit = await acquire(limiter)
    scope = anyio.CancelScope()

    async def scoped() -> None:
        with scope:
            held = await acquire(limiter)
            try:
                await anyio.sleep(10)
            finally:
                held.close()

    task = asyncio.ensure_future(scoped())
    await asyncio.sleep(0)
    await callers.enqueue("b")
    permit.close()
    scope.cancel()
    await task
    await callers.wait_all()
    assert callers.times == [0.0]


@settings(max_examples=examples(40))
@given(
    chance=st.randoms(use_true_random=False),
    burst=st.sampled_from([1, 3]),
    step=st.sampled_from([0.25, 0.5, 1.0]),
)
def test_random_cancellations_cost_nothing(chance: random.Random, burst: int, step: float) -> None:
    """Of 60 callers 30 are cancelled at random, many at the time of a grant: no slot is lost.

    The others are served, in order, one per interval while callers wait.
    """

    async def scenario() -> None:
        limiter = Limiter("x", Rate(1.0, burst, guard=0.0))
        callers = Callers(limiter)
        order: dict[Priority, list[str]] = {priority: [] for priority in Priority}
        for number in range(60):
            priority = chance.choice(list(Priority))
            order[priority].append(str(number))
            await callers.enqueue(str(number), priority)
        cancelled = chance.sample(callers.tasks, 30)
        for task in cancelled:
            at = callers.start + step * chance.randrange(int(40 / step))
            asyncio.get_running_loop().call_at(at, task.cancel)
        await callers.wait_all()
        await run_loop_turns()
        names = [name for name, _ in callers.served]
        for number, task in enumerate(callers.tasks):
            assert (str(number) in names) is not task.cancelled()
            assert task in cancelled or not task.cancelled()
        assert callers.times == [0.0] * (burst - 1) + [
            float(second) for second in range(len(names) - burst + 1)
        ]
        for expected in order.values():
            assert [name for name in names if name in expected] == [
                name for name in expected if name in names
            ]
        assert limiter.waiting == 0
        await asyncio.sleep(burst)
        assert limiter.available == burst

    run_on_virtual_time(scenario())


# -- bounded waiting ------------------------------------------------------------------------------


async def test_a_queue_that_is_too_long_fails_immediately() -> None:
    """A caller that would wait longer than ``max_wait`` fails immediately, with that wait."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    for name in "-abc":
        await callers.enqueue(name)
    with pytest.raises(RateLimitedError) as caught:
        await acquire(limiter, 3.5)
    assert now() == callers.start
    assert caught.value.retry_after == pytest.approx(4.0)
    assert caught.value.endpoint == "x"
    assert caught.value.status is None
    assert limiter.waiting == 3
    await callers.wait_all()
    assert callers.times == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("max_wait", [0.0, 0.5])
async def test_an_unknown_wait_is_an_interval(max_wait: float) -> None:
    """While the last token is held and its request is not written, no caller gets 0 seconds."""
    limiter = Limiter("x", Rate(2.0))
    permit = await acquire(limiter)
    with pytest.raises(RateLimitedError) as caught:
        await acquire(limiter, max_wait)
    assert caught.value.retry_after == 2.0
    permit.close()
    assert (await acquire(limiter, max_wait)).limiter is limiter


async def test_a_wait_of_exactly_max_wait_is_accepted() -> None:
    """The bound is inclusive."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    for name in "-abc":
        await callers.enqueue(name)
    await callers.enqueue("d", max_wait=4.0)
    await callers.wait_all()
    assert callers.served[-1] == ("d", 4.0)


async def test_only_waiters_that_go_first_count_for_the_wait() -> None:
    """Polls in the queue do not make a write fail."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    await callers.enqueue("-")
    for _ in range(5):
        await callers.enqueue("p", POLL)
    await callers.enqueue("w", WRITE, max_wait=1.5)
    await callers.wait_all()
    assert callers.served[1] == ("w", 1.0)


async def test_a_caller_whose_turn_is_guaranteed_does_not_fail() -> None:
    """A call goes after five writes at the latest, however many wait: that is its longest wait."""
    callers = Callers(Limiter("x", ONE))
    await callers.enqueue("-")
    for _ in range(20):
        await callers.enqueue("w", WRITE)
    await callers.enqueue("c", CALL, max_wait=10.0)
    await callers.wait_all()
    assert callers.served[6] == ("c", 6.0)


@pytest.mark.parametrize("rate", [ONE, THREE], ids=["burst-1", "burst-3"])
async def test_a_pause_that_is_too_long_fails_immediately(rate: Rate) -> None:
    """A caller that arrives in a pause longer than ``max_wait`` receives the end of the pause."""
    limiter = Limiter("x", rate)
    start = now()
    await send_request(limiter)
    limiter.pause(30)
    with pytest.raises(RateLimitedError) as caught:
        await acquire(limiter, 29.0)
    assert now() == start
    assert caught.value.retry_after == pytest.approx(30.0)


async def test_a_retry_after_that_is_too_long_fails_immediately() -> None:
    """The same holds for a pause that the service has set."""
    limiter = Limiter("x", ONE)
    permit = await acquire(limiter)
    permit.on_written()
    permit.on_answered()
    permit.on_throttled(45.0)
    permit.close()
    with pytest.raises(RateLimitedError) as caught:
        await acquire(limiter, 40.0)
    assert caught.value.retry_after == pytest.approx(45.0)


async def test_a_stored_burst_goes_when_the_pause_ends() -> None:
    """In a pause, too, only a caller that certainly waits longer fails: three can go at its end."""
    callers = Callers(Limiter("x", THREE))
    (await acquire(callers.limiter)).close()  # it uses the clock of the loop from now on
    callers.limiter.pause(10)
    for name in "abc":
        await callers.enqueue(name, max_wait=10.5)
    await callers.wait_all()
    assert callers.served == [("a", 10.0), ("b", 10.0), ("c", 10.0)]


async def test_a_pause_fails_the_waiters_it_delays_too_long() -> None:
    """A waiter that cannot be served in time fails immediately; one with a later deadline stays."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    await callers.enqueue("-")
    await callers.enqueue("a", max_wait=5.0)
    expiring = callers.newest
    await callers.enqueue("b", POLL)
    await asyncio.sleep(0.5)
    limiter.pause(60)
    await run_loop_turns()
    error = expiring.exception()
    assert isinstance(error, RateLimitedError)
    assert error.retry_after is not None
    assert 60.0 <= error.retry_after <= 61.0
    assert limiter.waiting == 1
    await callers.wait_all()
    assert callers.served == [("-", 0.0), ("b", 60.5)]


async def test_a_waiter_cancelled_at_the_time_of_a_pause_ends_as_cancelled() -> None:
    """Cancelled, not run yet, and then failed: it ends as cancelled, and the others stay."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    await callers.enqueue("-")
    await callers.enqueue("a", max_wait=5.0)
    cancelled = callers.newest
    await callers.enqueue("b", POLL)
    cancelled.cancel()
    limiter.pause(60)
    assert limiter.waiting == 1
    await callers.wait_all()
    assert cancelled.cancelled()
    assert callers.served == [("-", 0.0), ("b", 60.0)]


async def test_a_pause_within_max_wait_is_waited_out() -> None:
    """A pause that ends before every deadline fails no waiter."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    await callers.enqueue("-")
    await callers.enqueue("a", max_wait=5.0)
    limiter.pause(4)
    await callers.wait_all()
    assert callers.served == [("-", 0.0), ("a", 4.0)]


async def test_a_pause_fails_a_short_wait_behind_a_long_one() -> None:
    """Where ``max_wait`` differs within one class, no waiter is kept past its deadline."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    await callers.enqueue("-")
    await callers.enqueue("a", max_wait=100.0)
    await callers.enqueue("b", max_wait=5.0)
    expiring = callers.newest
    limiter.pause(50)
    await asyncio.sleep(5.5)
    assert expiring.done()
    await callers.wait_all()
    assert callers.served == [("-", 0.0), ("a", 50.0)]


async def test_max_wait_ends_although_the_next_token_is_not_known() -> None:
    """Behind a reserved token whose request is not written, a caller waits ``max_wait`` seconds."""
    limiter = Limiter("x", ONE)
    permit = await acquire(limiter)
    waiter = asyncio.ensure_future(acquire(limiter, 2.0))
    await asyncio.sleep(2.0)
    await run_loop_turns()
    assert waiter.done()
    assert isinstance(waiter.exception(), RateLimitedError)
    assert limiter.waiting == 0
    permit.close()


async def test_max_wait_ends_while_others_overtake() -> None:
    """Later writes can use up the ``max_wait`` of a call completely."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    await callers.enqueue("-")
    await callers.enqueue("c", max_wait=2.5)
    call = callers.newest
    for _ in range(4):
        await callers.enqueue("w", WRITE)
    await asyncio.sleep(2.5)
    await run_loop_turns()
    assert call.done()
    assert isinstance(call.exception(), RateLimitedError)
    await callers.wait_all()
    assert callers.served == [("-", 0.0), *(("w", float(at)) for at in range(1, 5))]


async def test_a_caller_that_failed_costs_nothing() -> None:
    """A caller that failed immediately leaves tokens and queue unchanged."""
    limiter = Limiter("x", ONE)
    await send_request(limiter)
    before = repr(limiter)
    with pytest.raises(RateLimitedError):
        await acquire(limiter, 0.5)
    assert repr(limiter) == before


# -- pauses ---------------------------------------------------------------------------------------


async def test_a_pause_is_only_moved_later() -> None:
    """A shorter pause does not shorten a longer one; a longer one extends it."""
    limiter = Limiter("x", ONE)
    callers = Callers(limiter)
    (await acquire(limiter)).close()  # it uses the clock of the loop from now on
    limiter.pause(10)
    limiter.pause(3)
    limiter.pause(0)
    await callers.enqueue("a")
    await asyncio.sleep(4)
    assert callers.served == []
    limiter.pause(20)
    limiter.pause(1)
    await callers.wait_all()
    assert callers.times == [24.0]


async def test_a_pause_does_not_stop_a_granted_token() -> None:
    """An outstanding token can be used; the pause is for callers without one."""
    limiter = Limiter("x", THREE)
    held = await acquire(limiter)
    limiter.pause(10)
    held.on_written()
    held.on_answered()
    held.close()
    callers = Callers(limiter)
    await callers.enqueue("next")
    await callers.wait_all()
    assert callers.times == [10.0]


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0, True, "3", None], ids=repr)
async def test_a_pause_is_a_number_of_seconds(seconds: Any) -> None:
    """Any other value is an error, and no pause."""
    limiter = Limiter("x", ONE)
    with pytest.raises(InvalidRequestError):
        limiter.pause(seconds)
    assert limiter.available == 1


async def test_a_429_widens_the_guard() -> None:
    """After a 429 the distance is larger: the service is stricter than the guard allows."""
    limiter = Limiter("x", ONE)
    permit = await acquire(limiter)
    permit.on_written()
    permit.on_throttled(None)
    permit.close()
    assert limiter.guard > GUARD
    await asyncio.sleep(10)
    permit = await acquire(limiter)
    permit.on_written()
    callers = Callers(limiter)
    await callers.enqueue("next")
    await callers.wait_all()
    assert callers.times == [pytest.approx(1 + limiter.guard)]


async def test_a_retry_after_pauses_an_hour_at_most() -> None:
    """Callers without a ``max_wait`` do not wait until next year because of a header."""
    limiter = Limiter("x", ONE)
    permit = await acquire(limiter)
    permit.on_written()
    permit.on_throttled(1e9)
    permit.close()
    callers = Callers(limiter)
    await callers.enqueue("poll", POLL)
    await callers.wait_all()
    assert callers.times == [pytest.approx(3600.0, abs=0.001)]


# -- public properties ----------------------------------------------------------------------------


async def test_what_a_limiter_shows() -> None:
    """Rate, tokens, waiters and pause can be read at any time."""
    limiter = Limiter("x", THREE)
    assert limiter.name == "x"
    assert limiter.rate == THREE
    assert (limiter.available, limiter.waiting, limiter.paused_for) == (3, 0, 0.0)
    callers = Callers(limiter)
    for _ in range(5):
        await callers.enqueue()
    assert (limiter.available, limiter.waiting) == (0, 2)
    await asyncio.sleep(4.5)
    assert (limiter.available, limiter.waiting) == (2, 0)
    limiter.pause(7)
    assert (limiter.available, limiter.paused_for) == (0, 7.0)
    await asyncio.sleep(7)
    assert (limiter.available, limiter.paused_for) == (3, 0.0)


async def test_the_repr_of_a_limiter() -> None:
    """It shows the endpoint, the rate, and the state."""
    limiter = Limiter("chat", Rate(0.5, burst=2))
    await send_request(limiter)
    assert repr(limiter) == "<Limiter chat: 1 per 0.5 s, 1 of 2 available, 0 waiting>"
    limiter.pause(7)
    assert repr(limiter) == (
        "<Limiter chat: 1 per 0.5 s, 0 of 2 available, 0 waiting, paused for 7.0 s>"
    )


def test_a_limiter_can_be_read_without_a_loop() -> None:
    """Before the first loop it shows a full bucket, and accepts a pause."""
    limiter = Limiter("x", THREE)
    assert (limiter.available, limiter.waiting) == (3, 0)
    limiter.pause(3600)
    assert limiter.available == 0
    with pytest.raises(RateLimitedError) as caught:
        asyncio.run(acquire(limiter, 1.0))
    assert caught.value.retry_after == pytest.approx(3600, abs=60)


# -- closing a session ----------------------------------------------------------------------------


async def test_the_waiters_of_one_owner_fail() -> None:
    """A session that closes fails its own callers and no others, which move up."""
    limiter = Limiter("x", ONE)
    own, other = object(), object()
    callers = Callers(limiter)
    await callers.enqueue("-", owner=other)
    for priority in Priority:
        await callers.enqueue("m", priority, owner=own)
    gone = callers.tasks[-3:]
    await callers.enqueue("a", POLL, owner=other)
    await callers.enqueue("b", WRITE, owner=other)
    await asyncio.sleep(0.5)
    limiter.fail_waiters(own)
    await run_loop_turns()
    for task in gone:
        error = task.exception()
        assert isinstance(error, SessionClosedError)
        assert error.endpoint == "x"
    assert limiter.waiting == 2
    await callers.wait_all()
    assert callers.served == [("-", 0.0), ("b", 1.0), ("a", 2.0)]


async def test_a_waiter_that_fails_at_the_time_of_its_cancellation() -> None:
    """Cancelled first, then failed: it ends as cancelled, and the next one is served."""
    limiter = Limiter("x", ONE)
    owner = object()
    callers = Callers(limiter)
    await callers.enqueue("-")
    await callers.enqueue("a", owner=owner)
    task = callers.newest
    await callers.enqueue("b")
    task.cancel()
    limiter.fail_waiters(owner)
    await callers.wait_all()
    assert task.cancelled()
    assert callers.served == [("-", 0.0), ("b", 1.0)]


async def test_a_waiter_cancelled_at_the_time_of_its_failure() -> None:
    """Failed first, then cancelled: no other waiter is affected."""
    limiter = Limiter("x", ONE)
    owner = object()
    callers = Callers(limiter)
    await callers.enqueue("-")
    await callers.enqueue("a", owner=owner)
    task = callers.newest
    await callers.enqueue("b")
    limiter.fail_waiters(owner)
    task.cancel()
    await callers.wait_all()
    assert task.done()
    assert callers.served == [("-", 0.0), ("b", 1.0)]


async def test_the_old_names_of_a_limiter_still_work() -> None:
    """`in_hand` and `dismiss` do what the new names do, with a ``DeprecationWarning``."""
    limiter = Limiter("x", ONE)
    owner = object()
    permit = await acquire(limiter)
    with warns_renamed("Limiter.in_hand", "Limiter.outstanding"):
        assert limiter.in_hand == limiter.outstanding == 1
    callers = Callers(limiter)
    await callers.enqueue("a", owner=owner)
    with warns_renamed("Limiter.dismiss()", "Limiter.fail_waiters()"):
        limiter.dismiss(owner)
    await run_loop_turns()
    assert isinstance(callers.newest.exception(), SessionClosedError)
    permit.close()


# -- event loops ----------------------------------------------------------------------------------


def test_the_clock_of_a_plain_loop_is_the_loops() -> None:
    """The clock of a loop written in Python is used, because tests set its virtual time."""
    loop = VirtualTimeLoop(start=123.0)
    try:
        assert loop_clock(loop)() == 123.0
    finally:
        loop.close()


def test_a_second_run_keeps_the_distance_from_the_first() -> None:
    """What one ``asyncio.run`` spent counts in the next: the service knows of neither."""
    limiter = Limiter("x", Rate(0.1, guard=0.0))

    async def stamp() -> float:
        permit = await acquire(limiter)
        permit.on_written()
        permit.close()
        return now()

    first, second = asyncio.run(stamp()), asyncio.run(stamp())
    assert second - first >= 0.0999


def test_a_loop_with_another_clock_continues_where_the_last_one_stopped() -> None:
    """The remaining wait is kept, although the clocks of the two loops cannot be compared."""
    limiter = Limiter("x", ONE)

    async def use(pause: float, then: float) -> float:
        start = now()
        await send_request(limiter)
        served = now() - start
        limiter.pause(pause)
        await asyncio.sleep(then)
        return served

    assert run_on_virtual_time(use(0, 500)) == 0.0
    assert run_on_virtual_time(use(0, 0.25)) == 0.0
    assert run_on_virtual_time(use(100, 30)) == pytest.approx(0.75, abs=0.001)
    assert run_on_virtual_time(use(0, 0)) == pytest.approx(70, abs=0.001)


def test_a_limiter_is_used_in_one_loop_at_a_time() -> None:
    """While a caller waits in one loop, using the limiter in another raises an error."""
    limiter = Limiter("x", Rate(1.0))

    async def wait_for_token() -> asyncio.Task[None]:
        await send_request(limiter)
        task = asyncio.ensure_future(send_request(limiter))
        await asyncio.sleep(0)
        return task

    first, second = VirtualTimeLoop(), VirtualTimeLoop()
    try:
        waiter = first.run_until_complete(wait_for_token())
        with pytest.raises(SessionClosedError, match="another event loop"):
            second.run_until_complete(acquire(limiter))
        first.run_until_complete(asyncio.wait_for(waiter, 10))
        second.run_until_complete(asyncio.wait_for(send_request(limiter), 10))
    finally:
        first.close()
        second.close()
    assert limiter.waiting == 0


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_no_waiters_and_permits_of_its_parent() -> None:
    """Both are in use in the parent at that time, and remain in use there."""
    limiter = Limiter("x", Rate(1.0))

    async def fork() -> tuple[int, int, int]:
        permit = await acquire(limiter)
        waiter = asyncio.ensure_future(acquire(limiter))
        await asyncio.sleep(0)
        child = os.fork()
        if not child:
            asyncio.events._set_running_loop(None)  # as in a worker that runs a loop of its own
            code = 1
            try:
                run_on_virtual_time(asyncio.wait_for(send_request(limiter), 10))
                code = 0
            finally:
                os._exit(code)
        state = child, limiter.waiting, limiter.outstanding
        permit.close()
        (await waiter).close()
        return state

    child, waiting, outstanding = run_on_virtual_time(fork())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (waiting, outstanding) == (1, 1)


def test_waiters_of_a_closed_loop_are_discarded() -> None:
    """A waiter of a closed loop does not block any other."""
    limiter = Limiter("x", Rate(1.0))

    async def wait_for_token() -> asyncio.Task[None]:
        await send_request(limiter)
        task = asyncio.ensure_future(send_request(limiter))
        await asyncio.sleep(0)
        return task

    loop = VirtualTimeLoop()
    waiter = loop.run_until_complete(wait_for_token())
    loop.close()
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(asyncio.wait_for(send_request(limiter), 10))
    assert limiter.waiting == 0
    waiter._log_destroy_pending = False  # type: ignore[attr-defined]


# -- cost -----------------------------------------------------------------------------------------


def test_a_waiting_caller_is_cheap() -> None:
    """Less than 1.5 KB for each waiting caller, its task included."""
    count = 2000
    limiter = Limiter("x", Rate(3600.0))

    async def many_callers() -> float:
        await send_request(limiter)
        gc.collect()
        tracemalloc.start()
        try:
            tasks = [asyncio.ensure_future(limiter.acquire(CALL)) for _ in range(count)]
            await asyncio.sleep(0)
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert limiter.waiting == count
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return size / count

    # A tracer, such as that of coverage, makes Python create a frame object for each of them.
    assert asyncio.run(many_callers()) < (1500 if sys.gettrace() is None else 1900)


def test_many_waiters_cancelled_together_leave_quickly() -> None:
    """Two thousand waiters cancelled together are removed, and the limiter still serves."""
    limiter = Limiter("x", ONE)

    async def many_callers() -> float:
        await send_request(limiter)
        tasks = [asyncio.ensure_future(acquire(limiter)) for _ in range(2000)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limiter.waiting == 0
        await send_request(limiter)
        return now()

    assert run_on_virtual_time(many_callers()) == pytest.approx(1.0)
