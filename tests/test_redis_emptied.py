"""A Redis server that is emptied (``FLUSHALL``) while programs use it, on virtual time.

The server has forgotten fetch intents, positions and the salt of the names. The program that comes
first after that may be a new one, which knows nothing, and the others may end soon.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Final

import pytest
from redis_virtual import VirtualRedisStore, flush_server
from stores import open_store
from test_redis_clock import use
from test_redis_store import Item, new_mails, read_ids

from pythpeer import Rate
from pythpeer.stores import RedisStore, Topic

pytestmark = pytest.mark.anyio

DIGEST: Final = "0123456789abcdef"
"""The end of names whose stored form depends on the salt."""

FETCH_TIMEOUT: Final = 5.0

MAIL: Final = Topic(f"mail {DIGEST}", Item, destructive=True, fetch_timeout=FETCH_TIMEOUT)


async def test_a_new_program_and_an_older_one_share_the_pace(
    virtual_server: VirtualRedisStore, redis_program: Callable[[], RedisStore]
) -> None:
    """Although the new one has given the server another salt, with which all names differ."""
    old = await open_store(redis_program())
    times: list[float] = []
    key = f"x {DIGEST}"
    await use(old.limiter(key, "x", Rate(1.0)), times, until=3.0)
    await flush_server(virtual_server.port)
    new = await open_store(redis_program())
    limiters = [store.limiter(key, "x", Rate(1.0)) for store in (old, new)]
    await asyncio.gather(*(use(limiter, times, until=15.0) for limiter in limiters))
    gaps = [after - before for before, after in itertools.pairwise(sorted(times))]
    assert min(gaps) >= 1.0 - 1e-3
    assert len(times) >= 11
    assert len((await new.snapshot()).endpoints) == 1


async def test_a_new_program_and_an_older_one_share_the_log(
    virtual_server: VirtualRedisStore, redis_program: Callable[[], RedisStore]
) -> None:
    """What one of them appends, the other one reads; what failed before is appended there, too."""
    old = (await open_store(redis_program())).log(MAIL)
    await old.append(new_mails(1, 2))
    await flush_server(virtual_server.port)
    new = (await open_store(redis_program())).log(MAIL)
    await new.append(new_mails(3))
    await old.append(new_mails(4))
    for log in (old, new):
        entries = await log.reader(None).read(0, 100)
        assert [entry.item for entry in entries] == [Item(3), Item(4)]


async def test_a_name_receives_mail_whose_ids_are_given_anew(
    virtual_server: VirtualRedisStore, redis_program: Callable[[], RedisStore]
) -> None:
    """A new program has appended it before the older one with the name has noticed anything."""
    old = (await open_store(redis_program())).log(MAIL)
    await old.append(new_mails(1, 2, 3))
    reader, position = old.reader("team"), 0
    await reader.seek_if_new(0)
    while position < 3:
        position = (await read_ids(reader, position))[-1]
    await reader.flush()
    await flush_server(virtual_server.port)
    new = (await open_store(redis_program())).log(MAIL)
    await new.append(new_mails(4))
    await old.lost_fetches()
    assert [entry.item for entry in await reader.read(position, 100)] == [Item(4)]


@pytest.mark.parametrize("appended", [0, 2])
async def test_fetches_count_as_lost_twice(
    virtual_server: VirtualRedisStore, redis_program: Callable[[], RedisStore], appended: int
) -> None:
    """Immediately, and when the request of a program that has ended since is certainly over."""
    asking, other = [(await open_store(redis_program())).log(MAIL) for _ in range(2)]
    await asking.append(new_mails(*range(appended)))
    for log in (asking, other):
        await log.reader(None).read(0, 100)
    await asking.begin_fetch(FETCH_TIMEOUT)
    await flush_server(virtual_server.port)
    await other.reader(None).read(appended, 100)
    lost = await other.lost_fetches()
    assert len(lost) == 1
    await other.append((), completes=lost)
    assert await other.lost_fetches() == []
    await asyncio.sleep(FETCH_TIMEOUT)
    assert await other.lost_fetches() == lost
    await other.append((), completes=lost)
    await asyncio.sleep(FETCH_TIMEOUT)
    assert await other.lost_fetches() == []


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_new_program_learns_that_the_server_was_emptied(
    virtual_server: VirtualRedisStore, redis_program: Callable[[], RedisStore], is_first: bool
) -> None:
    """From one that has ended without any other command than a heartbeat, before or after it."""
    store = redis_program()
    asking = (await open_store(store)).log(MAIL)
    await asking.append(new_mails(1))
    await asking.begin_fetch(60.0)
    await flush_server(virtual_server.port)
    other = redis_program()
    if is_first:
        await other.open()
    await asyncio.sleep(0.5)
    await store.aclose()
    if not is_first:
        await other.open()
    new = other.log(MAIL)
    await new.reader(None).read(0, 100)
    assert len(await new.lost_fetches()) == 1


async def test_a_connection_of_an_older_program_notices_that_the_server_was_emptied(
    virtual_server: VirtualRedisStore, redis_program: Callable[[], RedisStore]
) -> None:
    """A new one, because the server was restarted; a new program learns it from the server."""
    store = redis_program()
    log = (await open_store(store)).log(MAIL)
    await log.append(new_mails(1))
    await flush_server(virtual_server.port)
    await store._connections._discard_idle()
    await store.snapshot()  # executes no script but that of a new connection
    await store.aclose()
    new = (await open_store(redis_program())).log(MAIL)
    await new.reader(None).read(0, 100)
    assert len(await new.lost_fetches()) == 1


async def test_a_new_server_has_no_lost_fetches(redis_program: Callable[[], RedisStore]) -> None:
    """A first program must not read the history: it would receive all old mail."""
    log = (await open_store(redis_program())).log(MAIL)
    await log.reader(None).read(0, 100)
    assert await log.lost_fetches() == []


@pytest.mark.parametrize(("seconds", "position"), [(10.0, 0), (4000.0, None)])
async def test_a_name_that_seems_new_starts_with_all_mail(
    virtual_server: VirtualRedisStore,
    redis_program: Callable[[], RedisStore],
    seconds: float,
    position: int | None,
) -> None:
    """For an hour, because its program may not have been running when the server was emptied.

    A name with a position, and a stream without a name, start as usual.
    """
    old = (await open_store(redis_program())).log(MAIL)
    await flush_server(virtual_server.port)
    await old.append(new_mails(1))
    reader = old.reader("other")
    await reader.seek_if_new(0)
    assert await read_ids(reader) == [1]
    await reader.flush()
    virtual_server.step = seconds
    assert await old.reader("team").position() == position
    assert await old.reader("other").position() == 1
    assert await old.max_acknowledged() == 1
