"""One bucket for several processes: no short gap whoever asks, first come, first served."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import pytest
from helpers import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from pythpeer import Rate
from pythpeer.bucket import Bucket, BucketState
from pythpeer.stores.shared import (
    RECHECK_INTERVAL,
    TOKEN_TTL,
    TURN_GRACE,
    SharedBucket,
    endpoint_snapshot,
)
from pythpeer.stores.survey import EndpointSnapshot

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
            turn = bucket.acquire(who, now, lambda name: name not in self.dead)
        return turn.retry_in, turn.ticket

    def written(self, ticket: int, now: float) -> int:
        with self as bucket:
            return bucket.written(ticket, now, self.rate.guard)


def test_the_first_has_a_token_at_once_and_the_next_one_waits() -> None:
    """Until the interval and the guard behind the writing are over, if nobody answers."""
    all_of_us = Processes()
    wait, ticket = all_of_us.take("one", 0.0)
    assert (wait, ticket) == (0.0, 1)
    assert all_of_us.take("two", 0.1)[0] == pytest.approx(RECHECK_INTERVAL)  # not written yet
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


def test_who_waits_comes_back_in_time_for_an_answer() -> None:
    """As soon as one that comes to another process right now could have brought it forward."""
    all_of_us = Processes(Rate(1.0, guard=5.0))
    anchor = all_of_us.written(all_of_us.take("one", 0.0)[1], 0.0)
    assert all_of_us.take("two", 0.1)[0] == pytest.approx(1.0)
    with all_of_us as bucket:
        bucket.answered(anchor, 0.3)
    assert all_of_us.take("two", 1.1)[0] == pytest.approx(0.2)
    assert all_of_us.take("two", 1.3)[0] == 0.0


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
    assert all_of_us.take("two", 1.05 + TURN_GRACE - 0.1)[0] > 0.0
    assert all_of_us.take("two", 1.05 + TURN_GRACE + 0.1)[0] == 0.0


def test_who_leaves_the_line_holds_nobody_up() -> None:
    """The next one moves up."""
    all_of_us = Processes()
    all_of_us.written(all_of_us.take("zero", 0.0)[1], 0.0)
    for who in ("one", "two"):
        all_of_us.take(who, 0.1)
    with all_of_us as bucket:
        bucket.leave_queue("one")
    assert all_of_us.take("two", 1.06)[0] == 0.0


def test_as_many_may_go_as_there_are_tokens() -> None:
    """Whichever of them asks first: nobody waits for a token that is another's."""
    all_of_us = Processes(Rate(1.0, 2, 0.0))
    with all_of_us as bucket:
        bucket.pause(3.0)
    waits = [all_of_us.take(who, 0.0)[0] for who in ("one", "two", "three")]
    assert waits == [3.0, 4.0, 5.0]
    waits = [all_of_us.take(who, 3.1)[0] for who in ("three", "two", "one", "three")]
    assert waits == [pytest.approx(2.0), 0.0, 0.0, pytest.approx(RECHECK_INTERVAL)]


def test_to_ask_again_keeps_the_place() -> None:
    """However often: whoever is behind waits no longer for it."""
    all_of_us = Processes()
    all_of_us.written(all_of_us.take("zero", 0.0)[1], 0.0)
    for _ in range(5):
        all_of_us.take("one", 0.1)
    assert all_of_us.take("two", 0.1)[0] == pytest.approx(1.95)
    assert all_of_us.take("one", 1.06)[0] == 0.0


def test_nobody_asks_again_all_the_time() -> None:
    """Not where the interval is shorter than it takes to ask, and not just before the moment."""
    all_of_us = Processes(Rate(0.001, guard=0.0))
    all_of_us.written(all_of_us.take("zero", 0.0)[1], 0.0)
    assert all_of_us.take("one", 0.001 - 1e-9)[0] == pytest.approx(1e-4)
    assert all_of_us.take("two", 0.001 - 1e-9)[0] == pytest.approx(RECHECK_INTERVAL)


def test_a_wider_guard_is_everybody_s() -> None:
    """A process that was told of too many requests keeps more distance, also for the others."""
    all_of_us = Processes()
    _, ticket = all_of_us.take("one", 0.0)
    with all_of_us as bucket:
        bucket.written(ticket, 0.0, 0.4)
    assert all_of_us.take("two", 0.0)[0] == pytest.approx(1.0)
    assert all_of_us.take("two", 1.0)[0] == pytest.approx(0.4)


