"""A limiter that shares its tokens with other processes, through a pacing backend of the test."""

from __future__ import annotations

import asyncio
from collections import deque

import anyio
import pytest
from helpers import now

from pythpeer import MemoryStore, Rate, RateLimitedError, SessionClosedError, StoreError
from pythpeer.hooks import RequestEvent
from pythpeer.pacing.backend import Grant
from pythpeer.pacing.limiter import Limiter, Permit, TokenExpiredError
from pythpeer.pacing.queue import Priority
from pythpeer.pacing.shared import TOKEN_TTL
from pythpeer.testing import FakeServices

pytestmark = pytest.mark.anyio


class FakePacingBackend:
    """Returns the grants that it was given, then grants every token; records how it is called."""

    def __init__(self, *grants: float | Exception, latency: float = 0.0) -> None:
        self.grants = deque(grants)
        self.latency = latency
        self.reported: list[object] = []
        self.asked = 0
        self.paused = 0.0
        self.held = True

    async def acquire(self) -> Grant:
        self.asked += 1
        try:
            await asyncio.sleep(self.latency)
        except asyncio.CancelledError:
            self.reported.append("cancelled")
            raise
        grant = self.grants.popleft() if self.grants else 0.0
        if isinstance(grant, Exception):
            raise grant
        return Grant(grant, 0 if grant else self.asked, self.paused if grant else 0.0)

    def is_held(self, ticket: int) -> bool:
        return self.held

    def written(self, ticket: int, guard: float) -> None:
        self.reported.append(("written", ticket, guard))

    def answered(self, ticket: int) -> None:
        self.reported.append(("answered", ticket))

    def release(self, ticket: int) -> None:
        self.reported.append(("release", ticket))

    def leave_queue(self) -> None:
        self.reported.append("leave queue")

    def pause(self, seconds: float) -> None:
        self.reported.append(("pause", seconds))


def use(permit: Permit) -> None:
    permit.on_written()
    permit.on_answered(200)
    permit.close()


async def test_a_token_must_be_granted_by_the_backend_too() -> None:
    """The backend receives the outcome of the token."""
    backend = FakePacingBackend()
    limiter = Limiter("x", Rate(1.0), backend)
    use(await limiter.acquire(Priority.CALL))
    assert backend.reported == [("written", 1, 0.05), ("answered", 1)]
    (await limiter.acquire(Priority.CALL)).close()
    assert backend.reported[2:] == [("release", 2)]
    assert now() == pytest.approx(1.0)


@pytest.mark.parametrize(("seconds", "reported"), [(0.049, True), (0.05, False), (3.0, False)])
async def test_an_answer_that_changes_nothing_is_not_reported(
    seconds: float, reported: bool
) -> None:
    """When the guard is over, the next token depends on the writing, not on the response."""
    backend = FakePacingBackend()
    limiter = Limiter("x", Rate(1.0, guard=0.05), backend)
    permit = await limiter.acquire(Priority.CALL)
    permit.on_written()
    await asyncio.sleep(seconds)
    permit.on_answered(200)
    permit.close()
    assert (("answered", 1) in backend.reported) is reported


async def test_it_asks_again_after_the_time_of_the_grant() -> None:
    """Not earlier, and not without a token of its own."""
    backend = FakePacingBackend(3.0, 0.5)
    limiter = Limiter("x", Rate(1.0), backend)
    use(await limiter.acquire(Priority.CALL))
    assert now() == pytest.approx(3.5)
    assert backend.asked == 3
    use(await limiter.acquire(Priority.CALL))
    assert now() == pytest.approx(4.5)
    assert backend.asked == 4


async def test_the_first_waiter_receives_the_grant_when_it_arrives() -> None:
    """A post goes before a poll that came earlier, also at the backend."""
    backend = FakePacingBackend(2.0)
    limiter = Limiter("x", Rate(1.0), backend)
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
    """No task, no token and no position in the queue, at any iteration of the event loop."""
    backend = FakePacingBackend(latency=latency)
    limiter = Limiter("x", Rate(1.0), backend)
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
    taken = backend.asked - backend.reported.count("cancelled")
    returned = [call for call in backend.reported if call == ("release", backend.asked)]
    assert len(returned) == (
        taken if backend.asked and ("cancelled" not in backend.reported) else 0
    )
    async with asyncio.timeout(5):
        use(await limiter.acquire(Priority.CALL))


async def test_the_last_waiter_that_leaves_gives_the_position_up() -> None:
    """And only the last one."""
    backend = FakePacingBackend(100.0)
    limiter = Limiter("x", Rate(1.0), backend)
    first, second = (asyncio.ensure_future(limiter.acquire(Priority.CALL)) for _ in range(2))
    await asyncio.sleep(1.0)
    first.cancel()
    await asyncio.sleep(0.1)
    assert backend.reported == []
    second.cancel()
    await asyncio.wait([first, second])
    assert backend.reported == ["leave queue"]


