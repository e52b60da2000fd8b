"""Callers of one endpoint wait in line, are let through by the law of pacing, and may leave.

Most callers here write their request in the moment in which they get their token, and have their
answer in the same moment: then one goes per interval, and every time is a whole number.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import sys
import tracemalloc
from itertools import pairwise
from typing import Any, TypeVar

import anyio
import pytest
from helpers import examples, now, run_loop_turns, run_on_virtual_time
from hypothesis import given, settings
from hypothesis import strategies as st

from pythpeer import InvalidRequestError, Limiter, Rate, RateLimitedError, SessionClosedError
from pythpeer.limiter import Permit, loop_clock
from pythpeer.line import Priority
from pythpeer.testing import VirtualTimeLoop

pytestmark = pytest.mark.anyio

T = TypeVar("T")

WRITE, CALL, POLL = Priority.WRITE, Priority.CALL, Priority.POLL
GUARD = 0.05
ONE = Rate(1.0)
THREE = Rate(1.0, burst=3)


class Line:
    """Callers of one limiter: `served` has the name of each who got through, and when."""

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

    def enter(
        self,
        name: str = "-",
        priority: Priority = CALL,
        max_wait: float = math.inf,
        owner: object = None,
        *,
        answered: bool = True,
    ) -> None:
        """Send one more caller on its way to the line."""
        going = self._go(name, priority, max_wait, owner, answered)
        self.tasks.append(asyncio.ensure_future(going))

    async def join(
        self,
        name: str = "-",
        priority: Priority = CALL,
        max_wait: float = math.inf,
        owner: object = None,
        *,
        answered: bool = True,
    ) -> None:
        """Have one more caller get in line."""
        self.enter(name, priority, max_wait, owner, answered=answered)
        await asyncio.sleep(0)

    @property
    def last(self) -> asyncio.Task[None]:
        """Who came last."""
        return self.tasks[-1]

    async def all_through(self) -> None:
        """Wait for everybody, and forgive those who left or were sent away."""
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def acquire(limiter: Limiter, max_wait: float = math.inf) -> Permit:
    return await limiter.acquire(CALL, max_wait)


async def spend(limiter: Limiter) -> None:
    """Send one request that is answered in the same moment."""
    permit = await acquire(limiter)
    permit.on_written()
    permit.on_answered()
    permit.close()


# -- the order of service -------------------------------------------------------------------------


async def test_first_come_first_served() -> None:
    """Callers of one class are let through in the order in which they came, one per interval."""
    line = Line(Limiter("x", ONE))
    for name in "abcdef":
        await line.join(name)
    await line.all_through()
    assert line.served == [(name, float(at)) for at, name in enumerate("abcdef")]


async def test_writes_go_before_calls_and_calls_before_polls() -> None:
    """Whoever waits goes by class first, by arrival second."""
    line = Line(Limiter("x", ONE))
    await line.join("-")
    for name, priority in [("p", POLL), ("c", CALL), ("w", WRITE), ("q", POLL), ("v", WRITE)]:
        await line.join(name, priority)
    await line.all_through()
    assert line.names == "-wvcpq"


@pytest.mark.parametrize("patient", [CALL, POLL])
async def test_who_was_overtaken_five_times_goes_next(patient: Priority) -> None:
    """Writes overtake others five times in a row, and then somebody else has a turn."""
    line = Line(Limiter("x", ONE))
    await line.join("-")
    await line.join("x", patient)
    for _ in range(12):
        await line.join("w", WRITE)
    await line.join("y", patient)
    await line.all_through()
    assert line.names == "-" + "wwwwwx" + "wwwwwy" + "ww"


async def test_no_class_starves_when_all_are_crowded() -> None:
    """With writes, calls and polls all waiting at all times, each class has its turns."""
    line = Line(Limiter("x", ONE))
    await line.join("-")
    for name, priority in [("w", WRITE), ("c", CALL), ("p", POLL)]:
        for _ in range(10):
            await line.join(name, priority)
    await line.all_through()
    crowded = line.names[1 : line.names.rindex("w") + 1]
    for name in "cp":
        gaps = [later - earlier for earlier, later in pairwise(_places(crowded, name))]
        assert max(gaps, default=99) <= 7, line.names


def _places(names: str, name: str) -> list[int]:
    return [-1, *(index for index, found in enumerate(names) if found == name)]


async def test_patience_is_not_inherited() -> None:
    """A poll that just came was not overtaken yet, whoever of its class left before it."""
    line = Line(Limiter("x", ONE))
    await line.join("-")
    await line.join("p", POLL)
    leaver = line.last
    for _ in range(6):
        await line.join("w", WRITE)
    await asyncio.sleep(5.5)
    assert line.names == "-wwwww"
    leaver.cancel()
    await run_loop_turns()
    await line.join("q", POLL)
    await line.all_through()
    assert line.names == "-wwwwwwq"


async def test_nobody_jumps_the_queue_of_a_late_loop() -> None:
    """A caller who comes when a token is due, but was not handed out yet, gets in line."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    await line.join("-")
    await line.join("a")
    asyncio.get_running_loop().call_at(line.start + 1.0, line.enter, "b")
    await asyncio.sleep(5)
    assert line.served == [("-", 0.0), ("a", 1.0), ("b", 2.0)]


