"""The SQLite store: its files, the files that it rejects, and what survives a restart."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import pickle
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
import pytest
from full_disk import no_file_over
from helpers import examples, logged_levels
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scripted import Scripted, ScriptedFault
from stores import opened_file

from pythpeer import InvalidRequestError, MemoryStore, Rate, Session, SqliteStore, StoreError
from pythpeer.pacing.queue import Priority
from pythpeer.stores import EndpointSnapshot, Entry, Log, NewEntry, Store, Topic
from pythpeer.stores.sqlite import database as database_module
from pythpeer.stores.sqlite import owner as owner_module
from pythpeer.stores.sqlite import schema as schema_module
from pythpeer.stores.sqlite import store as store_module

pytestmark = pytest.mark.anyio


class Note(msgspec.Struct, frozen=True):
    text: str
    raw: dict[str, Any] = {}


CHAT: Final = Topic("chat", Note)
MAIL: Final = Topic("mail", Note, destructive=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


def notes(*ids: int) -> list[NewEntry[Note]]:
    return [NewEntry(Note(f"note {id}"), id=id, after=id - 1) for id in ids]


def mails(*identities: str) -> list[NewEntry[Note]]:
    return [NewEntry(Note(text), identity=text, max_copies=1) for text in identities]


@contextmanager
def traced(store: SqliteStore) -> Iterator[list[str]]:
    """Yield the statements that a store passes to SQLite."""
    statements: list[str] = []
    connection = store._database._connection
    assert connection is not None
    connection.set_trace_callback(statements.append)
    yield statements
    connection.set_trace_callback(None)


def threads() -> set[threading.Thread]:
    """Return the threads that exist."""
    return set(threading.enumerate())


async def wait_for_condition(condition: Callable[[], bool]) -> bool:
    """Return whether it happens soon: other threads need real time."""
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)  # noqa: ASYNC251
        await asyncio.sleep(0)
    return False


async def ids(log: Log[Note], after: int = 0) -> list[int]:
    return [entry.id for entry in await log.reader(None).read(after, 1000)]


def run_process(program: str, path: Path) -> list[str]:
    """Run *program* on *path* in a separate process; return the lines that it prints."""
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "a\0b", "a\ud800", ":memory:", b"store", None, 5])
def test_a_path_is_a_str_or_a_path(path: str) -> None:
    """Anything else raises an error when the store is created."""
    with pytest.raises(InvalidRequestError):
        SqliteStore(path)


@pytest.mark.parametrize(
    "options", [{"durability": "none"}, {"max_length": 0}, {"max_length": True}]
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    """Anything else raises an error when the store is created."""
    with pytest.raises(InvalidRequestError):
        SqliteStore("store.sqlite", **options)


@pytest.mark.skipif(sys.platform == "win32", reason="the current directory cannot be removed")
def test_a_relative_path_needs_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been removed, as a deployment does with an old version."""
    (tmp_path / "old").mkdir()
    monkeypatch.chdir(tmp_path / "old")
    (tmp_path / "old").rmdir()
    with pytest.raises(InvalidRequestError, match=r"'bot.sqlite' is relative") as caught:
        SqliteStore("bot.sqlite")
    assert caught.value.__context__ is None
    assert SqliteStore(tmp_path / "bot.sqlite").path == tmp_path / "bot.sqlite"


async def test_its_repr_shows_its_file(path: Path) -> None:
    """And whether it is open."""
    assert repr(SqliteStore(path)) == f"<SqliteStore {str(path)!r}, closed>"
    async with opened_file(path) as store:
        assert repr(store) == f"<SqliteStore {str(path)!r}, open>"


async def test_the_environment_names_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``PYTHPEER_STORE`` is the path of a file unless it is ``memory`` or a URL."""
    monkeypatch.setenv("PYTHPEER_STORE", str(path))
    assert repr(str(path)) in repr(Session.from_env())


# -- files ----------------------------------------------------------------------------------------


async def test_only_its_owner_can_read_it(path: Path) -> None:
    """With any umask, and also SQLite's own files."""
    before = os.umask(0)
    try:
        async with opened_file(path) as store:
            log = store.log(CHAT)
            await log.append(notes(1))
            await log.reader("me").seek(1)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    names = {path.name + end for end in ("", "-wal", "-shm")}
    assert modes == dict.fromkeys(names, 0o600)


async def test_no_key_is_in_it(path: Path) -> None:
    """Neither chat, mail, pacing nor an error response stores one."""
    key = "CANARY-8f3a61"
    async with Scripted() as services:
        services.say(3)
        services.deliver("one")
        error = f'{{"error": "no access for {key}"}}'.encode()
        services.script("readnew", ScriptedFault(body=error, effect=False))
        session = services.session(
            store=SqliteStore(path), peerbet_key=key, personal_key=key, pythbots_api_key=key
        )
        async with session:
            async with session.peerbet.chat_stream(after=0, name="me") as stream:
                for _ in range(3):
                    await anext(stream)
            with pytest.raises(Exception, match="no access"):
                await session.pythbots.unread_mail()
            assert await session.pythbots.unread_mail()
            contents = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"message 3" in contents
    assert key.encode() not in contents
    assert key.encode()[:10] not in contents


