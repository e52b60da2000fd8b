"""Which texts count as lost, as duplicated and as reported."""

from __future__ import annotations

import pytest

from benchmarks.closed_connections import closed_connections
from benchmarks.loss_count import LossCount, count_losses, within_gaps

POSTED = ["a", "b", "c", "d"]


def test_texts_received_once_in_any_order_are_neither_lost_nor_duplicated() -> None:
    assert count_losses(POSTED, ["d", "a", "c", "b"]) == LossCount(
        4, lost=0, duplicated=0, reported=0
    )


def test_a_text_that_is_never_received_is_lost() -> None:
    assert count_losses(POSTED, ["a", "d"]) == LossCount(4, lost=2, duplicated=0, reported=0)
    assert count_losses(POSTED, []).lost == 4


def test_each_reception_after_the_first_is_a_duplicate() -> None:
    assert count_losses(POSTED, ["a", "a", "a", "b", "c", "d", "d"]).duplicated == 3


def test_a_duplicate_does_not_compensate_for_a_lost_text() -> None:
    assert count_losses(POSTED, ["a", "a", "b", "c"]) == LossCount(
        4, lost=1, duplicated=1, reported=0
    )


def test_a_lost_text_is_reported_if_the_program_reported_it() -> None:
    counts = count_losses(POSTED, ["a"], reported={"b", "c"})
    assert (counts.lost, counts.reported, counts.unreported) == (3, 2, 1)


def test_each_duplicate_of_a_reported_text_is_reported() -> None:
    counts = count_losses(POSTED, ["a", "a", "a", "b", "b", "c", "d"], reported={"a"})
    assert (counts.duplicated, counts.reported, counts.unreported) == (3, 2, 1)


def test_a_report_of_a_text_received_once_does_not_count() -> None:
    assert count_losses(POSTED, POSTED, reported=POSTED) == LossCount(
        4, lost=0, duplicated=0, reported=0
    )


def test_texts_that_were_not_posted_or_posted_twice_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="'e' was never posted"):
        count_losses(POSTED, ["a", "e"])
    with pytest.raises(RuntimeError, match="twice"):
        count_losses(["a", "a"], ["a"])


def test_a_gap_lies_between_its_ends() -> None:
    posted = list(enumerate("abcdefg", 1))
    assert within_gaps(posted, [(2, 5)]) == {"c", "d"}
    assert within_gaps(posted, [(0, 2), (6, 9)]) == {"a", "g"}
    assert within_gaps(posted, [(3, 4)]) == set()
    assert within_gaps(posted, []) == set()


def test_connections_that_close_under_a_poll_are_noticed() -> None:
    """In the benchmark, and by pythpeer, which loses no poll and sends none too early."""
    table = closed_connections(quick=True)
    program, failed, early = (
        table.header.index(column) for column in ("program", "failed", "too early")
    )
    counts = {row[program]: (row[failed], row[early]) for row in table.rows}
    assert counts["pythpeer"] == (0, 0)
    assert counts["asyncio streams + msgspec"] == (25, 0)
    assert counts["aiohttp + msgspec"] == (0, 21)
