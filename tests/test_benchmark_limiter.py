"""Figures of the benchmark of limiters: order of waiters, lateness, and the ranking."""

from __future__ import annotations

import math

import pytest

from benchmarks.queueing import inversions, lateness, least_gap
from benchmarks.ranking import better_than_ours, ranking


def test_inversions_are_the_pairs_served_in_the_wrong_order() -> None:
    assert inversions([0, 1, 2, 3]) == 0.0
    assert inversions([3, 2, 1, 0]) == 100.0
    assert inversions([1, 0, 2, 3]) == pytest.approx(100 / 6)


def test_a_waiter_overtaken_by_all_is_in_every_pair() -> None:
    assert inversions([1, 2, 3, 0]) == pytest.approx(50.0)


def test_the_lateness_of_the_third_counts_from_the_second_or_else_from_the_first() -> None:
    assert lateness({0: 1.0, 2: 1.05}, 0.05) == pytest.approx(0.0)
    assert lateness({0: 1.0, 2: 1.1}, 0.05) == pytest.approx(1.0)
    assert lateness({0: 1.0, 1: 1.05, 2: 1.1}, 0.05) == pytest.approx(0.0)


def test_a_third_that_is_never_served_is_infinitely_late() -> None:
    assert lateness({0: 1.0, 1: 1.05}, 0.05) == math.inf


def test_the_least_gap_is_between_two_consecutive_times() -> None:
    assert least_gap([0.0, 0.5, 0.75, 2.0]) == 0.25


def test_a_limiter_is_better_if_it_has_less_by_more_than_the_slack() -> None:
    values = {"pythpeer": 1.0, "less": 0.8, "hardly": 0.95, "same": 1.0, "more": 2.0, "none": None}
    others = [*values, "absent"]
    assert better_than_ours(values, others, 0.1) == ["less"]
    assert better_than_ours(values, others, 0.0) == ["less", "hardly"]
    assert better_than_ours(values, ["more"], 0.0) == []


def test_a_row_that_is_not_compared_does_not_matter() -> None:
    rows = {"pythpeer": (1.0, 5.0), "rival": (2.0, 4.0), "floor": (0.1, 0.1)}
    table = ranking("", ("us", "B"), rows, others=["rival"], targets={"us": 0.0})
    assert table.rows[0] == ("pythpeer", 1.0, 5.0, "none better", True)
    assert not table.notes


def test_one_worse_column_misses_the_target_and_a_note_lists_the_better_ones() -> None:
    rows = {"pythpeer": (1.0, 5.0), "rival": (2.0, 4.0)}
    table = ranking("", ("us", "B"), rows, others=["rival"], targets={"us": 0.0, "B": 0.5})
    assert table.rows == [
        ("pythpeer", 1.0, 5.0, "none better", False),
        ("rival", 2.0, 4.0, None, None),
    ]
    assert table.notes == ["Better than pythpeer in 'B': rival."]
