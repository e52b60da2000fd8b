"""One bucket for several processes: no short gap in any order, first in, first out."""

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
from pythpeer.pacing.bucket import Bucket, BucketState
from pythpeer.pacing.shared import RECHECK_INTERVAL, TOKEN_TTL, TURN_GRACE, SharedBucket
from pythpeer.stores.snapshot import EndpointSnapshot, endpoint_snapshot

RATE: Final = Rate(1.0, guard=0.05)


class Processes:
    """A store's part: the state is loaded and dumped for each operation."""

    def __init__(self, rate: Rate = RATE) -> None:
        self.rate = rate
        self.state: bytes | None = None
        self.dead: set[str] = set()

    def __enter__(self) -> SharedBucket:
        self._bucket = SharedBucket(self.rate, self.state)
        return self._bucket

    def __exit__(self, *exc_info: object) -> None:
        self.state = self._bucket.dump()

    def acquire(self, owner: str, now: float) -> tuple[float, int]:
        with self as bucket:
            grant = bucket.acquire(owner, now, lambda name: name not in self.dead)
        return grant.retry_in, grant.ticket

    def written(self, ticket: int, now: float) -> int:
        with self as bucket:
            return bucket.written(ticket, now, self.rate.guard)


def test_the_first_has_a_token_immediately_and_the_next_one_waits() -> None:
    """Until the interval and the guard after the writing are over, without a response."""
    processes = Processes()
    wait, ticket = processes.acquire("one", 0.0)
    assert (wait, ticket) == (0.0, 1)
    assert processes.acquire("two", 0.1)[0] == pytest.approx(RECHECK_INTERVAL)  # not written yet
    processes.written(ticket, 0.2)
    assert processes.acquire("two", 0.3)[0] == pytest.approx(0.95)
    assert processes.acquire("two", 1.25)[0] == 0.0


def test_a_response_makes_it_due_earlier() -> None:
    """One interval after the response a token is certainly due."""
    processes = Processes()
    token_number = processes.written(processes.acquire("one", 0.0)[1], 0.0)
    with processes as bucket:
        bucket.answered(token_number, 0.01)
    assert processes.acquire("two", 0.5)[0] == pytest.approx(0.51)


def test_a_waiter_asks_again_in_time_for_a_response() -> None:
    """As soon as a response that arrives now in another process can make a token due."""
    processes = Processes(Rate(1.0, guard=5.0))
    token_number = processes.written(processes.acquire("one", 0.0)[1], 0.0)
    assert processes.acquire("two", 0.1)[0] == pytest.approx(1.0)
    with processes as bucket:
        bucket.answered(token_number, 0.3)
    assert processes.acquire("two", 1.1)[0] == pytest.approx(0.2)
    assert processes.acquire("two", 1.3)[0] == 0.0


def test_they_are_served_in_order_of_arrival() -> None:
    """Also where a later process asks at a better time."""
    processes = Processes()
    processes.written(processes.acquire("zero", 0.0)[1], 0.0)
    waits = {owner: processes.acquire(owner, at)[0] for owner, at in (("one", 0.1), ("two", 0.2))}
    assert waits["two"] > waits["one"]
    assert processes.acquire("two", 1.06)[0] > 0.0
    wait, ticket = processes.acquire("one", 1.07)
    assert wait == 0.0
    processes.written(ticket, 1.07)
    assert processes.acquire("two", 2.13)[0] == 0.0


def test_a_process_that_does_not_ask_again_loses_its_position() -> None:
    """A little late is not too late."""
    processes = Processes()
    processes.written(processes.acquire("zero", 0.0)[1], 0.0)
    for owner in ("one", "two"):
        processes.acquire(owner, 0.1)
    assert processes.acquire("two", 1.05 + TURN_GRACE - 0.1)[0] > 0.0
    assert processes.acquire("two", 1.05 + TURN_GRACE + 0.1)[0] == 0.0


def test_a_process_that_leaves_the_queue_delays_no_other() -> None:
    """The next one moves up."""
    processes = Processes()
    processes.written(processes.acquire("zero", 0.0)[1], 0.0)
    for owner in ("one", "two"):
        processes.acquire(owner, 0.1)
    with processes as bucket:
        bucket.leave_queue("one")
    assert processes.acquire("two", 1.06)[0] == 0.0


def test_as_many_receive_a_token_as_there_are_tokens() -> None:
    """In any order of asking: no process waits for a token that is another's."""
    processes = Processes(Rate(1.0, 2, 0.0))
    with processes as bucket:
        bucket.pause(3.0)
    waits = [processes.acquire(owner, 0.0)[0] for owner in ("one", "two", "three")]
    assert waits == [3.0, 4.0, 5.0]
    waits = [processes.acquire(owner, 3.1)[0] for owner in ("three", "two", "one", "three")]
    assert waits == [pytest.approx(2.0), 0.0, 0.0, pytest.approx(RECHECK_INTERVAL)]


