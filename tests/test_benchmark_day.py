"""The workload of a day: post times, pages of the service, and the delivery result."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.day_workload import (
    BURST,
    DEFAULT_PAGE,
    MAX_PAGE,
    REQUESTS_PER_BREAK,
    ModelService,
    delivery_result,
    make_post_times,
)

DAY = 86_400.0


def service(*post_times: float) -> ModelService:
    return ModelService(post_times, DAY)


def test_a_day_is_the_same_for_every_program_and_has_its_bursts() -> None:
    post_times = make_post_times(DAY, 7)
    assert post_times == make_post_times(DAY, 7) != make_post_times(DAY, 8)
    assert list(post_times) == sorted(post_times)
    assert post_times[0] > 0.0
    assert post_times[-1] < DAY - 60.0
    assert max(Counter(post_times).values()) == BURST > MAX_PAGE


def test_a_page_holds_the_messages_posted_so_far_after_an_id() -> None:
    chat = service(1.0, 2.0, 3.0, 4.0)
    assert list(chat.page(0.5, 0, None) or []) == []
    assert list(chat.page(2.0, 0, None) or []) == [1, 2]
    assert list(chat.page(9.0, 2, None) or []) == [3, 4]
    assert list(chat.page(9.0, 4, None) or []) == []
    assert chat.requests == 4


def test_a_page_holds_the_newest_that_fit() -> None:
    chat = service(*([1.0] * 1000))
    assert chat.page(2.0, 0, None) == range(1001 - MAX_PAGE, 1001)
    assert chat.page(2.0, 0, 5000) == range(1001 - MAX_PAGE, 1001)
    assert chat.page(2.0, 0, 10) == range(991, 1001)
    assert chat.page(2.0, None, None) == range(1001 - DEFAULT_PAGE, 1001)
    assert chat.page(2.0, 900, None) == range(901, 1001)


def test_connections_break_regularly_and_during_the_outage() -> None:
    chat = service(1.0)
    answers = [chat.page(2.0, 0, None) for _ in range(2 * REQUESTS_PER_BREAK)]
    assert answers.count(None) == 2
    assert chat.page(DAY / 2 + 1.0, 0, None) is None
    assert chat.page(DAY / 2 + 700.0, 0, None) is not None


def test_received_messages_are_delivered_and_the_others_are_lost() -> None:
    result = delivery_result([1.0, 2.0, 3.0], [[1.5, 2.5, 3.5], [2.0, -1.0, -1.0]], 4, [[], []])
    assert (result.of, result.delivered, result.lost, result.duplicated) == (6, 4, 2, 4)
    assert result.reported == 0
    assert result.delay == pytest.approx(0.5)


def test_a_lost_message_is_reported_if_it_is_in_a_gap_of_the_same_reader() -> None:
    post_times = [1.0] * 5
    received_at = [2.0, -1.0, -1.0, -1.0, 2.0]
    assert delivery_result(post_times, [received_at, received_at], 0, [[(1, 5)], []]).reported == 3
    assert delivery_result(post_times, [received_at], 0, [[(2, 4)]]).reported == 1
    assert delivery_result(post_times, [[2.0] * 5], 0, [[(0, 9)]]).reported == 0


def test_without_received_messages_the_delay_is_zero() -> None:
    assert delivery_result([1.0], [[-1.0]], 0, [[]]).delay == 0.0