def test_a_token_given_back_is_the_next_one_s() -> None:
    """Nothing was sent on it. Twice does no harm."""
    all_of_us = Processes()
    _, ticket = all_of_us.take("one", 0.0)
    for _ in range(2):
        with all_of_us as bucket:
            bucket.release(ticket)
    assert all_of_us.take("two", 0.0)[0] == 0.0
    assert all_of_us.take("three", 0.0)[0] > 0.0


def test_a_dead_process_s_token_counts_as_spent_when_that_is_found_out() -> None:
    """It may have written its request just before."""
    all_of_us = Processes()
    all_of_us.take("one", 0.0)
    all_of_us.dead = {"one"}
    assert all_of_us.take("two", 3.0)[0] == pytest.approx(1.0)
    assert all_of_us.take("two", 4.0)[0] == pytest.approx(0.05)
    assert all_of_us.take("two", 4.06)[0] == 0.0


def test_a_dead_process_in_the_line_is_passed_over() -> None:
    """At once, not only once it is late."""
    all_of_us = Processes()
    all_of_us.written(all_of_us.take("zero", 0.0)[1], 0.0)
    for who in ("one", "two"):
        all_of_us.take(who, 0.1)
    all_of_us.dead = {"one"}
    assert all_of_us.take("two", 1.06)[0] == 0.0


def test_a_token_in_hand_counts_as_spent_when_its_term_is_over() -> None:
    """And not as given back: its request may have been written, and that not been put down."""
    all_of_us = Processes(Rate(100.0, guard=0.05))
    _, ticket = all_of_us.take("one", 0.0)
    assert all_of_us.take("two", TOKEN_TTL - 0.01)[0] == pytest.approx(RECHECK_INTERVAL)
    assert all_of_us.take("two", TOKEN_TTL + 50.0)[0] == pytest.approx(50.05)
    with all_of_us as bucket:
        bucket.release(ticket)  # too late
    assert all_of_us.take("two", TOKEN_TTL + 100.0)[0] > 0.0
    assert all_of_us.take("two", TOKEN_TTL + 100.06)[0] == 0.0


def test_a_request_that_leaves_after_its_term_counts_once_more() -> None:
    """Rather twice than not at all."""
    bucket = SharedBucket(RATE)
    ticket = bucket.acquire("one", 0.0).ticket
    other = bucket.acquire("two", TOKEN_TTL + 1.06).ticket
    bucket.written(ticket, TOKEN_TTL + 2.0, 0.05)
    bucket.written(other, TOKEN_TTL + 2.5, 0.05)
    assert bucket.acquire("three", TOKEN_TTL + 3.0).retry_in == pytest.approx(1.05)


def test_a_survey_counts_who_lives() -> None:
    """What was let through, what is in hand, and who stands in line, without the rate."""
    all_of_us = Processes(Rate(1.0, burst=2))
    for who in ("one", "two"):
        _, ticket = all_of_us.take(who, 0.0)
        if who == "one":
            all_of_us.written(ticket, 0.0)
    all_of_us.take("three", 0.0)
    all_of_us.take("four", 0.0)
    with all_of_us as bucket:
        bucket.pause(3.0)

    def tell(now: float, *dead: str) -> EndpointSnapshot:
        return endpoint_snapshot("key", all_of_us.state or b"", now, lambda who: who not in dead)

    assert tell(0.0) == EndpointSnapshot("key", 1, 1, 2, 3.0)
    assert tell(0.5, "two", "four") == EndpointSnapshot("key", 1, 0, 1, 2.5)
    assert tell(TOKEN_TTL) == EndpointSnapshot("key", 1, 0, 0, 0.0)
    assert endpoint_snapshot("key", b"", 0.0) == EndpointSnapshot("key", 0, 0, 0, 0.0)


def test_a_pause_is_everybody_s_and_only_moved_later() -> None:
    """Whoever asks is told how long it lasts."""
    all_of_us = Processes()
    for until in (5.0, 3.0):
        with all_of_us as bucket:
            bucket.pause(until)
    with all_of_us as bucket:
        turn = bucket.acquire("one", 1.0)
    assert (turn.retry_in, turn.paused_for) == (4.0, 4.0)


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
    assert all_of_us.take("one", 0.5)[0] > 0.0
    assert all_of_us.take("one", 3.0)[0] == 0.0


# -- no gap is short ------------------------------------------------------------------------------

EPS: Final = 1e-6


class Asker(NamedTuple):
    """One process of a simulation. Who dies comes back under another name."""

    rate: Rate
    in_hand: dict[int, float]  # tickets, and until when their requests must be written
    asked: list[tuple[int, float]]  # anchors, and when the service has counted their requests


