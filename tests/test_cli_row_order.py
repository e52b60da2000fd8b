"""The order of the rows of ``pythpeer demo``, and its dashboard in a narrower window."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from helpers import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, ConsoleDimensions

from pythpeer import ChatMessage
from pythpeer.cli.demo.dashboard import Dashboard
from pythpeer.cli.demo.row_order import HOLD_INTERVAL, RowOrder
from pythpeer.cli.output.colours import THEME_256
from pythpeer.testing import FakeServices


def message(id: int, second: int | None) -> ChatMessage:
    date = None if second is None else f"2026-01-01 08:00:{second:02}"
    return ChatMessage(id=id, sender="ann", text="hi", date=date)


def test_an_older_item_is_shown_before_a_newer_one_that_is_held() -> None:
    """Each is shown `HOLD_INTERVAL` seconds after its arrival, or together with a newer one."""
    order = RowOrder()
    assert order.next_due is None
    order.add(10.0, message(1, 17))
    order.add(10.5, message(2, 16))
    order.add(10.6, message(3, 17))
    assert order.next_due == 10.0 + HOLD_INTERVAL
    assert order.pop_due(10.0) == []
    assert [item.id for item in order.pop_due(10.0 + HOLD_INTERVAL)] == [2, 1]
    assert [item.id for item in order.pop_due(10.6 + HOLD_INTERVAL)] == [3]
    assert order.next_due is None


arrivals = st.lists(st.tuples(st.floats(0.0, 2.0), st.none() | st.integers(0, 59)), max_size=12)


@given(arrivals)
@settings(max_examples=examples(100))
def test_nothing_is_lost_or_held_for_too_long(steps: list[tuple[float, int | None]]) -> None:
    """Every item is returned once and in time; items of equal times keep their order."""
    order, now, shown = RowOrder(), 0.0, list[ChatMessage]()
    arrived: dict[int, float] = {}
    for id, (delay, second) in enumerate(steps):
        now += delay
        for item in order.pop_due(now):
            assert isinstance(item, ChatMessage)
            shown.append(item)
        order.add(now, message(id, second))
        arrived[id] = now
        assert all(
            now - HOLD_INTERVAL < at
            for one, at in arrived.items()
            if one not in {m.id for m in shown}
        )
    shown += [item for item in order.pop_due(now + HOLD_INTERVAL) if isinstance(item, ChatMessage)]
    assert sorted(item.id for item in shown) == list(range(len(steps)))
    for before, after in pairwise(shown):
        if before.date == after.date:
            assert before.id < after.id


@pytest.mark.anyio
async def test_a_dashboard_is_erased_whole_in_a_narrower_window() -> None:
    """The terminal has wrapped five lines of it, which rich would leave there."""
    console = Console(file=io.StringIO(), force_terminal=True, theme=THEME_256)
    console.size = ConsoleDimensions(100, 30)
    async with FakeServices() as fake, fake.session() as session:
        with Dashboard(console, session, fake, lambda: "x" * 50) as board:
            assert isinstance(console.file, io.StringIO)
            for columns, rows in ((100, 0), (60, 5), (60, 0), (80, 0)):
                console.file.truncate(0)
                console.file.seek(0)
                console.size = ConsoleDimensions(columns, 30)
                board.adapt()
                assert console.file.getvalue().count("\x1b[2K\x1b[1A") == rows
