"""What is the Redis store's own: names that are shared, pacing of programs, servers that fail.

Time is real here, for it is the server's. How soon something has to come shows on virtual time,
with a server that goes by it; on real time, what comes too early does. What only a real server can
do is tried where there is one; how programs and servers are killed stands in `test_redis_kill.py`.
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
import traceback
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import pytest
import redis_server
import trustme
from helpers import REAL, VIRTUAL, Backend, now, take_ids, wait_until
from processes import HANG_TIMEOUT, Delays
from redis_virtual import VirtualRedisStore

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
    feed,
)
from pythpeer.feed import LEASE, Poller
from pythpeer.limiter import Limiter, Permit
from pythpeer.line import Priority
from pythpeer.polling import link_entries
from pythpeer.stores import DIRECT, Entry, Log, NewEntry, Reader, RedisStore, Topic, store_from_url
from pythpeer.stores.redis import gate, log, pulse, readers, survey
from pythpeer.stores.redis.link import MAX_CONNECTIONS

pytestmark = [pytest.mark.anyio, pytest.mark.processes]

CANARY: Final = "hunter2-canary"
HOME: Final = Path(__file__).parent.parent


class Line(msgspec.Struct, frozen=True):
    id: int


class Odd(msgspec.Struct, frozen=True):
    nested: list[object]


CHAT: Final = Topic("chat", Line)
MAIL: Final = Topic("mail", Line, destructive=True)


@pytest.fixture(params=[True, False], ids=["virtual time", "real time"])
def exact(request: pytest.FixtureRequest) -> bool:
    """Whether time is virtual: on a busy machine real time does not say what comes too late."""
    return bool(request.param)


def is_exact(request: pytest.FixtureRequest) -> bool:
    return "exact" in request.fixturenames and bool(request.getfixturevalue("exact"))


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    """The server's time is real, but where it goes by the loop's."""
    return VIRTUAL if is_exact(request) else REAL


@pytest.fixture
async def virtual_url() -> AsyncIterator[str]:
    """A server that goes by the loop's time."""
    server = VirtualRedisStore(max_length=1)
    await server.open()
    yield f"redis://127.0.0.1:{server._socket.getsockname()[1]}/0"
    await server.aclose()


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """A real server where there is one; what every store keeps to is tried on both kinds."""
    if is_exact(request):
        return str(request.getfixturevalue("virtual_url"))
    made: Callable[[str], str] = request.getfixturevalue("redis_url")
    return made("real" if redis_server.PROGRAM else "fake")


@pytest.fixture
def term(exact: bool, monkeypatch: pytest.MonkeyPatch) -> float:
    """After how long without a sign of life one is dead: on real time, half of what it is else."""
    if not exact:
        for module in (gate, log, pulse, readers, survey):
            monkeypatch.setattr(module, "SESSION_TIMEOUT", 0.6)
        monkeypatch.setattr(pulse, "HEARTBEAT_INTERVAL", 0.1)
    return pulse.SESSION_TIMEOUT