async def test_a_link_to_a_missing_file_is_followed(path: Path) -> None:
    """The file is created where the link points to, readable by its owner only."""
    target = path.with_name("target.sqlite")
    path.symlink_to(target)  # noqa: ASYNC240
    before = os.umask(0)
    try:
        async with opened_file(path):
            assert stat.S_IMODE(target.stat().st_mode) == 0o600
    finally:
        os.umask(before)


OPEN_AND_CLOSE: Final = """
import asyncio, sys
from pythpeer import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    await store.aclose()

asyncio.run(main())
"""


@pytest.mark.parametrize("closed", [False, True])
async def test_opening_a_file_twice_keeps_its_locks(path: Path, closed: bool) -> None:
    """Locks belong to the process, and opening the file a second time must not release them.

    Else the next program that closes the file would act as the last one, and delete its log.
    """
    async with opened_file(path) as store:
        log = store.log(CHAT)
        await log.append(notes(1))
        async with opened_file(path) as other:
            if closed:
                await other.aclose()
            run_process(OPEN_AND_CLOSE, path)
            await log.append(notes(2))
            async with opened_file(path) as third:
                assert await ids(third.log(CHAT)) == await ids(log) == [1, 2]


async def test_the_log_can_be_read_by_other_programs(path: Path) -> None:
    """As the page on archives documents: items are JSON."""
    async with opened_file(path) as store:
        await store.log(CHAT).append(notes(1, 2))
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as other:
            rows = other.execute("SELECT id, json_extract(item, '$.text') FROM entry").fetchall()
    assert rows == [(1, "note 1"), (2, "note 2")]


# -- files that are rejected -----------------------------------------------------------------------


def _valid(path: Path) -> None:
    async def make() -> None:
        async with opened_file(path) as store:
            for first in range(1, 2000, 100):
                await store.log(CHAT).append(notes(*range(first, first + 100)))

    asyncio.run(make())


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, whatever it may be called" * 40)


def _corrupted(path: Path) -> None:
    _valid(path)
    data = bytearray(path.read_bytes())
    data[8192:24576] = os.urandom(16384)
    path.write_bytes(data)


def _truncated(path: Path) -> None:
    _valid(path)
    path.write_bytes(path.read_bytes()[:9000])


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE recipes (cake TEXT)")


