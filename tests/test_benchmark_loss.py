"""What counts as lost, as doubled and as told."""

from __future__ import annotations

import pytest

from benchmarks.loss_count import LossCount, count_losses, within_gaps

POSTED = ["a", "b", "c", "d"]


def test_what_came_once_each_in_whatever_order_is_neither_lost_nor_doubled() -> None:
    assert count_losses(POSTED, ["d", "a", "c", "b"]) == LossCount(
        4, lost=0, duplicated=0, reported=0
    )


def test_what_never_came_is_lost() -> None:
    assert count_losses(POSTED, ["a", "d"]) == LossCount(4, lost=2, duplicated=0, reported=0)
    assert count_losses(POSTED, []).lost == 4


def test_each_time_after_the_first_is_one_doubled() -> None:
    assert count_losses(POSTED, ["a", "a", "a", "b", "c", "d", "d"]).duplicated == 3


def test_what_came_twice_does_not_make_up_for_what_never_came() -> None:
    assert count_losses(POSTED, ["a", "a", "b", "c"]) == LossCount(
        4, lost=1, duplicated=1, reported=0
    )


def test_of_what_is_lost_that_is_told_which_the_program_was_told_of() -> None:
    counts = count_losses(POSTED, ["a"], reported={"b", "c"})
    assert (counts.lost, counts.reported, counts.unreported) == (3, 2, 1)


def test_of_what_is_doubled_each_time_is_told() -> None:
    counts = count_losses(POSTED, ["a", "a", "a", "b", "b", "c", "d"], reported={"a"})
    assert (counts.duplicated, counts.reported, counts.unreported) == (3, 2, 1)


def test_to_be_told_of_what_came_once_is_nothing() -> None:
    assert count_losses(POSTED, POSTED, reported=POSTED) == LossCount(
        4, lost=0, duplicated=0, reported=0
    )


def test_nothing_is_judged_that_was_not_said_or_said_twice() -> None:
    with pytest.raises(RuntimeError, match="nobody said 'e'"):
        count_losses(POSTED, ["a", "e"])
    with pytest.raises(RuntimeError, match="twice"):
        count_losses(["a", "a"], ["a"])


def test_a_gap_is_what_lies_between_its_ends() -> None:
    posted = list(enumerate("abcdefg", 1))
    assert within_gaps(posted, [(2, 5)]) == {"c", "d"}
    assert within_gaps(posted, [(0, 2), (6, 9)]) == {"a", "g"}
    assert within_gaps(posted, [(3, 4)]) == set()
    assert within_gaps(posted, []) == set()
