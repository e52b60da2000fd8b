"""Token-bucket arithmetic: the interval holds at the server, whatever the network does.

Times here are plain numbers: the bucket has no clock of its own.
"""

from __future__ import annotations

import heapq
import itertools
import math

import pytest
from helpers import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pythpeer.pacing.bucket import MAX_GUARD, SUCCESSES_TO_NARROW, Bucket, Rate

EPS = 1e-6


def use_due_token(bucket: Bucket, now: float) -> int:
    """Spend a token that is due, by writing its request immediately."""
    assert bucket.due(now) <= now
    bucket.reserve()
    return bucket.spend(now)


# -- the invariant with one token -----------------------------------------------------------------


def test_a_new_bucket_is_full() -> None:
    """The first request does not wait, at any time of the clock."""
    for now in (-1e9, 0.0, 1e9):
        assert Bucket(Rate(1.0)).due(now) == now
        assert Bucket(Rate(1.0, 3)).available(now) == 3


@given(
    st.floats(0.01, 100),
    st.floats(0, 10),
    st.floats(-1e6, 1e6),
    st.floats(0, 200),
)
def test_the_next_token_is_due(
    interval: float, guard: float, written: float, duration: float
) -> None:
    """The next is due at ``min(t_written + interval + guard, t_answered + interval)``."""
    bucket = Bucket(Rate(interval, 1, guard))
    number = use_due_token(bucket, written)
    assert bucket.due(written) == pytest.approx(written + interval + guard)
    answered = written + duration
    bucket.answered(number, answered)
    expected = min(written + interval + guard, answered + interval)
    assert bucket.due(written) == pytest.approx(expected)


def test_a_late_answer_changes_nothing() -> None:
    """When the guard is over, the response changes nothing."""
    bucket = Bucket(Rate(1.0, 1, 0.05))
    number = use_due_token(bucket, 10.0)
    bucket.answered(number, 10.5)
    assert bucket.due(10.5) == 11.05


def test_an_answer_to_an_earlier_request_changes_nothing() -> None:
    """It shows when that request was counted, and not the one that was written later."""
    bucket = Bucket(Rate(1.0, 1, 0.5))
    first = use_due_token(bucket, 0.0)
    second = use_due_token(bucket, 1.5)
    bucket.answered(first, 1.6)
    assert bucket.due(1.6) == 3.0
    bucket.answered(second, 1.7)
    assert bucket.due(1.7) == 2.7


def test_the_same_answer_counts_once() -> None:
    """A second report of it, later or earlier, makes nothing due later."""
    bucket = Bucket(Rate(1.0, 1, 0.5))
    number = use_due_token(bucket, 0.0)
    bucket.answered(number, 0.2)
    bucket.answered(number, 0.4)
    assert bucket.due(0.4) == 1.2


def test_what_is_due_stays_due() -> None:
    """Time passes, and no second token comes of it."""
    bucket = Bucket(Rate(1.0))
    use_due_token(bucket, 0.0)
    assert [bucket.due(now) for now in (0.5, 1.05, 2.0, 50.0)] == [1.05, 1.05, 2.0, 50.0]
    assert bucket.available(1.0) == 0
    assert bucket.available(1.05) == bucket.available(1000.0) == 1
    use_due_token(bucket, 1000.0)
    assert bucket.available(1000.0) == 0


def test_an_interval_of_nought_is_no_pacing() -> None:
    """Any number of requests can follow one another."""
    bucket = Bucket(Rate(0.0, 1, 0.5))
    for _ in range(100):
        use_due_token(bucket, 3.0)
    assert bucket.due(3.0) == 3.0
    assert bucket.available(3.0) == 1


# -- bursts ---------------------------------------------------------------------------------------


def test_a_burst_and_then_one_per_interval() -> None:
    """Three immediately with a burst of three; then the rate, no faster and no slower."""
    bucket = Bucket(Rate(1.0, 3, 0.0))
    for left in (2, 1, 0):
        use_due_token(bucket, 0.0)
        assert bucket.available(0.0) == left
    for second in range(1, 20):
        assert bucket.due(second - 0.5) == pytest.approx(second)
        use_due_token(bucket, second)
        assert bucket.available(second) == 0


