"""A store that was written by an earlier version opens, and resumes where it was."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from fakeredis import FakeRedis
from redis_virtual import VirtualRedisStore

from pythpeer import Rate, Secret
from pythpeer.pacing.queue import Priority
from pythpeer.stores import (
    DIRECT,
    EndpointSnapshot,
    Entry,
    NewEntry,
    ReaderSnapshot,
    RedisStore,
    SqliteStore,
    Store,
    Topic,
)
from pythpeer.testing import FakeServices

pytestmark = pytest.mark.anyio

SAMPLES: Final = Path(__file__).parent / "stores_samples"

WRITTEN_AT: Final = 703.5
"""What the loop's clock showed when the samples were written."""

LEASE_UNTIL: Final = 1302.5
FETCH_UNTIL: Final = 1302.5
PAUSED_UNTIL: Final = 741.5


class Note(msgspec.Struct, frozen=True):
    text: str
    sent_at: datetime | None = None


CHAT: Final = Topic("chat", Note)
MAIL: Final = Topic("mail", Note, destructive=True)


def note(id: int) -> Note:
    return Note(f"note {id}", datetime(2012, 12, 12, 21, 12, id))


CHAT_ENTRIES: Final = [
    Entry(3, 2, False, note(3)),
    Entry(4, 3, False, note(4)),
    Entry(6, 5, False, note(6)),  # arrived out of order
    Entry(8, 6, False, note(8)),  # its link was improved
    Entry(9, 8, False, None),  # undecodable
    Entry(12, 9, False, note(12)),
]


def copy_sample(name: str, folder: Path) -> None:
    """Copy one file, readable by its owner only whatever the umask of a checkout was."""
    shutil.copyfile(SAMPLES / name, folder / name)
    (folder / name).chmod(0o600)


def copy_file(folder: Path, *, after_reboot: bool = False) -> Path:
    """Copy the SQLite sample. Unless *after_reboot*, its times are those of the present clock."""
    for name in ("store.sqlite", "store.sqlite-places"):
        copy_sample(name, folder)
    path = folder / "store.sqlite"
    clock_offset = time.time() - time.monotonic()
    if after_reboot:
        clock_offset -= 1000.0
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE store SET boot = ?", (clock_offset,))
    return path


async def test_mail_positions_are_kept_where_the_key_is_spelled_differently(
    tmp_path: Path,
) -> None:
    """The position of a mail stream does not depend on the name of the key's parameter."""
    for name in ("mail.sqlite", "mail.sqlite-places"):
        copy_sample(name, tmp_path)
    path = tmp_path / "mail.sqlite"
    async with FakeServices() as fake:
        for number in range(1, 5):
            fake.mail.deliver("alice", f"mail {number}")
        fake.mail.inbox[:3] = [
            msgspec.structs.replace(mail, read=True) for mail in fake.mail.inbox[:3]
        ]
        with closing(sqlite3.connect(path)) as db, db:
            old_url = "http://127.0.0.1:35625"
            db.execute("UPDATE log SET topic = replace(topic, ?, ?)", (old_url, fake.pythbots_url))
            db.execute("UPDATE store SET boot = 0")  # as after a reboot
        async with fake.session(store=SqliteStore(path)) as session:
            stream = session.pythbots.mail_stream(name="bot")
            assert [(await anext(stream)).text for _ in range(2)] == ["mail 3", "mail 4"]
        assert [request.target for request in fake.requests] == [
            "/api/mail.php?personal_key=***&readnew"
        ]
        assert fake.violations == []


def restore_keys(store: VirtualRedisStore) -> None:
    """Write the keys of the Redis sample to the server of *store*."""
    client: Any = FakeRedis(server=store._data)
    client.flushall()
    keys: dict[str, dict[str, Any]] = json.loads((SAMPLES / "redis.json").read_text("utf-8"))
    for key, content in keys.items():
        match content:
            case {"string": value}:
                client.set(key, value)
            case {"hash": value}:
                client.hset(key, mapping=value)
            case {"list": value}:
                client.rpush(key, *value)
            case {"zset": value}:
                client.zadd(key, dict(value))
            case {"stream": value}:
                restore_stream(client, key, value)
            case _:
                raise AssertionError(key)


def restore_stream(client: Any, key: str, stream: dict[str, Any]) -> None:
    for id, fields in stream["entries"]:
        client.execute_command("XADD", key, id, *fields)
    assert stream["entries"][-1][0] == stream["last"]
    for group in stream["groups"]:
        name, pending = group["name"], group["pending"]
        before = f"{int(pending[0][0].partition('-')[0]) - 1}-0" if pending else group["last"]
        client.xgroup_create(key, name, before)
        for _, consumer in pending:
            client.xreadgroup(name, consumer, {key: ">"}, count=1)
        assert [
            item["message_id"].decode() for item in client.xpending_range(key, name, "-", "+", 100)
        ] == [id for id, _ in pending]
        client.execute_command("XGROUP", "SETID", key, name, group["last"])


