"""What is the SQLite store's own: its files, what it refuses, what it outlives."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
import pytest
from full_disk import no_file_over
from helpers import examples
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scripted import ScriptedFault, Scripted

from pythpeer import (
    InvalidRequestError,
    MemoryStore,
    Rate,
    Session,
    SqliteStore,
    StoreError,
)
from pythpeer.line import Priority
from pythpeer.stores import EndpointSnapshot, Entry, Log, NewEntry, Store, Topic
from pythpeer.stores.sqlite import database as database_module
from pythpeer.stores.sqlite import owner as owner_module
from pythpeer.stores.sqlite import shelf as shelf_module

pytestmark = pytest.mark.anyio


class Note(msgspec.Struct, frozen=True):
    text: str
    raw: dict[str, Any] = {}


CHAT: Final = Topic("chat", Note)
MAIL: Final = Topic("mail", Note, destructive=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


def notes(*ids: int) -> list[NewEntry[Note]]:
    return [NewEntry(Note(f"note {id}"), id=id, after=id - 1) for id in ids]


def letters(*keys: str) -> list[NewEntry[Note]]:
    return [NewEntry(Note(key), identity=key, max_copies=1) for key in keys]


@contextmanager
def traced(store: SqliteStore) -> Iterator[list[str]]:
    """The statements that a store gives to SQLite."""
    statements: list[str] = []
    connection = store._database._connection
    assert connection is not None
    connection.set_trace_callback(statements.append)
    yield statements
    connection.set_trace_callback(None)


def threads() -> set[threading.Thread]:
    """Those that are there."""
    return set(threading.enumerate())


async def becomes_true(happened: Callable[[], bool]) -> bool:
    """Whether it happens soon: what other threads do takes real time."""
    for _ in range(500):
        if happened():
            return True
        time.sleep(0.01)  # noqa: ASYNC251
        await asyncio.sleep(0)
    return False


async def ids(log: Log[Note], after: int = 0) -> list[int]:
    return [entry.id for entry in await log.reader(None).read(after, 1000)]


def elsewhere(program: str, path: Path) -> list[str]:
    """Run *program* in a process of its own on *path*; what it says, line by line."""
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


# -- what it is made with -------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "a\0b", ":memory:", b"store", None, 5])
def test_a_path_is_text_or_a_path(path: str) -> None:
    """Anything else is refused where the store is made."""
    with pytest.raises(InvalidRequestError):
        SqliteStore(path)


@pytest.mark.parametrize(
    "options", [{"durability": "none"}, {"max_length": 0}, {"max_length": True}]
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    """Anything else is refused where the store is made."""
    with pytest.raises(InvalidRequestError):
        SqliteStore("store.sqlite", **options)


async def test_it_says_which_file_it_is(path: Path) -> None:
    """And whether it is open."""
    assert repr(SqliteStore(path)) == f"<SqliteStore {str(path)!r}, closed>"
    async with opened(path) as store:
        assert repr(store) == f"<SqliteStore {str(path)!r}, open>"


async def test_the_environment_names_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``PYTHPEER_STORE`` is the path of a file where it is no ``memory``."""
    monkeypatch.setenv("PYTHPEER_STORE", str(path))
    assert repr(str(path)) in repr(Session.from_env())


# -- its files ------------------------------------------------------------------------------------


async def test_only_its_owner_can_read_it(path: Path) -> None:
    """Whatever the umask is, and SQLite's own files and the places too."""
    before = os.umask(0)
    try:
        async with opened(path) as store:
            log = store.log(CHAT)
            await log.append(notes(1))
            await log.reader("me").seek(1)
            found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    names = {path.name + end for end in ("", "-wal", "-shm", "-places")}
    assert found == dict.fromkeys(names, 0o600)


async def test_no_key_is_in_it(path: Path) -> None:
    """Neither chat nor mail, pacing nor an answer that failed leave one behind."""
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


