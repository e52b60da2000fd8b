"""The Redis store: shared names, pacing shared by programs, servers that fail.

Time is real here, because it is the server's. That nothing is too late is tested on virtual time,
with a server that uses it; on real time only that nothing is too early. Features of a real server
are tested where there is one; `test_redis_kill.py` kills programs and servers.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import pickle
import signal
import ssl
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest
import redis_server
import trustme
from fork_server import HANG_TIMEOUT
from helpers import REAL, VIRTUAL, Backend, now, take_ids, wait_until
from processes import Delays
from redis_server import FaultyRedis
from redis_virtual import VirtualRedisStore
from stores import open_store, redis_programs

from pythpeer import (
    ChatMessage,
    Gap,
    InvalidRequestError,
    MemoryStore,
    PythpeerError,
    Rate,
    RateLimitedError,
    Retry,
    Secret,
    Session,
    StoreError,
    Stream,
)
from pythpeer.pacing.limiter import Limiter, Permit, TokenExpiredError
from pythpeer.pacing.queue import Priority
from pythpeer.stores import DIRECT, Entry, NewEntry, Reader, RedisStore, Topic, store_from_url
from pythpeer.stores.redis import heartbeat, log, pacing_backend, readers, snapshot
from pythpeer.stores.redis.connection import MAX_CONNECTIONS
from pythpeer.streams import poller as feed
from pythpeer.streams.gaps import link_entries
from pythpeer.streams.poller import LEASE, Poller, PollSource

pytestmark = [pytest.mark.anyio, pytest.mark.processes]

CANARY: Final = redis_server.CANARY
HOME: Final = Path(__file__).parent.parent


class Item(msgspec.Struct, frozen=True):
    id: int


class Nested(msgspec.Struct, frozen=True):
    nested: list[object]


CHAT: Final = Topic("chat", Item)
MAIL: Final = Topic("mail", Item, destructive=True)


@pytest.fixture(params=[True, False], ids=["virtual time", "real time"])
def exact(request: pytest.FixtureRequest) -> bool:
    """Whether time is virtual: on a busy machine real time does not prove that nothing is late."""
    return bool(request.param)


def is_exact(request: pytest.FixtureRequest) -> bool:
    return "exact" in request.fixturenames and bool(request.getfixturevalue("exact"))


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    """Real time, because it is the server's, except for a server with virtual time."""
    return VIRTUAL if is_exact(request) else REAL