# -- the law of pacing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answered_after", "due"),
    [
        pytest.param(0.0, 1.0, id="at-once"),
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
    line = Line(limiter)
    permit = await acquire(limiter)
    permit.on_written()
    await line.join("next")
    if answered_after is not None:
        await asyncio.sleep(answered_after)
        permit.on_answered()
    await line.all_through()
    permit.close()
    assert line.times == [pytest.approx(due)]


async def test_time_counts_from_the_writing_not_from_the_token() -> None:
    """A token in hand can be held as long as connecting takes: the interval starts at the write."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    permit = await acquire(limiter)
    await line.join("next")
    await asyncio.sleep(7)
    permit.on_written()
    await line.all_through()
    assert line.times == [pytest.approx(7 + 1 + GUARD)]


async def test_nobody_goes_while_a_token_is_reserved_and_not_written() -> None:
    """Until it is known when a request left, it is not known when the next one may."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    permit = await acquire(limiter)
    await line.join("next")
    await asyncio.sleep(1000)
    assert line.served == []
    assert (limiter.available, limiter.waiting) == (0, 1)
    permit.on_written()
    await line.all_through()
    assert line.times == [pytest.approx(1000 + 1 + GUARD)]


async def test_a_burst_goes_at_once_and_is_then_paced() -> None:
    """With burst 3, three go at once; the others follow one per interval, after one guard."""
    line = Line(Limiter("x", THREE))
    for _ in range(6):
        await line.join(answered=False)
    await line.all_through()
    first = 1 + GUARD
    assert line.times == [0.0, 0.0, 0.0, *map(pytest.approx, (first, first + 1, first + 2))]


async def test_an_early_answer_to_the_first_of_a_burst_counts() -> None:
    """The full bucket started to refill when its first request was answered, at the latest."""
    line = Line(Limiter("x", THREE))
    for _ in range(5):
        await line.join(answered=True)
    await line.all_through()
    assert line.times == [0.0, 0.0, 0.0, 1.0, 2.0]


async def test_no_more_than_the_burst_is_saved_up() -> None:
    """However long nobody asks, only ``burst`` go at once afterwards."""
    limiter = Limiter("x", THREE)
    await spend(limiter)
    await asyncio.sleep(3600)
    line = Line(limiter)
    for _ in range(5):
        await line.join()
    await line.all_through()
    assert line.times == [0.0, 0.0, 0.0, 1.0, 2.0]


async def test_a_burst_counts_reserved_tokens() -> None:
    """Three may hold a token of three; the fourth waits until the first of them is written."""
    limiter = Limiter("x", THREE)
    held = [await acquire(limiter) for _ in range(3)]
    line = Line(limiter)
    await line.join("fourth", answered=False)
    await asyncio.sleep(10)
    assert line.served == []
    for permit in held:
        permit.on_written()
    await line.all_through()
    assert line.times == [pytest.approx(10 + 1 + GUARD)]


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
    """Whenever callers come, write and are answered, a strict service has a token for each.

    Each comes at a time, connects for a while, and its request travels at most the guard; the
    service answers after some time of its own, or never.
    """
    arrivals: list[float] = []

    async def caller(
        limiter: Limiter, at: float, connecting: float, travel: float, thinking: float | None
    ) -> None:
        await asyncio.sleep(at)
        permit = await acquire(limiter)
        await asyncio.sleep(connecting)
        permit.on_written()
        arrivals.append(now() + travel)
        if thinking is not None:
            await asyncio.sleep(travel + thinking)
            permit.on_answered()
        permit.close()

    async def scenario() -> None:
        limiter = Limiter("x", Rate(1.0, burst))
        await asyncio.gather(*(caller(limiter, *each) for each in callers))

    run_on_virtual_time(scenario())
    assert len(arrivals) == len(callers)
    tokens, before = float(burst), 0.0
    for at in sorted(arrivals):
        tokens = min(burst, tokens + at - before)
        before = at
        assert tokens > 1 - 1e-4
        tokens -= 1


async def test_an_interval_of_zero_is_no_pacing() -> None:
    """With interval 0 everybody goes at once, whatever the burst."""
    line = Line(Limiter("x", Rate(0.0, guard=0.0)))
    for _ in range(50):
        await line.join()
    await line.all_through()
    assert line.times == [0.0] * 50


# -- permits --------------------------------------------------------------------------------------


async def test_a_token_that_was_never_spent_goes_back() -> None:
    """A request that certainly never left costs nothing: the next one goes in the same moment."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    permit = await acquire(limiter)
    await line.join("next")
    await asyncio.sleep(3)
    assert line.served == []
    permit.close()
    await line.all_through()
    assert line.times == [3.0]
    assert not permit.written


async def test_a_token_goes_back_once() -> None:
    """Closing again gives nothing more: there is one token, not two."""
    limiter = Limiter("x", THREE)
    held = [await acquire(limiter) for _ in range(3)]
    held[0].close()
    held[0].close()
    assert limiter.available == 1


async def test_a_token_that_was_spent_stays_spent() -> None:
    """Once the head is written, closing gives nothing back, answer or not."""
    limiter = Limiter("x", ONE)
    permit = await acquire(limiter)
    permit.on_written()
    permit.close()
    assert permit.written
    assert limiter.available == 0


async def test_a_token_is_spent_once() -> None:
    """A head that is said to be written twice was written the first time."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    permit = await acquire(limiter)
    permit.on_written()
    await asyncio.sleep(0.6)
    permit.on_written()
    permit.close()
    await line.join("next")
    await line.all_through()
    assert line.times == [1.0 + GUARD]


async def test_a_late_answer_does_not_move_a_later_request() -> None:
    """Only the answer to the request that set the clock can correct it."""
    limiter = Limiter("x", ONE)
    first = await acquire(limiter)
    first.on_written()
    second = await acquire(limiter)
    assert now() == pytest.approx(1 + GUARD)
    second.on_written()
    first.on_answered()
    line = Line(limiter)
    await line.join("third")
    await line.all_through()
    assert line.times == [pytest.approx(1 + GUARD)]


# -- leaving the queue ----------------------------------------------------------------------------


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_a_cancelled_waiter_delays_nobody(leaver: int) -> None:
    """From any place in the queue a waiter may leave, and the others go as if it had not come."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    await line.join("-")
    for name in "abc":
        await line.join(name)
    waiters = line.tasks[-3:]
    await asyncio.sleep(0.5)
    waiters[leaver].cancel()
    await run_loop_turns()
    assert limiter.waiting == 2
    await line.all_through()
    rest = "abc".replace("abc"[leaver], "")
    assert line.served == [("-", 0.0), (rest[0], 1.0), (rest[1], 2.0)]


async def test_a_waiter_cancelled_before_it_ever_ran_was_never_there() -> None:
    """A task that is cancelled before its first step leaves no trace."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    task = asyncio.ensure_future(acquire(limiter))
    task.cancel()
    await line.join("a")
    await line.all_through()
    assert task.cancelled()
    assert line.times == [0.0]


async def test_a_waiter_cancelled_in_the_turn_of_its_grant_hands_the_token_on() -> None:
    """Granted and cancelled before it could run: the token goes to the next in the same moment."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    permit = await acquire(limiter)
    await line.join("a")
    unlucky = line.last
    await line.join("b")
    await asyncio.sleep(3)
    permit.close()  # grants it to a
    assert unlucky.cancel()
    await run_loop_turns()
    assert unlucky.cancelled()
    assert line.served == [("b", 3.0)]


async def test_the_last_waiter_cancelled_in_the_turn_of_its_grant_gives_the_token_back() -> None:
    """With nobody behind it, the token is there for whoever comes next."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    permit = await acquire(limiter)
    await line.join("a")
    unlucky = line.last
    permit.close()
    unlucky.cancel()
    await run_loop_turns()
    assert (limiter.available, limiter.waiting) == (1, 0)
    await line.join("b")
    assert line.served == [("b", 0.0)]


async def test_a_waiter_cancelled_just_before_its_grant_is_passed_over() -> None:
    """Cancelled, not run yet, and then its turn comes: the next one gets the token."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    permit = await acquire(limiter)
    await line.join("a")
    unlucky = line.last
    await line.join("b")
    unlucky.cancel()
    permit.close()
    await run_loop_turns()
    assert line.served == [("b", 0.0)]


@pytest.mark.parametrize("late", [-0.001, 0.0, 0.001])
async def test_a_time_limit_that_ends_as_the_token_comes_wedges_nothing(late: float) -> None:
    """A caller's own time limit may end just before, in, or after the moment of its grant."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    await line.join("-")
    start = now()

    async def hasty() -> None:
        async with asyncio.timeout_at(start + 1.0 + late):
            permit = await acquire(limiter)
            try:
                await asyncio.sleep(0.0005)
                permit.on_written()
                permit.on_answered()
            finally:
                permit.close()

    task = asyncio.ensure_future(hasty())
    await asyncio.sleep(0)
    await line.join("b")
    await line.all_through()
    await asyncio.gather(task, return_exceptions=True)
    spent = task.exception() is None
    assert line.served[1][1] == pytest.approx(2.0005 if spent else 1.0, abs=0.001)
    assert limiter.waiting == 0


async def test_a_cancelled_scope_gives_the_token_back() -> None:
    """Cancellation by an anyio scope, which never cancels a finished wait, burns nothing either."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
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
    await line.join("b")
    permit.close()
    scope.cancel()
    await task
    await line.all_through()
    assert line.times == [0.0]


@settings(max_examples=examples(40))
@given(
    chance=st.randoms(use_true_random=False),
    burst=st.sampled_from([1, 3]),
    step=st.sampled_from([0.25, 0.5, 1.0]),
)
def test_random_cancellations_cost_nothing(chance: random.Random, burst: int, step: float) -> None:
    """Of 60 callers 30 are cancelled at random, many in the turn of a grant: no slot is burned.

    Everybody else is served, in order, and one goes per interval as long as anybody waits.
    """

    async def scenario() -> None:
        limiter = Limiter("x", Rate(1.0, burst, guard=0.0))
        line = Line(limiter)
        order: dict[Priority, list[str]] = {priority: [] for priority in Priority}
        for number in range(60):
            priority = chance.choice(list(Priority))
            order[priority].append(str(number))
            await line.join(str(number), priority)
        leavers = chance.sample(line.tasks, 30)
        for task in leavers:
            at = line.start + step * chance.randrange(int(40 / step))
            asyncio.get_running_loop().call_at(at, task.cancel)
        await line.all_through()
        await run_loop_turns()
        names = [name for name, _ in line.served]
        for number, task in enumerate(line.tasks):
            assert (str(number) in names) is not task.cancelled()
            assert task in leavers or not task.cancelled()
        assert line.times == [0.0] * (burst - 1) + [
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


async def test_a_queue_that_is_too_long_fails_at_once() -> None:
    """Who would have to wait longer than ``max_wait`` is told at once, and for how long."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    for name in "-abc":
        await line.join(name)
    with pytest.raises(RateLimitedError) as caught:
        await acquire(limiter, 3.5)
    assert now() == line.start
    assert caught.value.retry_after == pytest.approx(4.0)
    assert caught.value.endpoint == "x"
    assert caught.value.status is None
    assert limiter.waiting == 3
    await line.all_through()
    assert line.times == [0.0, 1.0, 2.0, 3.0]


async def test_a_wait_of_just_max_wait_is_waited() -> None:
    """The bound is inclusive."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    for name in "-abc":
        await line.join(name)
    await line.join("d", max_wait=4.0)
    await line.all_through()
    assert line.served[-1] == ("d", 4.0)


async def test_only_who_goes_first_counts_for_the_wait() -> None:
    """Polls in the queue are no reason for a write to give up."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    await line.join("-")
    for _ in range(5):
        await line.join("p", POLL)
    await line.join("w", WRITE, max_wait=1.5)
    await line.all_through()
    assert line.served[1] == ("w", 1.0)


async def test_whoever_is_let_in_by_patience_is_not_sent_away() -> None:
    """A call goes after five writes at the latest, however many wait: it knows no longer wait."""
    line = Line(Limiter("x", ONE))
    await line.join("-")
    for _ in range(20):
        await line.join("w", WRITE)
    await line.join("c", CALL, max_wait=10.0)
    await line.all_through()
    assert line.served[6] == ("c", 6.0)


@pytest.mark.parametrize("rate", [ONE, THREE], ids=["burst-1", "burst-3"])
async def test_a_pause_that_is_too_long_fails_at_once(rate: Rate) -> None:
    """Who comes into a pause longer than ``max_wait`` is told when it ends."""
    limiter = Limiter("x", rate)
    start = now()
    await spend(limiter)
    limiter.pause(30)
    with pytest.raises(RateLimitedError) as caught:
        await acquire(limiter, 29.0)
    assert now() == start
    assert caught.value.retry_after == pytest.approx(30.0)


async def test_a_retry_after_that_is_too_long_fails_at_once() -> None:
    """The same goes for a deadline that the service itself has set."""
    limiter = Limiter("x", ONE)
    permit = await acquire(limiter)
    permit.on_written()
    permit.on_answered()
    permit.on_throttled(45.0)
    permit.close()
    with pytest.raises(RateLimitedError) as caught:
        await acquire(limiter, 40.0)
    assert caught.value.retry_after == pytest.approx(45.0)


async def test_a_burst_saved_up_goes_when_the_pause_ends() -> None:
    """Behind a pause, too, only who is known to wait longer is sent away: three can go then."""
    line = Line(Limiter("x", THREE))
    await asyncio.sleep(0)
    line.limiter.pause(10)
    for name in "abc":
        await line.join(name, max_wait=10.5)
    await line.all_through()
    assert line.names == "abc"
    assert line.times == pytest.approx([10.0] * 3, abs=0.001)


async def test_a_pause_sends_those_away_who_wait_already() -> None:
    """Whoever cannot be served in time any more is told in that moment; the patient stay."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    await line.join("-")
    await line.join("a", max_wait=5.0)
    hasty = line.last
    await line.join("b", POLL)
    await asyncio.sleep(0.5)
    limiter.pause(60)
    await run_loop_turns()
    error = hasty.exception()
    assert isinstance(error, RateLimitedError)
    assert error.retry_after is not None
    assert 60.0 <= error.retry_after <= 61.0
    assert limiter.waiting == 1
    await line.all_through()
    assert line.served == [("-", 0.0), ("b", 60.5)]


async def test_a_waiter_cancelled_in_the_turn_of_a_pause_ends_as_cancelled() -> None:
    """Cancelled, not run yet, and then sent away: nothing comes of that, and the others stay."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    await line.join("-")
    await line.join("a", max_wait=5.0)
    unlucky = line.last
    await line.join("b", POLL)
    unlucky.cancel()
    limiter.pause(60)
    assert limiter.waiting == 1
    await line.all_through()
    assert unlucky.cancelled()
    assert line.served == [("-", 0.0), ("b", 60.0)]


async def test_a_pause_within_ones_patience_is_waited_out() -> None:
    """A pause that leaves time enough sends nobody away."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    await line.join("-")
    await line.join("a", max_wait=5.0)
    limiter.pause(4)
    await line.all_through()
    assert line.served == [("-", 0.0), ("a", 4.0)]


async def test_a_pause_sends_the_hasty_away_from_behind_the_patient() -> None:
    """Where patience differs within one class, nobody is kept past its own."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    await line.join("-")
    await line.join("a", max_wait=100.0)
    await line.join("b", max_wait=5.0)
    hasty = line.last
    limiter.pause(50)
    await asyncio.sleep(5.5)
    assert hasty.done()
    await line.all_through()
    assert line.served == [("-", 0.0), ("a", 50.0)]


async def test_patience_ends_though_nobody_knows_when_the_token_is_due() -> None:
    """Behind a token that is reserved and not written, one waits ``max_wait`` and no longer."""
    limiter = Limiter("x", ONE)
    permit = await acquire(limiter)
    waiter = asyncio.ensure_future(acquire(limiter, 2.0))
    await asyncio.sleep(2.0)
    await run_loop_turns()
    assert waiter.done()
    assert isinstance(waiter.exception(), RateLimitedError)
    assert limiter.waiting == 0
    permit.close()


async def test_patience_ends_while_others_overtake() -> None:
    """Writes that came later may use up a call's patience, to the very moment."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    await line.join("-")
    await line.join("c", max_wait=2.5)
    call = line.last
    for _ in range(4):
        await line.join("w", WRITE)
    await asyncio.sleep(2.5)
    await run_loop_turns()
    assert call.done()
    assert isinstance(call.exception(), RateLimitedError)
    await line.all_through()
    assert line.served == [("-", 0.0), *(("w", float(at)) for at in range(1, 5))]


async def test_who_was_sent_away_costs_nothing() -> None:
    """A caller that failed at once leaves tokens and queue as they were."""
    limiter = Limiter("x", ONE)
    await spend(limiter)
    before = repr(limiter)
    with pytest.raises(RateLimitedError):
        await acquire(limiter, 0.5)
    assert repr(limiter) == before


# -- pauses ---------------------------------------------------------------------------------------


async def test_a_pause_is_only_moved_later() -> None:
    """A shorter pause does not cut a longer one short; a longer one prolongs it."""
    limiter = Limiter("x", ONE)
    line = Line(limiter)
    await run_loop_turns()
    limiter.pause(10)
    limiter.pause(3)
    limiter.pause(0)
    await line.join("a")
    await asyncio.sleep(4)
    assert line.served == []
    limiter.pause(20)
    limiter.pause(1)
    await line.all_through()
    assert line.times == [pytest.approx(24.0, abs=0.001)]


async def test_a_pause_does_not_stop_what_has_its_token() -> None:
    """A token in hand stays good; the pause is for those without one."""
    limiter = Limiter("x", THREE)
    held = await acquire(limiter)
    limiter.pause(10)
    held.on_written()
    held.on_answered()
    held.close()
    line = Line(limiter)
    await line.join("next")
    await line.all_through()
    assert line.times == [10.0]


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0, True, "3", None], ids=repr)
async def test_a_pause_is_a_number_of_seconds(seconds: Any) -> None:
    """Anything else is an error, and no pause."""
    limiter = Limiter("x", ONE)
    with pytest.raises(InvalidRequestError):
        limiter.pause(seconds)
    assert limiter.available == 1


async def test_a_refusal_widens_the_guard() -> None:
    """After a 429 more distance is kept: the service counts more strictly than was allowed for."""
    limiter = Limiter("x", ONE)
    permit = await acquire(limiter)
    permit.on_written()
    permit.on_throttled(None)
    permit.close()
    assert limiter.guard > GUARD
    await asyncio.sleep(10)
    permit = await acquire(limiter)
    permit.on_written()
    line = Line(limiter)
    await line.join("next")
    await line.all_through()
    assert line.times == [pytest.approx(1 + limiter.guard)]


async def test_a_retry_after_holds_an_hour_at_most() -> None:
    """Those who wait for ever do not wait until next year because a service said so."""
    limiter = Limiter("x", ONE)
    permit = await acquire(limiter)
    permit.on_written()
    permit.on_throttled(1e9)
    permit.close()
    line = Line(limiter)
    await line.join("poll", POLL)
    await line.all_through()
    assert line.times == [pytest.approx(3600.0, abs=0.001)]


# -- being looked at ------------------------------------------------------------------------------


async def test_what_a_limiter_shows() -> None:
    """Rate, tokens, waiters and pause can be seen at any time."""
    limiter = Limiter("x", THREE)
    assert limiter.name == "x"
    assert limiter.rate == THREE
    assert (limiter.available, limiter.waiting, limiter.paused_for) == (3, 0, 0.0)
    line = Line(limiter)
    for _ in range(5):
        await line.join()
    assert (limiter.available, limiter.waiting) == (0, 2)
    await asyncio.sleep(4.5)
    assert (limiter.available, limiter.waiting) == (2, 0)
    limiter.pause(7)
    assert (limiter.available, limiter.paused_for) == (0, 7.0)
    await asyncio.sleep(7)
    assert (limiter.available, limiter.paused_for) == (3, 0.0)


async def test_the_repr_of_a_limiter() -> None:
    """It says what it paces, how, and how it stands."""
    limiter = Limiter("chat", Rate(0.5, burst=2))
    await spend(limiter)
    assert repr(limiter) == "<Limiter chat: 1 per 0.5 s, 1 of 2 available, 0 waiting>"
    limiter.pause(7)
    assert repr(limiter) == (
        "<Limiter chat: 1 per 0.5 s, 0 of 2 available, 0 waiting, paused for 7.0 s>"
    )


def test_a_limiter_can_be_looked_at_without_a_loop() -> None:
    """Before the first loop it shows a full bucket, and takes a pause."""
    limiter = Limiter("x", THREE)
    assert (limiter.available, limiter.waiting) == (3, 0)
    limiter.pause(3600)
    assert limiter.available == 0
    with pytest.raises(RateLimitedError) as caught:
        asyncio.run(acquire(limiter, 1.0))
    assert caught.value.retry_after == pytest.approx(3600, abs=60)


# -- dismissal ------------------------------------------------------------------------------------


async def test_the_callers_of_one_owner_are_dismissed() -> None:
    """A session that closes sends away its own callers, and nobody else's, who move up."""
    limiter = Limiter("x", ONE)
    mine, other = object(), object()
    line = Line(limiter)
    await line.join("-", owner=other)
    for priority in Priority:
        await line.join("m", priority, owner=mine)
    gone = line.tasks[-3:]
    await line.join("a", POLL, owner=other)
    await line.join("b", WRITE, owner=other)
    await asyncio.sleep(0.5)
    limiter.fail_waiters(mine)
    await run_loop_turns()
    for task in gone:
        error = task.exception()
        assert isinstance(error, SessionClosedError)
        assert error.endpoint == "x"
    assert limiter.waiting == 2
    await line.all_through()
    assert line.served == [("-", 0.0), ("b", 1.0), ("a", 2.0)]


async def test_a_waiter_dismissed_in_the_turn_of_its_cancellation() -> None:
    """Cancelled first, then dismissed: it ends as cancelled, and the next one is served."""
    limiter = Limiter("x", ONE)
    owner = object()
    line = Line(limiter)
    await line.join("-")
    await line.join("a", owner=owner)
    task = line.last
    await line.join("b")
    task.cancel()
    limiter.fail_waiters(owner)
    await line.all_through()
    assert task.cancelled()
    assert line.served == [("-", 0.0), ("b", 1.0)]


async def test_a_waiter_cancelled_in_the_turn_of_its_dismissal() -> None:
    """Dismissed first, then cancelled: nobody else notices."""
    limiter = Limiter("x", ONE)
    owner = object()
    line = Line(limiter)
    await line.join("-")
    await line.join("a", owner=owner)
    task = line.last
    await line.join("b")
    limiter.fail_waiters(owner)
    task.cancel()
    await line.all_through()
    assert task.done()
    assert line.served == [("-", 0.0), ("b", 1.0)]


# -- event loops ----------------------------------------------------------------------------------


def test_the_clock_of_a_plain_loop_is_its_own() -> None:
    """A loop written in Python is asked for the time, for a test's virtual time is its own."""
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


def test_a_loop_with_another_clock_goes_on_where_the_last_one_stopped() -> None:
    """What is still to wait is waited, though the times of the two loops cannot be compared."""
    limiter = Limiter("x", ONE)

    async def use(pause: float, then: float) -> float:
        start = now()
        await spend(limiter)
        served = now() - start
        limiter.pause(pause)
        await asyncio.sleep(then)
        return served

    assert run_on_virtual_time(use(0, 500)) == 0.0
    assert run_on_virtual_time(use(0, 0.25)) == 0.0
    assert run_on_virtual_time(use(100, 30)) == pytest.approx(0.75, abs=0.001)
    assert run_on_virtual_time(use(0, 0)) == pytest.approx(70, abs=0.001)


def test_a_limiter_is_used_in_one_loop_at_a_time() -> None:
    """While somebody waits in one loop, using it in another is a clear error, and harmless."""
    limiter = Limiter("x", Rate(1.0))

    async def wait_in_line() -> asyncio.Task[None]:
        await spend(limiter)
        task = asyncio.ensure_future(spend(limiter))
        await asyncio.sleep(0)
        return task

    first, second = VirtualTimeLoop(), VirtualTimeLoop()
    try:
        waiter = first.run_until_complete(wait_in_line())
        with pytest.raises(SessionClosedError, match="another event loop"):
            second.run_until_complete(acquire(limiter))
        first.run_until_complete(asyncio.wait_for(waiter, 10))
        second.run_until_complete(asyncio.wait_for(spend(limiter), 10))
    finally:
        first.close()
        second.close()
    assert limiter.waiting == 0


def test_waiters_of_a_closed_loop_are_forgotten() -> None:
    """Whoever still waited in a loop that was closed is in nobody's way."""
    limiter = Limiter("x", Rate(1.0))

    async def wait_in_line() -> asyncio.Task[None]:
        await spend(limiter)
        task = asyncio.ensure_future(spend(limiter))
        await asyncio.sleep(0)
        return task

    loop = VirtualTimeLoop()
    waiter = loop.run_until_complete(wait_in_line())
    loop.close()
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(asyncio.wait_for(spend(limiter), 10))
    assert limiter.waiting == 0
    waiter._log_destroy_pending = False  # type: ignore[attr-defined]


# -- cost -----------------------------------------------------------------------------------------


def test_a_waiting_caller_is_cheap() -> None:
    """Under 1.5 KB for each caller in line, its task included."""
    many = 2000
    limiter = Limiter("x", Rate(3600.0))

    async def crowd() -> float:
        await spend(limiter)
        gc.collect()
        tracemalloc.start()
        try:
            tasks = [asyncio.ensure_future(limiter.acquire(CALL)) for _ in range(many)]
            await asyncio.sleep(0)
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert limiter.waiting == many
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return size / many

    # What traces the test (to measure its coverage, say) has a frame object made for each of them.
    assert asyncio.run(crowd()) < (1500 if sys.gettrace() is None else 1900)


def test_a_crowd_that_leaves_at_once_leaves_quickly() -> None:
    """Two thousand waiters cancelled together are gone, and the limiter still serves."""
    limiter = Limiter("x", ONE)

    async def crowd() -> float:
        await spend(limiter)
        tasks = [asyncio.ensure_future(acquire(limiter)) for _ in range(2000)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limiter.waiting == 0
        await spend(limiter)
        return now()

    assert run_on_virtual_time(crowd()) == pytest.approx(1.0)
