"""One bucket for several processes: no short gap whoever asks, first come, first served."""

from __future__ import annotations

import itertools
import math
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythpeer import Rate
from pythpeer.bucket import Bucket, Past
from pythpeer.stores.shared import GLANCE, HOLD, LATE, SharedBucket

RATE: Final = Rate(1.0, guard=0.05)


class Processes:
    """A store's side of it: the state is dumped and loaded anew for each question."""

    def __init__(self, rate: Rate = RATE) -> None:
        self.rate = rate
        self.state: bytes | None = None
        self.dead: set[str] = set()

    def __enter__(self) -> SharedBucket:
        self._bucket = SharedBucket(self.rate, self.state)
        return self._bucket

    def __exit__(self, *exc_info: object) -> None:
        self.state = self._bucket.dump()

    def take(self, who: str, now: float) -> tuple[float, int]:
        with self as bucket:
            turn = bucket.take(who, now, lambda name: name not in self.dead)
        return turn.wait, turn.ticket

    def written(self, ticket: int, now: float) -> int:
        with self as bucket:
            return bucket.written(ticket, now, self.rate.guard)


def test_the_first_has_a_token_at_once_and_the_next_one_waits() -> None:
    """Until the interval and the guard behind the writing are over, if nobody answers."""
    all_of_us = Processes()
    wait, ticket = all_of_us.take("one", 0.0)
    assert (wait, ticket) == (0.0, 1)
    assert all_of_us.take("two", 0.1)[0] == pytest.approx(GLANCE)  # not written yet
    all_of_us.written(ticket, 0.2)
    assert all_of_us.take("two", 0.3)[0] == pytest.approx(0.95)
    assert all_of_us.take("two", 1.25)[0] == 0.0


def test_an_answer_brings_it_forward() -> None:
    """One interval behind it nothing is uncertain any more."""
    all_of_us = Processes()
    anchor = all_of_us.written(all_of_us.take("one", 0.0)[1], 0.0)
    with all_of_us as bucket:
        bucket.answered(anchor, 0.01)
    assert all_of_us.take("two", 0.5)[0] == pytest.approx(0.51)


def test_they_are_served_in_the_order_in_which_they_came() -> None:
    """Also where one who came later asks at the better moment."""
    all_of_us = Processes()
    all_of_us.written(all_of_us.take("zero", 0.0)[1], 0.0)
    waits = {who: all_of_us.take(who, at)[0] for who, at in (("one", 0.1), ("two", 0.2))}
    assert waits["two"] > waits["one"]
    assert all_of_us.take("two", 1.06)[0] > 0.0
    wait, ticket = all_of_us.take("one", 1.07)
    assert wait == 0.0
    all_of_us.written(ticket, 1.07)
    assert all_of_us.take("two", 2.13)[0] == 0.0


def test_whoever_does_not_come_back_loses_their_place() -> None:
    """A little late is not too late."""
    all_of_us = Processes()
    all_of_us.written(all_of_us.take("zero", 0.0)[1], 0.0)
    for who in ("one", "two"):
        all_of_us.take(who, 0.1)
    assert all_of_us.take("two", 1.05 + LATE - 0.1)[0] > 0.0
    assert all_of_us.take("two", 1.05 + LATE + 0.1)[0] == 0.0


def test_who_leaves_the_line_holds_nobody_up() -> None:
    """The next one moves up."""
    all_of_us = Processes()
    all_of_us.written(all_of_us.take("zero", 0.0)[1], 0.0)
    for who in ("one", "two"):
        all_of_us.take(who, 0.1)
    with all_of_us as bucket:
        bucket.leave("one")
    assert all_of_us.take("two", 1.06)[0] == 0.0


def test_a_token_given_back_is_the_next_one_s() -> None:
    """Nothing was sent on it. Twice does no harm."""
    all_of_us = Processes()
    _, ticket = all_of_us.take("one", 0.0)
    for _ in range(2):
        with all_of_us as bucket:
            bucket.give_back(ticket)
    assert all_of_us.take("two", 0.0)[0] == 0.0
    assert all_of_us.take("three", 0.0)[0] > 0.0


def test_a_dead_process_s_token_counts_as_spent_when_that_is_found_out() -> None:
    """It may have written its request just before."""
    all_of_us = Processes()
    all_of_us.take("one", 0.0)
    all_of_us.dead = {"one"}
    assert all_of_us.take("two", 3.0)[0] == pytest.approx(1.05)
    assert all_of_us.take("two", 4.06)[0] == 0.0


def test_a_dead_process_in_the_line_is_passed_over() -> None:
    """At once, not only once it is late."""
    all_of_us = Processes()
    all_of_us.written(all_of_us.take("zero", 0.0)[1], 0.0)
    for who in ("one", "two"):
        all_of_us.take(who, 0.1)
    all_of_us.dead = {"one"}
    assert all_of_us.take("two", 1.06)[0] == 0.0


