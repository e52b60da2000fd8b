"""Another program has written into the keys of a Redis store."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import anyio
import msgspec
import pytest
import redis_server
from helpers import DEEP, REAL
from test_cli_top import screen_after

from pythpeer import Rate, StoreError
from pythpeer.pacing.queue import Priority
from pythpeer.sanitize import sanitize
from pythpeer.stores import NewEntry, RedisStore, Topic
from pythpeer.testing import FakeServices

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


@pytest.mark.parametrize(
    "value", ["x", "", "\ud8ff", "9" * 40, "9223372036854775807", "-1", "1e999"]
)
async def test_a_malformed_start_of_the_server_has_no_effect(store: RedisStore, value: str) -> None:
    """Nothing waits for a time that no program can have stored, and no log is damaged."""
    encoded = value.encode("utf-8", "surrogatepass")
    await write(store, "HSET", "KEY:server", "since", encoded)
    for topic in (CHAT, MAIL):
        await use_log(store, topic)
    with anyio.fail_after(5.0):
        for _ in range(3):
            permit = await store.make_limiter("k", "x", Rate(1e-3)).acquire(Priority.CALL)
            permit.on_written()
            permit.close()


@pytest.mark.parametrize(
    "command",
    [
        *(("SET", "KEY:deaths", value) for value in ("x", "", "-1", "1.5", "9" * 400)),
        ("LPUSH", "KEY:deaths", "x"),
        *(("HSET", "KEY:server", "steps", value) for value in ("x", "", "1e999")),
    ],
    ids=str,
)
async def test_a_malformed_counter_does_not_stop_the_heartbeats(
    store: RedisStore, command: tuple[str, ...]
) -> None:
    """Otherwise a worker that is busy with an item would count as dead."""
    await write(store, *command)
    heartbeat = store._heartbeat
    owners = [heartbeat.new_owner(), heartbeat.new_owner()]
    for owner in owners:
        heartbeat.keep_alive(owner, "test")
    await heartbeat._send()
    assert all(heartbeat.last_beat(owner) > 0.0 for owner in owners)
    event = heartbeat.death_event
    heartbeat.report_dead(owners[0])
    await heartbeat.flush()
    assert event.is_set()
    heartbeat.stop(owners[1], "test")


@pytest.mark.parametrize("value", ["", "x", "1 2", "-1", "9" * 40, "1e999"])
async def test_a_malformed_mark_of_a_restart_has_no_effect(store: RedisStore, value: str) -> None:
    """It only marks what is redelivered."""
    log = store.log(MAIL)
    await log.append([NewEntry(Item(1))])
    await write(store, "HSET", "KEY:meta:mail", "suspect", value)
    await log.append([NewEntry(Item(2))])
    assert (await log.tail(5)).head == 2
    await store.aclose()


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "KEY:server", "x"),
        ("HSET", "KEY:server", "salt", "x"),
    ],
    ids=str,
)
async def test_a_malformed_key_of_the_server_is_an_error(
    store: RedisStore, command: tuple[str, ...]
) -> None:
    """When the next program opens the store, without a text of Lua."""
    if command[0] == "SET":
        await write(store, "DEL", "KEY:server")
    await write(store, *command)
    other = RedisStore(str(store._address), prefix=store._keys.prefix)
    try:
        with pytest.raises(StoreError, match=r"malformed data under the key .*:server") as caught:
            await other.open()
        assert "user_script" not in str(caught.value)
        assert not caught.value.transient
    finally:
        await write(store, "DEL", "KEY:server")


VALUES: Final = (
    *(b"", b"x", b"-1", b"0", b"nan", b"inf", b"-inf", b"1e999", b"9" * 40, b"0.5", b" 1"),
    *(b"9223372036854775807", b"-9223372036854775808", b"1|2|3", b"1-1", b"1:2:3", b"\xff\xfe"),
    *(b"{}", b"[1]", b"0x10", b"\x1b]0;PWN\x07"),
)
"""What no program of ours writes, and numbers that are too large."""

OTHER_TYPES: Final = (
    ("SET", "x"),
    ("LPUSH", "x"),
    ("SADD", "x"),
    ("HSET", "x", "y"),
    ("ZADD", "1e308", "x"),
    ("XADD", "9223372036854775807-18446744073709551615", "a", "b"),
)
"""Commands that create a key of each type."""


class Damage(NamedTuple):
    """A command of another program about one key."""

    key: bytes | str
    replaces: bool
    """Whether the key is deleted before."""
    words: tuple[object, ...]


async def damages(client: Any, keys: Sequence[bytes | str]) -> list[Damage]:
    """Return every damage to these keys: each other type, and each value in each part."""
    found: list[Damage] = []
    for key in keys:
        found.append(Damage(key, True, ()))
        found += (Damage(key, True, words) for words in OTHER_TYPES)
        parts: list[tuple[object, ...]]
        match (await client.type(key)).decode():
            case "hash":
                fields = [*(await client.hkeys(key)), b"x", b"-1", b"9" * 40]
                parts = [("HSET", field, value) for field in fields for value in VALUES]
            case "string":
                parts = [("SET", value) for value in VALUES]
            case "zset":
                scores = ("inf", "-inf", "0", "9e15", "-1")
                parts = [("ZADD", score, value) for score in scores for value in VALUES[:6]]
            case "set":
                parts = [("SADD", value) for value in VALUES]
            case _:
                names = (b"item", b"after", b"gap", b"foo")
                parts = [("XADD", "*", name, value) for name in names for value in VALUES]
                parts += [("XTRIM", "MAXLEN", "0"), ("XGROUP CREATE", VALUES[-1], "0")]
        found += (Damage(key, False, words) for words in parts)
    return found


async def use_session(store: RedisStore, fake: FakeServices) -> None:
    """Read from both streams, and make a call, with a session of the store."""
    rates = {name: Rate(0.01) for name in ("peerbet.chat.get", "pythbots.mail")}
    async with fake.session(store=store, rates=rates, max_wait=1.0) as session:
        for stream in (
            session.peerbet.chat_stream(name="bot"),
            session.pythbots.mail_stream(name="bot"),
        ):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(stream)
                    await stream.ack()
        async with asyncio.timeout(5.0):
            await session.peerbet.messages(last=1)


async def test_no_damage_raises_anything_but_store_errors(redis_url: Callable[[str], str]) -> None:
    """Of each part of each key: reading, appending, pacing, and looking at it with `top`.

    Every damage if `DEEP`, and every eighth with the streams of a session; otherwise one of a
    hundred.
    """
    from redis.asyncio import Redis

    if not redis_server.PROGRAM:
        pytest.skip("needs a real server: it is about its scripts")
    store = RedisStore(redis_url("real"), prefix=uuid.uuid4().hex)
    client: Any = Redis.from_url(str(store._address))
    async with FakeServices() as fake, client:
        fake.chat.say("alice", "hello")
        fake.mail.deliver("alice", "hello")
        await use_everything(store)
        await use_session(store, fake)
        keys = sorted(await client.keys(f"{store._keys.tag}:*"))
        dumps = {key: await client.dump(key) for key in keys}
        everything = await damages(client, keys)
        for number, damage in enumerate(everything if DEEP else everything[::100]):
            await client.delete(*await client.keys(f"{store._keys.tag}:*"), "none")
            for key, value in dumps.items():
                await client.restore(key, 0, value, replace=True)
            if damage.replaces:
                await client.delete(damage.key)
            if damage.words:
                command, *words = damage.words
                await client.execute_command(command, damage.key, *words)
            for use in (watch, use_everything):
                with suppress(StoreError):
                    await use(store)
            if DEEP and number % 8 == 0:
                with suppress(StoreError):
                    await use_session(store, fake)
        await client.delete(*await client.keys(f"{store._keys.tag}:*"), "none")


async def use_everything(store: RedisStore) -> None:
    await store.open()
    try:
        await use_log(store, CHAT)
        await use_log(store, MAIL)
        limiter = store.make_limiter("k", "x", Rate(1e-3))
        (await limiter.acquire(Priority.CALL, 2.0)).close()
    finally:
        await store.aclose()


async def watch(store: RedisStore) -> None:
    """Show the store as `top` does, and as JSON."""
    await store.open()
    try:
        snapshot = await store.snapshot()
    finally:
        await store.aclose()
    for line in screen_after(snapshot, snapshot, width=80, height=30).splitlines():
        assert sanitize(line) == line
    json.dumps(msgspec.to_builtins(snapshot), allow_nan=False)