async def test_a_link_to_nowhere_is_followed(path: Path) -> None:
    """The file is made where the link points to, and for its owner's eyes only."""
    target = path.with_name("elsewhere.sqlite")
    path.symlink_to(target)  # noqa: ASYNC240
    before = os.umask(0)
    try:
        async with opened(path):
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
async def test_two_stores_of_a_program_are_two_to_other_programs(path: Path, closed: bool) -> None:
    """The file's locks are the process's, and to open it a second time must not drop them.

    Else the next program to close the file takes itself for the last, and its log is gone.
    """
    async with opened(path) as store:
        log = store.log(CHAT)
        await log.append(notes(1))
        async with opened(path) as other:
            if closed:
                await other.aclose()
            elsewhere(OPEN_AND_CLOSE, path)
            await log.append(notes(2))
            async with opened(path) as third:
                assert await ids(third.log(CHAT)) == await ids(log) == [1, 2]


async def test_the_log_can_be_read_by_others(path: Path) -> None:
    """As the page on archives says: items are JSON."""
    async with opened(path) as store:
        await store.log(CHAT).append(notes(1, 2))
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as other:
            rows = other.execute("SELECT id, json_extract(item, '$.text') FROM entry").fetchall()
    assert rows == [(1, "note 1"), (2, "note 2")]


# -- what it refuses ------------------------------------------------------------------------------


def _ours(path: Path) -> None:
    async def make() -> None:
        async with opened(path) as store:
            for first in range(1, 2000, 100):
                await store.log(CHAT).append(notes(*range(first, first + 100)))

    asyncio.run(make())


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, whatever it may be called" * 40)


def _damaged(path: Path) -> None:
    _ours(path)
    data = bytearray(path.read_bytes())
    data[8192:24576] = os.urandom(16384)
    path.write_bytes(data)


def _cut(path: Path) -> None:
    _ours(path)
    path.write_bytes(path.read_bytes()[:9000])


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE recipes (cake TEXT)")