def test_a_token_in_hand_comes_back_in_the_end() -> None:
    """And if its request is written after all, it counts."""
    all_of_us = Processes()
    _, ticket = all_of_us.take("one", 0.0)
    assert all_of_us.take("two", HOLD - 0.01)[0] > 0.0
    assert all_of_us.take("two", HOLD)[0] == 0.0
    all_of_us.written(ticket, HOLD + 0.5)
    with all_of_us as bucket:
        assert bucket._bucket.reserved == 1


def test_a_pause_is_everybody_s_and_only_moved_later() -> None:
    """Whoever asks is told how long it lasts."""
    all_of_us = Processes()
    for until in (5.0, 3.0):
        with all_of_us as bucket:
            bucket.pause(until)
    with all_of_us as bucket:
        turn = bucket.take("one", 1.0)
    assert (turn.wait, turn.paused) == (4.0, 4.0)


@pytest.mark.parametrize("burst", [1, 2, 3])
def test_a_burst_is_shared(burst: int) -> None:
    """As many as may go at once go at once, from whichever process."""
    all_of_us = Processes(Rate(1.0, burst, 0.05))
    for number in range(burst):
        wait, ticket = all_of_us.take(f"process {number}", 0.0)
        assert wait == 0.0
        all_of_us.written(ticket, 0.0)
    assert all_of_us.take("one more", 0.0)[0] > 0.0


def test_the_past_outlives_another_rate() -> None:
    """Where a program is started anew with another burst or interval, what was sent was sent."""
    all_of_us = Processes(Rate(1.0, 3, 0.0))
    for _ in range(3):
        all_of_us.written(all_of_us.take("one", 0.0)[1], 0.0)
    all_of_us.rate = Rate(1.0, 1, 0.0)
    assert all_of_us.take("one", 0.5)[0] > 0.0
    all_of_us.rate = Rate(1.0, 5, 0.0)
    assert all_of_us.take("one", 0.5)[0] == 0.0


ACTS: Final = st.lists(
    st.tuples(
        st.integers(0, 3),  # who
        st.sampled_from(["write", "late", "die", "return", "vanish"]),
        st.floats(0.0, 0.04),  # until it is written
        st.floats(0.0, 0.05),  # on the way there
        st.floats(0.0, 2.5),  # until it is answered
    ),
    min_size=5,
    max_size=40,
)


@given(ACTS, st.integers(1, 3))
def test_no_gap_is_short_whatever_they_do(
    acts: list[tuple[int, str, float, float, float]], burst: int
) -> None:
    """Delays, answers, deaths with or without a request, tokens given back: the law holds.

    Of any ``burst + 1`` requests in a row the last arrives at least an interval after the first.
    """
    all_of_us = Processes(Rate(1.0, burst, 0.05))
    now, arrivals, answers = 0.0, list[float](), list[tuple[float, int]]()
    names = itertools.count()
    who_is = {number: f"{number}-{next(names)}" for number in range(4)}
    for number, what, delay, way, answer in acts:
        who = who_is[number]
        wait, ticket = 1.0, 0
        for _ in range(200):
            for at, anchor in [each for each in answers if each[0] <= now]:
                answers.remove((at, anchor))
                with all_of_us as bucket:
                    bucket.answered(anchor, at)
            wait, ticket = all_of_us.take(who, now)
            if not wait:
                break
            now += wait
        assert not wait, "it never comes to its turn"
        now += delay
        match what:
            case "return":
                with all_of_us as bucket:
                    bucket.give_back(ticket)
                continue
            case "die":  # right behind the writing, before that was put down
                arrivals.append(now + way)
                all_of_us.dead.add(who)
            case "vanish":
                all_of_us.dead.add(who)
            case _:
                anchor = all_of_us.written(ticket, now)
                arrivals.append(now + way)
                answers.append((now + max(way, answer), anchor))
        if who in all_of_us.dead:
            who_is[number] = f"{number}-{next(names)}"
    arrivals.sort()
    for first, last in zip(arrivals, arrivals[burst:], strict=False):
        assert last - first >= 1.0 - 1e-6


# -- what a bucket remembers ----------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.floats(0.0, 3.0), max_size=8))
def test_a_bucket_goes_on_from_its_past(burst: int, later: int, rests: list[float]) -> None:
    """The same burst makes the same bucket; a smaller one forgets the oldest, a larger one adds."""
    now, bucket = 0.0, Bucket(Rate(1.0, burst))
    for rest in rests:
        now = max(now + rest, bucket.due(now))
        bucket.reserve()
        bucket.spend(now)
    past = bucket.past()
    same, other = Bucket(Rate(1.0, burst)), Bucket(Rate(1.0, later))
    same.recall(past)
    other.recall(past)
    assert same.past() == past
    assert other.saved + len(other.past().starts) == later
    if later == burst:
        assert other.due(now) == bucket.due(now)
    if later < burst:
        assert other.due(now) >= bucket.due(now)


def test_a_past_can_be_written_down() -> None:
    """Also one of a bucket that was never used: its times are infinite."""
    state = SharedBucket(RATE).dump()
    assert SharedBucket(RATE, state).dump() == state
    assert Bucket(RATE).past() == Past(1, 1, -math.inf, [], 1, -math.inf)