def test_a_burst_waits_for_the_guard_too() -> None:
    """The first token is as late as with a burst of one, and a response makes it as early."""
    bucket = Bucket(Rate(1.0, 3, 0.05))
    anchors = [use_due_token(bucket, 0.0) for _ in range(3)]
    assert bucket.due(0.0) == pytest.approx(1.05)
    for number in anchors:
        bucket.answered(number, 0.01)
    assert 1.0 <= bucket.due(0.01) <= 1.05


def test_tokens_are_stored_up_to_the_burst() -> None:
    """One more per interval, and never more than ``burst``."""
    bucket = Bucket(Rate(1.0, 3, 0.0))
    for _ in range(3):
        use_due_token(bucket, 0.0)
    saved = [bucket.available(now) for now in (0.9, 1.0, 1.9, 2.0, 3.0, 4.0, 1e9)]
    assert saved == [0, 1, 1, 2, 3, 3, 3]


@pytest.mark.parametrize("intervals", [1, 2, 3, 4])
def test_an_idle_time_stores_a_token_for_each_interval(intervals: int) -> None:
    """The first request after it leaves one fewer, and not a whole burst."""
    bucket = Bucket(Rate(1.0, 3, 0.0))
    for _ in range(3):
        use_due_token(bucket, 0.0)
    for left in reversed(range(min(intervals, 3))):
        use_due_token(bucket, intervals)
        assert bucket.available(intervals) == left


def test_a_burst_after_a_lull_is_no_bigger() -> None:
    """A million seconds without a request store three tokens."""
    bucket = Bucket(Rate(1.0, 3, 0.05))
    for start in (0.0, 1e6):
        for _ in range(3):
            use_due_token(bucket, start)
        assert bucket.due(start) > start + 0.99


# -- the server's side ----------------------------------------------------------------------------


