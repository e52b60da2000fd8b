"""Wait queue: the order of service, cancellation, and waiters that expire.

Nothing here takes time: deadlines are numbers. How a limiter serves its queue: `test_limiter.py`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythpeer import RateLimitedError
from pythpeer.pacing.queue import Priority, Waiter, WaitQueue

pytestmark = pytest.mark.anyio

WRITE, CALL, POLL = Priority.WRITE, Priority.CALL, Priority.POLL
CLASSES = {"w": WRITE, "c": CALL, "p": POLL}


def waiter(
    priority: Priority = CALL, deadline: float = math.inf, owner: object = None
) -> Waiter[str]:
    return Waiter(asyncio.get_running_loop().create_future(), priority, deadline, owner)


def queue_of(words: str) -> tuple[WaitQueue[str], list[Waiter[str]]]:
    """Return a queue with one waiter for each letter, which names its class, in this order."""
    queue, waiters = WaitQueue[str](), [waiter(CLASSES[letter]) for letter in words]
    for entry in waiters:
        queue.push(entry)
    return queue, waiters


def drain(queue: WaitQueue[str]) -> list[Waiter[str]]:
    """Serve all waiters, and return them in that order."""
    return [queue.pop() for _ in range(len(queue))]


def class_letters(waiters: Sequence[Waiter[str]]) -> str:
    return "".join("wcp"[entry.priority] for entry in waiters)


# -- the order of service -------------------------------------------------------------------------


async def test_within_a_class_it_is_first_come_first_served() -> None:
    """The first in its class is the first out."""
    queue, waiters = queue_of("ccccc")
    assert drain(queue) == waiters
    assert not queue


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
async def test_a_class_overtaken_five_times_goes_next(came: str, go: str) -> None:
    """Writes before calls before polls; of several overtaken classes the last one first."""
    queue, _ = queue_of(came)
    assert class_letters(drain(queue)) == go


@given(st.text("wcp", max_size=60))
async def test_every_waiter_is_served_once_and_in_the_order_of_its_class(came: str) -> None:
    """In whatever order waiters of different classes arrive."""
    queue, waiters = queue_of(came)
    assert len(queue) == len(came)
    assert bool(queue) is bool(came)
    gone = drain(queue)
    for letter, priority in CLASSES.items():
        of_class = [entry for entry in gone if entry.priority is priority]
        assert of_class == [entry for entry in waiters if entry.priority is priority], letter
    assert not queue


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
async def test_count_ahead_is_an_upper_bound(came: str, priority: Priority, ahead: int) -> None:
    """Its own class, and of the higher ones as many as can overtake it."""
    queue, _ = queue_of(came)
    assert queue.count_ahead(priority) == ahead


# -- removing waiters -----------------------------------------------------------------------------


async def test_a_discarded_waiter_is_not_served() -> None:
    """The result says whether it was still in the queue."""
    queue, (first, second, third) = queue_of("ccc")
    assert queue.discard(second)
    assert not queue.discard(second)
    assert drain(queue) == [first, third]


async def test_all_waiters_of_one_owner_are_removed() -> None:
    """The others keep their order."""
    queue, owner = WaitQueue[str](), object()
    waiters = [waiter(owner=owner if number % 2 else None) for number in range(6)]
    for entry in waiters:
        queue.push(entry)
    assert queue.drain_owner(owner) == waiters[1::2]
    assert queue.drain_owner(owner) == []
    assert drain(queue) == waiters[::2]


async def test_all_waiters_are_removed() -> None:
    """By class, and then the queue is empty."""
    queue, waiters = queue_of("cpw")
    assert set(queue.drain()) == set(waiters)
    assert not queue


async def test_a_waiter_that_has_ended_receives_no_error() -> None:
    """`Waiter.fail` sets the error, except where there is a result or a cancellation already."""
    waiting, cancelled, served = waiter(), waiter(), waiter()
    cancelled.future.cancel()
    served.future.set_result("a token")
    for entry in (waiting, cancelled, served):
        entry.fail(RateLimitedError("too long"))
    with pytest.raises(RateLimitedError, match="too long"):
        await waiting.future
    assert cancelled.future.cancelled()
    assert await served.future == "a token"


# -- expired waiters ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocked_until", "asking", "late", "next_deadline"),
    [
        (-math.inf, False, [1.0, 5.0], 6.0),
        (-math.inf, True, [], 6.0),
        (7.0, False, [1.0, 5.0, 6.0], 9.0),
        (7.0, True, [1.0, 5.0, 6.0], 9.0),
        (99.0, False, [1.0, 5.0, 6.0, 9.0], math.inf),
    ],
)
async def test_a_waiter_that_cannot_be_served_in_time_is_removed(
    blocked_until: float, asking: bool, late: list[float], next_deadline: float
) -> None:
    """At 5: the expired unless the backend is asked, and those that expire before it opens."""
    queue = WaitQueue[str]()
    for deadline in (6.0, 1.0, 9.0, 5.0):
        queue.push(waiter(deadline=deadline))
    expired, found_deadline = queue.pop_expired(5.0, blocked_until, asking=asking)
    assert sorted(entry.deadline for entry in expired) == late
    assert found_deadline == next_deadline
    assert [entry.deadline for entry in drain(queue)] == [
        deadline for deadline in (6.0, 1.0, 9.0, 5.0) if deadline not in late
    ]


async def test_with_equal_max_wait_the_first_waiters_expire_first() -> None:
    """The next deadline is that of the first waiter that is left."""
    queue = WaitQueue[str]()
    for deadline in range(9):
        queue.push(waiter(deadline=float(deadline)))
    expired, found_deadline = queue.pop_expired(2.0, -math.inf, asking=False)
    assert [entry.deadline for entry in expired] == [0.0, 1.0, 2.0]
    assert found_deadline == 3.0
