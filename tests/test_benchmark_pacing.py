"""Analysis of intervals: short gaps, uncertain ones, and the rate."""

from __future__ import annotations

import pytest

from benchmarks.interval_analysis import NOISE, Analysis, analyse, check_target, combine

T = 0.05


def channel(
    *arrivals: float, late: tuple[tuple[float, float], ...] = ()
) -> dict[str, list[tuple[float, float]]]:
    """Requests that arrive when they are stamped."""
    return {"requests": [(arrival, arrival) for arrival in arrivals], "late": list(late)}


def analysis(*, gaps: int = 9, short: int = 0, rate: float = 0.9) -> Analysis:
    return Analysis(gaps, short, 0, 0.0, rate)


def test_a_gap_is_short_if_it_lacks_more_than_a_millisecond() -> None:
    seen = analyse(channel(0.0, 0.05, 0.0992, 0.1480), T)
    assert (seen.gaps, seen.short, seen.doubtful) == (3, 1, 0)
    assert seen.worst == pytest.approx(0.0012)


def test_the_worst_shortfall_is_never_negative() -> None:
    assert analyse(channel(0.0, 0.07, 0.14), T).worst == 0.0


def test_requests_count_in_the_order_of_their_arrival_not_of_their_stamps() -> None:
    seen = analyse({"requests": [(0.0, 0.02), (0.01, 0.011), (0.05, 0.07)], "late": []}, T)
    assert (seen.gaps, seen.short) == (2, 1)
    assert seen.worst == pytest.approx(0.041)


def test_two_at_the_same_time_lack_a_whole_interval() -> None:
    seen = analyse(channel(0.0, 0.05, 0.05, 0.1), T)
    assert seen.short == 1
    assert seen.worst == pytest.approx(T)


def test_the_rate_is_that_of_the_gaps_over_the_time_they_took() -> None:
    assert analyse(channel(0.0, 0.05, 0.1), T).rate == pytest.approx(1.0)
    assert analyse(channel(0.0, 0.2, 0.2), T).rate == pytest.approx(0.5)


def test_a_short_gap_is_doubtful_if_its_first_request_arrived_while_the_server_was_late() -> None:
    arrivals = 1.0, 1.02, 1.07
    assert analyse(channel(*arrivals, late=((0.99, 1.001),)), T).doubtful == 1
    assert (
        analyse(channel(*arrivals, late=((0.99, 0.9991),)), T).doubtful == 1
    )  # the loop is not running again yet
    assert (
        analyse(channel(*arrivals, late=((1.01, 1.03),)), T).doubtful == 0
    )  # the second arrived late
    assert (
        analyse(channel(*arrivals, late=((1.06, 1.08),)), T).doubtful == 0
    )  # that gap is not short


@pytest.mark.parametrize("arrivals", [(), (1.0,)])
def test_fewer_than_two_requests_have_no_gap_and_no_rate(arrivals: tuple[float, ...]) -> None:
    seen = analyse(channel(*arrivals), T)
    assert (seen.gaps, seen.short, seen.rate) == (0, 0, 0.0)


def test_of_several_runs_gaps_are_added_the_worst_stays_and_rates_are_averaged() -> None:
    both = combine([Analysis(9, 1, 1, 0.02, 0.8), Analysis(5, 2, 0, 0.01, 0.4)])
    assert (both.gaps, both.short, both.doubtful, both.worst) == (14, 3, 1, 0.02)
    assert both.rate == pytest.approx(0.6)


def test_the_target_is_the_best_rate_of_those_with_no_gap_short() -> None:
    others = {
        "fast": analysis(short=1, rate=1.0),
        "slow": analysis(rate=0.5),
        "none": analysis(gaps=0),
    }
    assert check_target({"ours": analysis(rate=0.5), **others}, "ours", 9) == (
        "0 too early, 0.500 of slow",
        True,
    )
    assert not check_target({"ours": analysis(rate=0.499 - NOISE), **others}, "ours", 9)[1]


def test_a_rate_with_a_short_or_missing_gap_misses_the_target() -> None:
    assert check_target({"ours": analysis()}, "ours", 9) == ("0 too early", True)
    assert not check_target({"ours": analysis(short=1, rate=1.0)}, "ours", 9)[1]
    assert not check_target({"ours": analysis(gaps=8, rate=1.0)}, "ours", 9)[1]
