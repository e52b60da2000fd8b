"""What is made of figures of limiters: whose order was kept, who was late, who is ahead."""

from __future__ import annotations

import math

import pytest

from benchmarks.queueing import inversions, lateness, least_gap
from benchmarks.ranking import better_than_ours, ranking


def test_inversions_are_the_pairs_that_went_the_other_way_round() -> None:
    assert inversions([0, 1, 2, 3]) == 0.0
    assert inversions([3, 2, 1, 0]) == 100.0
    assert inversions([1, 0, 2, 3]) == pytest.approx(100 / 6)


def test_who_was_overtaken_by_all_is_in_every_pair_of_theirs() -> None:
    assert inversions([1, 2, 3, 0]) == pytest.approx(50.0)


def test_the_third_is_late_from_when_the_second_went_or_else_from_when_the_first_did() -> None:
    assert lateness({0: 1.0, 2: 1.05}, 0.05) == pytest.approx(0.0)
    assert lateness({0: 1.0, 2: 1.1}, 0.05) == pytest.approx(1.0)
    assert lateness({0: 1.0, 1: 1.05, 2: 1.1}, 0.05) == pytest.approx(0.0)


def test_the_third_that_never_went_is_late_for_ever() -> None:
    assert lateness({0: 1.0, 1: 1.05}, 0.05) == math.inf


def test_the_least_gap_is_between_two_that_followed_each_other() -> None:
    assert least_gap([0.0, 0.5, 0.75, 2.0]) == 0.25


def test_those_are_ahead_who_have_less_by_more_than_the_slack() -> None:
    figures = {"pythpeer": 1.0, "less": 0.8, "hardly": 0.95, "same": 1.0, "more": 2.0, "none": None}
    others = [*figures, "absent"]
    assert better_than_ours(figures, others, 0.1) == ["less"]
    assert better_than_ours(figures, others, 0.0) == ["less", "hardly"]
    assert better_than_ours(figures, ["more"], 0.0) == []


def test_a_row_that_is_not_beside_decides_nothing() -> None:
    rows = {"pythpeer": (1.0, 5.0), "rival": (2.0, 4.0), "floor": (0.1, 0.1)}
    table = ranking("", ("us", "B"), rows, others=["rival"], targets={"us": 0.0})
    assert table.rows[0] == ("pythpeer", 1.0, 5.0, "none better", True)
    assert not table.notes


def test_one_column_is_enough_to_be_behind_in_and_a_note_tells_who_is_ahead() -> None:
    rows = {"pythpeer": (1.0, 5.0), "rival": (2.0, 4.0)}
    table = ranking("", ("us", "B"), rows, others=["rival"], targets={"us": 0.0, "B": 0.5})
    assert table.rows == [
        ("pythpeer", 1.0, 5.0, "none better", False),
        ("rival", 2.0, 4.0, None, None),
    ]
    assert table.notes == ["Better than pythpeer in 'B': rival."]
