"""A limiter that shares its tokens with other processes, at a gate that a test opens and closes."""

from __future__ import annotations

import asyncio
from collections import deque

import anyio
import pytest
from helpers import now

from pythpeer import Rate, RateLimitedError, SessionClosedError, StoreError
from pythpeer.limiter import Grant, Limiter, Permit
from pythpeer.line import Priority

pytestmark = pytest.mark.anyio


class ScriptedGate:
    """Says what it was told to say, and after that yes; remembers what it was told itself."""

    def __init__(self, *turns: float | Exception, latency: float = 0.0) -> None:
        self.turns = deque(turns)
        self.latency = latency
        self.told: list[object] = []
        self.asked = 0
        self.paused = 0.0

    async def acquire(self) -> Grant:
        self.asked += 1
        try:
            await asyncio.sleep(self.latency)
        except asyncio.CancelledError:
            self.told.append("cancelled")
            raise
        turn = self.turns.popleft() if self.turns else 0.0
        if isinstance(turn, Exception):
            raise turn
        return Grant(turn, 0 if turn else self.asked, self.paused if turn else 0.0)

    def written(self, ticket: int, guard: float) -> None:
        self.told.append(("written", ticket, guard))

    def answered(self, ticket: int) -> None:
        self.told.append(("answered", ticket))

    def release(self, ticket: int) -> None:
        self.told.append(("give back", ticket))

    def leave_queue(self) -> None:
        self.told.append("leave")

    def pause(self, seconds: float) -> None:
        self.told.append(("pause", seconds))


def use(permit: Permit) -> None:
    permit.on_written()
    permit.on_answered(200)
    permit.close()


async def test_a_token_is_had_from_the_others_too() -> None:
    """They hear what becomes of it."""
    gate = ScriptedGate()
    limiter = Limiter("x", Rate(1.0), gate)
    use(await limiter.acquire(Priority.CALL))
    assert gate.told == [("written", 1, 0.05), ("answered", 1)]
    (await limiter.acquire(Priority.CALL)).close()
    assert gate.told[2:] == [("give back", 2)]
    assert now() == pytest.approx(1.0)


@pytest.mark.parametrize(("seconds", "told"), [(0.049, True), (0.05, False), (3.0, False)])
async def test_an_answer_that_changes_nothing_is_not_told(seconds: float, told: bool) -> None:
    """Once the guard is over the next token is due by the writing, whenever the answer comes."""
    gate = ScriptedGate()
    limiter = Limiter("x", Rate(1.0, guard=0.05), gate)
    permit = await limiter.acquire(Priority.CALL)
    permit.on_written()
    await asyncio.sleep(seconds)
    permit.on_answered(200)
    permit.close()
    assert (("answered", 1) in gate.told) is told


async def test_it_asks_again_when_it_was_told_to() -> None:
    """Not before, and not without a token of its own."""
    gate = ScriptedGate(3.0, 0.5)
    limiter = Limiter("x", Rate(1.0), gate)
    use(await limiter.acquire(Priority.CALL))
    assert now() == pytest.approx(3.5)
    assert gate.asked == 3
    use(await limiter.acquire(Priority.CALL))
    assert now() == pytest.approx(4.5)
    assert gate.asked == 4


async def test_whoever_is_first_when_the_turn_comes_has_it() -> None:
    """A post goes before a poll that came earlier, also at the others' gate."""
    gate = ScriptedGate(2.0)
    limiter = Limiter("x", Rate(1.0), gate)
    poll = asyncio.ensure_future(limiter.acquire(Priority.POLL))
    await asyncio.sleep(1.0)
    post = asyncio.ensure_future(limiter.acquire(Priority.WRITE))
    await asyncio.wait([poll, post], return_when=asyncio.FIRST_COMPLETED)
    assert post.done()
    assert not poll.done()
    use(post.result())
    use(await poll)


@pytest.mark.parametrize("latency", [0.0, 1.0])
@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("how", ["task", "scope"])
async def test_cancelling_leaves_nothing_behind(latency: float, turns: int, how: str) -> None:
    """No task, no token, no place in the line, at whichever turn of the loop it comes."""
    gate = ScriptedGate(latency=latency)
    limiter = Limiter("x", Rate(1.0), gate)
    before = asyncio.all_tasks()
    got: list[Permit] = []

    async def wait() -> None:
        got.append(await limiter.acquire(Priority.CALL))

    scope = anyio.CancelScope()

    async def waiter() -> None:
        with scope:
            await wait()

    task = asyncio.ensure_future(waiter())
    for _ in range(turns):
        await asyncio.sleep(0)
    if how == "task":
        task.cancel()
    else:
        scope.cancel()
    await asyncio.wait([task])
    assert asyncio.all_tasks() == before
    assert limiter.waiting == 0
    for permit in got:
        permit.close()
    taken = gate.asked - gate.told.count("cancelled")
    returned = [told for told in gate.told if told == ("give back", gate.asked)]
    assert len(returned) == (taken if gate.asked and ("cancelled" not in gate.told) else 0)
    async with asyncio.timeout(5):
        use(await limiter.acquire(Priority.CALL))