async def test_a_wait_that_is_known_to_be_too_long_fails_immediately() -> None:
    """For waiters in the queue, and for later callers."""
    limiter = Limiter("x", Rate(1.0), FakePacingBackend(50.0))
    poll = asyncio.ensure_future(limiter.acquire(Priority.POLL))  # waits however long it takes
    for _ in range(2):
        with pytest.raises(RateLimitedError) as caught:
            await limiter.acquire(Priority.CALL, 10.0)
        assert caught.value.retry_after == pytest.approx(50.0, abs=0.1)
    assert now() == pytest.approx(0.0, abs=0.1)
    assert not poll.done()
    poll.cancel()


async def test_a_caller_that_accepts_no_wait_still_receives_a_grant() -> None:
    """A ``max_wait`` of 0 does not fail where there is a token."""
    limiter = Limiter("x", Rate(1.0), FakePacingBackend(latency=0.3))
    use(await limiter.acquire(Priority.CALL, 0.0))
    with pytest.raises(RateLimitedError):
        await limiter.acquire(Priority.CALL, 0.0)


async def test_a_store_that_fails_fails_all_waiters() -> None:
    """And is asked again for the next one."""
    backend = FakePacingBackend(StoreError("broken"), latency=0.5)
    limiter = Limiter("x", Rate(1.0), backend)
    waits = [limiter.acquire(priority) for priority in (Priority.CALL, Priority.POLL)]
    errors = await asyncio.gather(*waits, return_exceptions=True)
    assert [str(error) for error in errors] == ["broken"] * 2
    assert errors[0] is not errors[1]
    use(await limiter.acquire(Priority.CALL))


async def test_a_pause_is_shared_in_both_directions() -> None:
    """The backend receives a pause, and the limiter receives that of another process."""
    backend = FakePacingBackend(5.0)
    backend.paused = 5.0
    limiter = Limiter("x", Rate(1.0), backend)
    permit = await limiter.acquire(Priority.CALL)
    permit.close()
    limiter.pause(7.0)
    assert ("pause", 7.0) in backend.reported
    assert limiter.paused_for == pytest.approx(7.0)


async def test_other_processes_wait_for_the_second_request_of_a_read() -> None:
    """It has no token of its own: the backend is paused until the next one is due."""
    backend = FakePacingBackend()
    limiter = Limiter("x", Rate(1.0, guard=0.25), backend)
    permit = await limiter.acquire(Priority.CALL)
    permit.on_written()
    await asyncio.sleep(0.5)
    assert permit.postpone() == pytest.approx(0.75)
    assert backend.reported[1:] == [("pause", pytest.approx(0.75 + 0.25 + 1.0))]


async def test_a_token_that_cannot_be_used_is_released() -> None:
    """Where a pause was set while the backend was being asked."""
    backend = FakePacingBackend(latency=1.0)
    limiter = Limiter("x", Rate(1.0), backend)
    waiting = asyncio.ensure_future(limiter.acquire(Priority.CALL))
    await asyncio.sleep(0.5)
    limiter.pause(10.0)
    await asyncio.sleep(1.0)
    assert ("release", 1) in backend.reported
    use(await waiting)
    assert now() == pytest.approx(11.5)


async def test_closing_a_session_fails_its_waiters_and_releases_their_token() -> None:
    """The token that they asked for is released."""
    backend = FakePacingBackend(latency=1.0)
    limiter = Limiter("x", Rate(1.0), backend)
    before, owner = asyncio.all_tasks(), object()
    waiting = asyncio.ensure_future(limiter.acquire(Priority.CALL, 100.0, owner))
    await asyncio.sleep(0.5)
    limiter.fail_waiters(owner)
    with pytest.raises(SessionClosedError):
        await waiting
    assert asyncio.all_tasks() == before
    assert backend.reported == ["cancelled"]


def test_another_loop_starts_with_a_new_request_to_the_backend() -> None:
    """A limiter outlives the event loop in which it was asking."""
    backend = FakePacingBackend(100.0)
    limiter = Limiter("x", Rate(1.0), backend)

    async def abandon() -> None:
        task = asyncio.ensure_future(limiter.acquire(Priority.POLL))
        await asyncio.sleep(0.01)
        task.cancel()

    async def use_it() -> None:
        use(await limiter.acquire(Priority.CALL))

    asyncio.run(abandon())
    asyncio.run(use_it())
    assert backend.asked == 2