class Server:
    """A token bucket where the requests arrive: it starts full and counts continuously."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.full_at = -math.inf

    def count_request(self, now: float) -> float:
        """Count one request, and return how many seconds too early it arrived."""
        burst_time = (self.rate.burst - 1) * self.rate.interval
        early = self.full_at - burst_time - now
        self.full_at = max(self.full_at, now) + self.rate.interval
        return early


Step = tuple[float, float, float, float | None]
"""Of one request: seconds from when it was due to when its token was taken, from there to when it
was written, from there to its arrival, and from there to its answer (``None``: none came)."""


def run(rate: Rate, steps: list[Step]) -> tuple[list[float], list[float]]:
    """Send a request per step, as early as the bucket allows; return write_times and arrivals."""
    bucket = Bucket(rate)
    now = 0.0
    answers: list[tuple[float, int]] = []
    write_times, arrivals = [], []

    def wait(until: float) -> float:
        while answers and answers[0][0] <= until:
            at, number = heapq.heappop(answers)
            bucket.answered(number, at)
        return max(now, until)

    for idle, lag, delay, duration in steps:
        due = bucket.due(now)
        while answers and answers[0][0] < due:  # a response can only make it due earlier
            now = wait(answers[0][0])
            assert bucket.due(now) <= max(due, now)
            due = bucket.due(now)
        now = wait(due + idle)
        assert bucket.due(now) <= now
        assert bucket.available(now) >= 1
        bucket.reserve()
        now = wait(now + lag)
        number = bucket.spend(now)
        write_times.append(now)
        arrivals.append(now + delay * rate.guard)
        if duration is not None:
            heapq.heappush(answers, (arrivals[-1] + duration, number))
    return write_times, arrivals


rates = st.builds(
    Rate,
    st.sampled_from([0.05, 1.0, 7.5]),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.01, 0.05, 0.5, 3.0]),
)
delays = st.just(0.0) | st.floats(0, 0.1) | st.floats(0, 4)
steps = st.lists(
    st.tuples(
        delays,
        st.just(0.0) | st.floats(0, 0.5),
        st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
        st.none() | delays,
    ),
    max_size=24,
)


@settings(max_examples=examples(200))
@given(rates, steps)
@example(
    Rate(1.0, 3, 0.05),
    [(0, 0, 0, None), (1.04, 0, 1, None), (0.01, 0, 1, None), (0, 0, 1, None), (0, 0, 0, None)],
)
@example(
    # The first request can be under way far longer than the second, which was answered first.
    Rate(0.05, 3, 0.5),
    [(0, 0, 1, None), (0, 0, 0, 0), (0.16, 0, 0.68, None), *[(0, 0, 0.68, None)] * 2],
)
def test_the_server_never_counts_too_many(rate: Rate, steps: list[Step]) -> None:
    """With any delay within the guard, any schedule and any answers, its bucket never runs dry."""
    _, arrivals = run(rate, steps)
    server = Server(rate)
    early = [server.count_request(arrival) for arrival in sorted(arrivals)]
    assert all(seconds <= EPS for seconds in early), early


@given(rates, steps)
def test_with_one_token_no_gap_is_short(rate: Rate, steps: list[Step]) -> None:
    """With a burst of one the server sees the interval between any two arrivals."""
    single = Rate(rate.interval, 1, rate.guard)
    _, arrivals = run(single, steps)
    gaps = [after - before for before, after in itertools.pairwise(arrivals)]
    assert all(gap >= rate.interval - EPS for gap in gaps), gaps


@given(rates, st.integers(1, 40), st.floats(0, 1))
def test_safety_costs_no_more_than_the_guard(rate: Rate, count: int, delay: float) -> None:
    """Requests without pause wait ``interval + guard`` at most, and the burst is additional."""
    write_times, _ = run(rate, [(0.0, 0.0, delay, None)] * count)
    worst = max(0, count - rate.burst) * (rate.interval + rate.guard)
    assert write_times[-1] <= worst + EPS


@given(rates, st.integers(1, 40))
def test_prompt_answers_give_the_full_rate(rate: Rate, count: int) -> None:
    """Where every request is answered immediately, no time is lost with one token."""
    single = Rate(rate.interval, 1, rate.guard)
    write_times, _ = run(single, [(0.0, 0.0, 0.0, 0.0)] * count)
    assert write_times[-1] == pytest.approx((count - 1) * rate.interval)


# -- reserving ------------------------------------------------------------------------------------


def test_a_reserved_token_is_not_available_to_others() -> None:
    """Until its request is written, it is not known when the next token is due."""
    bucket = Bucket(Rate(1.0, 1, 0.05))
    bucket.reserve()
    assert bucket.available(0.0) == 0
    assert bucket.due(0.0) == bucket.due(100.0) == math.inf
    bucket.spend(100.0)
    assert bucket.due(100.0) == 101.05


def test_the_rest_of_a_burst_can_be_reserved() -> None:
    """One reserved token leaves two."""
    bucket = Bucket(Rate(1.0, 3))
    bucket.reserve()
    assert bucket.available(0.0) == 2
    assert bucket.due(0.0) == 0.0
    bucket.reserve()
    bucket.reserve()
    assert bucket.available(0.0) == 0
    assert bucket.due(0.0) == math.inf


def test_a_released_token_is_available_immediately() -> None:
    """A request that certainly never left costs nothing."""
    bucket = Bucket(Rate(1.0))
    bucket.reserve()
    bucket.release()
    assert bucket.due(5.0) == 5.0
    assert bucket.available(5.0) == 1
    use_due_token(bucket, 5.0)
    bucket_due = bucket.due(5.0)
    bucket_due_again = bucket.due(5.0)
    assert bucket_due == bucket_due_again == 6.05


@given(rates, steps, st.lists(st.integers(0, 3), max_size=24))
def test_a_release_leaves_no_trace(rate: Rate, steps: list[Step], aborted: list[int]) -> None:
    """Requests that never left change nothing for those that do."""
    reference, bucket = Bucket(rate), Bucket(rate)
    now = 0.0
    for (idle, *_), times in zip(steps, aborted, strict=False):
        now = max(now, reference.due(now)) + idle
        for _ in range(times):
            if bucket.due(now) <= now:
                bucket.reserve()
                bucket.release()
        assert bucket.due(now) == reference.due(now)
        assert bucket.available(now) == reference.available(now)
        use_due_token(reference, now)
        use_due_token(bucket, now)


def test_the_clock_starts_at_the_writing() -> None:
    """A token held for long, while a connection is made, counts from the time of its use."""
    bucket = Bucket(Rate(1.0, 1, 0.0))
    bucket.reserve()
    number = bucket.spend(30.0)
    bucket.answered(number, 30.0)
    assert bucket.due(30.0) == 31.0


# -- pauses ---------------------------------------------------------------------------------------


def test_a_pause_holds_everything() -> None:
    """Stored tokens are not available during the pause, and are afterwards."""
    bucket = Bucket(Rate(1.0, 3))
    bucket.pause(10.0)
    assert bucket.available(9.999) == 0
    assert bucket.due(0.0) == 10.0
    assert bucket.due(10.0) == 10.0
    assert bucket.available(10.0) == 3


@given(st.lists(st.floats(-100, 100), min_size=1))
def test_a_pause_is_only_moved_later(ends: list[float]) -> None:
    """A shorter one does not replace a longer one."""
    bucket = Bucket(Rate(1.0))
    for until in ends:
        bucket.pause(until)
    assert bucket.due(-1000.0) == max(ends)
    assert bucket.due(1000.0) == 1000.0


def test_pause_and_pacing_both_hold() -> None:
    """The later of the two decides."""
    bucket = Bucket(Rate(1.0, 1, 0.0))
    use_due_token(bucket, 0.0)
    bucket.pause(0.5)
    assert bucket.due(0.0) == 1.0
    bucket.pause(7.0)
    assert bucket.due(0.0) == 7.0


def test_requests_under_way_do_not_end_a_pause() -> None:
    """Neither their writing nor their responses nor their released tokens."""
    bucket = Bucket(Rate(1.0, 3, 0.05))
    number = use_due_token(bucket, 0.0)
    bucket.reserve()
    bucket.reserve()
    bucket.pause(60.0)
    bucket.answered(number, 0.1)
    bucket.release()
    bucket.answered(bucket.spend(0.2), 0.3)
    assert bucket.due(0.3) == 60.0


def test_a_pause_without_end_is_possible() -> None:
    """Infinity is later than any time."""
    bucket = Bucket(Rate(1.0))
    bucket.pause(math.inf)
    bucket.pause(5.0)
    assert bucket.due(1e9) == math.inf
    assert bucket.available(1e9) == 0


# -- the guard ------------------------------------------------------------------------------------


def test_a_429_widens_the_guard() -> None:
    """It doubles each time, up to half a second."""
    bucket = Bucket(Rate(1.0, 1, 0.05))
    seen = []
    for _ in range(6):
        bucket.on_throttled()
        seen.append(bucket.guard)
    assert seen == pytest.approx([0.1, 0.2, 0.4, MAX_GUARD, MAX_GUARD, MAX_GUARD])


def test_a_guard_of_zero_is_widened_too() -> None:
    """Doubling zero would give zero."""
    bucket = Bucket(Rate(1.0, 1, 0.0))
    bucket.on_throttled()
    assert bucket.guard == pytest.approx(0.05)


def test_a_guard_over_the_cap_stays() -> None:
    """The user's own guard is never made smaller by a 429."""
    bucket = Bucket(Rate(1.0, 1, 2.0))
    bucket.on_throttled()
    assert bucket.guard == 2.0