def test_asking_again_keeps_the_position() -> None:
    """However often: the processes behind it wait no longer because of it."""
    processes = Processes()
    processes.written(processes.acquire("zero", 0.0)[1], 0.0)
    for _ in range(5):
        processes.acquire("one", 0.1)
    assert processes.acquire("two", 0.1)[0] == pytest.approx(1.95)
    assert processes.acquire("one", 1.06)[0] == 0.0


def test_no_process_asks_again_too_often() -> None:
    """Not where the interval is shorter than asking takes, and not just before a token is due."""
    processes = Processes(Rate(0.001, guard=0.0))
    processes.written(processes.acquire("zero", 0.0)[1], 0.0)
    assert processes.acquire("one", 0.001 - 1e-9)[0] == pytest.approx(1e-4)
    assert processes.acquire("two", 0.001 - 1e-9)[0] == pytest.approx(RECHECK_INTERVAL)


def test_a_wider_guard_holds_for_all_processes() -> None:
    """A process that was throttled keeps more distance, also for the others."""
    processes = Processes()
    _, ticket = processes.acquire("one", 0.0)
    with processes as bucket:
        bucket.written(ticket, 0.0, 0.4)
    assert processes.acquire("two", 0.0)[0] == pytest.approx(1.0)
    assert processes.acquire("two", 1.0)[0] == pytest.approx(0.4)


def test_a_released_token_is_available_to_the_next() -> None:
    """Nothing was sent on it. Releasing it twice has no effect."""
    processes = Processes()
    _, ticket = processes.acquire("one", 0.0)
    for _ in range(2):
        with processes as bucket:
            bucket.release(ticket)
    assert processes.acquire("two", 0.0)[0] == 0.0
    assert processes.acquire("three", 0.0)[0] > 0.0


def test_a_dead_process_s_token_counts_as_spent_when_its_death_is_known() -> None:
    """It may have written its request just before."""
    processes = Processes()
    processes.acquire("one", 0.0)
    processes.dead = {"one"}
    assert processes.acquire("two", 3.0)[0] == pytest.approx(1.0)
    assert processes.acquire("two", 4.0)[0] == pytest.approx(0.05)
    assert processes.acquire("two", 4.06)[0] == 0.0


def test_a_dead_process_in_the_queue_is_removed() -> None:
    """Immediately, not only when it is late."""
    processes = Processes()
    processes.written(processes.acquire("zero", 0.0)[1], 0.0)
    for owner in ("one", "two"):
        processes.acquire(owner, 0.1)
    processes.dead = {"one"}
    assert processes.acquire("two", 1.06)[0] == 0.0


def test_an_outstanding_token_counts_as_spent_after_its_time_limit() -> None:
    """And not as released: its request may have been written without being recorded."""
    processes = Processes(Rate(100.0, guard=0.05))
    _, ticket = processes.acquire("one", 0.0)
    assert processes.acquire("two", TOKEN_TTL - 0.01)[0] == pytest.approx(RECHECK_INTERVAL)
    assert processes.acquire("two", TOKEN_TTL + 50.0)[0] == pytest.approx(50.05)
    with processes as bucket:
        bucket.release(ticket)  # too late
    assert processes.acquire("two", TOKEN_TTL + 100.0)[0] > 0.0
    assert processes.acquire("two", TOKEN_TTL + 100.06)[0] == 0.0


def test_a_request_written_after_the_time_limit_counts_once_more() -> None:
    """Counted twice rather than not at all."""
    bucket = SharedBucket(RATE)
    ticket = bucket.acquire("one", 0.0).ticket
    other = bucket.acquire("two", TOKEN_TTL + 1.06).ticket
    bucket.written(ticket, TOKEN_TTL + 2.0, 0.05)
    bucket.written(other, TOKEN_TTL + 2.5, 0.05)
    assert bucket.acquire("three", TOKEN_TTL + 3.0).retry_in == pytest.approx(1.05)


def test_a_snapshot_counts_live_processes() -> None:
    """Requests, outstanding tokens and waiters, without knowing the rate."""
    processes = Processes(Rate(1.0, burst=2))
    for owner in ("one", "two"):
        _, ticket = processes.acquire(owner, 0.0)
        if owner == "one":
            processes.written(ticket, 0.0)
    processes.acquire("three", 0.0)
    processes.acquire("four", 0.0)
    with processes as bucket:
        bucket.pause(3.0)

    def snapshot(now: float, *dead: str) -> EndpointSnapshot:
        return endpoint_snapshot(
            "key", processes.state or b"", now, lambda owner: owner not in dead
        )

    assert snapshot(0.0) == EndpointSnapshot("key", 1, 1, 2, 3.0)
    assert snapshot(0.5, "two", "four") == EndpointSnapshot("key", 1, 0, 1, 2.5)
    assert snapshot(TOKEN_TTL) == EndpointSnapshot("key", 1, 0, 0, 0.0)
    assert endpoint_snapshot("key", b"", 0.0) == EndpointSnapshot("key", 0, 0, 0, 0.0)