def _later_version(path: Path) -> None:
    _valid(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 99")


def _folder(path: Path) -> None:
    path.mkdir()


def _missing_folder(path: Path) -> None:
    path.parent.rmdir()


def _file_as_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file")


REJECTED: Final = {
    "garbage": (_garbage, "damaged"),
    "damaged": (_corrupted, "damaged"),
    "truncated": (_truncated, "damaged"),
    "foreign": (_foreign, "another program's"),
    "newer": (_later_version, "upgrade pythpeer"),
    "a folder": (_folder, "directory"),
    "missing folder": (_missing_folder, "its folder does not exist"),
    "a file as the folder": (_file_as_folder, "Not a directory"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_an_unusable_file_is_rejected_and_not_changed(case: str, tmp_path: Path) -> None:
    """The error has advice, the file stays, and no thread and no other exception remains."""
    make, text = REJECTED[case]
    path = tmp_path / "folder" / "store.sqlite"
    path.parent.mkdir()
    make(path)
    before = path.read_bytes() if path.is_file() else None
    before_all = threads()

    async def use() -> None:
        store = SqliteStore(path)
        for _ in range(2):  # it can be tried again
            session = Session(store=store)
            with pytest.raises(StoreError, match=text) as caught:
                await session.open()
            assert caught.value.__cause__ is caught.value.__context__ is None
            assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
            assert "closed" in repr(session)
            assert "closed" in repr(store)

    asyncio.run(use())
    assert asyncio.run(wait_for_condition(lambda: threads() <= before_all))
    assert before is None or path.read_bytes() == before


async def test_a_locked_file_is_an_error_after_a_while(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is another program that writes for too long; after it the store works again."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT", 0.05)
    async with opened_file(path) as store:
        log = store.log(CHAT)
        await log.append(notes(1))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="is locked by another program") as caught:
                await log.append(notes(2))
            assert caught.value.__context__ is None
            assert caught.value.transient
            other.execute("ROLLBACK")
        await log.append(notes(2))
        assert await ids(log) == [1, 2]


async def test_opening_waits_for_a_locked_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A backup may take a minute. It is logged once; after it the session has the file."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT", 0.01)
    monkeypatch.setattr(store_module, "OPEN_RETRY", 0.01)
    async with opened_file(path) as store:
        await store.log(CHAT).append(notes(1))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store = SqliteStore(path)
        opening = asyncio.ensure_future(store.open())
        await asyncio.sleep(0.2)
        assert not opening.done()
        assert logged_levels(caplog) == [logging.WARNING]
        other.execute("ROLLBACK")
    await opening
    assert await ids(store.log(CHAT)) == [1]
    await store.aclose()
    monkeypatch.setattr(store_module, "OPEN_TIMEOUT", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="is locked by another program") as caught:
            await store.open()
        assert caught.value.transient


async def test_opening_waits_for_a_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A program or its user may have too many: one warning, and an error if it stays so."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        store = SqliteStore(path)
        opening = asyncio.ensure_future(store.open())
        await asyncio.sleep(0.2)
        assert not opening.done()
        assert logged_levels(caplog) == [logging.WARNING]
    await opening
    await store.log(CHAT).append(notes(1))
    await store.aclose()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(store_module, "OPEN_TIMEOUT", 0.05)
    with pytest.raises(StoreError, match="needs a thread") as caught:
        await SqliteStore(path).open()
    assert caught.value.transient


FULL: Final = """
import asyncio, resource, sys
from pythpeer import SqliteStore, StoreError
from pythpeer.stores import NewEntry, Topic
import msgspec

class Note(msgspec.Struct):
    text: str

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    log = store.log(Topic("chat", Note))
    await log.append([NewEntry(Note("small"), id=1, after=0)])
    size = 400_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        await log.append([NewEntry(Note("x" * 2 * size), id=2, after=1)])
    except StoreError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await log.append([NewEntry(Note("again"), id=2, after=1)])
    print([entry.item.text for entry in await log.reader(None).read(0, 10)])
    await store.aclose()

import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit of file sizes")
def test_a_full_disk_is_an_error_and_changes_nothing(path: Path) -> None:
    """The entry is not stored; after space was freed it can be."""
    error, texts = run_process(FULL, path)
    assert "the store" in error
    assert texts == "['small', 'again']"


# -- what survives a restart -----------------------------------------------------------------------


async def test_the_content_survives(path: Path) -> None:
    """Items, positions, fetch intents, and the identities that were seen."""
    async with opened_file(path) as store:
        await store.log(CHAT).append(notes(1, 2, 3))
        reader = store.log(CHAT).reader("me")
        await reader.seek(1)
        reader.ack(2)
        await store.log(MAIL).append(mails("a"))
        await store.log(MAIL).lose_fetch(await store.log(MAIL).begin_fetch(20.0))
    async with opened_file(path) as store:
        assert await ids(store.log(CHAT)) == [1, 2, 3]
        assert await store.log(CHAT).reader("me").position() == 2
        assert len(await store.log(MAIL).lost_fetches()) == 1
        assert list(await store.log(MAIL).append(mails("a"))) == []


async def test_an_acknowledgement_survives_without_closing(path: Path) -> None:
    """The event loop need not even run after it."""
    async with opened_file(path) as store:
        log = store.log(CHAT)
        await log.append(notes(*range(1, 101)))
        for name in ("me", "you"):
            await log.reader(name).seek(0)
        for id in range(1, 61):
            log.reader("me").ack(id)
            async with opened_file(path) as other:
                assert await other.log(CHAT).reader("me").position() == id
                assert await other.log(CHAT).reader("you").position() == 0


async def test_an_acknowledgement_is_one_statement(path: Path) -> None:
    """It is a transaction of its own, so that a flush has nothing to do."""
    async with opened_file(path) as store:
        log = store.log(CHAT)
        await log.append(notes(*range(1, 301)))
        reader = log.reader("me")
        await reader.seek(0)
        with traced(store) as statements:
            for entry in await reader.read(0, 300):
                reader.ack(entry.id)
                assert not reader.is_behind
                await reader.flush()
        written = [text for text in statements if not text.startswith(("SELECT", "PRAGMA"))]
        assert len(written) == 300
        assert all(text.startswith("UPDATE reader") for text in written)


async def test_an_acknowledgement_that_must_wait_is_flushed(path: Path) -> None:
    """While another program is writing, the reader is behind until `flush` has waited for it."""
    async with opened_file(path) as store:
        reader = store.log(CHAT).reader("me")
        await reader.seek(0)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            reader.ack(5)
            assert reader.is_behind
            other.execute("ROLLBACK")
        await reader.flush()
        assert not reader.is_behind
        async with opened_file(path) as third:
            assert await third.log(CHAT).reader("me").position() == 5


async def test_with_full_durability_each_flush_is_one_transaction(path: Path) -> None:
    """It is on the disk then; without a new acknowledgement there is nothing to do."""
    async with opened_file(path, durability="full") as store:
        log = store.log(CHAT)
        await log.append(notes(1, 2, 3))
        reader = log.reader("me")
        await reader.seek(0)
        with traced(store) as statements:
            reader.ack(1)
            reader.ack(2)
            assert reader.is_behind
            for _ in range(2):
                await reader.flush()
        assert not reader.is_behind
        assert statements.count("COMMIT") == 1
        assert statements.index("PRAGMA synchronous = FULL") < statements.index("COMMIT")
        with traced(store) as statements:
            flushing = asyncio.ensure_future(reader.flush())
            reader.ack(3)
            await flushing
            await reader.flush()
        assert statements.count("COMMIT") == 1


async def test_positions_of_another_database_are_ignored(path: Path) -> None:
    """If only the database was deleted, a name has no position."""
    async with opened_file(path) as store:
        await store.log(CHAT).append(notes(1, 2, 3))
        reader = store.log(CHAT).reader("me")
        await reader.seek(0)
        reader.ack(3)
    path.unlink()  # noqa: ASYNC240
    async with opened_file(path) as store:
        reader = store.log(CHAT).reader("me")
        assert await reader.position() is None
        await reader.seek(0)
        assert await store.log(CHAT).reader("me").position() == 0


async def test_positions_from_before_a_seek_are_ignored(path: Path) -> None:
    """A name that was moved back stays there, although the file has a greater position."""
    async with opened_file(path) as store, opened_file(path) as other:
        log = store.log(CHAT)
        await log.append(notes(*range(1, 10)))
        reader = log.reader("me")
        await reader.seek(0)
        reader.ack(9)
        await other.log(CHAT).reader("me").seek(4)
        async with opened_file(path) as third:
            assert await third.log(CHAT).reader("me").position() == 4


async def test_a_database_restored_from_a_copy_loses_no_mail(path: Path) -> None:
    """It has the positions of its own time: what it assigns ids to once more is returned."""
    async with opened_file(path) as store:
        await store.log(MAIL).append(mails("a", "b"))
        await store.log(MAIL).reader("me").seek(1)
    copy = path.read_bytes()  # noqa: ASYNC240
    async with opened_file(path) as store:
        await store.log(MAIL).append(mails("c", "d", "e"))
        reader = store.log(MAIL).reader("me")
        await reader.seek(1)
        reader.ack(5)
    path.write_bytes(copy)  # noqa: ASYNC240
    async with opened_file(path) as store:
        log = store.log(MAIL)
        await log.append(mails("c"))
        position = await log.reader("me").position()
        assert position == 1
        assert await ids(log, position) == [2, 3]


async def test_a_seek_is_not_undone_by_an_older_acknowledgement(path: Path) -> None:
    """The seek of another program counts, although this one stores its acknowledgement later."""
    async with opened_file(path) as other:
        async with opened_file(path) as store:
            await store.log(CHAT).append(notes(*range(1, 10)))
            reader = store.log(CHAT).reader("me")
            await reader.seek(0)
            reader.ack(9)
            await other.log(CHAT).reader("me").seek(4)
            reader.ack(10)
        assert await other.log(CHAT).reader("me").position() == 4
        async with opened_file(path) as third:
            assert await third.log(CHAT).reader("me").position() == 4


async def test_a_position_is_the_one_that_another_program_has_set(path: Path) -> None:
    """Whatever the position of this program was; and it can return to that."""
    async with opened_file(path) as store, opened_file(path) as other:
        await store.log(CHAT).append(notes(*range(1, 10)))
        reader = store.log(CHAT).reader("me")
        await reader.seek(0)
        reader.ack(9)
        await other.log(CHAT).reader("me").seek(4)
        assert await reader.position() == 4
        reader.ack(5)
        assert await other.log(CHAT).reader("me").position() == 5
        await other.log(CHAT).reader("me").seek(3)
        await reader.seek(5)
        assert await other.log(CHAT).reader("me").position() == 5


async def test_a_slower_program_moves_no_position_back(path: Path) -> None:
    """Of two programs that use a name, the acknowledgement that is farthest counts."""
    async with opened_file(path) as store, opened_file(path) as other:
        await store.log(CHAT).append(notes(*range(1, 10)))
        fast, slow = store.log(CHAT).reader("me"), other.log(CHAT).reader("me")
        await fast.seek(0)
        assert await slow.position() == 0
        for reader, position in ((fast, 9), (slow, 4)):
            reader.ack(position)
            await reader.flush()
    async with opened_file(path) as store:
        assert await store.log(CHAT).reader("me").position() == 9


async def test_a_position_that_was_rolled_back_is_not_stored(path: Path) -> None:
    """A name whose first position could not be written has none, and takes no row of another."""
    async with opened_file(path) as store:
        log = store.log(CHAT)
        await log.append(notes(*range(1, 10)))
        reader = log.reader("me")
        reader.ack(5)
        with no_file_over(1), pytest.raises(StoreError, match="disk is full") as caught:
            await reader.flush()
        assert caught.value.transient
        assert reader.is_behind
        reader.ack(6)
        async with opened_file(path) as other:
            await other.log(CHAT).reader("you").seek(0)
            assert await other.log(CHAT).reader("you").position() == 0
            assert await other.log(CHAT).reader("me").position() is None
            await reader.flush()
            assert await other.log(CHAT).reader("me").position() == 6
            assert await other.log(CHAT).reader("you").position() == 0


async def test_a_handle_may_be_older_than_the_opening(path: Path) -> None:
    """It sees what others append, while the store is open for the first and the second time."""
    store = SqliteStore(path)
    log, reader = store.log(CHAT), store.log(CHAT).reader("me")
    for number in (1, 3):
        await store.open()
        await log.append(notes(number))
        await store.log(CHAT).append(notes(number + 1))
        assert (await ids(log))[-1] == number + 1
        reader.ack(number)
        assert await store.log(CHAT).reader("me").position() == number
        await store.aclose()


async def test_positions_belong_to_the_file_and_not_to_its_name(path: Path) -> None:
    """A link is another name of the same file."""
    link = path.parent / "folder" / "link.sqlite"
    link.parent.mkdir()
    link.symlink_to(path)
    async with opened_file(path) as store, opened_file(link) as other:
        await store.log(CHAT).append(notes(1, 2, 3))
        reader = store.log(CHAT).reader("me")
        await reader.seek(0)
        reader.ack(2)
        assert await other.log(CHAT).reader("me").position() == 2
    assert [file.name for file in link.parent.iterdir()] == [link.name]


DELETED: Final = """
import asyncio, sys
from pathlib import Path
from pythpeer import SqliteStore
from pythpeer.stores import Topic

async def main():
    topic, path = Topic("chat", str), Path(sys.argv[1])
    store, recreated = SqliteStore(path), SqliteStore(path)
    await store.open()
    reader = store.log(topic).reader("me")
    await reader.seek(0)
    path.unlink()
    path.with_name(path.name + "-wal").unlink()
    path.with_name(path.name + "-shm").unlink()
    await recreated.open()
    reader.ack(5)
    print(await recreated.log(topic).reader("me").position())
    await recreated.aclose()

asyncio.run(main())
"""


def test_deleting_an_open_file_kills_no_program(path: Path) -> None:
    """A program that creates it again creates a new store, and the other one keeps the old one."""
    assert run_process(DELETED, path) == ["None"]


async def test_a_reboot_ends_leases_and_fetches(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock restarts: there is no leader, and all fetches are lost."""
    async with opened_file(path) as store:
        log = store.log(MAIL)
        number = await log.begin_fetch(1000.0)
        assert await log.acquire_lease(1000.0)
        async with opened_file(path) as other:
            assert not await other.log(MAIL).acquire_lease(1.0)
            assert not await other.log(MAIL).lost_fetches()
        monkeypatch.setattr(schema_module, "boot_id", lambda: "another boot")
        async with opened_file(path) as other:
            assert await other.log(MAIL).acquire_lease(1.0)
            assert list(await other.log(MAIL).lost_fetches()) == [number]


async def test_the_lease_of_an_ended_process_is_free(path: Path) -> None:
    """A program that was killed, and restarted, polls immediately. One that lives keeps it."""
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await ended.wait()
    async with opened_file(path) as store:
        log = store.log(CHAT)
        assert await log.acquire_lease(1000.0)
        with closing(sqlite3.connect(path)) as db, db:
            (leader,) = db.execute("SELECT leader FROM log").fetchone()
            _, _, rest = leader.partition(":")
            for pid, is_free in ((os.getppid(), False), (ended.pid, True)):
                with db:
                    db.execute("UPDATE log SET leader = ?", (f"{pid}:{rest}",))
                assert await store.log(CHAT).acquire_lease(1.0) is is_free


@pytest.mark.parametrize("has_boot_id", [True, False])
@pytest.mark.parametrize("step", [-3600.0, 3600.0])
async def test_a_step_of_the_wall_clock_changes_no_pacing(
    path: Path,
    step: float,
    has_boot_id: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Between two programs on one file. It is logged once, and no interval is short.

    None is as long as the step either; where the system has no boot id, one may be twice as long.
    """
    if not has_boot_id:
        monkeypatch.setattr(schema_module, "boot_id", str)
    rate = Rate(2.0, guard=0.0)
    times: list[float] = []

    async def send(store: SqliteStore) -> None:
        permit = await store.make_limiter("key", "chat", rate).acquire(Priority.CALL)
        permit.on_written()
        permit.on_answered(200)
        times.append(anyio.current_time())

    async with opened_file(path) as store:
        await send(store)
        before = time.time
        monkeypatch.setattr(time, "time", lambda: before() + step)
        for _ in range(2):
            async with opened_file(path) as other:
                await send(other)
                await send(store)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(2.0 - 1e-3 <= gap <= 4.0 + 0.1 for gap in gaps)
    if has_boot_id:
        assert max(gaps) < 2.1
        assert caplog.text.count("the wall clock was changed by") == 1
        assert f"{step:.0f} s" in caplog.text


@pytest.mark.parametrize("after_reboot", [True, False])
@pytest.mark.parametrize("state", [b"", b"\xff", b"[]"], ids=["none", "garbage", "another"])
async def test_undecodable_pacing_counts_as_all_tokens_used(
    path: Path, state: bytes, after_reboot: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier requests are unknown, so all tokens may have been used; after that it continues."""
    rate = Rate(2.0, burst=3, guard=0.5)
    async with opened_file(path) as store:
        (await store.make_limiter("key", "chat", rate).acquire(Priority.CALL)).on_written()
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute("UPDATE pace SET state = ?", (state,)).rowcount == 1
    if after_reboot:
        monkeypatch.setattr(schema_module, "boot_id", lambda: "another boot")
    async with opened_file(path) as store:
        assert (await store.snapshot()).endpoints == (EndpointSnapshot("key", 0, 0, 0, 0.0),)
        limiter, start = store.make_limiter("key", "chat", rate), anyio.current_time()
        for _ in range(3):
            (await limiter.acquire(Priority.CALL)).on_written()
            assert 6.5 <= anyio.current_time() - start < 7.0


FETCH_AND_KILL: Final = """
import asyncio, os, signal, sys
from pythpeer import SqliteStore
from pythpeer.stores import Topic

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    number = await store.log(Topic("mail", str, destructive=True)).begin_fetch(1e6)
    print(number, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_the_fetch_of_a_killed_program_is_lost_now_and_once_more_later(path: Path) -> None:
    """Its request may still be under way until its time is over."""
    (number,) = map(int, run_process(FETCH_AND_KILL, path))
    async with opened_file(path) as store:
        log = store.log(MAIL)
        assert list(await log.lost_fetches()) == [number]
        await log.append([], completes=[number])
        assert not await log.lost_fetches()
        await asyncio.sleep(1e6 + time.monotonic())
        assert list(await log.lost_fetches()) == [number]
        await log.append([], completes=[number])
        assert not await log.lost_fetches()


def test_whether_a_process_is_alive_is_asked_of_the_system() -> None:
    """Owners of this process are looked up, other processes are asked for by their id."""
    owner = owner_module.OwnerId()
    assert owner_module.is_alive(owner.name)
    assert not owner_module.is_alive(f"{os.getpid()}:another")
    assert owner_module.is_alive(f"{os.getppid()}:x")
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert not owner_module.is_alive(f"{child.pid}:x")
    name = owner.name
    del owner
    gc.collect()
    assert not owner_module.is_alive(name)


def test_is_alive_can_be_called_while_owners_are_created() -> None:
    """The thread of the store calls it, and the event loop creates owners."""
    owner, results = owner_module.OwnerId(), set[object]()
    switch = sys.getswitchinterval()

    def check() -> None:
        try:
            for _ in range(5000):
                results.add(owner_module.is_alive(owner.name))
        except RuntimeError as error:
            results.add(error)

    sys.setswitchinterval(1e-6)
    try:
        checking = threading.Thread(target=check)
        checking.start()
        others = [owner_module.OwnerId()]
        while checking.is_alive():
            others = [*others[-200:], owner_module.OwnerId()]
        checking.join()
    finally:
        sys.setswitchinterval(switch)
    assert results == {True}


def test_a_process_of_another_user_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal to it is not permitted, but it exists."""
    monkeypatch.setattr(os, "kill", _not_permitted)
    assert owner_module.is_alive("1:x")


def _not_permitted(pid: int, number: int) -> None:
    raise PermissionError


def test_on_windows_every_process_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal of 0 would end the process there."""
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(os, "kill", None)
    assert owner_module.is_alive(f"{os.getppid()}:x")


async def test_a_fetch_intent_is_on_disk_with_either_durability(path: Path) -> None:
    """Its transaction is synchronous, and no other one."""
    async with opened_file(path) as store:
        with traced(store) as statements:
            await store.log(MAIL).begin_fetch(20.0)
        on, off = "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"
        assert statements.index(on) < statements.index("COMMIT") < statements.index(off)


async def test_it_can_keep_everything(path: Path) -> None:
    """``max_length=None`` is no limit."""
    async with opened_file(path, max_length=None) as store:
        log = store.log(CHAT)
        for first in range(1, 5000, 1000):
            await log.append(notes(*range(first, first + 1000)))
        assert len(await log.reader(None).read(0, 10_000)) == 5000


async def test_an_item_that_cannot_be_read_or_written_is_undecodable(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the items next to it are returned."""
    deep: list[object] = []
    for _ in range(1_000_000):  # Python 3.14 encodes a tenth of that
        deep = [deep]
    async with opened_file(path) as store:
        too_deep = NewEntry(Note("deep", {"x": deep}), id=2, after=1)
        await store.log(CHAT).append([*notes(1), too_deep, *notes(3, 4)])
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE entry SET item = '{\"text\": 5}' WHERE id = 3")
    async with opened_file(path) as store:
        entries = await store.log(CHAT).reader(None).read(0, 10)
    assert [entry.item and entry.item.text for entry in entries] == ["note 1", None, None, "note 4"]
    assert "item 2 cannot be encoded" in caplog.text
    assert "item 3 is damaged" in caplog.text
    while deep:
        deep = deep.pop()  # type: ignore[assignment]


# -- opening and closing --------------------------------------------------------------------------


async def test_closing_executes_submitted_jobs(path: Path) -> None:
    """Also those of cancelled callers. Closing twice does no harm."""
    store = SqliteStore(path)
    await store.open()
    append = asyncio.ensure_future(store.log(CHAT).append(notes(1)))
    await asyncio.sleep(0)
    append.cancel()
    await store.aclose()
    await store.aclose()
    async with opened_file(path) as reopened:
        assert await ids(reopened.log(CHAT)) == [1]


async def test_several_sessions_may_open_it_at_the_same_time(path: Path) -> None:
    """There is one connection, until the last of them closes it."""
    store, before = SqliteStore(path), threads()
    await asyncio.gather(*(store.open() for _ in range(3)))
    (thread,) = threads() - before
    for _ in range(2):
        await store.aclose()
        await store.log(CHAT).append(notes(1))
    await store.aclose()
    assert await wait_for_condition(lambda: not thread.is_alive())
    with pytest.raises(StoreError, match="not open"):
        await store.log(CHAT).append(notes(2))


async def test_several_stores_may_create_the_file_at_the_same_time(tmp_path: Path) -> None:
    """All use the file of the first one, and none fails."""
    for number in range(20):
        stores = [SqliteStore(tmp_path / f"{number}.sqlite") for _ in range(4)]
        await asyncio.gather(*(store.open() for store in stores))
        for id, store in enumerate(stores, 1):
            await store.log(CHAT).append(notes(id))
        for store in stores:
            assert [entry.id for entry in await entries(store.log(CHAT))] == [1, 2, 3, 4]
            await store.aclose()


@pytest.mark.parametrize("iterations", range(8))
@pytest.mark.parametrize("how", ["task", "scope"])
async def test_opening_can_be_cancelled(path: Path, iterations: int, how: str) -> None:
    """After any number of loop turns: no thread remains, and it can be opened again."""
    store, before, scope = SqliteStore(path), threads(), anyio.CancelScope()

    async def open_it() -> None:
        with scope:
            await store.open()

    task = asyncio.ensure_future(open_it())
    for _ in range(iterations):
        await asyncio.sleep(0)
    if how == "task":
        task.cancel()
    else:
        scope.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and not scope.cancelled_caught:
        await store.aclose()
    assert await wait_for_condition(lambda: threads() <= before)
    assert "closed" in repr(store)
    async with opened_file(path) as other:
        assert await ids(other.log(CHAT)) == []
    await store.open()
    await store.aclose()


def test_it_is_used_by_one_loop_at_a_time(path: Path) -> None:
    """Several loops one after the other may use it, also if it was not closed in the first."""
    store = SqliteStore(path)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(store.open())
        for method in (store.open, store.aclose):
            with pytest.raises(StoreError, match="another event loop"):
                second.run(method())
    with asyncio.Runner() as third:
        third.run(store.log(CHAT).append(notes(1)))
        third.run(store.aclose())
    with asyncio.Runner() as fourth:
        fourth.run(store.open())
        assert fourth.run(ids(store.log(CHAT))) == [1]
        fourth.run(store.aclose())


async def test_a_closed_store_raises_errors(path: Path) -> None:
    """Before it was opened, and after it was closed."""
    store = SqliteStore(path)
    log = store.log(CHAT)
    for _ in range(2):
        for call in (
            lambda: log.append(notes(1)),
            lambda: log.acquire_lease(1.0),
            log.max_acknowledged,
        ):
            with pytest.raises(StoreError, match="not open"):
                await call()
        await store.open()
        await store.aclose()


async def test_a_stream_may_be_closed_after_its_session(path: Path) -> None:
    """Closing the session has stored its position."""
    async with Scripted() as services:
        services.say(3)
        for first in (1, 2):
            session = services.session(store=SqliteStore(path))
            async with session:
                stream = session.peerbet.chat_stream(after=0 if first == 1 else None, name="me")
                assert (await anext(stream)).id == first
                assert (await anext(stream)).id == first + 1
            await stream.aclose()


# -- several stores on one file -------------------------------------------------------------------


async def test_an_append_of_another_store_on_the_file_ends_a_wait(path: Path) -> None:
    """Soon after it."""
    async with opened_file(path) as store, opened_file(path) as other:
        log = store.log(CHAT)
        await log.append(notes(1))
        await ids(other.log(CHAT))
        waiting = asyncio.ensure_future(other.log(CHAT).wait_for_append(100.0))
        await asyncio.sleep(10.0)
        assert not waiting.done()
        await log.append(notes(2))
        async with asyncio.timeout(1.0):
            await waiting
        assert await ids(other.log(CHAT)) == [1, 2]


Step = tuple[str, int, list[int]]
STEPS: Final = st.lists(
    st.tuples(
        st.sampled_from(["append", "leap", "out of order", "read", "tail", "ack"]),
        st.integers(0, 1),
        st.lists(st.integers(1, 40), min_size=1, max_size=6, unique=True).map(sorted),
    ),
    max_size=25,
)


@settings(
    max_examples=examples(120),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example([("append", 0, [1]), ("append", 1, [1, 2, 3, 4, 5]), ("read", 0, [1])], 5)
@example([("append", 0, [1, 2, 3, 4]), ("append", 1, [1]), ("tail", 0, [3])], 1000)
@given(STEPS, st.sampled_from([5, 1000]))
async def test_two_stores_on_a_file_behave_like_one_in_memory(
    tmp_path: Path, steps: list[Step], length: int
) -> None:
    """With any content of its cache, each returns what the other one has written.

    It may still return entries that it has appended, and that the other one has trimmed for newer
    ones: a log keeps its last entries, and it does no harm to return more.
    """
    path = tmp_path / f"{time.monotonic_ns()}.sqlite"
    model = MemoryStore(max_length=length)
    expected = model.log(CHAT)
    async with (
        opened_file(path, max_length=length) as first_store,
        opened_file(path, max_length=length) as other,
    ):
        stores: list[Store] = [first_store, other]
        own: list[list[int]] = [[], []]

        async def check(index: int, after: int = 0) -> None:
            returned = await entries(stores[index].log(CHAT), after)
            kept = await entries(expected, after)
            kept_ids = {entry.id for entry in kept}
            assert [entry for entry in returned if entry.id in kept_ids] == kept
            assert {entry.id for entry in returned} - kept_ids <= set(own[index][-length:])

        for action, index, numbers in steps:
            log = stores[index].log(CHAT)
            match action:
                case "append" | "leap" | "out of order":
                    newest = await entries(expected) if action != "out of order" else []
                    head = newest[-1].id if newest else 0
                    # An append continues the log; a leap leaves ids out.
                    offsets = range(1, len(numbers) + 1) if action == "append" else numbers
                    new_entries = notes(*(head + offset for offset in offsets))
                    added = await log.append(new_entries)
                    assert added == await expected.append(new_entries)
                    own[index] += [new.id for new in added if new.id is not None]
                case "read":
                    await check(index)
                case "tail":
                    await check(index, numbers[0])
                case _:
                    log.reader("me").ack(numbers[0])
                    await log.reader("me").flush()
                    expected.reader("me").ack(numbers[0])
                    assert await log.max_acknowledged() == await expected.max_acknowledged()
        for index in range(2):
            await check(index)


async def test_an_entry_out_of_order_is_not_hidden_by_the_cache(path: Path) -> None:
    """A message that the service returned after later ones, to this store or to another."""
    async with opened_file(path) as first_store, opened_file(path) as other:
        log = first_store.log(CHAT)
        await log.append([NewEntry(Note("note 9"), id=9, after=0)])
        await other.log(CHAT).append(notes(4))
        await log.reader("me").seek(0)
        assert await ids(log) == [4, 9]
        await log.append(
            [NewEntry(Note("note 2"), id=2, after=0), NewEntry(Note("new"), id=10, after=9)]
        )
        assert await ids(log) == [2, 4, 9, 10]


async def entries(log: Log[Note], after: int = 0) -> list[Entry[Note]]:
    """Read as a stream does: from its position, until there are no more entries."""
    read: list[Entry[Note]] = []
    while batch := await log.reader(None).read(read[-1].id if read else after, 10_000):
        read += batch
    return read