@pytest.mark.parametrize("error", [TypeError("x"), ValueError("x"), MemoryError()])
async def test_any_error_of_a_backend_ends_the_waiting(error: Exception) -> None:
    """As a `StoreError`, in every caller. The next caller asks the backend again."""
    backend = FakePacingBackend(error, latency=0.1)
    limiter = Limiter("x", Rate(1.0), backend)
    waiting = [asyncio.ensure_future(limiter.acquire(Priority.CALL, 5.0)) for _ in range(3)]
    for waiter in waiting:
        with pytest.raises(StoreError, match=f"failed with {type(error).__name__}") as caught:
            await waiter
        assert caught.value.endpoint == "x"
        assert not caught.value.transient
    assert now() == pytest.approx(0.1)
    use(await limiter.acquire(Priority.CALL, 5.0))
    assert backend.asked == 2


async def test_a_grant_that_is_none_ends_the_waiting() -> None:
    """An error within the limiter is not different."""

    class NoGrant(FakePacingBackend):
        async def acquire(self) -> Grant:
            return None  # type: ignore[return-value]

    with pytest.raises(StoreError, match="failed with AttributeError"):
        await Limiter("x", Rate(1.0), NoGrant()).acquire(Priority.CALL)


async def test_cancelling_all_tasks_lets_no_caller_wait() -> None:
    """Also the task that asks the backend; a caller that shields itself gets an error."""
    backend = FakePacingBackend(latency=1.0)
    limiter = Limiter("x", Rate(1.0), backend)
    waiter = asyncio.ensure_future(limiter.acquire(Priority.CALL))
    await asyncio.sleep(0.5)
    assert limiter._backend_task is not None
    limiter._backend_task.cancel()
    with pytest.raises(StoreError, match="was interrupted"):
        await waiter
    use(await limiter.acquire(Priority.CALL))


async def test_a_token_that_has_expired_is_not_used() -> None:
    """It is released, and the permit gets a new one, before callers that wait already."""
    backend = FakePacingBackend()
    limiter = Limiter("x", Rate(1.0), backend)
    permit = await limiter.acquire(Priority.POLL)
    waiting = asyncio.ensure_future(limiter.acquire(Priority.CALL))
    await asyncio.sleep(0.1)
    backend.held = False
    with pytest.raises(TokenExpiredError):
        permit.on_written()
    assert not permit.written
    backend.held = True
    await permit.renew(5.0, None)
    use(permit)
    assert backend.reported == [("release", 1), ("written", 2, 0.05), ("answered", 2)]
    use(await waiting)
    assert limiter.outstanding == 0


async def test_a_token_expires_at_its_time_limit() -> None:
    """Even if the backend still takes this process for alive."""
    limiter = Limiter("x", Rate(1.0), FakePacingBackend())
    permit = await limiter.acquire(Priority.CALL)
    await asyncio.sleep(TOKEN_TTL)
    with pytest.raises(TokenExpiredError):
        permit.on_written()
    permit.close()
    assert limiter.outstanding == 0


async def test_a_permit_that_gets_no_new_token_is_closed() -> None:
    """Its caller receives the error."""
    backend = FakePacingBackend(0.0, 60.0)
    limiter = Limiter("x", Rate(1.0), backend)
    permit = await limiter.acquire(Priority.CALL)
    with pytest.raises(RateLimitedError):
        await permit.renew(1.0, None)
    permit.close()
    assert limiter.outstanding == 0


class PacedStore(MemoryStore):
    """A store whose limiters share their tokens through a backend of the test."""

    def __init__(self, backend: FakePacingBackend) -> None:
        super().__init__()
        self.backend = backend

    def make_limiter(self, key: str, name: str, rate: Rate) -> Limiter:
        return Limiter(name, rate, self.backend)


@pytest.mark.parametrize("write", [False, True], ids=["a read", "a write"])
async def test_a_call_whose_token_has_expired_asks_for_another(write: bool) -> None:
    """The service receives one request, with the second token."""
    backend = FakePacingBackend()
    async with FakeServices() as fake:

        def expire(event: RequestEvent) -> None:
            backend.held = False
            asyncio.get_running_loop().call_later(0.5, setattr, backend, "held", True)

        backend.latency = 1.0
        async with fake.session(store=PacedStore(backend), on_request=expire) as session:
            if write:
                await session.peerbet.post("hello")
            else:
                await session.pythbots.user("tiro")
            assert len(fake.requests) == 1
            assert fake.violations == []
    assert backend.asked == 2
    assert [event[:2] for event in backend.reported if isinstance(event, tuple)] == [
        ("release", 1),
        ("written", 2),
        ("answered", 2),
    ]