def test_a_wider_guard_holds_from_the_next_request_on() -> None:
    """The guard counts from the time of writing."""
    bucket = Bucket(Rate(1.0, 1, 0.05))
    bucket.on_throttled()
    use_due_token(bucket, 0.0)
    assert bucket.due(0.0) == pytest.approx(1.1)


def test_successes_narrow_it_again() -> None:
    """By a tenth after each hundred responses, and never below the guard of the rate."""
    bucket = Bucket(Rate(1.0, 1, 0.05))
    bucket.on_throttled()
    for _ in range(SUCCESSES_TO_NARROW - 1):
        bucket.on_success()
    assert bucket.guard == pytest.approx(0.1)
    bucket.on_success()
    assert bucket.guard == pytest.approx(0.09)
    for _ in range(50 * SUCCESSES_TO_NARROW):
        bucket.on_success()
    assert bucket.guard == 0.05


def test_a_429_restarts_the_count_of_successes() -> None:
    """A hundred responses in a row are required."""
    bucket = Bucket(Rate(1.0, 1, 0.05))
    bucket.on_throttled()
    for _ in range(SUCCESSES_TO_NARROW - 1):
        bucket.on_success()
    bucket.on_throttled()
    wide = bucket.guard
    bucket.on_success()
    assert bucket.guard == wide == pytest.approx(0.2)