async def test_the_last_one_who_leaves_gives_the_place_up() -> None:
    """And only the last one."""
    gate = ScriptedGate(100.0)
    limiter = Limiter("x", Rate(1.0), gate)
    first, second = (asyncio.ensure_future(limiter.acquire(Priority.CALL)) for _ in range(2))
    await asyncio.sleep(1.0)
    first.cancel()
    await asyncio.sleep(0.1)
    assert gate.told == []
    second.cancel()
    await asyncio.wait([first, second])
    assert gate.told == ["leave"]


async def test_a_wait_that_is_known_to_be_too_long_fails_at_once() -> None:
    """For those who are there, and for those who come later."""
    limiter = Limiter("x", Rate(1.0), ScriptedGate(50.0))
    poll = asyncio.ensure_future(limiter.acquire(Priority.POLL))  # waits however long it takes
    for _ in range(2):
        with pytest.raises(RateLimitedError) as caught:
            await limiter.acquire(Priority.CALL, 10.0)
        assert caught.value.retry_after == pytest.approx(50.0, abs=0.1)
    assert now() == pytest.approx(0.0, abs=0.1)
    assert not poll.done()
    poll.cancel()


async def test_whoever_will_not_wait_still_hears_the_answer() -> None:
    """``max_wait`` of 0 is no refusal where there is a token."""
    limiter = Limiter("x", Rate(1.0), ScriptedGate(latency=0.3))
    use(await limiter.acquire(Priority.CALL, 0.0))
    with pytest.raises(RateLimitedError):
        await limiter.acquire(Priority.CALL, 0.0)


async def test_a_store_that_fails_is_said_to_all_who_wait() -> None:
    """And asked again by the next one."""
    gate = ScriptedGate(StoreError("broken"), latency=0.5)
    limiter = Limiter("x", Rate(1.0), gate)
    waits = [limiter.acquire(priority) for priority in (Priority.CALL, Priority.POLL)]
    found = await asyncio.gather(*waits, return_exceptions=True)
    assert [str(each) for each in found] == ["broken"] * 2
    assert found[0] is not found[1]
    use(await limiter.acquire(Priority.CALL))


async def test_a_pause_goes_both_ways() -> None:
    """The others hear of ours, we of theirs."""
    gate = ScriptedGate(5.0)
    gate.paused = 5.0
    limiter = Limiter("x", Rate(1.0), gate)
    permit = await limiter.acquire(Priority.CALL)
    permit.close()
    limiter.pause(7.0)
    assert ("pause", 7.0) in gate.told
    assert limiter.paused_for == pytest.approx(7.0)


async def test_a_token_that_cannot_be_used_is_given_back() -> None:
    """Where a pause came while it was being asked for."""
    gate = ScriptedGate(latency=1.0)
    limiter = Limiter("x", Rate(1.0), gate)
    waiting = asyncio.ensure_future(limiter.acquire(Priority.CALL))
    await asyncio.sleep(0.5)
    limiter.pause(10.0)
    await asyncio.sleep(1.0)
    assert ("give back", 1) in gate.told
    use(await waiting)
    assert now() == pytest.approx(11.5)


async def test_closing_a_session_sends_those_who_ask_away() -> None:
    """What they were asking for goes back."""
    gate = ScriptedGate(latency=1.0)
    limiter = Limiter("x", Rate(1.0), gate)
    before, owner = asyncio.all_tasks(), object()
    waiting = asyncio.ensure_future(limiter.acquire(Priority.CALL, 100.0, owner))
    await asyncio.sleep(0.5)
    limiter.fail_waiters(owner)
    with pytest.raises(SessionClosedError):
        await waiting
    assert asyncio.all_tasks() == before
    assert gate.told == ["cancelled"]


def test_another_loop_starts_afresh() -> None:
    """A limiter outlives the loop in which it was asking."""
    gate = ScriptedGate(100.0)
    limiter = Limiter("x", Rate(1.0), gate)

    async def abandon() -> None:
        task = asyncio.ensure_future(limiter.acquire(Priority.POLL))
        await asyncio.sleep(0.01)
        task.cancel()

    async def use_it() -> None:
        use(await limiter.acquire(Priority.CALL))

    asyncio.run(abandon())
    asyncio.run(use_it())
    assert gate.asked == 2