class Simulation:
    """Processes that share a state which is dumped and loaded for each thing that they do."""

    def __init__(self, rates: list[Rate]) -> None:
        self.now = 1000.0
        self.state: bytes | None = None
        self.askers = {f"{number}": Asker(rate, {}, []) for number, rate in enumerate(rates)}
        self.names = itertools.count(len(rates))
        self.arrivals: list[float] = []  # at the service
        self.paused = -math.inf
        self.wait = 0.0

    @contextmanager
    def bucket(self, rate: Rate) -> Iterator[SharedBucket]:
        bucket = SharedBucket(rate, self.state)
        yield bucket
        self.state = bucket.dump()
        assert SharedBucket(rate, self.state).dump() == self.state

    def do(self, number: int, what: str, part: float) -> None:
        """Something that a process can do; *part* is of the guard, or of some seconds."""
        who, asker = list(self.askers.items())[number % len(self.askers)]
        rate = asker.rate
        with self.bucket(rate) as bucket:
            match what:
                case "ask":
                    turn = bucket.acquire(who, self.now, self.askers.__contains__)
                    self.wait = turn.retry_in
                    assert turn.paused_for == pytest.approx(max(0.0, self.paused - self.now))
                    if not turn.retry_in:
                        self.check(rate)
                        asker.in_hand[turn.ticket] = self.now + TOKEN_TTL
                case "write" if asker.in_hand:
                    ticket, until = asker.in_hand.popitem()
                    if self.now < until:
                        anchor = bucket.written(ticket, self.now, rate.guard)
                        asker.asked.append((anchor, self.arrive(rate, part)))
                case "answer" if asker.asked:
                    anchor, at = asker.asked.pop(int(part * len(asker.asked)))
                    self.now = max(self.now, at)
                    bucket.answered(anchor, self.now)
                case "return" if asker.in_hand:
                    bucket.release(asker.in_hand.popitem()[0])
                case "leave":
                    bucket.leave_queue(who)
                case "pause":
                    bucket.pause(self.now + part)
                    self.paused = max(self.paused, self.now + part)
                case "die" | "die and write":
                    until = asker.in_hand.popitem()[1] if asker.in_hand else 0.0
                    if what == "die and write" and self.now < until:
                        self.arrive(rate, part)  # and that was not put down any more
                    del self.askers[who]
                    self.askers[f"{next(self.names)}"] = Asker(rate, {}, [])
                case "sleep":
                    self.now += part
                case "sleep long":
                    self.now += 15 * part
                case "come back":
                    self.now += self.wait + (part if part > 0.9 else 0)
                case _:
                    pass

    def check(self, rate: Rate) -> None:
        """Whoever has a token now has a right to it, counting all that others have in hand."""
        assert self.now >= self.paused
        holds = (until for asker in self.askers.values() for until in asker.in_hand.values())
        own = rate.burst - sum(until > self.now for until in holds)
        assert own > 0
        before = sorted(self.arrivals)[-own:]
        assert len(before) < own or self.now >= before[0] + rate.interval - EPS

    def arrive(self, rate: Rate, part: float) -> float:
        self.arrivals.append(self.now + part * rate.guard)
        return self.arrivals[-1]


DOINGS: Final = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(
            [
                *["ask", "write", "answer", "come back"] * 4,
                *["return", "leave", "pause", "die", "die and write", "sleep", "sleep long"],
            ]
        ),
        st.sampled_from([0.0, 0.99]) | st.floats(0.0, 0.99),
    ),
    min_size=20,
    max_size=120,
)
INTERVALS: Final = st.sampled_from([0.1, 1.0, 40.0])
GUARDS: Final = st.sampled_from([0.0, 0.05, 0.4])


@settings(max_examples=examples(300))
@given(DOINGS, INTERVALS, st.integers(1, 3), GUARDS)
def test_the_service_never_counts_too_many(
    doings: list[tuple[int, str, float]], interval: float, burst: int, guard: float
) -> None:
    """Whatever the processes do, and whoever of them dies at which moment.

    Of any requests in a row, so many beyond the burst arrive so many intervals after the first.
    """
    rate = Rate(interval, burst, guard)
    all_of_us = Simulation([rate] * 3)
    for doing in doings:
        all_of_us.do(*doing)
    arrivals = sorted(all_of_us.arrivals)
    for first, at in enumerate(arrivals):
        for beyond, later in enumerate(arrivals[first + burst :], 1):
            assert later - at >= beyond * interval - EPS


