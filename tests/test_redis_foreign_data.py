"""Another program has written into the keys of a Redis store."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
import pytest
import redis_server
from helpers import REAL

from pythpeer import Rate, StoreError
from pythpeer.pacing.queue import Priority
from pythpeer.stores import NewEntry, RedisStore, Topic

pytestmark = [pytest.mark.anyio, pytest.mark.processes]


class Item(msgspec.Struct, frozen=True):
    id: int


CHAT: Final = Topic("chat", Item)
MAIL: Final = Topic("mail", Item, destructive=True)


@pytest.fixture
def anyio_backend() -> object:
    return REAL


@pytest.fixture
async def store(redis_url: Callable[[str], str]) -> AsyncIterator[RedisStore]:
    url = redis_url("real" if redis_server.PROGRAM else "fake")
    store = RedisStore(url, prefix=uuid.uuid4().hex)
    await store.open()
    yield store
    while store._sessions:
        with suppress(StoreError):  # the data are still malformed
            await store.aclose()


async def write(store: RedisStore, *command: object) -> None:
    """Execute a command of another program. ``KEY:`` stands for the beginning of the keys."""
    from redis.asyncio import Redis

    words = [str(word).replace("KEY:", f"{store._keys.tag}:") for word in command]
    address = store._address
    async with Redis(host=address.host, port=address.port, db=address.db) as client:
        await client.execute_command(*words)  # type: ignore[no-untyped-call]


async def use_log(store: RedisStore, topic: Topic[Any], name: str = "bot") -> None:
    """Do what a stream does."""
    log = store.log(topic)
    reader = log.reader(name)
    await reader.seek_if_new(0)
    await log.acquire_lease(2.0)
    if topic.destructive:
        fetch = await log.begin_fetch(10.0)
        await log.lost_fetches()
        await log.append([NewEntry(Item(1), identity="1")], completes=[fetch])
    else:
        await log.append([NewEntry(Item(1), id=1), NewEntry(Item(2), id=2, after=1)])
    for entry in await reader.read(0, 10):
        reader.ack(entry.id)
    await reader.flush()
    await reader.position()
    await log.max_acknowledged()


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "KEY:log:{}", "x"),
        ("SET", "KEY:meta:{}", "x"),
        ("HSET", "KEY:meta:{}", "leader", "x", "leads until", "x"),
        ("HSET", "KEY:meta:{}", "acknowledged", "x"),
        ("SET", "KEY:late-ids:{}", "x"),
    ],
    ids=str,
)
@pytest.mark.parametrize("topic", [CHAT, MAIL], ids=["chat", "mail"])
async def test_malformed_data_is_an_error_that_names_the_key(
    store: RedisStore, command: tuple[str, ...], topic: Topic[Any]
) -> None:
    """Of the package, without a text of Lua. Other logs and the pacing continue."""
    await write(store, *(word.format(topic.name) for word in command))
    with pytest.raises(StoreError, match="malformed data under the key") as caught:
        await use_log(store, topic)
    assert f"{store._keys.tag}:log:{topic.name}" in str(caught.value)
    assert "lua" not in str(caught.value)
    assert "user_script" not in str(caught.value)
    assert not caught.value.transient
    await use_log(store, Topic("another", Item, destructive=topic.destructive))
    (await store.limiter("k", "x", Rate(1e-3)).acquire(Priority.CALL)).close()


@pytest.mark.parametrize("field", [("foo", "bar"), ("after", "x", "item", "{}"), ("after", "")])
async def test_a_malformed_entry_is_undecodable(store: RedisStore, field: tuple[str, ...]) -> None:
    """Every name skips it, and receives the entries around it."""
    log = store.log(CHAT)
    await log.append([NewEntry(Item(1), id=1)])
    await write(store, "XADD", "KEY:log:chat", "2-0", *field)
    await log.append([NewEntry(Item(3), id=3, after=2)])
    for reader in (log.reader("bot"), log.reader(None)):
        await reader.seek_if_new(0)
        taken: list[tuple[int, bool]] = []
        position = 0
        for _ in range(4):
            for entry in await reader.read(position, 10):
                taken.append((entry.id, entry.item is None))
                reader.ack(entry.id)
                position = entry.id
        assert taken == [(1, False), (2, True), (3, False)]


@pytest.mark.parametrize("value", ["", "x", "1|2|3", "a|b|c|d|e|f|g|h|i|j"])
async def test_malformed_pacing_is_an_error_that_names_the_key(
    store: RedisStore, value: str
) -> None:
    """Other endpoints continue."""
    await write(store, "SET", "KEY:pace:k", value)
    with pytest.raises(StoreError, match=r"malformed data under the key .*:pace:k"):
        await store.limiter("k", "x", Rate(1e-3)).acquire(Priority.CALL)
    (await store.limiter("other", "y", Rate(1e-3)).acquire(Priority.CALL)).close()