@pytest.fixture
async def virtual_url() -> AsyncIterator[str]:
    """A server with the virtual time of the loop."""
    server = VirtualRedisStore(max_length=1)
    await server.open()
    yield server.url
    await server.aclose()


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a real server where there is one, or of one with virtual time."""
    if is_exact(request):
        return str(request.getfixturevalue("virtual_url"))
    url_of: Callable[[str], str] = request.getfixturevalue("redis_url")
    return url_of("real" if redis_server.PROGRAM else "fake")


@pytest.fixture
def session_timeout(exact: bool, monkeypatch: pytest.MonkeyPatch) -> float:
    """The seconds without a heartbeat after which an owner is dead: half as many on real time."""
    if not exact:
        for module in (pacing_backend, log, heartbeat, readers, snapshot):
            monkeypatch.setattr(module, "SESSION_TIMEOUT", 0.6)
        monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 0.1)
    return heartbeat.SESSION_TIMEOUT


@pytest.fixture
async def program(url: str) -> AsyncIterator[Callable[[], RedisStore]]:
    """Creates stores that share all, as those of several programs do. They are not open yet."""
    async with redis_programs(url, prefix=uuid.uuid4().hex) as create:
        yield create


@pytest.fixture
async def first_store(program: Callable[[], RedisStore]) -> RedisStore:
    return await open_store(program())


@pytest.fixture
async def second_store(program: Callable[[], RedisStore]) -> RedisStore:
    return await open_store(program())


@pytest.fixture
def server(folder: Path) -> Iterator[redis_server.RealServer]:
    """A real server for one test only."""
    with redis_server.real_server(folder) as server:
        yield server


def new_items(*ids: int, after: int | None = None) -> list[NewEntry[Item]]:
    links = (ids[0] - 1 if after is None else after, *ids)
    return [NewEntry(Item(id), id=id, after=link) for link, id in zip(links, ids, strict=False)]


def new_mails(*ids: int) -> list[NewEntry[Item]]:
    return [NewEntry(Item(id), identity=str(id), max_copies=1) for id in ids]


async def read_ids(reader: Reader[Item], position: int = 0, *, ack: bool = True) -> list[int]:
    """Return the ids of one read, after acknowledging them."""
    entries = await reader.read(position, 100)
    for entry in entries:
        if ack:
            reader.ack(entry.id)
    return [entry.id for entry in entries]


async def read_all(reader: Reader[Item], position: int = 0) -> list[int]:
    """Return the ids of all reads until there are no more items."""
    ids: list[int] = []
    while batch := await read_ids(reader, position):
        ids += batch
    return ids


def within(seconds: float, *, exact: bool) -> asyncio.Timeout:
    """A time limit on virtual time; on real time only a limit for a test that hangs."""
    return asyncio.timeout(seconds if exact else HANG_TIMEOUT)


async def has_heartbeat(store: RedisStore) -> bool:
    """Return whether it has sent a heartbeat, so that it detects deaths from now on."""
    return store._heartbeat._death_count is not None


def stop_heartbeats(store: RedisStore) -> None:
    """Let this program be dead for the others: it sends no heartbeats any more."""
    store._heartbeat._owners.clear()


# -- shared names ---------------------------------------------------------------------------------


async def test_readers_of_a_name_share_its_items(
    first_store: RedisStore, second_store: RedisStore
) -> None:
    """Each item is returned to one of them, in order, in any program."""
    first, second = first_store.log(CHAT).reader("team"), second_store.log(CHAT).reader("team")
    await first.seek_if_new(0)
    await second.seek_if_new(0)
    await first_store.log(CHAT).append(new_items(*range(1, 101)))
    parts: tuple[list[int], list[int]] = ([], [])
    for _ in range(40):
        parts[0].extend(await read_ids(first))
        parts[1].extend(await read_ids(second))
    assert sorted(parts[0] + parts[1]) == list(range(1, 101))
    assert all(part == sorted(part) and part for part in parts)


async def test_readers_of_different_names_each_get_all_items(
    first_store: RedisStore, second_store: RedisStore
) -> None:
    """And so does a reader without a name."""
    await first_store.log(CHAT).append(new_items(1, 2, 3))
    for name in ("a", "b"):
        reader = second_store.log(CHAT).reader(name)
        await reader.seek_if_new(0)
        assert await read_all(reader) == [1, 2, 3]
    assert await read_ids(second_store.log(CHAT).reader(None)) == [1, 2, 3]


async def test_joining_a_name_moves_no_other_reader(
    first_store: RedisStore, second_store: RedisStore
) -> None:
    """A reader that joins later continues with the others, whatever start it has asked for."""
    await first_store.log(CHAT).append(new_items(1, 2, 3, 4))
    first, second = first_store.log(CHAT).reader("team"), second_store.log(CHAT).reader("team")
    await first.seek_if_new(0)
    assert await read_ids(first) == [1]
    await second.seek_if_new(0)
    assert await read_all(second) == [2, 3, 4]
    assert await first.position() == 4


async def test_a_seek_moves_all_readers_of_a_name(
    first_store: RedisStore, second_store: RedisStore
) -> None:
    """Their pending items are returned again, and their acknowledgements of them are ignored."""
    await first_store.log(CHAT).append(new_items(1, 2, 3))
    first, second = first_store.log(CHAT).reader("team"), second_store.log(CHAT).reader("team")
    await first.seek_if_new(0)
    assert await read_ids(first, ack=False) == [1]
    await second.seek(0)
    assert await read_ids(second, ack=False) == [1]
    first.ack(1)
    await first.flush()
    assert await second.position() == 0
    second.ack(1)
    assert await read_all(second) == [2, 3]


async def test_a_reader_that_leaves_releases_its_pending_items(
    first_store: RedisStore, second_store: RedisStore, exact: bool
) -> None:
    """They are returned to another reader immediately, before any newer item."""
    await first_store.log(CHAT).append(new_items(1, 2, 3))
    first, second = first_store.log(CHAT).reader("team"), second_store.log(CHAT).reader("team")
    await first.seek_if_new(0)
    await second.seek_if_new(0)
    assert await read_ids(first, ack=False) == [1]
    assert await read_ids(second) == [2]
    waiting = asyncio.ensure_future(second_store.log(CHAT).wait_for_append(10 * HANG_TIMEOUT))
    await wait_until(lambda: has_heartbeat(second_store))
    await first.leave()
    async with within(1.0, exact=exact):
        await waiting  # readers that wait are woken
    assert await read_ids(second) == [1]
    assert await read_ids(second) == [3]


async def test_pending_items_of_a_dead_program_go_to_another(
    first_store: RedisStore, second_store: RedisStore, exact: bool, session_timeout: float
) -> None:
    """Within two seconds, and never while it is alive, however long it takes."""
    await first_store.log(CHAT).append(new_items(1, 2))
    first, second = first_store.log(CHAT).reader("team"), second_store.log(CHAT).reader("team")
    await first.seek_if_new(0)
    await second.seek_if_new(0)
    assert await read_ids(first, ack=False) == [1]
    assert await read_ids(second) == [2]
    async with Delays() as delays:
        await asyncio.sleep(1.5 * session_timeout)
        ids = await read_ids(second)
    if delays.worst > session_timeout / 2:  # heartbeats may have been late
        assert ids in ([], [1])
        return
    assert ids == []
    stop_heartbeats(first_store)
    waiting = asyncio.ensure_future(second_store.log(CHAT).wait_for_append(10 * HANG_TIMEOUT))
    async with within(2.0, exact=exact):
        await waiting  # the others are woken, although nothing was appended
    assert await read_ids(second) == [1]


async def test_a_reader_that_was_garbage_collected_counts_as_dead(
    first_store: RedisStore, second_store: RedisStore, exact: bool
) -> None:
    """It need not be closed."""
    await first_store.log(CHAT).append(new_items(1))
    first, second = first_store.log(CHAT).reader("team"), second_store.log(CHAT).reader("team")
    await first.seek_if_new(0)
    await second.seek_if_new(0)
    assert await read_ids(first, ack=False) == [1]
    del first
    gc.collect()
    await wait_until(lambda: read_ids(second), 2.0 if exact else HANG_TIMEOUT)


async def test_a_cancelled_read_loses_nothing(first_store: RedisStore) -> None:
    """Items whose response did not arrive are returned to the same reader again."""
    await first_store.log(CHAT).append(new_items(1, 2, 3))
    reader = first_store.log(CHAT).reader("team")
    await reader.seek_if_new(0)
    read_ids: list[int] = []
    for iterations in itertools.count():
        read = asyncio.ensure_future(reader.read(0, 100))
        for _ in range(iterations):
            await asyncio.sleep(0.0002)
        read.cancel()
        try:
            entries = await read
        except asyncio.CancelledError:
            continue
        read_ids += [entry.id for entry in entries]
        for entry in entries:
            reader.ack(entry.id)
        if len(read_ids) >= 3:
            break
    assert read_ids == [1, 2, 3]


async def test_a_slow_reader_gets_smaller_batches(first_store: RedisStore) -> None:
    """So that others get a share; a fast reader gets large ones."""
    log = first_store.log(CHAT)
    await log.append(new_items(*range(1, 501)))
    sizes: list[int] = []
    for number in itertools.count():  # on a busy machine not every one is fast
        quick = log.reader(f"quick-{number}")
        await quick.seek_if_new(0)
        sizes = [len(await read_ids(quick)) for _ in range(5)]
        if sizes == [1, 4, 16, 64, 100]:
            break
        assert number < 200, sizes
    slow = log.reader("slow")
    await slow.seek_if_new(0)
    sizes.clear()
    for _ in range(4):
        sizes.append(len(await read_ids(slow)))
        await asyncio.sleep(0.06)
    assert sizes == [1, 1, 1, 1]


async def test_an_acknowledgement_is_stored_soon(
    first_store: RedisStore, second_store: RedisStore, exact: bool
) -> None:
    """Without another call: the next one may be much later."""
    await first_store.log(CHAT).append(new_items(1))
    reader = first_store.log(CHAT).reader("team")
    await reader.seek_if_new(0)
    assert await read_ids(reader) == [1]
    await wait_until(
        lambda: second_store.log(CHAT).reader("team").position(), 1.0 if exact else HANG_TIMEOUT
    )


async def test_a_name_catches_up_on_entries_that_the_stream_lacks(
    first_store: RedisStore, second_store: RedisStore
) -> None:
    """One reader replays them, the others wait, and then they share again."""
    log = first_store.log(CHAT)
    first, second = log.reader("team"), second_store.log(CHAT).reader("team")
    await first.seek_if_new(3)
    await second.seek_if_new(3)
    await log.append(new_items(7, 8, 9, after=6))
    assert [(entry.id, entry.after) for entry in await first.read(3, 1)] == [(7, 6)]
    assert await read_ids(second) == []  # the service must be asked first
    assert second.group_position == 9
    await log.append([*new_items(4, 5, 6), *new_items(7, after=6)])
    assert await read_all(first, 3) == [4, 5, 6, 7, 8, 9]
    await log.append(new_items(10, 11))
    assert [await read_ids(second), await read_ids(first, 9)] == [[10], [11]]
    assert await first.position() == 11


async def test_a_reader_that_catches_up_can_leave(
    first_store: RedisStore, second_store: RedisStore
) -> None:
    """Another one continues at its position."""
    log = first_store.log(CHAT)
    first, second = log.reader("team"), second_store.log(CHAT).reader("team")
    await first.seek_if_new(0)
    await second.seek_if_new(0)
    await log.append(new_items(7, after=6))
    await log.append(new_items(1, 2, 3, 4, 5, 6))
    assert await read_ids(first) == [1]
    await first.leave()
    assert await read_all(second) == [2, 3, 4, 5, 6, 7]


async def test_an_entry_out_of_order_is_not_skipped(first_store: RedisStore) -> None:
    """An item with an id below the head, which a Redis stream cannot contain, is read in order."""
    log = first_store.log(CHAT)
    await log.append([NewEntry(Item(5), id=5, after=0), NewEntry(Item(9), id=9, after=5)])
    reader = log.reader("team")
    await reader.seek_if_new(0)
    assert await read_ids(reader) == [5]
    await log.append([NewEntry(Item(7), id=7, after=5)])
    assert await read_all(reader) == [7, 9]


async def test_a_pending_item_that_was_trimmed_is_reported(
    program: Callable[..., RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    """The reader that claims it gets an entry without an item, with a gap; there is a warning."""
    first_store, second_store = program(max_length=3), program(max_length=3)
    await first_store.open()
    await second_store.open()
    await first_store.log(CHAT).append(new_items(1))
    first, second = first_store.log(CHAT).reader("team"), second_store.log(CHAT).reader("team")
    await first.seek_if_new(0)
    await second.seek_if_new(0)
    assert await read_ids(first, ack=False) == [1]
    for id in range(2, 9):
        await first_store.log(CHAT).append(new_items(id))
    await first.leave()
    assert list(await second.read(0, 10)) == [Entry(1, 0, True, None)]
    assert "1 was trimmed" in caplog.text
    assert (await second.read(0, 10))[0].after == 5  # the entries that are left, with a visible gap


async def test_pending_mail_is_never_trimmed(program: Callable[..., RedisStore]) -> None:
    """Although other readers have acknowledged later mail."""
    first_store, second_store = program(max_length=2), program(max_length=2)
    await first_store.open()
    await second_store.open()
    log = first_store.log(MAIL)
    await log.append(new_mails(1, 2, 3))
    first, second = log.reader("team"), second_store.log(MAIL).reader("team")
    await first.seek_if_new(0)
    await second.seek_if_new(0)
    assert await read_ids(first, ack=False) == [1]
    assert await read_all(second) == [2, 3]
    await log.append(new_mails(4, 5))
    assert await read_all(second) == [4, 5]
    await second.flush()
    await log.append(new_mails(6))
    assert await read_ids(log.reader(None)) == [1, 2, 3, 4, 5, 6]
    first.ack(1)
    await first.flush()
    await log.append(new_mails(7))
    assert await read_ids(log.reader(None)) == [6, 7]


async def test_pending_mail_is_not_trimmed_because_of_another_name(
    program: Callable[..., RedisStore],
) -> None:
    """Readers of the other name have acknowledged all of it."""
    store = program(max_length=2)
    await store.open()
    log = store.log(MAIL)
    await log.append(new_mails(1, 2, 3))
    slow, fast = log.reader("slow"), log.reader("fast")
    await slow.seek_if_new(0)
    await fast.seek_if_new(0)
    assert await read_ids(slow, ack=False) == [1]
    assert await read_all(fast) == [1, 2, 3]
    await fast.flush()
    await log.append(new_mails(4, 5))
    assert await read_ids(log.reader(None)) == [1, 2, 3, 4, 5]


async def test_other_programs_can_read_the_stream(url: str, first_store: RedisStore) -> None:
    """With the key and the format of the documentation, and with the service's ids."""
    from redis.asyncio import Redis

    await first_store.log(CHAT).append(new_items(7, after=3))
    key = f"{{pythpeer:{first_store._keys.prefix}}}:log:chat"
    async with Redis.from_url(url, protocol=2) as client:
        assert await client.xrange(key) == [(b"7-0", {b"after": b"3", b"item": b'{"id":7}'})]
        await client.xgroup_create(key, "outsider", "0")
        assert await client.xreadgroup("outsider", "me", {key: ">"})
    await first_store.log(CHAT).append(new_items(8))
    assert await read_ids(first_store.log(CHAT).reader(None)) == [7, 8]