# Of one interval and different bursts, or of different intervals and one token each.
RATES: Final = st.tuples(INTERVALS, GUARDS).flatmap(
    lambda of: (
        st.lists(
            st.builds(Rate, st.just(of[0]), st.integers(1, 3), st.just(of[1])),
            min_size=2,
            max_size=3,
        )
        | st.lists(st.builds(Rate, INTERVALS, st.just(1), st.just(of[1])), min_size=2, max_size=3)
    )
)


@settings(max_examples=examples(300))
@given(DOINGS, RATES)
def test_each_keeps_to_its_own_rate_where_they_disagree(
    doings: list[tuple[int, str, float]], rates: list[Rate]
) -> None:
    """Programs that are told different rates count each other's requests all the same."""
    all_of_us = Simulation(rates)
    for doing in doings:
        all_of_us.do(*doing)


def test_programs_that_disagree_make_no_tokens() -> None:
    """Whoever has a smaller burst forgets part of the past, which must not be had again."""
    all_of_us = Simulation([Rate(1.0, 1, 0.0), Rate(1.0, 3, 0.0)])
    for number in (1, 1, 1, *[0, 1] * 20):
        for what in ("ask", "write", "answer"):
            all_of_us.do(number, what, 0.0)
    assert len(all_of_us.arrivals) == 3


# -- in which order -------------------------------------------------------------------------------


@given(
    st.integers(2, 5),
    st.integers(1, 3),
    st.lists(st.floats(0.0, TURN_GRACE - 0.1), min_size=1, max_size=7),
    st.sampled_from([0.0, 0.3, 2.0]),
)
def test_nobody_is_served_twice_before_another_who_waits(
    many: int, burst: int, late: list[float], answers: float
) -> None:
    """First come, first served, though each comes back a little late; and no time is wasted."""
    rate = Rate(1.0, burst, 0.05)
    bucket = SharedBucket(rate)
    chances, turns = itertools.cycle(late), [(0.0, number) for number in range(many)]
    line: list[int] = []
    served: list[float] = []
    answered: list[tuple[float, int]] = []
    while len(served) < 20:
        turns.sort()
        now, number = turns.pop(0)
        while answered and answered[0][0] <= now:
            at, anchor = answered.pop(0)
            bucket.answered(anchor, at)
        if number not in line:
            line.append(number)
        turn = bucket.acquire(f"{number}", now)
        if turn.retry_in:
            turns.append((now + turn.retry_in + next(chances), number))
            continue
        assert number in line[:burst]
        line.remove(number)
        served.append(now)
        answered.append((now + answers, bucket.written(turn.ticket, now, 0.05)))
        turns.append((now, number))
    assert served[-1] <= (20 - burst) * (1.05 + max(late) + 2 * RECHECK_INTERVAL) + many


# -- what a bucket remembers ----------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.floats(0.0, 3.0), max_size=8))
def test_a_bucket_goes_on_from_its_past(burst: int, later: int, rests: list[float]) -> None:
    """The same burst makes the same bucket; a smaller one forgets the oldest, a larger one adds."""
    now, bucket = 0.0, Bucket(Rate(1.0, burst))
    for rest in rests:
        now = max(now + rest, bucket.due(now))
        bucket.reserve()
        bucket.spend(now)
    past = bucket.state()
    same, other = Bucket(Rate(1.0, burst)), Bucket(Rate(1.0, later))
    same.restore(past)
    other.restore(past)
    assert same.state() == past
    assert other.stored + len(other.state().start_times) == later
    if later == burst:
        assert other.due(now) == bucket.due(now)
    if later < burst:
        assert other.due(now) >= bucket.due(now)


def test_an_answer_finds_its_request_although_the_burst_has_grown() -> None:
    """And one that belongs to none finds none."""
    bucket, other = Bucket(Rate(1.0, guard=0.5)), Bucket(Rate(1.0, 3, 0.5))
    bucket.reserve()
    number = bucket.spend(0.0)
    other.restore(bucket.state())
    assert other.due(0.0) == 1.5
    other.answered(0, 0.1)
    other.answered(number, 0.2)
    dues = list[float]()
    for _ in range(3):
        dues.append(other.due(0.0))
        other.reserve()
    assert dues == [1.5, 2.5, 3.5]
    assert other.state().start_times == [0.5, 0.5, 0.2]
    bucket.restore(other.state())
    bucket.answered(number, 0.1)
    assert bucket.state().start_times == [0.1]


def test_a_past_can_be_written_down() -> None:
    """Also one of a bucket that was never used: its times are infinite."""
    state = SharedBucket(RATE).dump()
    assert SharedBucket(RATE, state).dump() == state
    assert Bucket(RATE).state() == BucketState(1, 1, -math.inf, [], 1, -math.inf)