@pytest.fixture(params=["sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """A store of an earlier version, opened at the time at which it was written."""
    store: Store
    if request.param == "sqlite":
        store = SqliteStore(copy_file(tmp_path))
    else:
        store = VirtualRedisStore(max_length=1000)
        restore_keys(store)
    await asyncio.sleep(WRITTEN_AT - asyncio.get_running_loop().time())
    await store.open()
    yield store
    await store.aclose()


@pytest.fixture(autouse=True)
def dead_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that wrote the sample is dead, although its number may be in use again."""
    monkeypatch.setattr(os, "kill", _no_such_process)


def _no_such_process(pid: int, signal: int) -> None:
    raise ProcessLookupError


async def test_entries_of_an_earlier_version_are_read(store: Store) -> None:
    """Items, links, gaps and undecodable entries, also those that arrived out of order."""
    assert list(await store.log(CHAT).reader(None).read(0, 100)) == CHAT_ENTRIES
    mail = await store.log(MAIL).reader(None).read(0, 100)
    assert [(entry.id, entry.item and entry.item.text) for entry in mail] == [
        (1, "a"),
        (2, "b"),
        (3, "c"),
    ]


async def test_names_of_an_earlier_version_keep_their_positions(store: Store) -> None:
    """Each reader resumes after what it had acknowledged, also in the file of positions."""
    chat, mail = store.log(CHAT), store.log(MAIL)
    assert await chat.reader("bob").position() == 4
    assert await chat.reader("zoe").position() == 9
    assert await chat.reader(DIRECT).position() == 6
    assert await chat.reader("new").position() is None
    assert await chat.max_acknowledged() == 12
    in_file = 2 if isinstance(store, SqliteStore) else 1
    assert await mail.reader("bob").position() == in_file

    reader = chat.reader("zoe")
    await reader.seek_if_new(9)
    assert [entry.id for entry in await reader.read(9, 100)] == [12]
    reader.ack(12)
    await reader.flush()
    assert await chat.reader("zoe").position() == 12


async def test_pending_items_of_an_earlier_version_are_claimed(store: Store) -> None:
    """What a program had read and not acknowledged when it ended is returned again."""
    await asyncio.sleep(2.0)  # until its owner counts as dead
    reader = store.log(MAIL).reader("bob")
    position = await reader.position() or 0
    await reader.seek_if_new(position)
    entries = await reader.read(position, 100)
    assert entries[0].id == position + 1


async def test_a_log_of_an_earlier_version_is_appended_to(store: Store) -> None:
    """Known ids are not new, copies and possible duplicates are still counted, and ids go up."""
    chat, mail = store.log(CHAT), store.log(MAIL)
    stored, new = NewEntry(note(4), id=4, after=3), NewEntry(note(13), id=13, after=12)
    assert list(await chat.append([stored, new])) == [new]
    assert await chat.reader(None).read(9, 100) == [
        Entry(12, 9, False, note(12)),
        Entry(13, 12, False, note(13)),
    ]
    assert list(await mail.append([NewEntry(Note("a"), identity="a", max_copies=1)])) == []
    await mail.append(
        [NewEntry(Note("a"), identity="a", as_duplicate=Note("a, perhaps again"))] * 2
    )
    later = await mail.reader(None).read(3, 100)
    assert [(entry.id, entry.item and entry.item.text) for entry in later] == [
        (4, "a, perhaps again"),
        (5, "a"),
    ]


async def test_fetch_intents_of_an_earlier_version_are_lost_in_time(store: Store) -> None:
    """They count, are lost when their owner is dead, and can be completed."""
    about_chat, about_mail = (await store.snapshot()).logs
    assert (about_chat.pending_fetches, about_mail.pending_fetches) == (1, 1)
    mail = store.log(MAIL)
    await asyncio.sleep(2.0)  # until its owner counts as dead
    (fetch,) = await mail.lost_fetches()
    await mail.append([], completes=[fetch])
    assert not await mail.lost_fetches()
    await asyncio.sleep(FETCH_UNTIL - asyncio.get_running_loop().time())
    assert list(await mail.lost_fetches()) == [fetch]  # its read may have taken effect until now
    await mail.append([], completes=[fetch])
    assert (await store.snapshot()).logs[1].pending_fetches == 0
    assert await mail.begin_fetch(20.0) > fetch


async def test_a_lease_of_an_earlier_version_is_kept(store: Store) -> None:
    """Another handle gets it when it expires, or when its owner is dead.

    On a file its owner is known to be dead.
    """
    chat = store.log(CHAT)
    assert await chat.acquire_lease(10.0) == isinstance(store, SqliteStore)
    await asyncio.sleep(LEASE_UNTIL - asyncio.get_running_loop().time())
    assert await chat.acquire_lease(10.0)


async def test_pacing_of_an_earlier_version_is_kept(store: Store) -> None:
    """Used tokens are used, a pause lasts, and an outstanding token counts until it expires."""
    (endpoint,) = (await store.snapshot()).endpoints
    # On a file its owner is known to be dead.
    outstanding = int(isinstance(store, VirtualRedisStore))
    assert endpoint == EndpointSnapshot("chat nobody", 2, outstanding, 0, PAUSED_UNTIL - WRITTEN_AT)
    limiter = store.limiter("chat nobody", "chat", Rate(100.0, burst=3, guard=0.0))
    await limiter.acquire(Priority.CALL)
    # Three tokens were used at 700.5 s, so that the next one is due 100 s after that.
    assert asyncio.get_running_loop().time() == pytest.approx(800.5, abs=0.1)
    assert (await store.snapshot()).endpoints[0].requests == 3


async def test_a_snapshot_of_an_earlier_version_shows_its_readers(store: Store) -> None:
    """With the positions that the readers have."""
    about_chat, about_mail = (await store.snapshot(latest=2)).logs
    assert about_chat.readers == (ReaderSnapshot("bob", 4, 4), ReaderSnapshot("zoe", 9, 1))
    assert (about_chat.head, about_chat.length) == (12, 6)
    # The owner of the lease is known to be dead on this machine, and not yet on a server.
    assert about_chat.has_leader == isinstance(store, VirtualRedisStore)
    assert [item.id for item in about_chat.latest] == [9, 12]
    assert (about_mail.head, about_mail.length, about_mail.has_leader) == (3, 3, False)


async def test_a_file_from_before_a_reboot_has_no_times(tmp_path: Path) -> None:
    """Positions remain; the lease is free, and fetch intents are lost."""
    store = SqliteStore(copy_file(tmp_path, after_reboot=True))
    await store.open()
    assert await store.log(CHAT).reader("bob").position() == 4
    assert await store.log(CHAT).acquire_lease(10.0)
    assert len(await store.log(MAIL).lost_fetches()) == 1
    (endpoint,) = (await store.snapshot()).endpoints
    assert endpoint.paused_for == 0.0
    await store.aclose()


async def test_digests_of_keys_are_replaced_on_redis() -> None:
    """At the first opening, by fingerprints: what was stored is found again, in all kinds of keys.

    Another program has the same names; a server that was emptied keeps the salt of a living one.
    """
    digest = Secret("a key").fingerprint()
    topic = Topic(f"mail https://www.pythbots.org {digest}", Note, destructive=True)
    store = VirtualRedisStore(max_length=10)
    prefix = store._keys.tag
    client = FakeRedis(server=store._data, decode_responses=True)
    client.xadd(f"{prefix}:log:{topic.name}", {"after": "0", "item": '{"text":"old"}'}, id="1-0")
    client.hset(f"{prefix}:meta:{topic.name}", mapping={"direct": "1", "acknowledged": "0"})
    client.hset(f"{prefix}:seen:{topic.name}", "identity", "1 0")
    client.set(f"{prefix}:pace:pythbots.mail https://www.pythbots.org {digest}", "x")
    await store.open()
    log = store.log(topic)
    assert [entry.item for entry in await log.reader(None).read(0, 10)] == [Note("old")]
    assert await log.reader(DIRECT).position() == 1
    assert await log.append([NewEntry(Note("old"), identity="identity", max_copies=1)]) == []
    names = list(client.scan_iter())
    assert not any(digest in str(key) for key in names)
    assert any(":pace:pythbots.mail " in str(key) for key in names)

    other = RedisStore(f"redis://127.0.0.1:{store._socket.getsockname()[1]}")
    await other.open()
    assert other._keys.salt == store._keys.salt
    await other.aclose()
    salt = store._keys.salt
    store._heartbeat.keep_alive("owner", "reason")
    client.flushall()
    await asyncio.sleep(1.0)
    await other.open()
    assert other._keys.salt == salt
    await other.aclose()
    store._heartbeat.stop("owner", "reason")
    await store.aclose()