@given(st.floats(0, 5), st.lists(st.booleans(), max_size=400))
def test_the_guard_keeps_within_its_bounds(guard: float, answers: list[bool]) -> None:
    """Never below the guard of the rate, never above the greater of that and the cap."""
    bucket = Bucket(Rate(1.0, 1, guard))
    for clean in answers:
        if clean:
            bucket.on_success()
        else:
            bucket.on_throttled()
        assert guard <= bucket.guard <= max(guard, MAX_GUARD)


# -- another clock --------------------------------------------------------------------------------


@given(st.floats(-1000, 1000), st.integers(1, 3), st.integers(0, 2))
def test_a_bucket_moves_to_another_clock(ahead: float, spent: int, pause: int) -> None:
    """What was due in five seconds is due in five seconds by a clock that shows another time."""
    bucket = Bucket(Rate(5.0, 3, 0.05))
    for _ in range(spent):
        use_due_token(bucket, 0.0)
    if pause:
        bucket.pause(3.0 * pause)
    before = bucket.due(1.0) - 1.0, bucket.available(1.0)
    moved = bucket.shifted(ahead)
    after = moved.due(1.0 + ahead) - 1.0 - ahead, moved.available(1.0 + ahead)
    assert after == pytest.approx(before)


def test_reservations_stay_behind() -> None:
    """In the old loop no request will be written any more."""
    bucket = Bucket(Rate(1.0))
    bucket.reserve()
    moved = bucket.shifted(100.0)
    assert moved.due(100.0) == 100.0
    bucket.release()
    assert (moved.available(100.0), moved.reserved) == (1, 0)


# -- a request that is written for the second time ------------------------------------------------


@given(
    st.floats(0.1, 10.0),
    st.integers(1, 4),
    st.floats(0.0, 0.5),
    st.floats(0.0, 1.0, exclude_max=True),
)
@example(0.24070330521798325, 1, 0.0, 0.2421875)  # the delay is rounded
def test_a_postponed_request_keeps_the_interval_on_both_sides(
    interval: float, burst: int, guard: float, after: float
) -> None:
    """It leaves when the next token would be due, and that token is due an interval after it."""
    bucket = Bucket(Rate(interval, burst, guard))
    number, due = 0, 0.0
    for _ in range(burst):
        bucket.reserve()
        number = bucket.spend(0.0)
    now = after * (interval + guard)
    delay = bucket.postpone(number, now)
    assert delay is not None
    again = now + delay
    assert again >= interval
    for _ in range(burst):  # the tokens of the other requests of the burst do not depend on it
        due = bucket.due(now)
        bucket.reserve()
        bucket.spend(due)
    assert due >= again + interval - 1e-9


def test_a_request_is_not_postponed_when_the_next_token_may_be_reserved() -> None:
    """Nor beyond a limit. Nothing changes then; without pacing there is nothing to wait for."""
    bucket = Bucket(Rate(1.0, 1, 0.05))
    bucket.reserve()
    number = bucket.spend(0.0)
    before = bucket.state()
    assert bucket.postpone(number, 1.05) is None
    assert bucket.postpone(number, 0.3, within=0.75) is None
    assert bucket.state() == before
    bucket.reserve()
    bucket.spend(1.05)
    assert bucket.postpone(number, 1.06) is None
    assert Bucket(Rate(0.0)).postpone(0, 5.0) == 0.0