def _newer(path: Path) -> None:
    _ours(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 99")


def _folder(path: Path) -> None:
    path.mkdir()


def _nowhere(path: Path) -> None:
    path.parent.rmdir()


def _no_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file")


REFUSED: Final = {
    "garbage": (_garbage, "damaged"),
    "damaged": (_damaged, "damaged"),
    "cut": (_cut, "damaged"),
    "foreign": (_foreign, "another program's"),
    "newer": (_newer, "upgrade pythpeer"),
    "a folder": (_folder, "directory"),
    "nowhere": (_nowhere, "No such file"),
    "a file for a folder": (_no_folder, "Not a directory"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_fit_is_refused_and_left_as_it_is(what: str, tmp_path: Path) -> None:
    """The error says what to do; the file stays; no thread and no other exception is left."""
    make, words = REFUSED[what]
    path = tmp_path / "folder" / "store.sqlite"
    path.parent.mkdir()
    make(path)
    before = path.read_bytes() if path.is_file() else None
    before_all = threads()

    async def use() -> None:
        store = SqliteStore(path)
        for _ in range(2):  # it can be tried again
            session = Session(store=store)
            with pytest.raises(StoreError, match=words) as caught:
                await session.open()
            assert caught.value.__cause__ is caught.value.__context__ is None
            assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
            assert "closed" in repr(session)
            assert "closed" in repr(store)

    asyncio.run(use())
    assert asyncio.run(becomes_true(lambda: threads() <= before_all))
    assert before is None or path.read_bytes() == before


async def test_a_file_that_is_held_is_waited_for_and_then_said(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program that writes for too long is named as the reason; then it goes on."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT", 0.05)
    async with opened(path) as store:
        log = store.log(CHAT)
        await log.append(notes(1))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="held by another program") as caught:
                await log.append(notes(2))
            assert caught.value.__context__ is None
            other.execute("ROLLBACK")
        await log.append(notes(2))
        assert await ids(log) == [1, 2]


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
def test_a_full_disk_is_said_and_nothing_is_half_done(path: Path) -> None:
    """What did not fit is not there, and once there is room it goes on."""
    error, texts = elsewhere(FULL, path)
    assert "the store" in error
    assert texts == "['small', 'again']"


# -- what it outlives -----------------------------------------------------------------------------


async def test_everything_is_there_again(path: Path) -> None:
    """Items, places, what was announced, and which keys were seen."""
    async with opened(path) as store:
        await store.log(CHAT).append(notes(1, 2, 3))
        reader = store.log(CHAT).reader("me")
        await reader.seek(1)
        reader.ack(2)
        await store.log(MAIL).append(letters("a"))
        await store.log(MAIL).lose_fetch(await store.log(MAIL).begin_fetch(20.0))
    async with opened(path) as store:
        assert await ids(store.log(CHAT)) == [1, 2, 3]
        assert await store.log(CHAT).reader("me").position() == 2
        assert len(await store.log(MAIL).lost_fetches()) == 1
        assert list(await store.log(MAIL).append(letters("a"))) == []


async def test_an_acknowledgement_is_there_although_nothing_was_closed(path: Path) -> None:
    """Not even the loop had a turn behind it."""
    async with opened(path) as store:
        log = store.log(CHAT)
        await log.append(notes(*range(1, 101)))
        for name in ("me", "you"):
            await log.reader(name).seek(0)
        for id in range(1, 61):
            log.reader("me").ack(id)
            async with opened(path) as other:
                assert await other.log(CHAT).reader("me").position() == id
                assert await other.log(CHAT).reader("you").position() == 0


async def test_acknowledging_is_no_transaction(path: Path) -> None:
    """However many items, nothing is written to the database for it."""
    async with opened(path) as store:
        log = store.log(CHAT)
        await log.append(notes(*range(1, 301)))
        reader = log.reader("me")
        await reader.seek(0)
        with traced(store) as statements:
            await reader.flush()
            for entry in await reader.read(0, 300):
                reader.ack(entry.id)
                await reader.flush()
        assert not [each for each in statements if not each.startswith(("SELECT", "PRAGMA"))]


async def test_with_full_durability_each_flush_is_one_transaction(path: Path) -> None:
    """It is on disk then; and where nothing was acknowledged since, there is nothing to do."""
    async with opened(path, durability="full") as store:
        log = store.log(CHAT)
        await log.append(notes(1, 2, 3))
        reader = log.reader("me")
        await reader.seek(0)
        with traced(store) as statements:
            reader.ack(1)
            reader.ack(2)
            for _ in range(2):
                await reader.flush()
        assert statements.count("COMMIT") == 1
        assert "PRAGMA synchronous = NORMAL" not in statements
        with traced(store) as statements:
            flushing = asyncio.ensure_future(reader.flush())
            reader.ack(3)
            await flushing
            await reader.flush()
        assert statements.count("COMMIT") == 1


async def test_a_place_is_written_into_the_database_now_and_then(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a transaction that is made anyway, and only if it has moved since."""
    monkeypatch.setattr(shelf_module, "CHECKPOINT_EVERY", 3)
    async with opened(path) as store:
        reader = store.log(CHAT).reader("me")
        await reader.seek(0)
        reader.ack(5)
        folded = list[bool]()
        for id in range(1, 10):
            if id == 8:
                reader.ack(6)
            with traced(store) as statements:
                await store.log(CHAT).append(notes(id))
            folded.append(any("UPDATE reader" in each for each in statements))
            assert statements.count("COMMIT") == 1
        assert folded == [False, False, True, False, False, False, False, False, True]
        path.with_name(path.name + "-places").unlink()
        async with opened(path) as other:
            assert await other.log(CHAT).reader("me").position() == 6


async def test_places_of_another_database_do_not_count(path: Path) -> None:
    """Where the database was deleted and its places were not, a name starts anew."""
    async with opened(path) as store:
        await store.log(CHAT).append(notes(1, 2, 3))
        reader = store.log(CHAT).reader("me")
        await reader.seek(0)
        reader.ack(3)
    path.unlink()  # noqa: ASYNC240
    async with opened(path) as store:
        reader = store.log(CHAT).reader("me")
        assert await reader.position() is None
        await reader.seek(0)
        assert await store.log(CHAT).reader("me").position() == 0


async def test_places_from_before_a_seek_do_not_count(path: Path) -> None:
    """A name that was sent back is back, though the file says otherwise."""
    async with opened(path) as store, opened(path) as other:
        log = store.log(CHAT)
        await log.append(notes(*range(1, 10)))
        reader = log.reader("me")
        await reader.seek(0)
        reader.ack(9)
        await other.log(CHAT).reader("me").seek(4)
        async with opened(path) as third:
            assert await third.log(CHAT).reader("me").position() == 4


@pytest.mark.parametrize("damage", ["gone", "empty", "half", "zeroes"])
async def test_without_its_places_a_name_is_where_the_database_has_it(
    path: Path, damage: str
) -> None:
    """Closing has written it there, so nothing comes again."""
    async with opened(path) as store:
        await store.log(CHAT).append(notes(*range(1, 10)))
        reader = store.log(CHAT).reader("me")
        await reader.seek(0)
        reader.ack(7)
    places = path.with_name(path.name + "-places")
    match damage:
        case "gone":
            places.unlink()
        case "empty":
            places.write_bytes(b"")
        case "half":
            places.write_bytes(places.read_bytes()[:-5])
        case _:
            places.write_bytes(places.read_bytes()[:-16] + bytes(16))
    async with opened(path) as store:
        assert await store.log(CHAT).reader("me").position() == 7


@pytest.mark.parametrize("full", [False, True])
async def test_a_database_put_back_from_a_copy_loses_no_mail(path: Path, full: bool) -> None:
    """Its numbers begin anew from there, and the places that are further on must not hide them.

    Nor if that was found out in a transaction that failed.
    """
    async with opened(path) as store:
        await store.log(MAIL).append(letters("a", "b"))
        reader = store.log(MAIL).reader("me")
        await reader.seek(0)
    copy = path.read_bytes()  # noqa: ASYNC240
    async with opened(path) as store:
        await store.log(MAIL).append(letters("c", "d", "e"))
        reader = store.log(MAIL).reader("me")
        await reader.seek(0)
        reader.ack(5)
    path.write_bytes(copy)  # noqa: ASYNC240
    async with opened(path) as store:
        log = store.log(MAIL)
        if full:
            with no_file_over(20_000), pytest.raises(StoreError, match="the store"):
                await log.append([NewEntry(Note("x" * 100_000), identity="x")])
        await log.append(letters("c"))
        place = await log.reader("me").position()
        assert place is not None
        assert await ids(log, place) == [3]


async def test_places_beyond_a_database_that_was_put_back_are_nobody_s(path: Path) -> None:
    """Neither of a name that is new to it, nor of one that is sent elsewhere only now."""
    async with opened(path) as store:
        await store.log(CHAT).append(notes(*range(1, 10)))
        await store.log(CHAT).reader("me").seek(1)
    copy = path.read_bytes()  # noqa: ASYNC240
    async with opened(path) as store:
        for name, start in (("me", 0), ("you", 3)):
            reader = store.log(CHAT).reader(name)
            await reader.seek(start)
            reader.ack(9)
    path.write_bytes(copy)  # noqa: ASYNC240
    async with opened(path) as store:
        for name, start in (("me", 0), ("somebody", 2)):
            reader = store.log(CHAT).reader(name)
            await reader.seek(start)
            async with opened(path) as other:
                assert await other.log(CHAT).reader(name).position() == start
                reader.ack(5)
                assert await other.log(CHAT).reader(name).position() == 5


async def test_who_was_sent_elsewhere_is_not_called_back(path: Path) -> None:
    """Another program's explicit place wins over what this one acknowledged and puts down later."""
    async with opened(path) as other:
        async with opened(path) as store:
            await store.log(CHAT).append(notes(*range(1, 10)))
            reader = store.log(CHAT).reader("me")
            await reader.seek(0)
            reader.ack(9)
            await other.log(CHAT).reader("me").seek(4)
            reader.ack(10)
        assert await other.log(CHAT).reader("me").position() == 4
        async with opened(path) as third:
            assert await third.log(CHAT).reader("me").position() == 4


async def test_a_place_is_known_as_another_program_left_it(path: Path) -> None:
    """However far this program had been itself; and it may go back there."""
    async with opened(path) as store, opened(path) as other:
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


async def test_what_was_rolled_back_is_nobody_s_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name whose first place could not be written has none, and stands in nobody's way."""
    monkeypatch.setattr(shelf_module, "CHECKPOINT_EVERY", 1)
    async with opened(path) as store:
        log = store.log(CHAT)
        await log.append(notes(*range(1, 10)))
        reader = log.reader("me")
        reader.ack(5)
        big = NewEntry(Note("x" * 100_000), id=10, after=9)
        with no_file_over(50_000), pytest.raises(StoreError, match="the store"):
            await log.append([big])
        reader.ack(6)
        async with opened(path) as other:
            await other.log(CHAT).reader("you").seek(0)
            assert await other.log(CHAT).reader("you").position() == 0
            assert await other.log(CHAT).reader("me").position() is None
            await reader.flush()
            assert await other.log(CHAT).reader("me").position() == 6
            await log.append([big])
            assert (await log.reader(None).read(9, 10))[0].item == big.item


async def test_a_hold_may_be_older_than_the_opening(path: Path) -> None:
    """It sees what others append, in this opening of the store and the next."""
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


async def test_places_go_with_the_file_whatever_it_is_called(path: Path) -> None:
    """A link to it is another name, and no other place."""
    link = path.parent / "folder" / "link.sqlite"
    link.parent.mkdir()
    link.symlink_to(path)
    async with opened(path) as store, opened(link) as other:
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
    store, anew = SqliteStore(path), SqliteStore(path)
    await store.open()
    reader = store.log(topic).reader("me")
    await reader.seek(0)
    path.unlink()
    path.with_name(path.name + "-wal").unlink()
    path.with_name(path.name + "-shm").unlink()
    await anew.open()
    reader.ack(5)
    print(await anew.log(topic).reader("me").position())
    await anew.aclose()

asyncio.run(main())
"""


def test_a_file_deleted_under_a_program_kills_nobody(path: Path) -> None:
    """Whoever makes it anew makes its places anew too, and leaves the old ones alone."""
    assert elsewhere(DELETED, path) == ["None"]


async def test_a_place_that_cannot_be_written_is_in_the_next_transaction(path: Path) -> None:
    """And what is wrong is said there."""
    async with opened(path) as store:
        log = store.log(CHAT)
        await log.append(notes(1, 2, 3))
        reader = log.reader("me")
        await reader.seek(0)
        assert store._database.places is not None
        store._database.places._map.close()
        reader.ack(2)
        await reader.flush()
        async with opened(path) as other:
            assert await other.log(CHAT).reader("me").position() == 2


async def test_a_reboot_ends_what_was_under_way(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clocks begin anew: nobody leads, nothing is paced, and whatever was asked for is over."""
    async with opened(path) as store:
        log = store.log(MAIL)
        number = await log.begin_fetch(1000.0)
        assert await log.acquire_lease(1000.0)
        async with opened(path) as other:
            assert not await other.log(MAIL).acquire_lease(1.0)
            assert not await other.log(MAIL).lost_fetches()
        monkeypatch.setattr(time, "time", lambda: time.monotonic() + 1e9)
        async with opened(path) as other:
            assert await other.log(MAIL).acquire_lease(1.0)
            assert list(await other.log(MAIL).lost_fetches()) == [number]


@pytest.mark.parametrize("reboots", [True, False])
@pytest.mark.parametrize("state", [b"", b"\xff", b"[]"], ids=["none", "garbage", "another"])
async def test_pacing_that_cannot_be_read_counts_as_all_spent(
    path: Path, state: bytes, reboots: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was let through before is not known, so all of it may have been; then it goes on."""
    rate = Rate(2.0, burst=3, guard=0.5)
    async with opened(path) as store:
        (await store.make_limiter("key", "chat", rate).acquire(Priority.CALL)).on_written()
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute("UPDATE pace SET state = ?", (state,)).rowcount == 1
    if reboots:
        monkeypatch.setattr(time, "time", lambda: time.monotonic() + 1e9)
    async with opened(path) as store:
        assert (await store.snapshot()).endpoints == (EndpointSnapshot("key", 0, 0, 0, 0.0),)
        limiter, start = store.make_limiter("key", "chat", rate), anyio.current_time()
        for _ in range(3):
            (await limiter.acquire(Priority.CALL)).on_written()
            assert 6.5 <= anyio.current_time() - start < 7.0


ASK_AND_DIE: Final = """
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


async def test_what_a_killed_program_asked_for_is_settled_now_and_again_later(path: Path) -> None:
    """Its request may still be on its way to the service until its time is over."""
    (number,) = map(int, elsewhere(ASK_AND_DIE, path))
    async with opened(path) as store:
        log = store.log(MAIL)
        assert list(await log.lost_fetches()) == [number]
        await log.append([], completes=[number])
        assert not await log.lost_fetches()
        await asyncio.sleep(1e6 + time.monotonic())
        assert list(await log.lost_fetches()) == [number]
        await log.append([], completes=[number])
        assert not await log.lost_fetches()


def test_who_lives_is_asked_of_the_system() -> None:
    """Our own owners by heart, other processes by their number."""
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


def test_who_lives_can_be_asked_while_others_are_born() -> None:
    """It is asked on the store's thread, and owners are made by the loop."""
    owner, answers = owner_module.OwnerId(), set[object]()
    switch = sys.getswitchinterval()

    def look() -> None:
        try:
            for _ in range(5000):
                answers.add(owner_module.is_alive(owner.name))
        except RuntimeError as error:
            answers.add(error)

    sys.setswitchinterval(1e-6)
    try:
        looking = threading.Thread(target=look)
        looking.start()
        others = [owner_module.OwnerId()]
        while looking.is_alive():
            others = [*others[-200:], owner_module.OwnerId()]
        looking.join()
    finally:
        sys.setswitchinterval(switch)
    assert answers == {True}


def test_another_user_s_program_lives_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may not be asked, but it is there."""
    monkeypatch.setattr(os, "kill", _not_permitted)
    assert owner_module.is_alive("1:x")


def _not_permitted(pid: int, number: int) -> None:
    raise PermissionError


def test_where_asking_is_killing_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows a signal of 0 would end the process."""
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(os, "kill", None)
    assert owner_module.is_alive(f"{os.getppid()}:x")


async def test_asking_for_mail_is_on_disk_whatever_the_durability(path: Path) -> None:
    """The transaction that announces it is a synchronous one, and only that."""
    async with opened(path) as store:
        with traced(store) as statements:
            await store.log(MAIL).begin_fetch(20.0)
        on, off = "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"
        assert statements.index(on) < statements.index("COMMIT") < statements.index(off)


async def test_it_can_keep_everything(path: Path) -> None:
    """``max_length=None`` is no limit."""
    async with opened(path, max_length=None) as store:
        log = store.log(CHAT)
        for first in range(1, 5000, 1000):
            await log.append(notes(*range(first, first + 1000)))
        assert len(await log.reader(None).read(0, 10_000)) == 5000


async def test_an_item_that_cannot_be_read_or_written_is_a_hole(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and hides no neighbours."""
    deep: list[object] = []
    for _ in range(1_000_000):  # Python 3.14 writes down a tenth of that
        deep = [deep]
    async with opened(path) as store:
        odd = NewEntry(Note("deep", {"x": deep}), id=2, after=1)
        await store.log(CHAT).append([*notes(1), odd, *notes(3, 4)])
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE entry SET item = '{\"text\": 5}' WHERE id = 3")
    async with opened(path) as store:
        entries = await store.log(CHAT).reader(None).read(0, 10)
    assert [entry.item and entry.item.text for entry in entries] == ["note 1", None, None, "note 4"]
    assert "item 2 cannot be written" in caplog.text
    assert "item 3 is damaged" in caplog.text
    while deep:
        deep = deep.pop()  # type: ignore[assignment]


# -- open and closed ------------------------------------------------------------------------------


async def test_closing_does_what_was_asked_for_before(path: Path) -> None:
    """Also where nobody waits for it any more, and twice does no harm."""
    store = SqliteStore(path)
    await store.open()
    append = asyncio.ensure_future(store.log(CHAT).append(notes(1)))
    await asyncio.sleep(0)
    append.cancel()
    await store.aclose()
    await store.aclose()
    async with opened(path) as again:
        assert await ids(again.log(CHAT)) == [1]


async def test_two_sessions_may_open_it_at_once(path: Path) -> None:
    """It is open once, and until the last of them closes it."""
    store, before = SqliteStore(path), threads()
    await asyncio.gather(*(store.open() for _ in range(3)))
    (thread,) = threads() - before
    for _ in range(2):
        await store.aclose()
        await store.log(CHAT).append(notes(1))
    await store.aclose()
    assert await becomes_true(lambda: not thread.is_alive())
    with pytest.raises(StoreError, match="not open"):
        await store.log(CHAT).append(notes(2))


async def test_many_may_make_the_file_at_once(tmp_path: Path) -> None:
    """Each finds it as the first one made it, and none is turned away."""
    for number in range(20):
        stores = [SqliteStore(tmp_path / f"{number}.sqlite") for _ in range(4)]
        await asyncio.gather(*(store.open() for store in stores))
        for id, store in enumerate(stores, 1):
            await store.log(CHAT).append(notes(id))
        for store in stores:
            assert [entry.id for entry in await entries(store.log(CHAT))] == [1, 2, 3, 4]
            await store.aclose()


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("how", ["task", "scope"])
async def test_opening_can_be_cancelled(path: Path, turns: int, how: str) -> None:
    """At any turn of the loop: no thread, no file is left open, and it can be opened again."""
    store, before, scope = SqliteStore(path), threads(), anyio.CancelScope()

    async def open_it() -> None:
        with scope:
            await store.open()

    task = asyncio.ensure_future(open_it())
    for _ in range(turns):
        await asyncio.sleep(0)
    if how == "task":
        task.cancel()
    else:
        scope.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and not scope.cancelled_caught:
        await store.aclose()
    assert await becomes_true(lambda: threads() <= before)
    assert "closed" in repr(store)
    async with opened(path) as other:
        assert await ids(other.log(CHAT)) == []
    await store.open()
    await store.aclose()


def test_it_is_used_by_one_loop_at_a_time(path: Path) -> None:
    """One after the other is fine, also where the first was closed with the store still open."""
    store = SqliteStore(path)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(store.open())
        for ask in (store.open, store.aclose):
            with pytest.raises(StoreError, match="another event loop"):
                second.run(ask())
    with asyncio.Runner() as third:
        third.run(store.log(CHAT).append(notes(1)))
        third.run(store.aclose())
    with asyncio.Runner() as fourth:
        fourth.run(store.open())
        assert fourth.run(ids(store.log(CHAT))) == [1]
        fourth.run(store.aclose())


async def test_a_closed_store_says_so(path: Path) -> None:
    """Before it was opened and behind its end."""
    store = SqliteStore(path)
    log = store.log(CHAT)
    for _ in range(2):
        for ask in (
            lambda: log.append(notes(1)),
            lambda: log.acquire_lease(1.0),
            log.max_acknowledged,
        ):
            with pytest.raises(StoreError, match="not open"):
                await ask()
        await store.open()
        await store.aclose()


async def test_a_stream_closed_behind_its_session_does_no_harm(path: Path) -> None:
    """Closing the session has put down how far it was."""
    async with Scripted() as services:
        services.say(3)
        for first in (1, 2):
            session = services.session(store=SqliteStore(path))
            async with session:
                stream = session.peerbet.chat_stream(after=0 if first == 1 else None, name="me")
                assert (await anext(stream)).id == first
                assert (await anext(stream)).id == first + 1
            await stream.aclose()


# -- several of them ------------------------------------------------------------------------------


async def test_news_comes_from_other_stores_on_the_file(path: Path) -> None:
    """Soon after they append."""
    async with opened(path) as store, opened(path) as other:
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
        st.sampled_from(["append", "leap", "late", "read", "tail", "ack"]),
        st.integers(0, 1),
        st.lists(st.integers(1, 40), min_size=1, max_size=6, unique=True).map(sorted),
    ),
    max_size=25,
)


@settings(
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example([("append", 0, [1]), ("append", 1, [1, 2, 3, 4, 5]), ("read", 0, [1])], 5)
@example([("append", 0, [1, 2, 3, 4]), ("append", 1, [1]), ("tail", 0, [3])], 1000)
@given(STEPS, st.sampled_from([5, 1000]))
async def test_two_stores_on_a_file_are_as_one_in_memory(
    tmp_path: Path, steps: list[Step], length: int
) -> None:
    """Whatever either of them keeps in mind, it shows what the other one wrote.

    What it appended itself it may still show when the other one has dropped that for newer items: a
    log keeps its last ones, and to hand out one more is no harm.
    """
    path = tmp_path / f"{time.monotonic_ns()}.sqlite"
    model = MemoryStore(max_length=length)
    expected = model.log(CHAT)
    async with opened(path, max_length=length) as one, opened(path, max_length=length) as other:
        stores: list[Store] = [one, other]
        own: list[list[int]] = [[], []]

        async def check(which: int, after: int = 0) -> None:
            shown = await entries(stores[which].log(CHAT), after)
            kept = await entries(expected, after)
            there = {entry.id for entry in kept}
            assert [entry for entry in shown if entry.id in there] == kept
            assert {entry.id for entry in shown} - there <= set(own[which][-length:])

        for what, which, numbers in steps:
            log = stores[which].log(CHAT)
            match what:
                case "append" | "leap" | "late":
                    newest = await entries(expected) if what != "late" else []
                    head = newest[-1].id if newest else 0
                    # What is appended follows on what was there; a leap leaves holes.
                    steps_on = range(1, len(numbers) + 1) if what == "append" else numbers
                    drafts = notes(*(head + step for step in steps_on))
                    added = await log.append(drafts)
                    assert added == await expected.append(drafts)
                    own[which] += [draft.id for draft in added if draft.id is not None]
                case "read":
                    await check(which)
                case "tail":
                    await check(which, numbers[0])
                case _:
                    log.reader("me").ack(numbers[0])
                    await log.reader("me").flush()
                    expected.reader("me").ack(numbers[0])
                    assert await log.max_acknowledged() == await expected.max_acknowledged()
        for which in range(2):
            await check(which)


async def test_what_came_late_is_not_hidden_by_what_is_kept_in_mind(path: Path) -> None:
    """A message that the service showed after later ones, to this store or another on the file."""
    async with opened(path) as one, opened(path) as other:
        log = one.log(CHAT)
        await log.append([NewEntry(Note("note 9"), id=9, after=0)])
        await other.log(CHAT).append(notes(4))
        await log.reader("me").seek(0)
        assert await ids(log) == [4, 9]
        await log.append(
            [NewEntry(Note("note 2"), id=2, after=0), NewEntry(Note("new"), id=10, after=9)]
        )
        assert await ids(log) == [2, 4, 9, 10]


async def entries(log: Log[Note], after: int = 0) -> list[Entry[Note]]:
    """As a stream reads: on from where it is, for as long as there is more."""
    found: list[Entry[Note]] = []
    while more := await log.reader(None).read(found[-1].id if found else after, 10_000):
        found += more
    return found