@pytest.fixture
async def program(url: str) -> AsyncIterator[Callable[[], RedisStore]]:
    """Makes stores that share all, as those of several programs do. They have to be opened."""
    prefix, made = uuid.uuid4().hex, list[RedisStore]()

    def make(**options: object) -> RedisStore:
        made.append(RedisStore(url, prefix=prefix, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for store in made:
        while store._sessions:
            await store.aclose()


@pytest.fixture
async def one(program: Callable[[], RedisStore]) -> RedisStore:
    store = program()
    await store.open()
    return store


@pytest.fixture
async def other(program: Callable[[], RedisStore]) -> RedisStore:
    store = program()
    await store.open()
    return store


@pytest.fixture
def server(tmp_path: Path) -> Iterator[redis_server.RealServer]:
    """A real server of the test's own."""
    with redis_server.real_server(tmp_path) as server:
        yield server


def lines(*ids: int, after: int | None = None) -> list[NewEntry[Line]]:
    links = (ids[0] - 1 if after is None else after, *ids)
    return [NewEntry(Line(id), id=id, after=link) for link, id in zip(links, ids, strict=False)]


def letters(*keys: int) -> list[NewEntry[Line]]:
    return [NewEntry(Line(key), identity=str(key), max_copies=1) for key in keys]


async def got(reader: Reader[Line], place: int = 0, *, ack: bool = True) -> list[int]:
    """The ids of what one read brings."""
    entries = await reader.read(place, 100)
    for entry in entries:
        if ack:
            reader.ack(entry.id)
    return [entry.id for entry in entries]


async def all_of(reader: Reader[Line], place: int = 0) -> list[int]:
    """The ids of all that there is."""
    found: list[int] = []
    while some := await got(reader, place):
        found += some
    return found


def within(seconds: float, *, exact: bool) -> asyncio.Timeout:
    """So long may it take on virtual time; on real time there is a limit for what hangs."""
    return asyncio.timeout(seconds if exact else HANG_TIMEOUT)


async def heard(store: RedisStore) -> bool:
    """Whether it has given a sign of life, so that it hears of deaths from now on."""
    return store._pulse._death_count is not None


def die(store: RedisStore) -> None:
    """As far as the others can tell, this program is dead: it gives no sign of life any more."""
    store._pulse._owners.clear()


# -- names that are shared ------------------------------------------------------------------------


async def test_readers_of_a_name_share_its_items(one: RedisStore, other: RedisStore) -> None:
    """Each item goes to one of them, in order, in whichever program it is."""
    first, second = one.log(CHAT).reader("team"), other.log(CHAT).reader("team")
    await first.seek_if_new(0)
    await second.seek_if_new(0)
    await one.log(CHAT).append(lines(*range(1, 101)))
    parts: tuple[list[int], list[int]] = ([], [])
    for _ in range(40):
        parts[0].extend(await got(first))
        parts[1].extend(await got(second))
    assert sorted(parts[0] + parts[1]) == list(range(1, 101))
    assert all(part == sorted(part) and part for part in parts)


async def test_different_names_each_get_everything(one: RedisStore, other: RedisStore) -> None:
    """And so does whoever has no name."""
    await one.log(CHAT).append(lines(1, 2, 3))
    for name in ("a", "b"):
        reader = other.log(CHAT).reader(name)
        await reader.seek_if_new(0)
        assert await all_of(reader) == [1, 2, 3]
    assert await got(other.log(CHAT).reader(None)) == [1, 2, 3]


async def test_joining_a_name_sends_nobody_elsewhere(one: RedisStore, other: RedisStore) -> None:
    """Whoever comes later works on with the others, wherever it thought to begin."""
    await one.log(CHAT).append(lines(1, 2, 3, 4))
    first, second = one.log(CHAT).reader("team"), other.log(CHAT).reader("team")
    await first.seek_if_new(0)
    assert await got(first) == [1]
    await second.seek_if_new(0)
    assert await all_of(second) == [2, 3, 4]
    assert await first.position() == 4


async def test_seeking_sends_all_of_a_name_elsewhere(one: RedisStore, other: RedisStore) -> None:
    """What they had in hand comes again, and their acknowledgements of it count no more."""
    await one.log(CHAT).append(lines(1, 2, 3))
    first, second = one.log(CHAT).reader("team"), other.log(CHAT).reader("team")
    await first.seek_if_new(0)
    assert await got(first, ack=False) == [1]
    await second.seek(0)
    assert await got(second, ack=False) == [1]
    first.ack(1)
    await first.flush()
    assert await second.position() == 0
    second.ack(1)
    assert await all_of(second) == [2, 3]


async def test_a_stream_that_is_left_hands_on_what_it_had(
    one: RedisStore, other: RedisStore, exact: bool
) -> None:
    """What was not acknowledged goes to another at once, before anything newer."""
    await one.log(CHAT).append(lines(1, 2, 3))
    first, second = one.log(CHAT).reader("team"), other.log(CHAT).reader("team")
    await first.seek_if_new(0)
    await second.seek_if_new(0)
    assert await got(first, ack=False) == [1]
    assert await got(second) == [2]
    news = asyncio.ensure_future(other.log(CHAT).wait_for_append(10 * HANG_TIMEOUT))
    await wait_until(lambda: heard(other))
    await first.leave()
    async with within(1.0, exact=exact):
        await news  # whoever waits for something is told
    assert await got(second) == [1]
    assert await got(second) == [3]


async def test_what_a_dead_program_had_goes_to_another(
    one: RedisStore, other: RedisStore, exact: bool, term: float
) -> None:
    """Within two seconds, and while it lives not at all, however long it takes."""
    await one.log(CHAT).append(lines(1, 2))
    first, second = one.log(CHAT).reader("team"), other.log(CHAT).reader("team")
    await first.seek_if_new(0)
    await second.seek_if_new(0)
    assert await got(first, ack=False) == [1]
    assert await got(second) == [2]
    async with Delays() as delays:
        await asyncio.sleep(1.5 * term)
        found = await got(second)
    if delays.worst > term / 2:  # signs of life may have been late
        assert found in ([], [1])
        return
    assert found == []
    die(one)
    news = asyncio.ensure_future(other.log(CHAT).wait_for_append(10 * HANG_TIMEOUT))
    async with within(2.0, exact=exact):
        await news  # the others are woken, although there is nothing new
    assert await got(second) == [1]


async def test_a_stream_that_was_let_go_is_as_good_as_dead(
    one: RedisStore, other: RedisStore, exact: bool
) -> None:
    """Nobody has to close what nobody has any more."""
    await one.log(CHAT).append(lines(1))
    first, second = one.log(CHAT).reader("team"), other.log(CHAT).reader("team")
    await first.seek_if_new(0)
    await second.seek_if_new(0)
    assert await got(first, ack=False) == [1]
    del first
    gc.collect()
    await wait_until(lambda: got(second), 2.0 if exact else HANG_TIMEOUT)


async def test_a_read_that_was_cut_off_loses_nothing(one: RedisStore) -> None:
    """What was handed out to somebody who did not hear of it is handed out to it again."""
    await one.log(CHAT).append(lines(1, 2, 3))
    reader = one.log(CHAT).reader("team")
    await reader.seek_if_new(0)
    found: list[int] = []
    for turns in itertools.count():
        read = asyncio.ensure_future(reader.read(0, 100))
        for _ in range(turns):
            await asyncio.sleep(0.0002)
        read.cancel()
        try:
            entries = await read
        except asyncio.CancelledError:
            continue
        found += [entry.id for entry in entries]
        for entry in entries:
            reader.ack(entry.id)
        if len(found) >= 3:
            break
    assert found == [1, 2, 3]


async def test_a_worker_takes_less_in_hand_the_longer_it_takes(one: RedisStore) -> None:
    """So that others have something to do; one that is quick takes much at a time."""
    log = one.log(CHAT)
    await log.append(lines(*range(1, 501)))
    sizes: list[int] = []
    for number in itertools.count():  # on a busy machine not every one is quick
        quick = log.reader(f"quick-{number}")
        await quick.seek_if_new(0)
        sizes = [len(await got(quick)) for _ in range(5)]
        if sizes == [1, 4, 16, 64, 100]:
            break
        assert number < 200, sizes
    slow = log.reader("slow")
    await slow.seek_if_new(0)
    sizes.clear()
    for _ in range(4):
        sizes.append(len(await got(slow)))
        await asyncio.sleep(0.06)
    assert sizes == [1, 1, 1, 1]


async def test_an_acknowledgement_is_on_record_soon(
    one: RedisStore, other: RedisStore, exact: bool
) -> None:
    """Without anything else being asked: the next item may take its time."""
    await one.log(CHAT).append(lines(1))
    reader = one.log(CHAT).reader("team")
    await reader.seek_if_new(0)
    assert await got(reader) == [1]
    await wait_until(lambda: other.log(CHAT).reader("team").position(), 1.0 if exact else HANG_TIMEOUT)


async def test_a_name_catches_up_on_what_the_stream_lacks(
    one: RedisStore, other: RedisStore
) -> None:
    """One worker does it, the others wait, and then they share again."""
    log = one.log(CHAT)
    first, second = log.reader("team"), other.log(CHAT).reader("team")
    await first.seek_if_new(3)
    await second.seek_if_new(3)
    await log.append(lines(7, 8, 9, after=6))
    assert [(e.id, e.after) for e in await first.read(3, 1)] == [(7, 6)]
    assert await got(second) == []  # the service has to be asked first
    assert second.group_position == 9
    await log.append([*lines(4, 5, 6), *lines(7, after=6)])
    assert await all_of(first, 3) == [4, 5, 6, 7, 8, 9]
    await log.append(lines(10, 11))
    assert [await got(second), await got(first, 9)] == [[10], [11]]
    assert await first.position() == 11


async def test_who_catches_up_can_die_too(one: RedisStore, other: RedisStore) -> None:
    """Then another goes on where it was."""
    log = one.log(CHAT)
    first, second = log.reader("team"), other.log(CHAT).reader("team")
    await first.seek_if_new(0)
    await second.seek_if_new(0)
    await log.append(lines(7, after=6))
    await log.append(lines(1, 2, 3, 4, 5, 6))
    assert await got(first) == [1]
    await first.leave()
    assert await all_of(second) == [2, 3, 4, 5, 6, 7]


async def test_what_came_late_is_not_passed_over(one: RedisStore) -> None:
    """An item below the end of the log, which the stream itself cannot take, comes in its place."""
    log = one.log(CHAT)
    await log.append([NewEntry(Line(5), id=5, after=0), NewEntry(Line(9), id=9, after=5)])
    reader = log.reader("team")
    await reader.seek_if_new(0)
    assert await got(reader) == [5]
    await log.append([NewEntry(Line(7), id=7, after=5)])
    assert await all_of(reader) == [7, 9]


async def test_what_is_trimmed_in_somebody_s_hand_is_missed_aloud(
    program: Callable[..., RedisStore], caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever takes it over finds a hole and a gap in its place, and a warning."""
    one, other = program(max_length=3), program(max_length=3)
    await one.open()
    await other.open()
    await one.log(CHAT).append(lines(1))
    first, second = one.log(CHAT).reader("team"), other.log(CHAT).reader("team")
    await first.seek_if_new(0)
    await second.seek_if_new(0)
    assert await got(first, ack=False) == [1]
    for id in range(2, 9):
        await one.log(CHAT).append(lines(id))
    await first.leave()
    assert list(await second.read(0, 10)) == [Entry(1, 0, True, None)]
    assert "1 was trimmed" in caplog.text
    assert (await second.read(0, 10))[0].after == 5  # as much as is left, and what is missing shows


async def test_mail_in_hand_is_never_trimmed(program: Callable[..., RedisStore]) -> None:
    """Although others have acknowledged what came after it."""
    one, other = program(max_length=2), program(max_length=2)
    await one.open()
    await other.open()
    log = one.log(MAIL)
    await log.append(letters(1, 2, 3))
    first, second = log.reader("team"), other.log(MAIL).reader("team")
    await first.seek_if_new(0)
    await second.seek_if_new(0)
    assert await got(first, ack=False) == [1]
    assert await all_of(second) == [2, 3]
    await log.append(letters(4, 5))
    assert await all_of(second) == [4, 5]
    await second.flush()
    await log.append(letters(6))
    assert await got(log.reader(None)) == [1, 2, 3, 4, 5, 6]
    first.ack(1)
    await first.flush()
    await log.append(letters(7))
    assert await got(log.reader(None)) == [6, 7]


async def test_the_stream_is_there_for_others_to_read(url: str, one: RedisStore) -> None:
    """Under the key and in the form that the documentation tells, dated by their own ids."""
    from redis.asyncio import Redis

    await one.log(CHAT).append(lines(7, after=3))
    key = f"{{pythpeer:{one._keys.prefix}}}:log:chat"
    async with Redis.from_url(url, protocol=2) as client:
        assert await client.xrange(key) == [(b"7-0", {b"after": b"3", b"item": b'{"id":7}'})]
        await client.xgroup_create(key, "outsider", "0")
        assert await client.xreadgroup("outsider", "me", {key: ">"})
    await one.log(CHAT).append(lines(8))
    assert await got(one.log(CHAT).reader(None)) == [7, 8]


@redis_server.needs_a_server
async def test_the_manual_s_commands_read_the_stream(
    server: redis_server.RealServer, tmp_path: Path
) -> None:
    """A group of one's own with plain redis-cli, word for word as the page has it."""
    page = (HOME / "docs/how-to/workers.md").read_text("utf-8")
    (block,) = [part for part in page.split("```") if "redis-cli XREADGROUP" in part]
    commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    shown = [line for line in block.splitlines()[1:] if line and not line.startswith("$ ")]
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
    said, complaints = await done.communicate()
    assert complaints == b""
    assert said.decode().splitlines() == ["OK", *shown, "1"]


# -- streams --------------------------------------------------------------------------------------


class Room:
    """A source in memory, asked every twentieth of a second by whoever leads."""

    name = "room"

    def __init__(self, *ids: int) -> None:
        self.ids = list(ids)
        self.polls: list[object] = []

    async def initial_position(self, log: Log[Line]) -> int | None:
        return None

    async def drain(self) -> None:
        pass

    async def poll(self, feed: Poller[Line]) -> PythpeerError | None:
        await asyncio.sleep(0.05)
        self.polls.append(feed)
        if feed.has_unpositioned:
            feed.set_initial_position(max(self.ids, default=0))
            return None
        after = feed.min_position
        page = {id: Line(id) for id in self.ids if id > after}
        await feed.log.append(link_entries(after, page, full=False))
        feed.confirm(after, full=False)
        return None


def stream_of(
    store: RedisStore, room: Room, name: str | None, after: int | None = None
) -> Stream[Line]:
    return Stream(Poller(room, store.log(CHAT), Retry(max_delay=0.2)), name=name, after=after)


async def test_streams_of_a_name_share_a_room(one: RedisStore, other: RedisStore) -> None:
    """Every message to one of them, one poll for all of them, and nothing lost at the end."""
    room, found = Room(), list[int]()
    done = asyncio.Event()

    async def follow(stream: Stream[Line]) -> None:
        async for line in stream:
            found.append(line.id)
            if len(found) >= 60:
                done.set()
            await asyncio.sleep(0.001)

    streams = [stream_of(store, room, "team") for store in (one, other, one)]
    for stream in streams:
        await stream.__aenter__()
    followers = [asyncio.ensure_future(follow(stream)) for stream in streams]
    for start in range(1, 61, 10):
        room.ids += range(start, start + 10)
        await asyncio.sleep(0.03)
    async with asyncio.timeout(HANG_TIMEOUT):
        await done.wait()
    for follower in followers:
        follower.cancel()
    await asyncio.gather(*followers, return_exceptions=True)
    assert sorted(found) == list(range(1, 61))


async def test_a_new_name_fetches_what_the_log_lacks(
    one: RedisStore, other: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log began with what another stream came for; this one wants all."""
    monkeypatch.setattr(feed, "LEASE", 0.3)
    room = Room(1, 2, 3, 4, 5)
    async with stream_of(one, room, None) as late:
        room.ids += [6]
        assert await take_ids(late, 1) == [6]
        async with stream_of(other, room, "all", after=0) as stream:
            assert await take_ids(stream, 6) == [1, 2, 3, 4, 5, 6]
            room.ids += [7]
            assert await take_ids(stream, 1) == [7]
            assert stream.gaps == ()


async def test_a_busy_leader_lets_another_poll(
    one: RedisStore, other: RedisStore, exact: bool
) -> None:
    """Whoever works on an item does not poll, and must not keep the others from it meanwhile."""
    room = Room()
    busy, free = stream_of(one, room, "busy", after=0), stream_of(other, room, "free", after=0)
    room.ids += [1]
    assert await take_ids(busy, 1) == [1]
    assert await take_ids(free, 1) == [1]
    leader = asyncio.ensure_future(take_ids(busy, 1))
    await asyncio.sleep(0.2)  # from now on it is the one that polls
    follower = asyncio.ensure_future(take_ids(free, 2))
    await asyncio.sleep(0.1)
    room.ids += [2]
    assert await leader == [2]
    room.ids += [3]
    async with within(LEASE / 2, exact=exact):
        assert await follower == [2, 3]


async def test_a_gap_is_found_by_whoever_comes_to_it(one: RedisStore, other: RedisStore) -> None:
    """What the service has no more is reported once, and the name goes on."""
    room = Room(1, 2)
    stream = stream_of(one, room, "team", after=0)
    assert await take_ids(stream, 2) == [1, 2]
    await other.log(CHAT).append(lines(9, after=8))
    room.ids = [9, 10]
    assert await take_ids(stream, 2) == [9, 10]
    assert not stream.gaps  # the service said that there is nothing in between
    await other.log(CHAT).append([NewEntry(Line(20), id=20, after=15, gap=True)])
    room.ids = [22]
    assert await take_ids(stream, 2) == [20, 22]
    assert stream.gaps == (Gap(10, 20),)
    await stream.aclose()


# -- pacing ---------------------------------------------------------------------------------------


async def send(limiter: Limiter, sent: list[float], priority: Priority = Priority.CALL) -> Permit:
    """One request, which takes no time."""
    permit = await limiter.acquire(priority)
    sent.append(now())
    permit.on_written()
    permit.on_answered(200)
    permit.close()
    return permit


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(sorted(times))]


async def test_programs_share_a_token(one: RedisStore, other: RedisStore, exact: bool) -> None:
    """One request an interval, whoever sends it, and each its turn."""
    sent: dict[str, list[float]] = {"one": [], "other": []}

    async def work(name: str, store: RedisStore) -> None:
        limiter = store.limiter("k", "n", Rate(0.05, guard=0.01))
        for _ in range(8):
            await send(limiter, sent[name])

    async with asyncio.timeout(HANG_TIMEOUT), asyncio.TaskGroup() as group:
        group.create_task(work("one", one))
        group.create_task(work("other", other))
    found = gaps(sent["one"] + sent["other"])
    assert min(found) >= 0.049
    assert not exact or sum(found) < 15 * 0.05 * 1.5  # the benchmarks measure it on real time
    turns = sorted([(t, "one") for t in sent["one"]] + [(t, "other") for t in sent["other"]])
    who = [name for _, name in turns]
    assert all(a != b for a, b in itertools.pairwise(who[2:-2]))


async def test_a_burst_is_shared_too(one: RedisStore, other: RedisStore, exact: bool) -> None:
    """Programs have so many tokens saved together, and not each."""
    limiters = [store.limiter("k", "n", Rate(0.2, burst=3)) for store in (one, other)]
    if exact:
        await asyncio.sleep(0.9)  # after which the server owes nothing any more
    else:
        await redis_server.owe_nothing(one)
    sent: list[float] = []
    async with asyncio.timeout(HANG_TIMEOUT), asyncio.TaskGroup() as group:
        for limiter in limiters * 3:
            group.create_task(send(limiter, sent))
    sent.sort()
    assert not exact or sent[2] - sent[0] < 0.15
    for number in range(3, 6):
        assert sent[number] - sent[0] >= (number - 2) * 0.2 - 0.002


async def test_a_token_that_was_not_used_is_another_s(
    one: RedisStore, other: RedisStore, exact: bool
) -> None:
    """A request that never left gives it back at once."""
    rate = Rate(1.0 if exact else 10 * HANG_TIMEOUT)
    if not exact:
        await redis_server.owe_nothing(one)
    first, second = one.limiter("k", "n", rate), other.limiter("k", "n", rate)
    permit = await first.acquire(Priority.CALL)
    waiting = asyncio.ensure_future(second.acquire(Priority.CALL))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    permit.close()
    async with within(0.5, exact=exact):
        (await waiting).close()


async def test_a_token_in_a_dead_program_s_hand_counts_as_used(
    one: RedisStore, other: RedisStore, exact: bool, term: float
) -> None:
    """For its request may have left; it costs the others one interval and no more."""
    rate = Rate(0.5 if exact else 0.2, guard=0.05)
    first, second = one.limiter("k", "n", rate), other.limiter("k", "n", rate)
    if not exact:
        await redis_server.owe_nothing(one)
    asked = now()
    await first.acquire(Priority.CALL)
    began = now() if exact else asked  # how long the answer took says nothing on real time
    die(one)
    async with within(4, exact=exact):
        (await second.acquire(Priority.CALL)).close()
    took = now() - began
    assert took >= term + rate.interval - 0.01
    assert not exact or took < term + rate.interval + 0.6


async def test_a_pause_holds_for_all(one: RedisStore, other: RedisStore, exact: bool) -> None:
    """Whoever was told to come back later tells the others."""
    rate = Rate(0.01)
    first, second = one.limiter("k", "n", rate), other.limiter("k", "n", rate)
    await send(second, [])
    began = now()
    first.pause(0.7 if exact else 10 * HANG_TIMEOUT)

    async def paused() -> bool:
        return (await other.snapshot()).endpoints[0].paused_for > 0.0

    await wait_until(paused, 0.1 if exact else HANG_TIMEOUT)
    with pytest.raises(RateLimitedError) as caught:
        await second.acquire(Priority.CALL, max_wait=0.2)
    retry_after = caught.value.retry_after
    assert retry_after is not None
    if exact:
        assert retry_after == pytest.approx(0.65, abs=0.1)
    else:
        assert 9 * HANG_TIMEOUT < retry_after <= 10 * HANG_TIMEOUT
        first, second = one.limiter("l", "n", rate), other.limiter("l", "n", rate)
        await send(second, [])
        began = now()
        first.pause(0.2)
        await send(first, [])
    async with within(2, exact=exact):
        (await second.acquire(Priority.CALL)).close()
    assert now() - began >= (0.7 if exact else 0.2)


async def test_whoever_gives_up_leaves_nothing_behind(one: RedisStore, other: RedisStore) -> None:
    """Neither a token nor a place in the line, whenever it is cancelled."""
    rate = Rate(0.02, guard=0.0)
    first, second = one.limiter("k", "n", rate), other.limiter("k", "n", rate)
    await send(second, [])
    for number in range(20):
        await asyncio.sleep(0.02 * (number % 2))  # a token is due, or it is not yet
        wait = asyncio.ensure_future(first.acquire(Priority.CALL))
        await asyncio.sleep(0.00002 * number)
        wait.cancel()
        if isinstance(permit := (await asyncio.gather(wait, return_exceptions=True))[0], Permit):
            permit.close()
        async with Delays() as delays, asyncio.timeout(HANG_TIMEOUT):
            began = now()
            await send(second, [])
            assert now() - began < delays.allowed(0.25)


async def test_accounts_and_endpoints_are_paced_apart(one: RedisStore) -> None:
    """One key, one bucket."""
    rate = Rate(10 * HANG_TIMEOUT)
    await redis_server.owe_nothing(one)
    async with asyncio.timeout(HANG_TIMEOUT):
        await send(one.limiter("a", "n", rate), [])
        await send(one.limiter("b", "n", rate), [])


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
    """Nobody who looks at a store learns how to get at its server."""
    store = RedisStore(url, prefix="bot")
    assert repr(store) == f"<RedisStore {shown} 'bot', closed>"
    assert CANARY not in repr(vars(store)) + repr(store._address) + repr(vars(store._link))


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost", "http://:hunter2-canary@h", "redis://", "redis://:hunter2-canary@h/x"),
        *("redis://:hunter2-canary@h:99999", "redis://:hunter2-canary@h?db=1", 7, None),
        *("redis://:hunter2-canary@h#x", "redis://:hunter2-canary@[::1", "redis://h?x"),
        "redis://:hunter2-canary%00@h",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    """At once, and without showing any of it."""
    with pytest.raises(InvalidRequestError) as caught:
        RedisStore(url)
    assert not shows(caught.value)
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
    """Where the store is made."""
    with pytest.raises(InvalidRequestError):
        RedisStore("redis://localhost", **options)  # type: ignore[arg-type]


def shows(error: BaseException | None) -> bool:
    """Whether the password is anywhere in an error: its text, its attributes, its frames."""
    if error is None:
        return False
    text = [str(error), repr(error.args), repr(vars(error))]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename.startswith(str(HOME / "pythpeer")):
            text += [f"{name}={value!r}" for name, value in frame.f_locals.items()]
    return CANARY in "".join(text) or shows(error.__context__) or shows(error.__cause__)


def test_the_environment_can_name_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """In any of the schemes; what is wrong with it is said without it."""
    for scheme in ("redis", "rediss", "valkey"):
        monkeypatch.setenv("PYTHPEER_STORE", f"{scheme}://:{CANARY}@h:1/2")
        assert "h:1/2" in repr(Session.from_env())
    monkeypatch.setenv("PYTHPEER_STORE", f"redis://:{CANARY}@h:1/x")
    with pytest.raises(InvalidRequestError, match="PYTHPEER_STORE") as caught:
        Session.from_env()
    assert not shows(caught.value)
    assert isinstance(store_from_url("memory"), MemoryStore)


def test_without_the_extra_it_is_named_when_a_session_opens() -> None:
    """Importing and making a store needs no redis; opening it says how to get it."""
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
    assert "pip install 'pythpeer[redis]' None None" in done.stdout, done.stderr


def test_importing_needs_no_redis() -> None:
    """Neither the package nor the store's module does, before a session opens."""
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


async def test_a_thousand_at_once_need_few_connections(url: str, one: RedisStore) -> None:
    """Whoever finds none free waits a moment for one."""
    log = one.log(CHAT)
    await log.append(lines(1))
    found = await asyncio.gather(*(log.reader(None).read(0, 1) for _ in range(1000)))
    assert [entry.id for (entry,) in found] == [1] * 1000
    assert len(one._link._idle) <= MAX_CONNECTIONS


@pytest.mark.parametrize("exact", [True], ids=["virtual time"])
async def test_whoever_waits_for_a_connection_waits_no_longer_than_for_an_answer(
    exact: bool,
) -> None:
    """A server that hangs keeps nobody longer, however many there are."""
    writers: list[asyncio.StreamWriter] = []
    hung = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    store = RedisStore(
        f"redis://127.0.0.1:{hung.sockets[0].getsockname()[1]}", timeout=0.1, patience=0.0
    )
    store._link._open = True
    began = now()
    asked = (store.log(CHAT).max_acknowledged() for _ in range(10 * MAX_CONNECTIONS))
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert {str(error).partition("gave")[2] for error in found} == {" no answer within 0.1 s"}
    assert now() - began < 1.0
    await store._link.aclose()
    hung.close()
    for writer in writers:
        writer.close()
    await asyncio.sleep(0.01)


async def test_a_server_that_is_not_there_is_said_at_once() -> None:
    """A session does not open, and says which server it was."""
    store = RedisStore("redis://127.0.0.1:1/0", patience=10 * HANG_TIMEOUT)
    async with asyncio.timeout(HANG_TIMEOUT):
        with pytest.raises(StoreError, match=r"redis://127.0.0.1:1/0 cannot be reached") as caught:
            await Session(store=store).open()
    assert caught.value.transient
    assert pickle.loads(pickle.dumps(caught.value)).transient
    assert caught.value.__context__ is None


@redis_server.needs_a_server
async def test_a_wrong_password_is_said_and_not_shown(tmp_path: Path) -> None:
    """Neither is the right one. Nobody waits for it to become right."""
    with redis_server.real_server(tmp_path, password="right-one") as server:
        for password in (f":{CANARY}@", f"user:{CANARY}@", ""):
            address = f"redis://{password}127.0.0.1:{server.port}/0"
            store = RedisStore(address, patience=10 * HANG_TIMEOUT)
            async with asyncio.timeout(HANG_TIMEOUT):
                with pytest.raises(StoreError, match="refuses the user name or the pass") as caught:
                    await store.open()
            assert not caught.value.transient
            assert not shows(caught.value)
        store = RedisStore(server.url)
        await store.open()
        await store.log(CHAT).append(lines(1))
        (connection,) = store._link._idle
        held = [getattr(connection, name, None) for name in dir(connection)]
        assert "right-one" not in repr(held) + repr(connection)
        await store.aclose()


async def test_tls_is_checked(tmp_path: Path) -> None:
    """With a certificate of an authority of one's own, which the URL names."""
    authority, ca = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    liar = Liar(context=context)
    async with liar:
        address = liar.url.replace("redis://", "rediss://")
        good = RedisStore(f"{address}?ssl_ca_certs={ca}")
        await good.open()
        assert await good.log(CHAT).max_acknowledged() == 7
        await good.aclose()
        with pytest.raises(StoreError, match="cannot be reached") as caught:
            await RedisStore(address).open()
        assert not shows(caught.value)


async def test_a_server_that_forgot_the_scripts_is_told_them_again(
    url: str, one: RedisStore
) -> None:
    """Nobody notices."""
    from redis.asyncio import Redis

    log = one.log(CHAT)
    await log.append(lines(1))
    async with Redis.from_url(url, protocol=2) as client:
        await client.script_flush()
    await log.append(lines(2))
    assert await got(log.reader(None)) == [1, 2]


@redis_server.needs_a_server
async def test_a_call_waits_a_moment_for_a_server(server: redis_server.RealServer) -> None:
    """And fails with a `StoreError` if it does not come back."""
    store = RedisStore(server.url, patience=HANG_TIMEOUT)
    await store.open()
    log = store.log(CHAT)
    await log.append(lines(1))
    server.kill()
    asyncio.get_running_loop().call_later(0.1, server.start)
    await log.append(lines(2))
    server.kill()
    store._link._patience = 0.3
    began = now()
    async with Delays() as delays:
        with pytest.raises(StoreError, match="cannot be reached") as caught:
            await log.append(lines(3))
        assert now() - began < delays.allowed(0.8)
    store._link._patience = HANG_TIMEOUT
    assert caught.value.__context__ is None
    server.start()
    assert [draft.id for draft in await log.append(lines(3))] == [3]
    assert await got(log.reader(None)) == [1, 2, 3]
    await store.aclose()


@redis_server.needs_a_server
async def test_streams_wait_for_a_server_that_is_away(
    server: redis_server.RealServer, caplog: pytest.LogCaptureFixture
) -> None:
    """However long, with one warning and one word when it is back; nothing is lost or twice."""
    caplog.set_level(logging.INFO, "pythpeer")
    store, room = RedisStore(server.url, patience=0.2), Room()
    await store.open()
    stream = stream_of(store, room, "team")
    await stream.__aenter__()
    room.ids += [1, 2]
    assert await take_ids(stream, 2) == [1, 2]
    server.kill()
    room.ids += [3]
    waiting = asyncio.ensure_future(take_ids(stream, 1))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    server.start()
    assert await waiting == [3]
    room.ids += [4]
    assert await take_ids(stream, 1) == [4]
    await stream.aclose()
    await store.aclose()
    said = [record.message for record in caplog.records if record.name == "pythpeer.streams"]
    assert len([words for words in said if "goes on trying" in words]) == 1
    assert len([words for words in said if "is back" in words]) == 1


@redis_server.needs_a_server
async def test_a_server_that_hangs_is_not_waited_for_for_ever(
    server: redis_server.RealServer,
) -> None:
    """An answer has its time limit, and what was asked then is done once, if at all."""
    store = RedisStore(server.url, timeout=HANG_TIMEOUT, patience=0.3)
    await store.open()
    log = store.log(MAIL)
    await log.append([NewEntry(Line(1), identity="1")])
    server.signal(signal.SIGSTOP)
    store._link._timeout = 0.1
    with pytest.raises(StoreError, match=r"no answer within 0\.1 s"):
        await log.append([NewEntry(Line(2), identity="2")])
    asyncio.get_running_loop().call_later(0.25, server.signal, signal.SIGCONT)
    store._link._patience = HANG_TIMEOUT
    await log.append([NewEntry(Line(3), identity="3")])
    found = [e.item.id for e in await log.reader(None).read(0, 10) if e.item]
    assert found.count(3) == 1
    assert found.count(2) <= 1
    await store.aclose()


@redis_server.needs_a_server
async def test_a_server_without_memory_refuses_and_recovers(
    server: redis_server.RealServer,
) -> None:
    """What it refused is said, what it has is kept, and it goes on when there is room again."""
    from redis.asyncio import Redis

    store = RedisStore(server.url)
    await store.open()
    log = store.log(CHAT)
    await log.append(lines(1))
    async with Redis.from_url(server.url) as client:
        await client.config_set("maxmemory", "1")
        with pytest.raises(StoreError, match="no memory left") as caught:
            await log.append(lines(2))
        assert caught.value.transient
        await client.config_set("maxmemory", "0")
    await log.append(lines(2))
    assert await got(log.reader(None)) == [1, 2]
    await store.aclose()


@redis_server.needs_a_server
async def test_a_replica_is_not_written_but_waited_for(
    server: redis_server.RealServer, tmp_path: Path
) -> None:
    """Until it is the first: so it is when another takes over."""
    from redis.asyncio import Redis

    store = RedisStore(server.url, patience=HANG_TIMEOUT)
    await store.open()
    async with Redis.from_url(server.url) as client:
        await client.replicaof("127.0.0.1", "1")
        loop = asyncio.get_running_loop()
        loop.call_later(0.2, lambda: asyncio.ensure_future(client.replicaof("NO", "ONE")))
        await store.log(CHAT).append(lines(1))
    assert await got(store.log(CHAT).reader(None)) == [1]
    await store.aclose()


@redis_server.needs_a_server
async def test_a_cluster_sends_us_where_all_keys_are(tmp_path: Path) -> None:
    """Every key has the same hash tag, so that one node has them all."""
    from redis.asyncio import Redis

    with redis_server.real_server(tmp_path, "--cluster-enabled", "yes") as server:
        async with Redis.from_url(server.url) as client:
            slots = ("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await client.execute_command(*slots)  # type: ignore[no-untyped-call]

            async def complete() -> bool:
                answer = await client.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
                return "cluster_state:ok" in str(answer)

            await wait_until(complete)
        store = RedisStore(server.url)
        await store.open()
        await store.log(CHAT).append(lines(1))
        reader = store.log(CHAT).reader("team")
        await reader.seek_if_new(0)
        assert await all_of(reader) == [1]
        await send(store.limiter("k", "n", Rate(0.01)), [])
        await store.aclose()


class Liar:
    """A server that answers scripts as it is told, and everything else as a server does."""

    def __init__(
        self, *answers: bytes, version: str = "7.0.0", context: ssl.SSLContext | None = None
    ) -> None:
        self._context = context
        self.answers = deque(answers)
        self.version = version
        self.scripts = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> RedisStore:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://:{CANARY}@127.0.0.1:{port}/0"
        self.store = RedisStore(self.url, patience=0.3)
        return self.store

    async def __aexit__(self, *exc_info: object) -> None:
        await self.store._link.aclose()
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                words: list[bytes] = []
                for _ in range(int((await reader.readuntil(b"\r\n"))[1:])):
                    size = int((await reader.readuntil(b"\r\n"))[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                writer.write(self._answer(words) + b"\r\n")

    def _answer(self, words: list[bytes]) -> bytes:
        if words[0] == b"INFO":
            text = f"redis_version:{self.version}\r\nrun_id:x".encode()
            return b"$%d\r\n%s" % (len(text), text)
        if words[0] == b"EVALSHA":
            self.scripts += 1
            return self.answers.popleft() if self.answers else b":7"
        return b"+OK"


@pytest.mark.parametrize(
    ("answer", "words", "transient", "asked"),
    [
        (b"-LOADING Redis is loading", "still loading", True, 2),
        (b"-READONLY You can't write", "is a replica", True, 2),
        (b"-CLUSTERDOWN Hash slot not served", "a cluster that is not complete", True, 2),
        (b"-MISCONF Redis is configured to save", "cannot save to its disk", True, 1),
        (b"-OOM command not allowed when used memory", "no memory left", True, 1),
        (b"-NOPERM this user has no permissions", "refuses the user name", False, 1),
        (b"-WRONGTYPE Operation against a key, " + CANARY.encode(), r"\*\*\*", False, 1),
    ],
)
@pytest.mark.parametrize("exact", [True], ids=["virtual time"])
async def test_what_a_server_says_is_understood(
    answer: bytes, words: str, transient: bool, asked: int, exact: bool
) -> None:
    """Whether it passes by itself, whether it is worth another try, and what is to be done."""
    liar = Liar(*[answer] * 20)
    async with liar as store:
        await store.open()
        with pytest.raises(StoreError, match=words) as caught:
            await store.log(CHAT).max_acknowledged()
        assert caught.value.transient == transient
        assert (liar.scripts > 1) == (asked > 1)
        assert not shows(caught.value)
        assert caught.value.__context__ is None
        liar.answers.clear()
        assert await store.log(CHAT).max_acknowledged() == 7


async def test_a_cluster_s_node_says_where_to_go() -> None:
    """The next try goes there, and so does everything after it."""
    there = Liar()
    async with there:
        port = there.url.rpartition(":")[2].partition("/")[0].encode()
        here = Liar(b"-MOVED 42 127.0.0.1:" + port)
        async with here as store:
            await store.open()
            assert await store.log(CHAT).max_acknowledged() == 7
            await store._link._discard_idle()
            assert await store.log(CHAT).max_acknowledged() == 7
            assert (here.scripts, there.scripts) == (1, 2)


async def test_a_server_that_is_too_old_is_refused() -> None:
    """With its version, and the oldest that will do."""
    async with Liar(version="6.2.14") as store:
        with pytest.raises(StoreError, match=r"is version 6\.2\.14, and 7\.0 is the oldest"):
            await store.open()


async def test_a_store_that_is_not_open_says_so(one: RedisStore) -> None:
    """Before, and after."""
    store = RedisStore("redis://localhost")
    with pytest.raises(StoreError, match="not open"):
        await store.log(CHAT).max_acknowledged()
    await one.aclose()
    with pytest.raises(StoreError, match="not open"):
        await one.log(CHAT).max_acknowledged()


async def test_what_cannot_be_put_down_at_the_end_is_said() -> None:
    """An acknowledgement is never lost in silence."""
    liar = Liar()
    async with liar as store:
        await store.open()
        store.log(CHAT).reader(None).ack(3)
        reader = store.log(CHAT).reader(None)
        reader.ack(3)
        liar.answers.extend([b"-ERR no"] * 5)
        with pytest.raises(StoreError, match="says: no"):
            await store.aclose()


async def test_direct_calls_have_a_place_of_their_own(one: RedisStore, other: RedisStore) -> None:
    """What they have returned is no acknowledgement, and every program knows it."""
    log = one.log(MAIL)
    await log.append(letters(1, 2, 3))
    assert await log.reader(DIRECT).position() is None
    log.reader(DIRECT).ack(0)
    reader = log.reader(DIRECT)
    reader.ack(2)
    assert await reader.position() == 2
    assert await other.log(MAIL).reader(DIRECT).position() == 2
    assert await log.max_acknowledged() == 0
    assert [e.id for e in await reader.read(1, sys.maxsize)] == [2, 3]


async def test_what_is_damaged_or_cannot_be_written_is_a_hole(
    url: str, one: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning; its neighbours are as they were."""
    from redis.asyncio import Redis

    log = one.log(Topic("odd", Odd))
    nested: list[object] = []
    for _ in range(1_000_000):  # Python 3.14 writes down a tenth of that
        nested = [nested]
    bad = NewEntry(Odd(nested), id=2, after=1)
    await log.append([NewEntry(Odd([1]), id=1, after=0), bad])
    async with Redis.from_url(url, protocol=2) as client:
        fields = {"after": "2", "item": "{"}
        await client.xadd(f"{one._keys.tag}:log:odd", fields, id="3-0")  # type: ignore[arg-type]
    entries = await log.reader(None).read(0, 10)
    assert [entry.item for entry in entries] == [Odd([1]), None, None]
    assert "2 cannot be written down" in caplog.text
    assert "3 is damaged" in caplog.text
    while nested:  # so that it is not taken apart at one go
        nested = nested.pop()  # type: ignore[assignment]


# -- a server that comes back empty ---------------------------------------------------------------


async def empty(url: str, store: RedisStore) -> None:
    """As a server without a disk is after a restart."""
    from redis.asyncio import Redis

    async with Redis.from_url(url, protocol=2) as client:
        keys = [key async for key in client.scan_iter(f"*{store._keys.prefix}*")]
        await client.delete(*keys)


async def test_an_empty_server_owes_an_interval(
    url: str, one: RedisStore, other: RedisStore
) -> None:
    """Nobody knows what was sent before: no request leaves before all could be due again."""
    rate = Rate(0.2, guard=0.05)
    first, second = one.limiter("k", "n", rate), other.limiter("k", "n", rate)
    sent: list[float] = []
    await send(first, sent)
    await empty(url, one)
    await send(second, sent)
    await send(first, sent)
    assert min(gaps(sent)) >= 0.199


async def test_a_new_server_owes_a_burst(program: Callable[[], RedisStore]) -> None:
    """All tokens count as used when it began, and come back one by one."""
    store, began = program(), now()
    await store.open()
    limiter = store.limiter("k", "n", Rate(0.1, burst=3, guard=0.0))
    sent: list[float] = []
    for number in range(4):
        await send(limiter, sent)
        assert sent[-1] - began >= (number + 1) * 0.1 - 0.001


@redis_server.needs_a_server
async def test_a_server_that_was_restarted_owes_an_interval(
    server: redis_server.RealServer,
) -> None:
    """Although it kept its data: what was written last may be lost."""
    rate = Rate(0.25, guard=0.05)
    store, sent = RedisStore(server.url), list[float]()
    await store.open()
    limiter = store.limiter("k", "n", rate)
    await send(limiter, sent)
    await asyncio.sleep(0.35)
    server.kill()
    server.start()
    back = now()
    await send(limiter, sent)
    assert sent[-1] - back >= 0.249
    await store.aclose()


async def test_chat_goes_on_when_the_server_is_empty(
    url: str, one: RedisStore, other: RedisStore
) -> None:
    """A worker knows where its name was, and the service still has what came since."""
    room = Room(1, 2)
    stream, lone = stream_of(one, room, "team", after=0), stream_of(other, room, None, after=0)
    assert await take_ids(stream, 2) == [1, 2]
    assert await take_ids(lone, 2) == [1, 2]
    await stream.ack()
    await empty(url, one)
    room.ids += [3, 4]
    assert await take_ids(stream, 2) == [3, 4]
    assert await take_ids(lone, 2) == [3, 4]
    assert stream.gaps == lone.gaps == ()
    await stream.aclose()
    await lone.aclose()


async def test_mail_is_looked_for_when_the_server_is_empty(
    url: str, one: RedisStore, other: RedisStore
) -> None:
    """The service has forgotten it, so its history is asked; numbers go on beyond the old ones."""
    log = one.log(MAIL)
    await log.append(letters(1, 2, 3))
    reader, lone = log.reader("team"), other.log(MAIL).reader(None)
    await reader.seek_if_new(0)
    assert await all_of(reader) == [1, 2, 3]
    assert await got(lone) == [1, 2, 3]
    assert not await log.lost_fetches()
    await empty(url, one)
    assert await got(reader, 3) == []
    assert len(await log.lost_fetches()) == 1
    await log.append(letters(4))
    for some in (reader, lone):
        (entry,) = await some.read(3, 10)
        assert entry.item == Line(4)
        assert entry.after > 3  # something may be missing, and streams say so


async def test_a_lost_announcement_is_made_again(url: str, one: RedisStore) -> None:
    """A read whose answer is lost as well is settled all the same."""
    log = one.log(MAIL)
    lost = await log.begin_fetch(20.0)
    await empty(url, one)
    kept = await one.log(MAIL).begin_fetch(20.0)
    await log.lose_fetch(lost)
    found = list(await log.lost_fetches())
    assert len(found) == 1
    assert found != [kept]


async def test_a_dead_program_s_announcement_counts_at_once(
    one: RedisStore, other: RedisStore, exact: bool, term: float
) -> None:
    """It is settled when the death shows, and once more when its time is over."""
    began, announced = now(), 0
    seconds = 0.0
    for seconds in (2.5,) if exact else (1.2, 6.0, HANG_TIMEOUT):  # a longer time if this is too slow
        began = now()
        log = one.log(MAIL)  # which is kept, for to let go of it is to die
        announced = await log.begin_fetch(seconds)
        assert not await other.log(MAIL).lost_fetches()
        die(one)
        await wait_until(other.log(MAIL).lost_fetches, term + 0.1 if exact else HANG_TIMEOUT)
        assert now() - began >= term - 0.001
        assert list(await other.log(MAIL).lost_fetches()) == [announced]
        await other.log(MAIL).append([], completes=[announced])
        if now() - began < seconds:
            break
        await other.log(MAIL).append([], completes=[announced])
    assert not await other.log(MAIL).lost_fetches()
    await wait_until(other.log(MAIL).lost_fetches, seconds if exact else 2 * HANG_TIMEOUT)
    assert now() - began >= seconds - 0.001
    assert list(await other.log(MAIL).lost_fetches()) == [announced]


async def test_a_dead_program_s_lead_is_free_at_once(
    one: RedisStore, other: RedisStore, exact: bool, term: float
) -> None:
    """Nobody waits for its time to be over."""
    assert await one.log(CHAT).acquire_lease(10 * HANG_TIMEOUT)
    assert not await other.log(CHAT).acquire_lease(10 * HANG_TIMEOUT)
    die(one)
    await wait_until(lambda: other.log(CHAT).acquire_lease(10 * HANG_TIMEOUT), 2.0 if exact else HANG_TIMEOUT)


async def test_closing_hands_everything_back(
    program: Callable[[], RedisStore], exact: bool
) -> None:
    """What a program had in hand, another has at once: items, tokens, the place in the line."""
    one, other, rate = program(), program(), Rate(1.0 if exact else 10 * HANG_TIMEOUT)
    await one.open()
    await other.open()
    if not exact:
        await redis_server.owe_nothing(one)
    await one.log(CHAT).append(lines(1))
    reader = one.log(CHAT).reader("team")
    await reader.seek_if_new(0)
    assert await got(reader, ack=False) == [1]
    permit = await one.limiter("k", "n", rate).acquire(Priority.CALL)
    await one.aclose()
    assert await got(other.log(CHAT).reader("team")) == [1]
    async with within(0.5, exact=exact):
        (await other.limiter("k", "n", rate).acquire(Priority.CALL)).close()
    assert not permit.written


async def test_nothing_runs_when_nothing_is_in_hand(one: RedisStore, exact: bool) -> None:
    """Signs of life are given only while there is something that others wait for."""
    reader = one.log(CHAT).reader("team")
    await reader.seek_if_new(0)
    await reader.read(0, 1)
    await reader.leave()

    async def still() -> bool:
        return one._pulse._timer is None and one._pulse._task is None

    await wait_until(still, 0.5 if exact else HANG_TIMEOUT)


def test_a_store_can_move_to_another_loop(url: str) -> None:
    """One after the other, as programs do that call `asyncio.run` twice."""
    store = RedisStore(url, prefix=uuid.uuid4().hex)

    async def work(id: int) -> list[int]:
        async with Session(store=store):
            await store.log(CHAT).append(lines(id))
            await send(store.limiter("k", "n", Rate(0.01)), [])
            return await got(store.log(CHAT).reader(None))

    assert asyncio.run(work(1)) == [1]
    assert asyncio.run(work(2)) == [1, 2]
