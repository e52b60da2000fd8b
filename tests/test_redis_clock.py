"""The clock of a Redis server is set while programs use it, on virtual time."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable

import pytest
from helpers import now
from redis_virtual import VirtualRedisStore
from stores import open_store
from test_redis_store import CHAT, MAIL, new_items, new_mails, read_ids

from pythpeer import Rate
from pythpeer.pacing.limiter import Limiter
from pythpeer.pacing.queue import Priority
from pythpeer.stores import RedisStore
from pythpeer.stores.redis.heartbeat import SESSION_TIMEOUT

pytestmark = pytest.mark.anyio

STEPS = pytest.mark.parametrize("step", [-3600.0, -10.0, 10.0, 3600.0])


async def use_once(limiter: Limiter, times: list[float]) -> None:
    permit = await limiter.acquire(Priority.CALL)
    times.append(now())
    permit.on_written()
    permit.on_answered(200)
    permit.close()


async def use(limiter: Limiter, times: list[float], until: float) -> None:
    while now() < until:
        await use_once(limiter, times)


@STEPS
async def test_pacing_continues_within_two_intervals(
    virtual_server: VirtualRedisStore, redis_program: Callable[[], RedisStore], step: float
) -> None:
    """And no interval is short, although two programs share the tokens."""
    stores = [await open_store(redis_program()) for _ in range(2)]
    limiters = [store.limiter("k", "x", Rate(1.0)) for store in stores]
    times: list[float] = []
    tasks = [asyncio.ensure_future(use(limiter, times, 30.0)) for limiter in limiters]
    await asyncio.sleep(10.3)
    virtual_server.step = step
    await asyncio.sleep(10.0)
    virtual_server.step = 0.0
    await asyncio.gather(*tasks)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert min(gaps) >= 1.0 - 1e-3
    assert max(gaps) < 3.0 + 0.2
    assert len(times) > 20


@STEPS
async def test_a_token_is_not_early_after_a_step(
    virtual_server: VirtualRedisStore, redis_program: Callable[[], RedisStore], step: float
) -> None:
    """A program that asks immediately after the step gets none before the interval is over."""
    stores = [await open_store(redis_program()) for _ in range(2)]
    first, second = (store.limiter("k", "x", Rate(1.0)) for store in stores)
    times: list[float] = []
    await use_once(second, times)
    await use_once(first, times)
    await asyncio.sleep(0.01)  # the server has what happened
    virtual_server.step = step
    await use_once(second, times)
    assert len(times) == 3
    assert 1.0 - 1e-3 <= times[2] - times[1] <= 2.2


@STEPS
async def test_a_step_is_logged_once(
    virtual_server: VirtualRedisStore,
    redis_program: Callable[[], RedisStore],
    step: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With its direction and its size."""
    caplog.set_level(logging.WARNING)
    limiter = (await open_store(redis_program())).limiter("k", "x", Rate(1.0))
    times: list[float] = []
    task = asyncio.ensure_future(use(limiter, times, 20.0))
    await asyncio.sleep(10.3)
    assert caplog.records == []
    virtual_server.step = step
    await task
    (record,) = caplog.records
    direction = "forward" if step > 0 else "back"
    assert f"was set {direction} by {abs(step):.1f} s" in record.getMessage()


@STEPS
async def test_no_owner_dies_by_a_step(
    virtual_server: VirtualRedisStore, redis_program: Callable[[], RedisStore], step: float
) -> None:
    """A reader keeps its pending items, a leader its lease; both die later if they should."""
    one, other = await open_store(redis_program()), await open_store(redis_program())
    log, others_log = one.log(CHAT), other.log(CHAT)
    reader, others = log.reader("team"), others_log.reader("team")
    await reader.seek_if_new(0)
    await log.append(new_items(1))
    assert [entry.id for entry in await reader.read(0, 10)] == [1]
    assert await log.acquire_lease(7200.0)
    await asyncio.sleep(5.0)
    virtual_server.step = step
    assert await others.read(0, 10) == []
    assert not await others_log.acquire_lease(2.0)
    await asyncio.sleep(5.0)
    assert await others.read(0, 10) == []
    one._heartbeat._owners.clear()
    await asyncio.sleep(SESSION_TIMEOUT + 0.1)
    assert [entry.id for entry in await others.read(0, 10)] == [1]
    assert await others_log.acquire_lease(2.0)


async def test_a_fetch_intent_ends_although_the_clock_was_set_back(
    virtual_server: VirtualRedisStore, redis_program: Callable[[], RedisStore]
) -> None:
    """Its time is not that of the clock."""
    log = (await open_store(redis_program())).log(MAIL)
    await log.append(new_mails(1))
    await log.begin_fetch(10.0)
    await asyncio.sleep(1.0)
    virtual_server.step = -3600.0
    for _ in range(8):
        assert await log.lost_fetches() == []
        await asyncio.sleep(1.0)
    await asyncio.sleep(2.0)
    assert len(await log.lost_fetches()) == 1
    assert await read_ids(log.reader(None)) == [1]
