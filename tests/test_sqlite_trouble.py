"""A file that is locked, full, growing, forked, or made by others: what waits, what is rejected."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import anyio
import msgspec
import pytest
from full_disk import no_file_over
from helpers import DEEP, logged_levels, run_on_virtual_time
from processes import needs_fork
from scripted import Scripted
from stores import opened_file
from test_cli_top import screen_after

from pythpeer import Rate, Secret, SqliteStore, StoreError
from pythpeer.pacing.queue import Priority
from pythpeer.pacing.shared import SharedBucket
from pythpeer.sanitize import sanitize
from pythpeer.stores import NewEntry, Topic
from pythpeer.stores.fingerprints import stored_name
from pythpeer.stores.sqlite import database as database_module
from pythpeer.stores.sqlite import owner as owner_module
from pythpeer.stores.sqlite import schema as schema_module

pytestmark = pytest.mark.anyio

MAIL: Final = Topic("mail", str, destructive=True, mark_recovered=lambda text: f"{text}, again?")
CHAT: Final = Topic("chat", str)
RATE: Final = Rate(0.5, guard=0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture(autouse=True)
def short_busy_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread waits on real time, which must not be long."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT", 0.02)
    monkeypatch.setattr(database_module, "BUSY_RETRY", 0.001)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the file for writing, as a backup or a shell does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    with no_file_over(1):
        yield


def messages(*ids: int) -> list[NewEntry[str]]:
    return [NewEntry(f"message {id}", id=id, after=id - 1) for id in ids]


def mails(*texts: str) -> list[NewEntry[str]]:
    return [NewEntry(text, identity=text, max_copies=1) for text in texts]


async def execute_jobs(store: SqliteStore) -> None:
    """Wait for the jobs that were submitted: the thread works in real time."""
    await store._database.read(lambda db: None)


# -- trouble that passes --------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [7.0, 30.0])
@pytest.mark.parametrize("trouble", [locked, full_disk])
async def test_streams_wait_until_trouble_is_over(
    path: Path,
    trouble: Callable[[Path], Any],
    seconds: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged once, shown in `health`, and over a back-off and an interval later at most."""
    async with Scripted() as services:
        services.say(1)
        services.deliver("one")
        session = services.session(
            store=SqliteStore(path),
            rates={"peerbet.chat.get": RATE, "pythbots.mail": RATE},
        )
        async with session:
            chat = session.peerbet.chat_stream(after=0, name="me")
            mail = session.pythbots.mail_stream(name="me")
            assert (await anext(chat)).id == 1
            assert (await anext(mail)).text == "one"
            caplog.clear()
            with trouble(path):
                next_chat = asyncio.ensure_future(anext(chat))
                next_mail = asyncio.ensure_future(anext(mail))
                await asyncio.sleep(1.0)
                services.say(1)
                services.deliver("two")
                await asyncio.sleep(seconds)
                assert not next_chat.done()
                assert not next_mail.done()
                health = session.health()
                assert not health.ok
                assert all("StoreError" in str(stream.last_error) for stream in health.streams)
                assert logged_levels(caplog) == [logging.WARNING] * 2
            start = anyio.current_time()
            assert (await next_chat).id == 2
            received = await next_mail
            assert received.text == "two"
            assert not received.recovered
            assert anyio.current_time() - start < 1.0 + RATE.interval + 0.2
            assert logged_levels(caplog).count(logging.WARNING) == 2


async def test_a_stream_with_a_backlog_waits_too(path: Path) -> None:
    """What it has in memory is not returned before the acknowledgement is stored."""
    async with Scripted() as services:
        services.say(40)
        async with services.session(store=SqliteStore(path)) as session:
            stream = session.peerbet.chat_stream(after=0, name="me")
            for id in range(1, 11):
                assert (await anext(stream)).id == id
            with locked(path):
                waiting = asyncio.ensure_future(anext(stream))
                await asyncio.sleep(7.0)
                assert not waiting.done()
                async with opened_read_only(path) as other:
                    (log,) = (await other.snapshot()).logs
                    assert log.readers[0].position == 9
            async with asyncio.timeout(1.0):
                assert (await waiting).id == 11
            for id in range(12, 41):
                assert (await anext(stream)).id == id


