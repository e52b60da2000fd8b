"""What counts as lost, as doubled and as told."""

from __future__ import annotations

import pytest

from benchmarks.loss_count import Tally, between, tally

SAID = ["a", "b", "c", "d"]


def test_what_came_once_each_in_whatever_order_is_neither_lost_nor_doubled() -> None:
    assert tally(SAID, ["d", "a", "c", "b"]) == Tally(4, lost=0, doubled=0, told=0)


def test_what_never_came_is_lost() -> None:
    assert tally(SAID, ["a", "d"]) == Tally(4, lost=2, doubled=0, told=0)
    assert tally(SAID, []).lost == 4


def test_each_time_after_the_first_is_one_doubled() -> None:
    assert tally(SAID, ["a", "a", "a", "b", "c", "d", "d"]).doubled == 3


def test_what_came_twice_does_not_make_up_for_what_never_came() -> None:
    assert tally(SAID, ["a", "a", "b", "c"]) == Tally(4, lost=1, doubled=1, told=0)


def test_of_what_is_lost_that_is_told_which_the_program_was_told_of() -> None:
    seen = tally(SAID, ["a"], told={"b", "c"})
    assert (seen.lost, seen.told, seen.silent) == (3, 2, 1)


def test_of_what_is_doubled_each_time_is_told() -> None:
    seen = tally(SAID, ["a", "a", "a", "b", "b", "c", "d"], told={"a"})
    assert (seen.doubled, seen.told, seen.silent) == (3, 2, 1)


def test_to_be_told_of_what_came_once_is_nothing() -> None:
    assert tally(SAID, SAID, told=SAID) == Tally(4, lost=0, doubled=0, told=0)


def test_nothing_is_judged_that_was_not_said_or_said_twice() -> None:
    with pytest.raises(RuntimeError, match="nobody said 'e'"):
        tally(SAID, ["a", "e"])
    with pytest.raises(RuntimeError, match="twice"):
        tally(["a", "a"], ["a"])


def test_a_gap_is_what_lies_between_its_ends() -> None:
    said = list(enumerate("abcdefg", 1))
    assert between(said, [(2, 5)]) == {"c", "d"}
    assert between(said, [(0, 2), (6, 9)]) == {"a", "g"}
    assert between(said, [(3, 4)]) == set()
    assert between(said, []) == set()