def test_a_pause_is_shared_and_only_moved_later() -> None:
    """Every process that asks receives its end."""
    processes = Processes()
    for until in (5.0, 3.0):
        with processes as bucket:
            bucket.pause(until)
    with processes as bucket:
        grant = bucket.acquire("one", 1.0)
    assert (grant.retry_in, grant.paused_for) == (4.0, 4.0)


@pytest.mark.parametrize("burst", [1, 2, 3])
def test_a_burst_is_shared(burst: int) -> None:
    """As count requests as the burst permits leave immediately, from any process."""
    processes = Processes(Rate(1.0, burst, 0.05))
    for number in range(burst):
        wait, ticket = processes.acquire(f"process {number}", 0.0)
        assert wait == 0.0
        processes.written(ticket, 0.0)
    assert processes.acquire("one more", 0.0)[0] > 0.0


def test_spent_tokens_outlive_another_rate() -> None:
    """Where a program restarts with another burst or interval, its requests still count."""
    processes = Processes(Rate(1.0, 3, 0.0))
    for _ in range(3):
        processes.written(processes.acquire("one", 0.0)[1], 0.0)
    processes.rate = Rate(1.0, 1, 0.0)
    assert processes.acquire("one", 0.5)[0] > 0.0
    processes.rate = Rate(1.0, 5, 0.0)
    assert processes.acquire("one", 0.5)[0] > 0.0
    assert processes.acquire("one", 3.0)[0] == 0.0


# -- no gap is short ------------------------------------------------------------------------------

EPS: Final = 1e-6


class Client(NamedTuple):
    """One process of a simulation. A process that dies comes back under another name."""

    rate: Rate
    tickets: dict[int, float]  # by ticket, until when its request must be written
    asked: list[tuple[int, float]]  # spend numbers, and when the service has counted their requests


class Simulation:
    """Processes that share a state, which is loaded and dumped for each operation."""

    def __init__(self, rates: list[Rate]) -> None:
        self.now = 1000.0
        self.state: bytes | None = None
        self.clients = {f"{number}": Client(rate, {}, []) for number, rate in enumerate(rates)}
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

    def do(self, number: int, action: str, part: float) -> None:
        """Do one operation of a process; *part* is of the guard, or of some seconds."""
        owner, client = list(self.clients.items())[number % len(self.clients)]
        rate = client.rate
        with self.bucket(rate) as bucket:
            match action:
                case "ask":
                    grant = bucket.acquire(owner, self.now, self.clients.__contains__)
                    self.wait = grant.retry_in
                    assert grant.paused_for == pytest.approx(max(0.0, self.paused - self.now))
                    if not grant.retry_in:
                        self.check(rate)
                        client.tickets[grant.ticket] = self.now + TOKEN_TTL
                case "write" if client.tickets:
                    ticket, until = client.tickets.popitem()
                    if self.now < until:
                        token_number = bucket.written(ticket, self.now, rate.guard)
                        client.asked.append((token_number, self.record_arrival(rate, part)))
                case "answer" if client.asked:
                    token_number, at = client.asked.pop(int(part * len(client.asked)))
                    self.now = max(self.now, at)
                    bucket.answered(token_number, self.now)
                case "return" if client.tickets:
                    bucket.release(client.tickets.popitem()[0])
                case "leave":
                    bucket.leave_queue(owner)
                case "pause":
                    bucket.pause(self.now + part)
                    self.paused = max(self.paused, self.now + part)
                case "die" | "die and write":
                    until = client.tickets.popitem()[1] if client.tickets else 0.0
                    if action == "die and write" and self.now < until:
                        self.record_arrival(rate, part)  # and this was not recorded any more
                    del self.clients[owner]
                    self.clients[f"{next(self.names)}"] = Client(rate, {}, [])
                case "sleep":
                    self.now += part
                case "sleep long":
                    self.now += 15 * part
                case "come back":
                    self.now += self.wait + (part if part > 0.9 else 0)
                case _:
                    pass

    def check(self, rate: Rate) -> None:
        """A granted token is due, counting all outstanding tokens of the other processes."""
        assert self.now >= self.paused
        holds = (until for client in self.clients.values() for until in client.tickets.values())
        own = rate.burst - sum(until > self.now for until in holds)
        assert own > 0
        before = sorted(self.arrivals)[-own:]
        assert len(before) < own or self.now >= before[0] + rate.interval - EPS

    def record_arrival(self, rate: Rate, part: float) -> float:
        self.arrivals.append(self.now + part * rate.guard)
        return self.arrivals[-1]


