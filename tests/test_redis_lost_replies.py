"""Scripts of the Redis store whose response is lost: they are executed, and sent again."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
import pytest
import redis_server
from helpers import REAL
from stores import open_store, redis_programs

from pythpeer import StoreError
from pythpeer.stores import NewEntry, Reader, RedisStore, Topic
from pythpeer.stores.redis.scripts import script

pytestmark = [pytest.mark.anyio, pytest.mark.processes]


class Item(msgspec.Struct, frozen=True):
    id: int


CHAT: Final = Topic("chat", Item)
READ: Final = script("group_read", with_common=True).digest.encode()


@pytest.fixture
def anyio_backend() -> object:
    return REAL


@pytest.fixture
async def proxy(redis_url: Callable[[str], str]) -> AsyncIterator[redis_server.LosingProxy]:
    proxy = redis_server.LosingProxy(redis_url("real" if redis_server.PROGRAM else "fake"))
    async with proxy as url:
        proxy.url = url
        yield proxy


@pytest.fixture
async def program(proxy: redis_server.LosingProxy) -> AsyncIterator[Callable[..., RedisStore]]:
    """Creates stores that share all, as those of several programs do."""
    async with redis_programs(proxy.url, prefix=uuid.uuid4().hex) as create:
        yield create


def entries(*ids: int) -> list[NewEntry[Item]]:
    return [NewEntry(Item(id), id=id, after=id - 1) for id in ids]


async def take(reader: Reader[Item], count: int) -> list[int]:
    """Return the ids of *count* reads, and acknowledge none."""
    ids: list[int] = []
    for _ in range(count):
        ids += [entry.id for entry in await reader.read(0, 100)]
    return ids


@pytest.mark.parametrize("max_wait", [3.0, 0.0], ids=["sent again", "failed"])
@pytest.mark.parametrize("lost", [1, 2])
async def test_items_of_a_lost_response_are_returned_again(
    program: Callable[..., RedisStore],
    proxy: redis_server.LosingProxy,
    max_wait: float,
    lost: int,
) -> None:
    """To the same reader, whether the store or the stream sends the command again."""
    store = await open_store(program(patience=max_wait))
    log, reader = store.log(CHAT), store.log(CHAT).reader("team")
    await reader.seek_if_new(0)
    await log.append(entries(*range(1, 10)))
    got: list[int] = []
    for number in range(30):
        if number in (1, 4):
            proxy.lose.extend([READ] * lost)
        try:
            read = [entry.id for entry in await reader.read(0, 100)]
        except StoreError:
            assert max_wait == 0.0
            continue
        got += read
        if read:
            reader.ack(read[-1])
    assert proxy.lost == 2 * lost
    assert got == list(range(1, 10))
    assert await reader.position() == 9


async def test_what_a_reader_holds_is_not_returned_again(
    program: Callable[..., RedisStore], proxy: redis_server.LosingProxy
) -> None:
    """Only the items of the lost response are, although others are pending as well."""
    store = await open_store(program())
    log, reader = store.log(CHAT), store.log(CHAT).reader("team")
    await reader.seek_if_new(0)
    await log.append(entries(1, 2, 3))
    first = await take(reader, 1)
    assert first == [1]
    proxy.lose.append(READ)
    assert await take(reader, 4) == [2, 3]
    reader.ack(3)
    await reader.flush()
    assert await reader.position() == 3


async def test_an_acknowledgement_concerns_no_item_of_a_later_batch(
    program: Callable[..., RedisStore],
) -> None:
    """A reader that holds an item may claim an earlier one of a dead reader."""
    one, other = await open_store(program()), await open_store(program())
    dead, reader = one.log(CHAT).reader("team"), other.log(CHAT).reader("team")
    await dead.seek_if_new(0)
    await one.log(CHAT).append(entries(1, 2))
    assert await take(dead, 1) == [1]
    assert await take(reader, 1) == [2]
    one._heartbeat.report_dead(dead._consumer)  # type: ignore[attr-defined]
    await one._heartbeat.flush()
    assert await take(reader, 1) == [1]
    reader.ack(2)
    await reader.flush()
    assert await reader.position() == 0
    reader.ack(1)
    await reader.flush()
    assert await reader.position() == 2