@redis_server.needs_a_server
async def test_the_manual_s_commands_read_the_stream(
    server: redis_server.RealServer, tmp_path: Path
) -> None:
    """A separate group with plain redis-cli, literally as on the page."""
    page = (HOME / "docs/how-to/workers.md").read_text("utf-8")
    (block,) = [part for part in page.split("```") if "redis-cli XREADGROUP" in part]
    commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    output = [line for line in block.splitlines()[1:] if line and not line.startswith("$ ")]
    store = RedisStore(server.url)
    await store.open()
    message = ChatMessage(7, "alice", "!ping", "", "2026-11-25 21:12:21")
    topic = Topic("peerbet.chat https://www.peerbet.org nobody", ChatMessage)
    await store.log(topic).append([NewEntry(message, id=7, after=6)])
    await store.aclose()
    tool = tmp_path / "redis-cli"
    tool.write_text(f'#!/bin/sh\nexec {redis_server.TOOL} -p {server.port} "$@"\n', "utf-8")
    tool.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = await asyncio.create_subprocess_exec(
        *("sh", "-euc", "\n".join(commands)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PATH": path},
    )
    printed, errors = await done.communicate()
    assert errors == b""
    assert printed.decode().splitlines() == ["OK", *output, "1"]


# -- streams --------------------------------------------------------------------------------------


class MemorySource(PollSource[Item]):
    """A source in memory, which the leader polls every twentieth of a second."""

    name = "memory"

    def __init__(self, *ids: int) -> None:
        self.ids = list(ids)
        self.polls: list[object] = []

    async def try_poll(self, poller: Poller[Item]) -> PythpeerError | None:
        await asyncio.sleep(0.05)
        self.polls.append(poller)
        if poller.has_unpositioned:
            poller.set_initial_position(max(self.ids, default=0))
            return None
        after = poller.min_position
        page = {id: Item(id) for id in self.ids if id > after}
        await poller.log.append(link_entries(after, page, full=False))
        poller.confirm(after, full=False)
        return None


def stream_of(
    store: RedisStore, source: MemorySource, name: str | None, after: int | None = None
) -> Stream[Item]:
    return Stream(Poller(source, store.log(CHAT), Retry(max_delay=0.2)), name=name, after=after)


async def test_streams_of_a_name_share_a_source(
    first_store: RedisStore, second_store: RedisStore
) -> None:
    """Each message is returned to one of them, one polls for all, and nothing is lost."""
    source, ids = MemorySource(), list[int]()
    done = asyncio.Event()

    async def follow(stream: Stream[Item]) -> None:
        async for item in stream:
            ids.append(item.id)
            if len(ids) >= 60:
                done.set()
            await asyncio.sleep(0.001)

    streams = [
        stream_of(store, source, "team") for store in (first_store, second_store, first_store)
    ]
    for stream in streams:
        await stream.__aenter__()
    followers = [asyncio.ensure_future(follow(stream)) for stream in streams]
    for start in range(1, 61, 10):
        source.ids += range(start, start + 10)
        await asyncio.sleep(0.03)
    async with asyncio.timeout(HANG_TIMEOUT):
        await done.wait()
    for follower in followers:
        follower.cancel()
    await asyncio.gather(*followers, return_exceptions=True)
    assert sorted(ids) == list(range(1, 61))


async def test_a_new_name_fetches_what_the_log_lacks(
    first_store: RedisStore, second_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log starts at the position of another stream; this one starts at 0."""
    monkeypatch.setattr(feed, "LEASE", 0.3)
    source = MemorySource(1, 2, 3, 4, 5)
    async with stream_of(first_store, source, None) as first:
        source.ids += [6]
        assert await take_ids(first, 1) == [6]
        async with stream_of(second_store, source, "all", after=0) as stream:
            assert await take_ids(stream, 6) == [1, 2, 3, 4, 5, 6]
            source.ids += [7]
            assert await take_ids(stream, 1) == [7]
            assert stream.gaps == ()


async def test_a_busy_leader_lets_another_poll(
    first_store: RedisStore, second_store: RedisStore, exact: bool
) -> None:
    """A leader that processes an item does not poll, and must not keep others from polling."""
    source = MemorySource()
    busy, free = (
        stream_of(first_store, source, "busy", after=0),
        stream_of(second_store, source, "free", after=0),
    )
    source.ids += [1]
    assert await take_ids(busy, 1) == [1]
    assert await take_ids(free, 1) == [1]
    leader = asyncio.ensure_future(take_ids(busy, 1))
    await asyncio.sleep(0.2)  # it is the leader from now on
    follower = asyncio.ensure_future(take_ids(free, 2))
    await asyncio.sleep(0.1)
    source.ids += [2]
    assert await leader == [2]
    source.ids += [3]
    async with within(LEASE / 2, exact=exact):
        assert await follower == [2, 3]


async def test_a_gap_is_reported_by_the_stream_that_reaches_it(
    first_store: RedisStore, second_store: RedisStore
) -> None:
    """It is reported once, and the name continues."""
    source = MemorySource(1, 2)
    stream = stream_of(first_store, source, "team", after=0)
    assert await take_ids(stream, 2) == [1, 2]
    await second_store.log(CHAT).append(new_items(9, after=8))
    source.ids = [9, 10]
    assert await take_ids(stream, 2) == [9, 10]
    assert not stream.gaps  # the service returned that there is nothing in between
    await second_store.log(CHAT).append([NewEntry(Item(20), id=20, after=15, gap=True)])
    source.ids = [22]
    assert await take_ids(stream, 2) == [20, 22]
    assert stream.gaps == (Gap(10, 20),)
    await stream.aclose()


# -- pacing ---------------------------------------------------------------------------------------


async def send(limiter: Limiter, sent: list[float], priority: Priority = Priority.CALL) -> Permit:
    """Send one request, which takes no time."""
    permit = await limiter.acquire(priority)
    sent.append(now())
    permit.on_written()
    permit.on_answered(200)
    permit.close()
    return permit


def gaps(times: list[float]) -> list[float]:
    return [later - previous for previous, later in itertools.pairwise(sorted(times))]


async def test_programs_share_the_tokens(
    first_store: RedisStore, second_store: RedisStore, exact: bool
) -> None:
    """One request per interval, of any program, alternately."""
    sent: dict[str, list[float]] = {"one": [], "other": []}

    async def work(name: str, store: RedisStore) -> None:
        limiter = store.limiter("k", "n", Rate(0.05, guard=0.01))
        for _ in range(8):
            await send(limiter, sent[name])

    async with asyncio.timeout(HANG_TIMEOUT), asyncio.TaskGroup() as group:
        group.create_task(work("one", first_store))
        group.create_task(work("other", second_store))
    intervals = gaps(sent["one"] + sent["other"])
    assert min(intervals) >= 0.049
    assert not exact or sum(intervals) < 15 * 0.05 * 1.5  # the benchmarks measure it on real time
    order = sorted([(t, "one") for t in sent["one"]] + [(t, "other") for t in sent["other"]])
    names = [name for _, name in order]
    assert all(a != b for a, b in itertools.pairwise(names[2:-2]))


async def test_a_burst_is_shared_too(
    first_store: RedisStore, second_store: RedisStore, exact: bool
) -> None:
    """The burst is that of all programs together, not of each."""
    limiters = [
        store.limiter("k", "n", Rate(0.2, burst=3)) for store in (first_store, second_store)
    ]
    if exact:
        await asyncio.sleep(0.9)  # after which all tokens are available
    else:
        await redis_server.make_tokens_available(first_store)
    sent: list[float] = []
    async with asyncio.timeout(HANG_TIMEOUT), asyncio.TaskGroup() as group:
        for limiter in limiters * 3:
            group.create_task(send(limiter, sent))
    sent.sort()
    assert not exact or sent[2] - sent[0] < 0.15
    for number in range(3, 6):
        assert sent[number] - sent[0] >= (number - 2) * 0.2 - 0.002


async def test_a_token_that_was_not_used_is_released(
    first_store: RedisStore, second_store: RedisStore, exact: bool
) -> None:
    """A permit without a request releases it immediately."""
    rate = Rate(1.0 if exact else 10 * HANG_TIMEOUT)
    if not exact:
        await redis_server.make_tokens_available(first_store)
    first, second = first_store.limiter("k", "n", rate), second_store.limiter("k", "n", rate)
    permit = await first.acquire(Priority.CALL)
    waiting = asyncio.ensure_future(second.acquire(Priority.CALL))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    permit.close()
    async with within(0.5, exact=exact):
        (await waiting).close()


async def test_an_outstanding_token_of_a_dead_program_counts_as_used(
    first_store: RedisStore, second_store: RedisStore, exact: bool, session_timeout: float
) -> None:
    """Because its request may have been sent; the others lose one interval, and no more."""
    rate = Rate(0.5 if exact else 0.2, guard=0.05)
    first, second = first_store.limiter("k", "n", rate), second_store.limiter("k", "n", rate)
    if not exact:
        await redis_server.make_tokens_available(first_store)
    requested = now()
    await first.acquire(Priority.CALL)
    started = now() if exact else requested  # on real time the response may be slow
    stop_heartbeats(first_store)
    async with within(4, exact=exact):
        (await second.acquire(Priority.CALL)).close()
    elapsed = now() - started
    assert elapsed >= session_timeout + rate.interval - 0.01
    assert not exact or elapsed < session_timeout + rate.interval + 0.6


@pytest.mark.parametrize("exact", [True], ids=["virtual time"])
async def test_a_program_that_stood_still_does_not_use_its_token(
    first_store: RedisStore, second_store: RedisStore, exact: bool
) -> None:
    """Another one may have it. While there are heartbeats, a token is held for long."""
    limiter, others = (store.limiter("k", "x", Rate(1.0)) for store in (first_store, second_store))
    permit = await limiter.acquire(Priority.CALL)
    await asyncio.sleep(20.0)
    permit.on_written()
    permit.close()
    permit = await limiter.acquire(Priority.CALL)
    stop_heartbeats(first_store)
    await asyncio.sleep(heartbeat.SESSION_TIMEOUT + 0.01)
    with pytest.raises(TokenExpiredError):
        permit.on_written()
    permit.close()
    (await others.acquire(Priority.CALL)).close()


async def test_a_pause_holds_for_all(
    first_store: RedisStore, second_store: RedisStore, exact: bool
) -> None:
    """A program that was throttled pauses the others as well."""
    rate = Rate(0.01)
    first, second = first_store.limiter("k", "n", rate), second_store.limiter("k", "n", rate)
    await send(second, [])
    started = now()
    first.pause(0.7 if exact else 10 * HANG_TIMEOUT)

    async def paused() -> bool:
        return (await second_store.snapshot()).endpoints[0].paused_for > 0.0

    await wait_until(paused, 0.1 if exact else HANG_TIMEOUT)
    with pytest.raises(RateLimitedError) as caught:
        await second.acquire(Priority.CALL, max_wait=0.2)
    retry_after = caught.value.retry_after
    assert retry_after is not None
    if exact:
        assert retry_after == pytest.approx(0.65, abs=0.1)
    else:
        assert 9 * HANG_TIMEOUT < retry_after <= 10 * HANG_TIMEOUT
        first, second = first_store.limiter("l", "n", rate), second_store.limiter("l", "n", rate)
        await send(second, [])
        started = now()
        first.pause(0.2)
        await send(first, [])
    async with within(2, exact=exact):
        (await second.acquire(Priority.CALL)).close()
    assert now() - started >= (0.7 if exact else 0.2)


async def test_a_cancelled_waiter_leaves_nothing_behind(
    first_store: RedisStore, second_store: RedisStore
) -> None:
    """Neither a token nor a position in the queue, at any time of the cancellation."""
    rate = Rate(0.02, guard=0.0)
    first, second = first_store.limiter("k", "n", rate), second_store.limiter("k", "n", rate)
    await send(second, [])
    for number in range(20):
        await asyncio.sleep(0.02 * (number % 2))  # with and without an available token
        wait = asyncio.ensure_future(first.acquire(Priority.CALL))
        await asyncio.sleep(0.00002 * number)
        wait.cancel()
        if isinstance(permit := (await asyncio.gather(wait, return_exceptions=True))[0], Permit):
            permit.close()
        async with Delays() as delays, asyncio.timeout(HANG_TIMEOUT):
            started = now()
            await send(second, [])
            assert now() - started < delays.allowed(0.25)


async def test_accounts_and_endpoints_are_paced_separately(first_store: RedisStore) -> None:
    """Each key has a bucket."""
    rate = Rate(10 * HANG_TIMEOUT)
    await redis_server.make_tokens_available(first_store)
    async with asyncio.timeout(HANG_TIMEOUT):
        await send(first_store.limiter("a", "n", rate), [])
        await send(first_store.limiter("b", "n", rate), [])


# -- the server's address -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost:6379/0"),
        ("valkey://db.example:7000/3", "redis://db.example:7000/3"),
        ("rediss://user:hunter2-canary@db.example", "rediss://db.example:6379/0"),
        ("redis://:hunter2-canary@[::1]:7000", "redis://[::1]:7000/0"),
        (Secret("redis://:hunter2-canary@h"), "redis://h:6379/0"),
        ("rediss://h/0?ssl_ca_certs=/ca.pem", "rediss://h:6379/0"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str | Secret, shown: str) -> None:
    """Neither the repr of a store nor its attributes contain it."""
    store = RedisStore(url, prefix="bot")
    assert repr(store) == f"<RedisStore {shown} 'bot', closed>"
    assert CANARY not in repr(vars(store)) + repr(store._address) + repr(vars(store._connections))


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost", "http://:hunter2-canary@h", "redis://", "redis://:hunter2-canary@h/x"),
        *("redis://:hunter2-canary@h:99999", "redis://:hunter2-canary@h?db=1", 7, None),
        *("redis://:hunter2-canary@h#x", "redis://:hunter2-canary@[::1", "redis://h?x"),
        "redis://:hunter2-canary%00@h",
    ],
)
def test_an_invalid_address_is_rejected(url: str) -> None:
    """Immediately, and with a text that contains no part of it."""
    with pytest.raises(InvalidRequestError) as caught:
        RedisStore(url)
    assert not redis_server.leaks(caught.value)
    del url


@pytest.mark.parametrize(
    "options",
    [
        *(
            {"prefix": ""},
            {"prefix": "a b"},
            {"prefix": "a}"},
            {"prefix": 7},
            {"prefix": "x" * 101},
        ),
        *({"max_length": 0}, {"timeout": 0}, {"timeout": "1"}, {"patience": -1}),
    ],
)
def test_options_are_checked(options: dict[str, object]) -> None:
    """When the store is created."""
    with pytest.raises(InvalidRequestError):
        RedisStore("redis://localhost", **options)  # type: ignore[arg-type]


def test_the_environment_can_name_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """With each scheme; an error does not contain its URL."""
    for scheme in ("redis", "rediss", "valkey"):
        monkeypatch.setenv("PYTHPEER_STORE", f"{scheme}://:{CANARY}@h:1/2")
        assert "h:1/2" in repr(Session.from_env())
    monkeypatch.setenv("PYTHPEER_STORE", f"redis://:{CANARY}@h:1/x")
    with pytest.raises(InvalidRequestError, match="PYTHPEER_STORE") as caught:
        Session.from_env()
    assert not redis_server.leaks(caught.value)
    assert isinstance(store_from_url("memory"), MemoryStore)


def test_the_url_can_name_a_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a command can watch a bot with a prefix of its own; an argument goes first."""
    monkeypatch.setenv("PYTHPEER_STORE", "redis://h/2?prefix=dash&ssl_ca_certs=x")
    assert "prefix 'dash'" in Session.from_env().describe()
    assert "prefix 'main'" in str(RedisStore("redis://h"))
    assert "prefix 'own'" in str(RedisStore("redis://h?prefix=dash", prefix="own"))
    for wrong in ("", "a%20b", "a%7Bb", "a" * 101):
        with pytest.raises(InvalidRequestError, match="prefix"):
            RedisStore(f"redis://h?prefix={wrong}")
    with pytest.raises(InvalidRequestError, match="with a value"):
        RedisStore("rediss://h?ssl_ca_certs=")


async def test_any_number_of_entries_is_counted(first_store: RedisStore) -> None:
    """Scripts read a thousand at a time."""
    topic = Topic(f"mail-{uuid.uuid4().hex}", Item, destructive=True)
    log = first_store.log(topic)
    reader = log.reader("bot")
    await reader.seek_if_new(0)
    await log.append(new_mails(*range(1, 2502)))
    snapshots = {shown.topic: shown for shown in (await first_store.snapshot()).logs}
    assert [shown.lag for shown in snapshots[topic.name].readers] == [2501]


async def test_the_other_prefixes_of_a_server_are_known(url: str) -> None:
    """Those of stores, whatever else the database has."""
    names = [f"{uuid.uuid4()}-{kind}" for kind in ("é", "[a]*?")]
    async with redis_programs(url) as create:
        first, second = [await open_store(create(prefix=name)) for name in names]
        await second._connections._execute_or_raise("SET", "pythpeer:foreign", "1")
        assert set(names) & set(await first.other_prefixes()) == {names[1]}
        assert names[0] in await second.other_prefixes()
        assert not any("foreign" in prefix for prefix in await first.other_prefixes())
        await second._connections._execute_or_raise("DEL", "pythpeer:foreign")


def test_without_the_extra_it_is_named_when_a_session_opens() -> None:
    """Importing and creating a store needs no redis; the error says how to install it."""
    program = (
        "import sys, asyncio; sys.modules['redis'] = None\n"
        "from pythpeer.stores import RedisStore\n"
        "from pythpeer import StoreError\n"
        "try: asyncio.run(RedisStore('redis://localhost').open())\n"
        "except StoreError as error: print(error, error.__cause__, error.__context__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=HOME,
    )
    assert "pip install \"redis>=5.2\" (the extra 'redis') None None" in done.stdout, done.stderr


def test_importing_needs_no_redis() -> None:
    """Neither the package nor the store imports it before a session opens."""
    program = (
        "import sys; from pythpeer.stores import RedisStore; RedisStore('redis://localhost')\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'redis'])"
    )
    environment = {name: v for name, v in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=HOME,
        env=environment,
    )
    assert done.stdout == "[]\n", done.stderr


# -- a server that fails --------------------------------------------------------------------------


async def test_a_thousand_concurrent_reads_need_few_connections(
    url: str, first_store: RedisStore
) -> None:
    """A call waits for a free connection."""
    log = first_store.log(CHAT)
    await log.append(new_items(1))
    results = await asyncio.gather(*(log.reader(None).read(0, 1) for _ in range(1000)))
    assert [entry.id for (entry,) in results] == [1] * 1000
    assert len(first_store._connections._idle) <= MAX_CONNECTIONS


@pytest.mark.parametrize("exact", [True], ids=["virtual time"])
async def test_the_wait_for_a_connection_is_limited_by_the_timeout(
    exact: bool,
) -> None:
    """A server that hangs delays no call longer, with any number of calls."""
    writers: list[asyncio.StreamWriter] = []
    silent_server = await asyncio.start_server(
        lambda _, writer: writers.append(writer), "127.0.0.1", 0
    )
    store = RedisStore(
        f"redis://127.0.0.1:{silent_server.sockets[0].getsockname()[1]}", timeout=0.1, patience=0.0
    )
    store._connections._open = True
    started = now()
    calls = (store.log(CHAT).max_acknowledged() for _ in range(10 * MAX_CONNECTIONS))
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert {str(error).partition("did")[2] for error in errors} == {" not respond within 0.1 s"}
    assert now() - started < 1.0
    await store._connections.aclose()
    silent_server.close()
    for writer in writers:
        writer.close()
    await asyncio.sleep(0.01)


async def test_an_unreachable_server_is_an_error_without_a_retry() -> None:
    """A session does not open, and the error names the server."""
    store = RedisStore("redis://127.0.0.1:1/0", patience=10 * HANG_TIMEOUT)
    async with asyncio.timeout(HANG_TIMEOUT):
        with pytest.raises(StoreError, match=r"redis://127.0.0.1:1/0 cannot be reached") as caught:
            await Session(store=store).open()
    assert caught.value.transient
    assert pickle.loads(pickle.dumps(caught.value)).transient
    assert caught.value.__context__ is None


@redis_server.needs_a_server
async def test_a_wrong_password_is_an_error_that_does_not_contain_it(folder: Path) -> None:
    """Nor the right one. There is no retry."""
    with redis_server.real_server(folder, password="right-one") as server:
        for password in (f":{CANARY}@", f"user:{CANARY}@", ""):
            address = f"redis://{password}127.0.0.1:{server.port}/0"
            store = RedisStore(address, patience=10 * HANG_TIMEOUT)
            async with asyncio.timeout(HANG_TIMEOUT):
                with pytest.raises(StoreError, match="rejects the user name or the pass") as caught:
                    await store.open()
            assert not caught.value.transient
            assert not redis_server.leaks(caught.value)
        store = RedisStore(server.url)
        await store.open()
        await store.log(CHAT).append(new_items(1))
        (connection,) = store._connections._idle
        attributes = [getattr(connection, name, None) for name in dir(connection)]
        assert "right-one" not in repr(attributes) + repr(connection)
        await store.aclose()


async def test_tls_is_checked(tmp_path: Path) -> None:
    """With the certificate of a private authority, which the URL names."""
    authority, ca = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    fake = FaultyRedis(context=context)
    async with fake:
        address = fake.url.replace("redis://", "rediss://")
        good = RedisStore(f"{address}?ssl_ca_certs={ca}")
        await good.open()
        assert await good.log(CHAT).max_acknowledged() == 7
        await good.aclose()
        with pytest.raises(StoreError, match="certificate that is not trusted") as caught:
            await RedisStore(address).open()
        assert not redis_server.leaks(caught.value)


async def test_a_server_that_lost_the_scripts_receives_them_again(
    url: str, first_store: RedisStore
) -> None:
    """The call does not fail."""
    from redis.asyncio import Redis

    log = first_store.log(CHAT)
    await log.append(new_items(1))
    async with Redis.from_url(url, protocol=2) as client:
        await client.script_flush()
    await log.append(new_items(2))
    assert await read_ids(log.reader(None)) == [1, 2]


@redis_server.needs_a_server
async def test_a_call_retries_while_the_server_is_not_reachable(
    server: redis_server.RealServer,
) -> None:
    """It raises `StoreError` if the server stays unreachable."""
    store = RedisStore(server.url, patience=HANG_TIMEOUT)
    await store.open()
    log = store.log(CHAT)
    await log.append(new_items(1))
    server.kill()
    asyncio.get_running_loop().call_later(0.1, server.start)
    await log.append(new_items(2))
    server.kill()
    store._connections._max_wait = 0.3
    started = now()
    async with Delays() as delays:
        with pytest.raises(StoreError, match="cannot be reached") as caught:
            await log.append(new_items(3))
        assert now() - started < delays.allowed(0.8)
    store._connections._max_wait = HANG_TIMEOUT
    assert caught.value.__context__ is None
    server.start()
    assert [new.id for new in await log.append(new_items(3))] == [3]
    assert await read_ids(log.reader(None)) == [1, 2, 3]
    await store.aclose()


@redis_server.needs_a_server
async def test_streams_keep_retrying_while_the_server_is_not_reachable(
    server: redis_server.RealServer, caplog: pytest.LogCaptureFixture
) -> None:
    """For any time, with one warning and one message afterwards; no item is lost or duplicated."""
    caplog.set_level(logging.INFO, "pythpeer")
    store, source = RedisStore(server.url, patience=0.2), MemorySource()
    await store.open()
    stream = stream_of(store, source, "team")
    await stream.__aenter__()
    source.ids += [1, 2]
    assert await take_ids(stream, 2) == [1, 2]
    server.kill()
    source.ids += [3]
    waiting = asyncio.ensure_future(take_ids(stream, 1))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    server.start()
    assert await waiting == [3]
    source.ids += [4]
    assert await take_ids(stream, 1) == [4]
    await stream.aclose()
    await store.aclose()
    messages = [record.message for record in caplog.records if record.name == "pythpeer.streams"]
    assert len([text for text in messages if "keeps retrying" in text]) == 1
    assert len([text for text in messages if "recovered" in text]) == 1


@redis_server.needs_a_server
async def test_the_wait_for_a_server_that_hangs_is_limited(
    server: redis_server.RealServer,
) -> None:
    """Each response has a time limit, and the command is executed at most once."""
    store = RedisStore(server.url, timeout=HANG_TIMEOUT, patience=0.3)
    await store.open()
    log = store.log(MAIL)
    await log.append([NewEntry(Item(1), identity="1")])
    server.signal(signal.SIGSTOP)
    store._connections._timeout = 0.1
    with pytest.raises(StoreError, match=r"did not respond within 0\.1 s"):
        await log.append([NewEntry(Item(2), identity="2")])
    asyncio.get_running_loop().call_later(0.25, server.signal, signal.SIGCONT)
    store._connections._max_wait = HANG_TIMEOUT
    await log.append([NewEntry(Item(3), identity="3")])
    ids = [entry.item.id for entry in await log.reader(None).read(0, 10) if entry.item]
    assert ids.count(3) == 1
    assert ids.count(2) <= 1
    await store.aclose()


@redis_server.needs_a_server
async def test_a_server_without_memory_is_an_error_until_it_has_some(
    server: redis_server.RealServer,
) -> None:
    """The append fails, stored entries are kept, and later appends succeed."""
    from redis.asyncio import Redis

    store = RedisStore(server.url)
    await store.open()
    log = store.log(CHAT)
    await log.append(new_items(1))
    async with Redis.from_url(server.url) as client:
        await client.config_set("maxmemory", "1")
        with pytest.raises(StoreError, match="no memory left") as caught:
            await log.append(new_items(2))
        assert caught.value.transient
        await client.config_set("maxmemory", "0")
    await log.append(new_items(2))
    assert await read_ids(log.reader(None)) == [1, 2]
    await store.aclose()


@redis_server.needs_a_server
async def test_a_write_to_a_replica_is_retried(server: redis_server.RealServer) -> None:
    """Until it is the primary: as after a failover."""
    from redis.asyncio import Redis

    store = RedisStore(server.url, patience=HANG_TIMEOUT)
    await store.open()
    async with Redis.from_url(server.url) as client:
        await client.replicaof("127.0.0.1", "1")
        loop = asyncio.get_running_loop()
        loop.call_later(0.2, lambda: asyncio.ensure_future(client.replicaof("NO", "ONE")))
        await store.log(CHAT).append(new_items(1))
    assert await read_ids(store.log(CHAT).reader(None)) == [1]
    await store.aclose()


@redis_server.needs_a_server
async def test_all_keys_are_on_one_node_of_a_cluster(folder: Path) -> None:
    """Every key has the same hash tag."""
    from redis.asyncio import Redis

    with redis_server.real_server(folder, "--cluster-enabled", "yes") as server:
        async with Redis.from_url(server.url) as client:
            slots = ("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await client.execute_command(*slots)  # type: ignore[no-untyped-call]

            async def complete() -> bool:
                answer = await client.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
                return "cluster_state:ok" in str(answer)

            await wait_until(complete)
        store = RedisStore(server.url)
        await store.open()
        await store.log(CHAT).append(new_items(1))
        reader = store.log(CHAT).reader("team")
        await reader.seek_if_new(0)
        assert await read_all(reader) == [1]
        await send(store.limiter("k", "n", Rate(0.01)), [])
        await store.aclose()


@pytest.mark.parametrize(
    ("response", "text", "transient", "calls"),
    [
        (b"-LOADING Redis is loading", "still loading", True, 2),
        (b"-READONLY You can't write", "is a replica", True, 2),
        (b"-CLUSTERDOWN Hash slot not served", "a cluster that is not complete", True, 2),
        (b"-MISCONF Redis is configured to save", "cannot save to its disk", True, 1),
        (b"-OOM command not allowed when used memory", "no memory left", True, 1),
        (b"-NOPERM this user has no permissions", "does not permit the user", False, 1),
        (b"-BUSY Redis is busy running a script", "busy with a slow script", True, 2),
        (b"-NOREPLICAS Not enough good replicas", "too few replicas", True, 2),
        (b"-MASTERDOWN Link with MASTER is down", "no connection to its primary", True, 2),
        (b"-ASK 1729 127.0.0.1:1", "moving the keys", True, 2),
        (b"-TRYAGAIN Multiple keys request", "moving the keys", True, 2),
        (b"-ERR max number of clients reached", "no more connections", True, 2),
        (b"-ERR Error running script: Script killed by user", "ended a script", True, 2),
        (b"-UNBLOCKED force unblock", "changed its role", True, 2),
        (b"-MOVED what", "cannot be reached|redirects repeatedly", True, 2),
        (b"-MOVED 1 host:99999999", "redirects repeatedly", True, 2),
        (
            b"-WRONGTYPE Operation against a key",
            r"malformed data under the key .*:meta:|log:chat",
            False,
            1,
        ),
        (b"-ERR unknown " + CANARY.encode(), r"\*\*\*", False, 1),
    ],
)
@pytest.mark.parametrize("exact", [True], ids=["virtual time"])
async def test_errors_of_a_server_are_mapped(
    response: bytes, text: str, transient: bool, calls: int, exact: bool
) -> None:
    """Whether it is transient, whether there is a retry, and the advice in the text."""
    fake = FaultyRedis(*[response] * 20)
    async with fake as store:
        await store.open()
        with pytest.raises(StoreError, match=text) as caught:
            await store.log(CHAT).max_acknowledged()
        assert caught.value.transient == transient
        assert (fake.scripts > 1) == (calls > 1)
        assert not redis_server.leaks(caught.value)
        assert caught.value.__context__ is None
        fake.answers.clear()
        assert await store.log(CHAT).max_acknowledged() == 7


async def test_a_redirection_of_a_cluster_is_followed() -> None:
    """By the next attempt, and by all later calls."""
    there = FaultyRedis()
    async with there:
        port = there.url.rpartition(":")[2].partition("/")[0].encode()
        here = FaultyRedis(b"-MOVED 42 127.0.0.1:" + port)
        async with here as store:
            await store.open()
            assert await store.log(CHAT).max_acknowledged() == 7
            await store._connections._discard_idle()
            assert await store.log(CHAT).max_acknowledged() == 7
            assert (here.scripts, there.scripts) == (1, 2)


async def test_a_server_that_is_too_old_is_an_error() -> None:
    """With its version, and the oldest supported one."""
    async with FaultyRedis(version="6.2.14") as store:
        with pytest.raises(StoreError, match=r"has version 6\.2\.14, and 7\.0 is the oldest"):
            await store.open()


async def test_a_store_that_is_not_open_raises_errors(first_store: RedisStore) -> None:
    """Before it was opened, and after it was closed."""
    store = RedisStore("redis://localhost")
    with pytest.raises(StoreError, match="not open"):
        await store.log(CHAT).max_acknowledged()
    await first_store.aclose()
    with pytest.raises(StoreError, match="not open"):
        await first_store.log(CHAT).max_acknowledged()


async def test_an_acknowledgement_that_cannot_be_stored_at_the_end_is_an_error() -> None:
    """None is lost silently."""
    fake = FaultyRedis()
    async with fake as store:
        await store.open()
        store.log(CHAT).reader(None).ack(3)
        reader = store.log(CHAT).reader(None)
        reader.ack(3)
        fake.answers.extend([b"-ERR no"] * 5)
        with pytest.raises(StoreError, match="returned an error: no"):
            await store.aclose()


async def test_direct_calls_have_a_separate_position(
    first_store: RedisStore, second_store: RedisStore
) -> None:
    """It does not count as acknowledged, and every program can read it."""
    log = first_store.log(MAIL)
    await log.append(new_mails(1, 2, 3))
    assert await log.reader(DIRECT).position() is None
    log.reader(DIRECT).ack(0)
    reader = log.reader(DIRECT)
    reader.ack(2)
    assert await reader.position() == 2
    assert await second_store.log(MAIL).reader(DIRECT).position() == 2
    assert await log.max_acknowledged() == 0
    assert [entry.id for entry in await reader.read(1, sys.maxsize)] == [2, 3]


async def test_an_item_that_cannot_be_read_or_written_is_undecodable(
    url: str, first_store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning; the entries next to it are not affected."""
    from redis.asyncio import Redis

    log = first_store.log(Topic("nested", Nested))
    nested: list[object] = []
    for _ in range(1_000_000):  # Python 3.14 encodes a tenth of that
        nested = [nested]
    too_deep = NewEntry(Nested(nested), id=2, after=1)
    await log.append([NewEntry(Nested([1]), id=1, after=0), too_deep])
    async with Redis.from_url(url, protocol=2) as client:
        fields = {"after": "2", "item": "{"}
        await client.xadd(f"{first_store._keys.tag}:log:nested", fields, id="3-0")  # type: ignore[arg-type]
    entries = await log.reader(None).read(0, 10)
    assert [entry.item for entry in entries] == [Nested([1]), None, None]
    assert "2 cannot be encoded" in caplog.text
    assert "3 is damaged" in caplog.text
    while nested:  # so that it is not deallocated recursively
        nested = nested.pop()  # type: ignore[assignment]


# -- a server that has lost its data --------------------------------------------------------------


async def empty(url: str, store: RedisStore) -> None:
    """Delete all keys, as the restart of a server without a disk does."""
    from redis.asyncio import Redis

    async with Redis.from_url(url, protocol=2) as client:
        keys = [key async for key in client.scan_iter(f"*{store._keys.prefix}*")]
        await client.delete(*keys)


async def test_on_an_empty_server_all_tokens_count_as_used(
    url: str, first_store: RedisStore, second_store: RedisStore
) -> None:
    """Earlier requests are unknown: the next one waits until a token is certainly available."""
    rate = Rate(0.2, guard=0.05)
    first, second = first_store.limiter("k", "n", rate), second_store.limiter("k", "n", rate)
    sent: list[float] = []
    await send(first, sent)
    await empty(url, first_store)
    await send(second, sent)
    await send(first, sent)
    assert min(gaps(sent)) >= 0.199


async def test_on_a_new_server_the_burst_counts_as_used(program: Callable[[], RedisStore]) -> None:
    """All tokens count as used at its start, and become available one by one."""
    store, started = program(), now()
    await store.open()
    limiter = store.limiter("k", "n", Rate(0.1, burst=3, guard=0.0))
    sent: list[float] = []
    for number in range(4):
        await send(limiter, sent)
        assert sent[-1] - started >= (number + 1) * 0.1 - 0.001


@redis_server.needs_a_server
async def test_on_a_restarted_server_all_tokens_count_as_used(
    server: redis_server.RealServer,
) -> None:
    """Although it kept its data: the last writes may be lost."""
    rate = Rate(0.25, guard=0.05)
    store, sent = RedisStore(server.url), list[float]()
    await store.open()
    limiter = store.limiter("k", "n", rate)
    await send(limiter, sent)
    await asyncio.sleep(0.35)
    server.kill()
    server.start()
    restarted = now()
    await send(limiter, sent)
    assert sent[-1] - restarted >= 0.249
    await store.aclose()


async def test_chat_continues_when_the_server_is_empty(
    url: str, first_store: RedisStore, second_store: RedisStore
) -> None:
    """A reader has the position of its name, and the service still has later messages."""
    source = MemorySource(1, 2)
    stream, anonymous = (
        stream_of(first_store, source, "team", after=0),
        stream_of(second_store, source, None, after=0),
    )
    assert await take_ids(stream, 2) == [1, 2]
    assert await take_ids(anonymous, 2) == [1, 2]
    await stream.ack()
    await empty(url, first_store)
    source.ids += [3, 4]
    assert await take_ids(stream, 2) == [3, 4]
    assert await take_ids(anonymous, 2) == [3, 4]
    assert stream.gaps == anonymous.gaps == ()
    await stream.aclose()
    await anonymous.aclose()


async def test_mail_is_recovered_when_the_server_is_empty(
    url: str, first_store: RedisStore, second_store: RedisStore
) -> None:
    """The service has forgotten it, so the history is read; new ids are beyond the old ones."""
    log = first_store.log(MAIL)
    await log.append(new_mails(1, 2, 3))
    reader, anonymous = log.reader("team"), second_store.log(MAIL).reader(None)
    await reader.seek_if_new(0)
    assert await read_all(reader) == [1, 2, 3]
    assert await read_ids(anonymous) == [1, 2, 3]
    assert not await log.lost_fetches()
    await empty(url, first_store)
    assert await read_ids(reader, 3) == []
    assert len(await log.lost_fetches()) == 1
    await log.append(new_mails(4))
    for each_reader in (reader, anonymous):
        (entry,) = await each_reader.read(3, 10)
        assert entry.item == Item(4)
        assert entry.after > 3  # entries may be missing, and streams report that


async def test_a_fetch_intent_that_the_server_lost_is_stored_again(
    url: str, first_store: RedisStore
) -> None:
    """So that a read whose response is lost as well is recovered."""
    log = first_store.log(MAIL)
    lost = await log.begin_fetch(20.0)
    await empty(url, first_store)
    kept = await first_store.log(MAIL).begin_fetch(20.0)
    await log.lose_fetch(lost)
    fetches = list(await log.lost_fetches())
    assert len(fetches) == 1
    assert fetches != [kept]


async def test_the_fetch_of_a_dead_program_is_lost_immediately(
    first_store: RedisStore, second_store: RedisStore, exact: bool, session_timeout: float
) -> None:
    """It is lost when the death is detected, and once more when its time is over."""
    started, fetch = now(), 0
    seconds = 0.0
    for seconds in (
        (2.5,) if exact else (1.2, 6.0, HANG_TIMEOUT)
    ):  # a longer time if this is too slow
        started = now()
        log = first_store.log(
            MAIL
        )  # kept in a variable, because a handle that is collected counts as dead
        fetch = await log.begin_fetch(seconds)
        assert not await second_store.log(MAIL).lost_fetches()
        stop_heartbeats(first_store)
        await wait_until(
            second_store.log(MAIL).lost_fetches, session_timeout + 0.1 if exact else HANG_TIMEOUT
        )
        assert now() - started >= session_timeout - 0.001
        assert list(await second_store.log(MAIL).lost_fetches()) == [fetch]
        await second_store.log(MAIL).append([], completes=[fetch])
        if now() - started < seconds:
            break
        await second_store.log(MAIL).append([], completes=[fetch])
    assert not await second_store.log(MAIL).lost_fetches()
    await wait_until(second_store.log(MAIL).lost_fetches, seconds if exact else 2 * HANG_TIMEOUT)
    assert now() - started >= seconds - 0.001
    assert list(await second_store.log(MAIL).lost_fetches()) == [fetch]


async def test_the_lease_of_a_dead_program_is_free_immediately(
    first_store: RedisStore, second_store: RedisStore, exact: bool, session_timeout: float
) -> None:
    """Before it expires."""
    assert await first_store.log(CHAT).acquire_lease(10 * HANG_TIMEOUT)
    assert not await second_store.log(CHAT).acquire_lease(10 * HANG_TIMEOUT)
    stop_heartbeats(first_store)
    await wait_until(
        lambda: second_store.log(CHAT).acquire_lease(10 * HANG_TIMEOUT),
        2.0 if exact else HANG_TIMEOUT,
    )


async def test_closing_releases_items_and_tokens(
    program: Callable[[], RedisStore], exact: bool
) -> None:
    """Another program gets them immediately: pending items, tokens, the position in the queue."""
    first_store, second_store, rate = (
        program(),
        program(),
        Rate(1.0 if exact else 10 * HANG_TIMEOUT),
    )
    await first_store.open()
    await second_store.open()
    if not exact:
        await redis_server.make_tokens_available(first_store)
    await first_store.log(CHAT).append(new_items(1))
    reader = first_store.log(CHAT).reader("team")
    await reader.seek_if_new(0)
    assert await read_ids(reader, ack=False) == [1]
    permit = await first_store.limiter("k", "n", rate).acquire(Priority.CALL)
    await first_store.aclose()
    assert await read_ids(second_store.log(CHAT).reader("team")) == [1]
    async with within(0.5, exact=exact):
        (await second_store.limiter("k", "n", rate).acquire(Priority.CALL)).close()
    assert not permit.written


async def test_there_are_no_heartbeats_when_nothing_is_pending(
    first_store: RedisStore, exact: bool
) -> None:
    """They are sent only while there is something that others wait for."""
    reader = first_store.log(CHAT).reader("team")
    await reader.seek_if_new(0)
    await reader.read(0, 1)
    await reader.leave()

    async def is_idle() -> bool:
        return first_store._heartbeat._timer is None and first_store._heartbeat._task is None

    await wait_until(is_idle, 0.5 if exact else HANG_TIMEOUT)


def test_a_store_can_be_used_in_another_loop(url: str) -> None:
    """In one after the other, as by a program that calls `asyncio.run` twice."""
    store = RedisStore(url, prefix=uuid.uuid4().hex)

    async def work(id: int) -> list[int]:
        async with Session(store=store):
            await store.log(CHAT).append(new_items(id))
            await send(store.limiter("k", "n", Rate(0.01)), [])
            return await read_ids(store.log(CHAT).reader(None))

    assert asyncio.run(work(1)) == [1]
    assert asyncio.run(work(2)) == [1, 2]
