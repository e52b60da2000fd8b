"""A Redis store that was made before a fork: parent and children are different programs."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Callable
from typing import Final, TypeVar

import pytest
import redis_server
from processes import needs_fork

from pythpeer import Rate
from pythpeer.pacing.queue import Priority
from pythpeer.stores import RedisStore

pytestmark = [pytest.mark.processes, needs_fork]

T = TypeVar("T")

RATE: Final = Rate(0.15, guard=0.0)


def in_child(work: Callable[[], list[T]]) -> Callable[[], list[T]]:
    """Run *work* in a child process now; return a function that waits for its result."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)

    def result() -> list[T]:
        with os.fdopen(reading, "rb") as pipe:
            text = pipe.read()
        os.waitpid(child, 0)
        values: list[T] = json.loads(text)
        return values

    return result


async def use_tokens(store: RedisStore, count: int) -> list[float]:
    await store.open()
    limiter = store.limiter("k", "x", RATE)
    times: list[float] = []
    for _ in range(count):
        permit = await limiter.acquire(Priority.CALL)
        times.append(time.monotonic())
        permit.on_written()
        permit.close()
    await store.aclose()
    return times


def identity(store: RedisStore) -> list[str]:
    return [store._heartbeat.new_owner(), *(pacing._owner for pacing in store._pacing)]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_has_another_identity() -> None:
    """As every child has. That of the parent stays."""
    store = RedisStore("redis://127.0.0.1:1")
    store.limiter("k", "x", RATE)
    before = identity(store)[1:]
    names = [*identity(store)]
    for result in [in_child(lambda: identity(store)) for _ in range(2)]:
        names += result()
    assert len(names) == len(set(names)) == 6
    assert identity(store)[1:] == before


@redis_server.needs_a_server
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_children_share_the_tokens(redis_url: Callable[[str], str]) -> None:
    """With a limiter and connections that the parent has used before, and uses again."""
    store = RedisStore(redis_url("real"), prefix=f"fork-{os.getpid()}-{time.monotonic()}")

    async def parent() -> list[float]:
        times = await use_tokens(store, 1)
        await store.open()
        connections = len(store._connections._idle)
        results = [in_child(lambda: asyncio.Runner().run(use_tokens(store, 3))) for _ in range(2)]
        for result in results:
            times += await asyncio.to_thread(result)
        assert len(store._connections._idle) == connections
        times += await use_tokens(store, 1)
        await store.aclose()
        return times

    times = sorted(asyncio.run(parent()))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert len(gaps) == 7
    assert min(gaps) >= RATE.interval - 0.005, gaps
