"""A Redis server that comes back empty, or with an older state, while a program runs.

The program knows what it has fetched and what it has read; the ids of mail are not given twice.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest
import redis_server
from helpers import REAL
from stores import open_store, redis_programs

from pythpeer import StoreError
from pythpeer.stores import Log, NewEntry, Reader, RedisStore, Topic

pytestmark = [pytest.mark.anyio, pytest.mark.processes, redis_server.needs_a_server]


class Item(msgspec.Struct, frozen=True):
    id: int


MAIL: Final = Topic("mail", Item, destructive=True)


@pytest.fixture
def anyio_backend() -> object:
    return REAL


@pytest.fixture
def server(folder: Path) -> Iterator[redis_server.RealServer]:
    data = folder / "data"
    data.mkdir()
    with redis_server.real_server(data) as server:
        yield server


@pytest.fixture
async def program(server: redis_server.RealServer) -> AsyncIterator[Callable[[], RedisStore]]:
    """Creates stores that share all, as those of several programs do. None waits for a server."""
    async with redis_programs(server.url, patience=0.0) as create:
        yield create


class Marked(msgspec.Struct, frozen=True):
    text: str


MARKED: Final = Topic(
    "marked",
    Marked,
    destructive=True,
    mark_recovered=lambda item: Marked(f"{item.text}, recovered"),
)


async def marks(reader: Reader[Marked]) -> list[str]:
    """Return the texts of all mails, and acknowledge them."""
    entries = await reader.read(0, 100)
    reader.ack(entries[-1].id)
    await reader.flush()
    return [entry.item.text for entry in entries if entry.item is not None]


def mails(*ids: int) -> list[NewEntry[Item]]:
    return [NewEntry(Item(id), identity=str(id)) for id in ids]


async def take(reader: Reader[Item], after: int = 0, reads: int = 1) -> list[int]:
    """Return the mails of *reads* reads, and acknowledge them."""
    taken: list[int] = []
    for _ in range(reads):
        entries = await reader.read(after, 100)
        taken += [entry.item.id for entry in entries if entry.item is not None]
        for entry in entries:
            reader.ack(entry.id)
    return taken


def take_snapshot(server: redis_server.RealServer) -> Callable[[], None]:
    """Return a function that lets the server come back with its present state."""
    saved = server.folder.with_name("saved")
    shutil.copytree(server.folder, saved)

    def restore() -> None:
        server.kill()
        server.delete_data()
        shutil.copytree(saved, server.folder, dirs_exist_ok=True)
        server.start()

    return restore


async def fails(log: Log[Item], entries: list[NewEntry[Item]], fetch: int) -> None:
    with pytest.raises(StoreError, match="cannot be reached"):
        await log.append(entries, completes=[fetch])


async def test_fetched_mail_comes_into_a_log_that_was_emptied(
    server: redis_server.RealServer, program: Callable[[], RedisStore]
) -> None:
    """With the next request for the lease, in the order of the fetches; no mail is duplicated."""
    log = (await open_store(program())).log(MAIL)
    fetch = await log.begin_fetch(60.0)
    server.kill()
    await fails(log, mails(1, 2), fetch)
    server.delete_data()
    server.start()
    await log.acquire_lease(2.0)
    assert await take(log.reader(None)) == [1, 2]
    assert await log.lost_fetches() == []
    await log.append(mails(3))
    assert await take(log.reader(None)) == [1, 2, 3]


async def test_a_session_that_closes_stores_what_was_fetched(
    server: redis_server.RealServer, program: Callable[[], RedisStore]
) -> None:
    """The server may be reachable again by then; another session of the program does it else."""
    store = await open_store(program())
    log = store.log(MAIL)
    fetch = await log.begin_fetch(60.0)
    server.kill()
    await fails(log, mails(1), fetch)
    with pytest.raises(StoreError, match="cannot be reached"):
        await store.aclose()
    server.delete_data()
    server.start()
    await store.open()
    assert await store.log(MAIL).lost_fetches() == []
    assert await take(store.log(MAIL).reader(None)) == [1]


async def test_a_lost_fetch_is_remembered_by_the_program(
    server: redis_server.RealServer, program: Callable[[], RedisStore]
) -> None:
    """The history is read although the server has forgotten the fetch intent."""
    log = (await open_store(program())).log(MAIL)
    fetch = await log.begin_fetch(60.0)
    server.kill()
    with pytest.raises(StoreError, match="cannot be reached"):
        await log.lose_fetch(fetch)
    server.delete_data()
    server.start()
    assert len(await log.lost_fetches()) == 1


async def test_an_append_that_failed_is_not_repeated_if_it_was_executed(
    server: redis_server.RealServer,
) -> None:
    """Its response was lost: the mails are stored once."""
    proxy = redis_server.LosingProxy(server.url)
    async with proxy as url:
        store = await open_store(RedisStore(url, patience=0.0))
        log = store.log(MAIL)
        fetch = await log.begin_fetch(60.0)
        await log.append(mails(1))  # now the server has the script
        proxy.lose.extend([b":done:"] * 2)
        await fails(log, mails(2, 3), fetch)
        assert await take(log.reader(None)) == [1, 2, 3]
        await log.acquire_lease(2.0)
        assert await take(log.reader(None)) == [1, 2, 3]
        await store.aclose()


async def test_ids_are_not_given_twice_after_an_older_snapshot(
    server: redis_server.RealServer, program: Callable[[], RedisStore]
) -> None:
    """Although a new program has used them before any older one sees that they were lost.

    Readers of the older one receive the new mails, and acknowledge none that they have not read.
    """
    old = await open_store(program())
    log, stream, slow = old.log(MAIL), old.log(MAIL).reader(None), old.log(MAIL).reader("slow")
    await slow.seek_if_new(0)
    await log.append(mails(1, 2, 3))
    assert await take(stream) == [1, 2, 3]
    assert await take(slow, reads=3) == [1, 2, 3]
    await slow.flush()
    restore = take_snapshot(server)
    await log.append(mails(4, 5))
    assert await take(stream, after=3) == [4, 5]
    assert await take(slow, reads=2) == [4, 5]
    restore()

    new = (await open_store(program())).log(MAIL)
    await new.append(mails(6, 7))
    assert [entry.id for entry in await new.reader(None).read(0, 100)] == [1, 2, 3, 4, 5]
    assert await new.lost_fetches() == []  # it cannot know

    assert await take(slow, reads=3) == [6, 7]
    assert len(await new.lost_fetches()) == 1
    assert await take(stream, after=5) == [6, 7]
    await new.append(mails(8), completes=await new.lost_fetches())
    assert [entry.id > 1_000_000 for entry in await new.reader(None).read(5, 100)] == [True]
    assert await new.lost_fetches() == []  # once, although several readers have noticed it
    other_stream = old.log(MAIL).reader(None)
    assert await take(other_stream) == [1, 2, 3, 6, 7, 8]


async def test_mail_of_an_older_snapshot_is_marked(
    server: redis_server.RealServer, program: Callable[[], RedisStore]
) -> None:
    """It was perhaps acknowledged since, by any program. Later mail is not marked."""
    old = (await open_store(program())).log(MARKED)
    readers = [old.reader("team"), old.reader(None)]
    await readers[0].seek_if_new(0)
    await old.append([NewEntry(Marked("old"), identity="old")])
    restore = take_snapshot(server)
    assert [await marks(reader) for reader in readers] == [["old"], ["old"]]
    restore()
    assert [await marks(reader) for reader in readers] == [["old, recovered"]] * 2
    new = (await open_store(program())).log(MARKED)
    await new.append([NewEntry(Marked("new"), identity="new")])
    assert await marks(new.reader(None)) == ["old, recovered", "new"]
    assert await marks(readers[0]) == ["new"]


async def test_a_clean_restart_changes_nothing(
    server: redis_server.RealServer, program: Callable[[], RedisStore]
) -> None:
    """No history is read, and ids continue."""
    store = await open_store(program())
    log, reader = store.log(MAIL), store.log(MAIL).reader("team")
    await reader.seek_if_new(0)
    await log.append(mails(1, 2))
    assert await take(reader, reads=2) == [1, 2]
    server.stop()
    server.start()
    assert await reader.position() == 2
    await log.append(mails(3))
    assert await take(reader) == [3]
    assert [entry.id for entry in await log.reader(None).read(0, 100)] == [1, 2, 3]
    assert await log.lost_fetches() == []
