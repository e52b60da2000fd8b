"""The line of those who wait: whose turn it is, who leaves, and who has waited too long.

Nothing here takes time: deadlines are numbers. How a limiter serves its line: `test_limiter.py`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythpeer import RateLimitedError
from pythpeer.line import Priority, Waiter, WaitQueue

pytestmark = pytest.mark.anyio

WRITE, CALL, POLL = Priority.WRITE, Priority.CALL, Priority.POLL
CLASSES = {"w": WRITE, "c": CALL, "p": POLL}


def waiter(
    priority: Priority = CALL, deadline: float = math.inf, owner: object = None
) -> Waiter[str]:
    return Waiter(asyncio.get_running_loop().create_future(), priority, deadline, owner)


def stand(words: str) -> tuple[WaitQueue[str], list[Waiter[str]]]:
    """A line in which these came one after the other, each a letter for its class."""
    line, waiters = WaitQueue[str](), [waiter(CLASSES[letter]) for letter in words]
    for each in waiters:
        line.push(each)
    return line, waiters


def served(line: WaitQueue[str]) -> list[Waiter[str]]:
    """All of them, as they go."""
    return [line.pop() for _ in range(len(line))]


def letters(waiters: Sequence[Waiter[str]]) -> str:
    return "".join("wcp"[each.priority] for each in waiters)


# -- whose turn it is -----------------------------------------------------------------------------


async def test_within_a_class_it_is_first_come_first_served() -> None:
    """Whoever came first goes first."""
    line, waiters = stand("ccccc")
    assert served(line) == waiters
    assert not line


@pytest.mark.parametrize(
    ("came", "go"),
    [
        ("pcw", "wcp"),
        ("pcwpcw", "wwccpp"),
        ("c" + 8 * "w", "wwwwwcwww"),
        ("p" + 8 * "w", "wwwwwpwww"),
        ("pp" + 12 * "c", "cccccpcccccpcc"),
        ("pc" + 12 * "w", "wwwwwpcwwwwwww"),
    ],
)
async def test_whoever_was_overtaken_five_times_goes_next(came: str, go: str) -> None:
    """Writes before calls before polls; of several who lost their patience the last class first."""
    line, _ = stand(came)
    assert letters(served(line)) == go


@given(st.text("wcp", max_size=60))
async def test_everybody_goes_once_and_nobody_of_a_class_overtakes_another(came: str) -> None:
    """Whoever comes in whatever order."""
    line, waiters = stand(came)
    assert len(line) == len(came)
    assert bool(line) is bool(came)
    gone = served(line)
    for letter, priority in CLASSES.items():
        of_class = [each for each in gone if each.priority is priority]
        assert of_class == [each for each in waiters if each.priority is priority], letter
    assert not line


@pytest.mark.parametrize(
    ("came", "priority", "ahead"),
    [
        ("", CALL, 0),
        ("ccp", CALL, 2),
        ("ww", CALL, 2),
        (9 * "w", CALL, 5),
        (12 * "w" + "c", CALL, 11),
    ],
)
async def test_how_many_have_a_right_to_go_first(came: str, priority: Priority, ahead: int) -> None:
    """One's own class, and of the higher ones as many as can overtake it."""
    line, _ = stand(came)
    assert line.count_ahead(priority) == ahead


# -- who leaves -----------------------------------------------------------------------------------


async def test_whoever_leaves_is_not_served() -> None:
    """It can be told whether they were still there."""
    line, (first, second, third) = stand("ccc")
    assert line.discard(second)
    assert not line.discard(second)
    assert served(line) == [first, third]


async def test_all_of_one_owner_are_taken_out() -> None:
    """The others keep their order."""
    line, mine = WaitQueue[str](), object()
    waiters = [waiter(owner=mine if number % 2 else None) for number in range(6)]
    for each in waiters:
        line.push(each)
    assert line.drain_owner(mine) == waiters[1::2]
    assert line.drain_owner(mine) == []
    assert served(line) == waiters[::2]


async def test_everybody_is_taken_out() -> None:
    """By class, and then nobody is left."""
    line, waiters = stand("cpw")
    assert set(line.drain()) == set(waiters)
    assert not line


async def test_whoever_is_gone_is_not_told() -> None:
    """Those who wait in vain are told so, but for those who were told something before."""
    waits, left, has = waiter(), waiter(), waiter()
    left.future.cancel()
    has.future.set_result("a token")
    for each in (waits, left, has):
        each.fail(RateLimitedError("too long"))
    with pytest.raises(RateLimitedError, match="too long"):
        await waits.future
    assert left.future.cancelled()
    assert await has.future == "a token"


# -- who has waited too long ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("closed", "asking", "late", "next_deadline"),
    [
        (-math.inf, False, [1.0, 5.0], 6.0),
        (-math.inf, True, [], 6.0),
        (7.0, False, [1.0, 5.0, 6.0], 9.0),
        (7.0, True, [1.0, 5.0, 6.0], 9.0),
        (99.0, False, [1.0, 5.0, 6.0, 9.0], math.inf),
    ],
)
async def test_whoever_cannot_be_served_in_time_is_taken_out(
    closed: float, asking: bool, late: list[float], next_deadline: float
) -> None:
    """At 5: who has no time left, unless others are being asked, and who has none when it opens."""
    line = WaitQueue[str]()
    for deadline in (6.0, 1.0, 9.0, 5.0):
        line.push(waiter(deadline=deadline))
    found, soonest = line.pop_expired(5.0, closed, asking=asking)
    assert sorted(each.deadline for each in found) == late
    assert soonest == next_deadline
    assert [each.deadline for each in served(line)] == [
        deadline for deadline in (6.0, 1.0, 9.0, 5.0) if deadline not in late
    ]


async def test_where_all_are_as_patient_the_first_who_came_leave_first() -> None:
    """And the next deadline is that of the first who is left."""
    line = WaitQueue[str]()
    for deadline in range(9):
        line.push(waiter(deadline=float(deadline)))
    found, soonest = line.pop_expired(2.0, -math.inf, asking=False)
    assert [each.deadline for each in found] == [0.0, 1.0, 2.0]
    assert soonest == 3.0