ACTIONS: Final = st.lists(
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
@given(ACTIONS, INTERVALS, st.integers(1, 3), GUARDS)
def test_the_service_never_counts_too_many(
    actions: list[tuple[int, str, float]], interval: float, burst: int, guard: float
) -> None:
    """Whatever the processes do, and whichever of them dies at any time.

    Of any requests in a row, so count beyond the burst arrive so count intervals after the first.
    """
    rate = Rate(interval, burst, guard)
    processes = Simulation([rate] * 3)
    for action in actions:
        processes.do(*action)
    arrivals = sorted(processes.arrivals)
    for first, at in enumerate(arrivals):
        for index, later in enumerate(arrivals[first + burst :], 1):
            assert later - at >= index * interval - EPS


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
@given(ACTIONS, RATES)
def test_each_keeps_to_its_own_rate_where_they_disagree(
    actions: list[tuple[int, str, float]], rates: list[Rate]
) -> None:
    """Programs with different rates still count each other's requests."""
    processes = Simulation(rates)
    for action in actions:
        processes.do(*action)


def test_different_rates_create_no_tokens() -> None:
    """A smaller burst discards the oldest requests, which must not become tokens again."""
    processes = Simulation([Rate(1.0, 1, 0.0), Rate(1.0, 3, 0.0)])
    for number in (1, 1, 1, *[0, 1] * 20):
        for action in ("ask", "write", "answer"):
            processes.do(number, action, 0.0)
    assert len(processes.arrivals) == 3


# -- order of service -----------------------------------------------------------------------------


@given(
    st.integers(2, 5),
    st.integers(1, 3),
    st.lists(st.floats(0.0, TURN_GRACE - 0.1), min_size=1, max_size=7),
    st.sampled_from([0.0, 0.3, 2.0]),
)
def test_no_process_is_served_twice_before_another_that_waits(
    count: int, burst: int, late: list[float], answers: float
) -> None:
    """First in, first out, although each asks again a little late; and no time is lost."""
    rate = Rate(1.0, burst, 0.05)
    bucket = SharedBucket(rate)
    chances, schedule = itertools.cycle(late), [(0.0, number) for number in range(count)]
    queue: list[int] = []
    served: list[float] = []
    answered: list[tuple[float, int]] = []
    while len(served) < 20:
        schedule.sort()
        now, number = schedule.pop(0)
        while answered and answered[0][0] <= now:
            at, token_number = answered.pop(0)
            bucket.answered(token_number, at)
        if number not in queue:
            queue.append(number)
        grant = bucket.acquire(f"{number}", now)
        if grant.retry_in:
            schedule.append((now + grant.retry_in + next(chances), number))
            continue
        assert number in queue[:burst]
        queue.remove(number)
        served.append(now)
        answered.append((now + answers, bucket.written(grant.ticket, now, 0.05)))
        schedule.append((now, number))
    assert served[-1] <= (20 - burst) * (1.05 + max(late) + 2 * RECHECK_INTERVAL) + count


# -- what a bucket restores -----------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.floats(0.0, 3.0), max_size=8))
def test_a_bucket_continues_from_its_state(burst: int, later: int, rests: list[float]) -> None:
    """The same burst makes the same bucket; a smaller one drops start times, a larger one adds."""
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


def test_a_response_finds_its_request_although_the_burst_has_grown() -> None:
    """And a response without a request finds none."""
    bucket, other = Bucket(Rate(1.0, guard=0.5)), Bucket(Rate(1.0, 3, 0.5))
    bucket.reserve()
    token_number = bucket.spend(0.0)
    other.restore(bucket.state())
    assert other.due(0.0) == 1.5
    other.answered(0, 0.1)
    other.answered(token_number, 0.2)
    dues = list[float]()
    for _ in range(3):
        dues.append(other.due(0.0))
        other.reserve()
    assert dues == [1.5, 2.5, 3.5]
    assert other.state().start_times == [0.5, 0.5, 0.2]
    bucket.restore(other.state())
    bucket.answered(token_number, 0.1)
    assert bucket.state().start_times == [0.1]


def test_a_state_can_be_encoded() -> None:
    """Also that of a bucket that was never used: its times are infinite."""
    state = SharedBucket(RATE).dump()
    assert SharedBucket(RATE, state).dump() == state
    assert Bucket(RATE).state() == BucketState(1, 1, -math.inf, [], 1, -math.inf)