@asynccontextmanager
async def opened_read_only(path: Path) -> AsyncIterator[SqliteStore]:
    async with opened_file(path, read_only=True) as store:
        yield store


async def test_mail_that_cannot_be_stored_is_recovered_immediately(path: Path) -> None:
    """Its fetch counts as lost when the append has failed, and not only after its time."""
    async with opened_file(path) as store:
        log = store.log(MAIL)
        fetch = await log.begin_fetch(1000.0)
        with full_disk(path), pytest.raises(StoreError, match="disk is full") as caught:
            await log.append(mails("one"), completes=[fetch])
        assert caught.value.transient
        assert list(await log.lost_fetches()) == [fetch]
        await log.append(mails("one"), completes=[fetch])
        assert list(await log.lost_fetches()) == []


@pytest.mark.parametrize("trouble", [locked, full_disk])
async def test_pacing_events_are_recorded_after_trouble(
    path: Path, trouble: Callable[[Path], Any]
) -> None:
    """Otherwise a token would be outstanding for half a minute, for every program."""
    async with opened_file(path) as store, opened_file(path) as other:
        permit = await store.make_limiter("key", "chat", RATE).acquire(Priority.POLL)
        with trouble(path):
            permit.on_written()
            permit.on_answered(200)
            await asyncio.sleep(3.0)
            await execute_jobs(store)
        start = anyio.current_time()
        await other.make_limiter("key", "chat", RATE).acquire(Priority.POLL)
        assert anyio.current_time() - start < 1.0
        (endpoint,) = (await other.snapshot()).endpoints
        assert (endpoint.requests, endpoint.outstanding) == (1, 1)


async def test_a_cancelled_request_for_a_token_returns_it_after_trouble(path: Path) -> None:
    """The token is granted although the caller was cancelled, and must not be lost."""
    async with opened_file(path) as store, opened_file(path) as other:
        with locked(path):
            waiting = asyncio.ensure_future(
                store.make_limiter("key", "chat", RATE).acquire(Priority.POLL)
            )
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises((asyncio.CancelledError, StoreError)):
                await waiting
        await asyncio.sleep(1.0)
        await execute_jobs(store)  # virtual time does not wait for what no caller waits for
        start = anyio.current_time()
        await other.make_limiter("key", "chat", RATE).acquire(Priority.POLL)
        assert anyio.current_time() == start


# -- costs ----------------------------------------------------------------------------------------


async def steps_of_an_append(path: Path, kept: int) -> int:
    """Return the instructions of SQLite for one more mail in a log with *kept* of them."""
    async with opened_file(path, max_length=10) as store:
        log = store.log(MAIL)
        for first in range(0, kept, 500):
            await log.append(mails(*map(str, range(first, first + 500))))
        connection, steps = store._database._connection, []
        assert connection is not None
        connection.set_progress_handler(lambda: steps.append(1), 1)
        await log.append(mails("another"))
        connection.set_progress_handler(None, 1)
        return len(steps)


async def test_an_append_costs_the_same_with_any_number_of_mails(tmp_path: Path) -> None:
    """Mail that no stream has acknowledged is kept, and not looked at."""
    few = await steps_of_an_append(tmp_path / "few", 500)
    many = await steps_of_an_append(tmp_path / "many", 4000)
    assert many < few + 50


async def test_after_a_long_time_a_log_is_trimmed_in_parts(path: Path) -> None:
    """So that no single append takes long."""
    async with opened_file(path, max_length=10) as store:
        log = store.log(MAIL)
        await log.append(mails(*map(str, range(1500))))
        reader = log.reader("me")
        await reader.seek(1500)
        lengths = list[int]()
        for number in range(4):
            await log.append(mails(f"new {number}"))
            lengths.append((await store.snapshot()).logs[0].length)
        assert lengths[0] >= 900
        assert lengths[-1] == 4 + 6  # nothing over `max_length`


async def test_the_write_ahead_log_shrinks_after_a_slow_reader(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It grows while another program reads an old state, and is truncated when that has ended."""
    monkeypatch.setattr(database_module, "READERS_TIMEOUT", 20)
    wal = path.with_name(path.name + "-wal")
    text = "x" * 6000

    async def append(first: int) -> None:
        for id in range(first, first + 400):
            await log.append([NewEntry(text, id=id, after=id - 1)])
        await execute_jobs(store)

    async with opened_file(path) as store:
        log = store.log(CHAT)
        await append(1)
        assert wal.stat().st_size < 2 * database_module.MAX_WAL_SIZE
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM entry").fetchone()
            await append(401)
            await append(801)
            assert wal.stat().st_size > 2 * database_module.MAX_WAL_SIZE
        await append(1201)
        assert wal.stat().st_size < 2 * database_module.MAX_WAL_SIZE


async def test_on_a_small_disk_the_write_ahead_log_is_small(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the log would fill the disk, and leave no space to copy it into the database."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * 2**20))
    async with opened_file(path) as store:
        log = store.log(CHAT)
        for id in range(1, 301):
            await log.append(messages(id))
            if not id % 20:
                await execute_jobs(store)
        assert path.with_name(path.name + "-wal").stat().st_size < 2**20


# -- processes ------------------------------------------------------------------------------------


def run_process(program: str, path: Path) -> list[str]:
    command = [sys.executable, "-W", "ignore", "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


FORK: Final = """
import asyncio, os, sys
from pythpeer import Rate, SqliteStore, StoreError
from pythpeer.stores import NewEntry, Topic

topic = Topic("chat", str)
store = SqliteStore(sys.argv[1])
limiter = store.make_limiter("key", "chat", Rate(1.0))
log = store.log(topic)

async def append(id):
    await log.append([NewEntry(str(id), id=id, after=id - 1)])

async def child():
    try:
        await append(9)
    except StoreError as error:
        print("forked" in str(error))
    await store.open()
    await append(2)
    print(await log.acquire_lease(10.0))
    await store.aclose()

async def parent():
    await store.open()
    await append(1)
    print(await log.acquire_lease(1000.0), flush=True)
    owner = limiter._backend._owner.name
    pid = os.fork()
    if not pid:
        # As asyncio.run in a forked worker does: the loop of the parent is not used any more.
        asyncio.events._set_running_loop(None)
        print(limiter._backend._owner.name != owner)
        asyncio.new_event_loop().run_until_complete(child())
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    await append(3)
    print([entry.id for entry in await log.reader(None).read(0, 9)])
    await store.aclose()

asyncio.run(parent())
"""


@needs_fork
def test_a_forked_process_uses_a_connection_of_its_own(path: Path) -> None:
    """Its owners have other names, it has no lease, and the parent's connection is not touched."""
    assert run_process(FORK, path) == ["True", "True", "True", "False", "[1, 2, 3]"]


async def test_a_process_of_another_container_is_alive(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have the same process id: its token counts, and only its time limit ends that."""
    async with opened_file(path) as store, opened_file(path) as other:
        await store.make_limiter("key", "chat", RATE).acquire(Priority.POLL)
        assert await store.log(CHAT).acquire_lease(20.0)
        monkeypatch.setattr(owner_module, "_scope", lambda: "another")
        assert not await other.log(CHAT).acquire_lease(20.0)
        start = anyio.current_time()
        await other.make_limiter("key", "chat", RATE).acquire(Priority.POLL)
        assert 29.0 < anyio.current_time() - start < 31.0


@pytest.mark.parametrize("name", ["abc", "", ":", "1e9:x", "-5:x", "٣x:y", "5" * 4000 + "x"])
def test_a_damaged_owner_counts_as_alive(name: str) -> None:
    """Whether it is cannot be determined; what it holds has a time limit."""
    assert owner_module.is_alive(name)


@pytest.mark.parametrize("name", ["9" * 20 + ":x", "9" * 4000 + ":x"])
def test_an_impossible_process_is_dead(name: str) -> None:
    """The system has no process of such a number."""
    assert not owner_module.is_alive(name)


# -- fingerprints, and files of version 0.1 -------------------------------------------------------


def make_old_file(path: Path, digest: str) -> None:
    """Make a file as version 0.1 did, with the digest of a key in the names."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(schema_module.MIGRATIONS[0])
        db.execute(f"PRAGMA application_id = {schema_module.APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
        db.execute("INSERT INTO store VALUES (x'0011223344556677', 0.0)")
        db.execute(
            "INSERT INTO log (topic, head, length) VALUES (?, 2, 2)", (f"peerbet.chat x {digest}",)
        )
        db.execute("INSERT INTO reader (log, name, place) VALUES (1, 'me', 2)")
        db.execute("INSERT INTO pace VALUES (?, x'')", (f"chat x {digest}",))
    path.chmod(0o600)


async def test_digests_of_keys_are_replaced_in_files_of_an_earlier_version(path: Path) -> None:
    """By slow fingerprints. Positions are found again, and no file has the digest any more."""
    digest = Secret("123456").fingerprint()
    make_old_file(path, digest)
    topic = Topic(f"peerbet.chat x {digest}", str)
    for _ in range(2):
        async with opened_file(path) as store:
            assert await store.log(topic).reader("me").position() == 2
            snapshot = await store.snapshot()
            salt = store._database._salt
            assert len(salt) == 16
            assert snapshot.logs[0].topic == stored_name(topic.name, salt)
            assert snapshot.endpoints[0].key == stored_name(f"chat x {digest}", salt)
            files = b"".join(file.read_bytes() for file in path.parent.iterdir())
            assert digest.encode() not in files


async def test_each_store_has_a_salt_of_its_own(tmp_path: Path) -> None:
    """The same key has another fingerprint in each, and no digest is stored."""
    digest = Secret("123456").fingerprint()
    topic = Topic(f"peerbet.chat x {digest}", str)
    names = set[str]()
    for number in range(2):
        async with opened_file(tmp_path / f"{number}.sqlite") as store:
            await store.log(topic).append(messages(1))
            await store.make_limiter(topic.name, "chat", RATE).acquire(Priority.POLL)
            snapshot = await store.snapshot()
            assert snapshot.logs[0].topic == snapshot.endpoints[0].key
            names.add(snapshot.logs[0].topic)
    assert len(names) == 2
    files = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())  # noqa: ASYNC240
    assert digest.encode() not in files


async def test_fingerprints_are_computed_on_the_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of a second session with other keys: each of them takes long."""
    threads: list[str] = []
    scrypt = hashlib.scrypt

    def traced(*args: Any, **kwargs: Any) -> bytes:
        threads.append(threading.current_thread().name)
        return scrypt(*args, **kwargs)

    monkeypatch.setattr(hashlib, "scrypt", traced)
    store = SqliteStore(path)
    async with Scripted() as services:
        services.say(1)
        one = services.session(store=store, peerbet_key="one", personal_key=None)
        async with one:
            another = services.session(store=store, peerbet_key="another", personal_key=None)
            async with another:
                for session in (one, another):
                    assert (await session.peerbet.messages()).messages
    assert len(threads) >= 2
    assert set(threads) == {"pythpeer-store"}


async def test_after_a_power_failure_mail_is_marked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last acknowledgements may be missing: what is returned again is marked, new mail not."""
    async with opened_file(path) as store:
        log = store.log(MAIL)
        await log.append(mails("a", "b"))
        await log.reader("me").seek(1)
    monkeypatch.setattr(schema_module, "boot_id", lambda: "another boot")
    async with opened_file(path) as store:
        log = store.log(MAIL)
        await log.append(mails("c"))
        entries = await log.reader("me").read(1, 10)
        assert [entry.item for entry in entries] == ["b, again?", "c"]


# -- files that others made or can change ---------------------------------------------------------


@pytest.mark.parametrize("end", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("what", ["pipe", "writable", "foreign", "link"])
async def test_files_of_others_are_rejected(path: Path, end: str, what: str) -> None:
    """They are not opened: a pipe would block, and another user could forge messages."""
    if what == "foreign" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    file = path.with_name(path.name + end)
    match what:
        case "pipe":
            os.mkfifo(file)
        case "writable":
            file.touch()
            file.chmod(0o666)
        case "foreign":
            file.touch(0o600)
            os.chown(file, 65534, 65534)
        case _:
            if not end:
                pytest.skip("a link to the database is followed")
            file.symlink_to(path.with_name("target"))
    with pytest.raises(StoreError, match=f"the store '{file}' (is not|belongs|can be)") as caught:
        await SqliteStore(path).open()
    assert not caught.value.transient
    assert not path.with_name("target").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
@pytest.mark.parametrize("exists", [False, True])
async def test_a_link_of_another_user_is_not_followed(path: Path, *, exists: bool) -> None:
    """That user could let it lead to another file at any time."""
    target = path.with_name("target")
    if exists:
        target.touch(0o600)
    path.symlink_to(target)  # noqa: ASYNC240
    os.chown(path, 65534, 65534, follow_symlinks=False)
    with pytest.raises(StoreError, match=f"'{path}' is a symbolic link of another user"):
        await SqliteStore(path).open()
    assert not os.path.lexists(target) or target.read_bytes() == b""  # noqa: ASYNC240
    os.chown(path, 0, 0, follow_symlinks=False)
    async with opened_file(path):
        assert target.read_bytes()


async def test_a_pipe_or_link_as_the_old_file_of_positions_is_ignored(path: Path) -> None:
    """It is not followed and not waited for."""
    positions = path.with_name(path.name + "-places")
    for make in (os.mkfifo, lambda name: name.symlink_to(path)):
        make_old_file(path, "none")
        make(positions)
        async with opened_file(path) as store:
            assert await store.log(Topic("peerbet.chat x none", str)).reader("me").position() == 2
        assert not os.path.lexists(positions)  # noqa: ASYNC240
        path.unlink()  # noqa: ASYNC240


CODE: Final = {
    "trigger": "CREATE TRIGGER evil AFTER INSERT ON entry BEGIN DELETE FROM reader; END",
    "view": "CREATE VIEW evil AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n)"
    " SELECT x FROM n",
    "virtual table": "CREATE VIRTUAL TABLE evil USING fts5(x)",
}


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("code", CODE)
async def test_a_file_with_code_of_others_is_rejected(
    path: Path, code: str, read_only: bool
) -> None:
    """It would be executed in this program."""
    async with opened_file(path):
        pass
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(CODE[code])
    with pytest.raises(StoreError, match="a trigger, a view or a virtual table"):
        await SqliteStore(path, read_only=read_only).open()


DAMAGE: Final = (
    "UPDATE log SET head = 'x'",
    "UPDATE log SET head = x'00'",
    "UPDATE log SET head = 9e99",
    "UPDATE log SET length = 'x'",
    "UPDATE log SET latecomers = 'x'",
    "UPDATE log SET leader = 'abc', leads_until = 'x'",
    "UPDATE log SET leader = 5, leads_until = 1e300",
    "UPDATE log SET suspect = 'x'",
    "UPDATE log SET topic = x'ff' WHERE id = 1",
    "UPDATE entry SET id = -9223372036854775808 WHERE id = 1",
    "UPDATE entry SET after = 'x'",
    "UPDATE entry SET gap = 'x'",
    "UPDATE entry SET item = x'ff'",
    "UPDATE entry SET item = 5",
    "UPDATE reader SET place = 'x'",
    "UPDATE reader SET place = 9e99",
    "UPDATE reader SET epoch = 'x'",
    "UPDATE reader SET name = x'ff'",
    "UPDATE announcement SET until = 'x'",
    "UPDATE announcement SET who = 'abc'",
    "UPDATE announcement SET who = 5",
    "UPDATE pace SET state = 'text'",
    "UPDATE pace SET state = 5",
    "UPDATE pace SET key = x'ff'",
    "UPDATE store SET id = 5",
    "UPDATE store SET boot = 'x'",
    "UPDATE store SET boot_id = x'ff'",
    "UPDATE store SET salt = NULL",
    "UPDATE store SET salt = 'x'",
    "UPDATE store SET salt = 1e300",
    "DELETE FROM store",
    "DROP TABLE entry",
    "DROP TABLE store",
    "DROP INDEX in_order",
    "ALTER TABLE log RENAME COLUMN head TO tail",
    "PRAGMA user_version = -5",
    "PRAGMA user_version = 1",
    "PRAGMA application_id = 5",
)


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_crafted_file_raises_nothing_but_store_errors(path: Path, damage: str) -> None:
    """Whatever is in it: opening, reading, appending, pacing, and looking at it."""
    async with opened_file(path) as store:
        await use(store)
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("PRAGMA ignore_check_constraints = ON")
        other.execute(damage)
    for read_only in (False, True):
        store = SqliteStore(path, read_only=read_only)
        try:
            with anyio.fail_after(2000.0):
                await store.open()
                try:
                    await store.snapshot()
                    await use(store)
                finally:
                    await store.aclose()
        except StoreError as error:
            verify_error(error, path)


def verify_error(error: StoreError, path: Path) -> None:
    assert error.__cause__ is error.__context__ is None
    assert str(path) in str(error)


async def use(store: SqliteStore) -> None:
    chat, mail = store.log(CHAT), store.log(MAIL)
    await chat.append(messages(1, 2))
    await mail.append(mails("a"))
    for log in (chat, mail):
        reader: Any = log.reader("me")
        position = await reader.position() or 0
        await reader.read(position, 10)
        await reader.seek(1)
        reader.ack(2)
        await reader.flush()
        await log.max_acknowledged()
        await log.acquire_lease(10.0)
        await log.begin_fetch(10.0)
        await log.lost_fetches()
    permit = await store.make_limiter("key", "chat", RATE).acquire(Priority.POLL)
    permit.on_written()


COLUMNS: Final = {
    "store": ("id", "boot", "salt", "boot_id", "checkpoints"),
    "log": ("id", "topic", "head", "length", "latecomers", "leader", "leads_until", "suspect"),
    "entry": ("log", "id", "after", "gap", "late", "latecomer", "item"),
    "seen": ("log", "key", "copies", "doubtful"),
    "reader": ("slot", "log", "name", "epoch", "place"),
    "announcement": ("number", "log", "who", "until", "settled"),
    "pace": ("key", "state"),
}
"""The columns of each table; a test checks that these are all."""

VALUES: Final = (
    *("NULL", "'x'", "''", "x'ff'", "x''", "zeroblob(100)", "-1", "0", "0.5", "1e300", "9e999"),
    *("9223372036854775807", "-9223372036854775808", "-9e999", "'1'", "'9'", "'nan'", "'{}'"),
    *("'[]'", "'{\"id\":1}'", "'\"\\ud800\"'", "'a' || char(0)", "char(27) || ']0;PWN' || char(7)"),
)
"""Values of each type, and numbers that are too large."""


def pace_states() -> Iterator[str]:
    """Yield states of a bucket with one number replaced, as SQL."""
    bucket = SharedBucket(RATE)
    bucket.acquire("1:x:y", 5.0)
    stored = msgspec.msgpack.decode(bucket.dump())
    for changed in _changed(stored):
        yield f"x'{msgspec.msgpack.encode(changed).hex()}'"


def _changed(value: Any) -> Iterator[Any]:
    """Yield *value* with one number in it replaced, or one text."""
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from ([*value[:index], new, *value[index + 1 :]] for new in _changed(inner))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from ({**value, key: new} for new in _changed(inner))
    else:
        yield from (math.nan, math.inf, -math.inf, 1e300, -1e300, 2**63 - 1, -(2**63), -1, "x")


PACE_DAMAGES: Final = [f"UPDATE pace SET state = {state}" for state in pace_states()]

DAMAGES: Final = [
    *(
        f"UPDATE OR REPLACE {table} SET {column} = {value}"
        for table, columns in COLUMNS.items()
        for column in columns
        for value in VALUES
    ),
    *PACE_DAMAGES,
]
FOUND: Final = (
    "UPDATE log SET head = 'x'",
    "UPDATE OR REPLACE log SET topic = zeroblob(100)",
    "UPDATE log SET length = 9e999",
    "UPDATE entry SET after = 'x'",
    "UPDATE OR REPLACE entry SET id = 1e300",
    "UPDATE entry SET item = 5",
    "UPDATE reader SET name = x'ff'",
    "UPDATE store SET salt = 1000000000000",
    "UPDATE log SET leads_until = -9e999",  # JSON has no infinity
    *PACE_DAMAGES[1::9],  # infinity: callers waited indefinitely
)
"""Those that once raised another exception, showed on the screen of `top`, or did not end."""


class UsedFile(NamedTuple):
    """A file with a row in every table, and the services that its logs are of."""

    path: Path
    services: Scripted
    """It is not running. It has the same port each time, which is part of the topics."""


@pytest.fixture(scope="module")
def used_file(tmp_path_factory: pytest.TempPathFactory) -> UsedFile:
    path = tmp_path_factory.mktemp("used") / "store.sqlite"
    services = Scripted()

    async def main() -> None:
        async with services:
            await stream_once(services, path)
        async with opened_file(path) as store:
            await use(store)

    run_on_virtual_time(main())
    return UsedFile(path, services)


async def stream_once(services: Scripted, path: Path) -> None:
    """Read from both streams, and make a call, with a session of the store."""
    services.say(2)
    services.deliver("one")
    async with services.session(store=SqliteStore(path)) as session:
        for stream in (
            session.peerbet.chat_stream(name="me"),
            session.pythbots.mail_stream(name="me"),
        ):
            with suppress(TimeoutError):
                async with asyncio.timeout(70.0):
                    await anext(stream)
                    await stream.ack()
        await session.peerbet.messages(last=1)


def test_the_columns_are_those_of_the_schema(used_file: UsedFile) -> None:
    """A new column is damaged as well."""
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    with closing(sqlite3.connect(used_file.path)) as db:
        assert db.execute(query).fetchone() == (len(COLUMNS),)
        for table, columns in COLUMNS.items():
            assert tuple(row[1] for row in db.execute(f"PRAGMA table_info({table})")) == columns
            assert db.execute(f"SELECT count(*) > 0 FROM {table}").fetchone() == (1,)


@pytest.mark.parametrize("damage", DAMAGES if DEEP else (*FOUND, *DAMAGES[::60]))
async def test_no_damage_has_an_effect_but_store_errors(
    used_file: UsedFile, path: Path, damage: str
) -> None:
    """On the screen of `top`, on a log and a limiter, and on the streams of a session."""
    async with used_file.services as services:
        for attempt in (show_screen, use_once, partial(stream_once, services)):
            shutil.copyfile(used_file.path, path)
            path.chmod(0o600)  # noqa: ASYNC240
            with closing(sqlite3.connect(path)) as other, other, suppress(sqlite3.IntegrityError):
                other.execute("PRAGMA ignore_check_constraints = ON")
                other.execute(damage)
            with suppress(StoreError), anyio.fail_after(2000.0):
                await attempt(path)


@pytest.mark.parametrize("until", ["9e999", "1e300"])
async def test_a_lease_without_an_end_is_reported(path: Path, until: str) -> None:
    """A session that waited for its end would never poll."""
    async with opened_file(path) as store, opened_file(path) as other:
        assert await store.log(CHAT).acquire_lease(10.0)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(f"UPDATE log SET leads_until = {until}")
        with pytest.raises(StoreError, match="is damaged"):
            await other.log(CHAT).acquire_lease(10.0)


async def use_once(path: Path) -> None:
    async with opened_file(path) as store:
        await use(store)


async def show_screen(path: Path) -> None:
    """Show the file as `top` does, and as JSON."""
    async with opened_read_only(path) as store:
        snapshot = await store.snapshot()
    for line in screen_after(snapshot, snapshot, width=80, height=30).splitlines():
        assert sanitize(line) == line
    json.dumps(msgspec.to_builtins(snapshot), allow_nan=False)


# -- reading only ---------------------------------------------------------------------------------


@pytest.mark.parametrize("is_running", [False, True])
async def test_a_store_that_is_opened_for_reading_is_not_changed(
    path: Path, is_running: bool
) -> None:
    """Neither the file nor its folder, whether or not a program uses it."""
    store = SqliteStore(path)
    await store.open()
    await store.log(CHAT).append(messages(1, 2))
    if not is_running:
        await store.aclose()
    before = path.read_bytes()  # noqa: ASYNC240
    async with opened_read_only(path) as reading:
        assert (await reading.snapshot()).logs[0].head == 2
        if is_running:
            await store.log(CHAT).append(messages(3))
            assert (await reading.snapshot()).logs[0].head == 3
        with pytest.raises(StoreError, match="cannot be written"):
            await reading.log(CHAT).append(messages(4))
    assert path.read_bytes() == before  # noqa: ASYNC240
    if is_running:
        await store.aclose()


async def test_an_empty_file_is_no_store_to_read(path: Path) -> None:
    """It stays empty."""
    path.touch(0o600)  # noqa: ASYNC240
    with pytest.raises(StoreError, match="is empty"):
        await SqliteStore(path, read_only=True).open()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.stat().st_size == 0  # noqa: ASYNC240
