"""What a caller has is freed when it ends, also after an error of its store or of redis-py.

An error that is part of a reference cycle keeps the frames of all callers until the next garbage
collection: a stream that was left, and with it its unacknowledged items.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Final

import msgspec
import pytest
from redis_server import FaultyRedis
from stores import opened

from pythpeer import Rate, SqliteStore, StoreError
from pythpeer.pacing.queue import Priority
from pythpeer.stores import NewEntry, Store, Topic

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_collection")]


class Item(msgspec.Struct, frozen=True):
    id: int


CHAT: Final = Topic("chat", Item)


class Marker:
    """Stands in the frame of a caller."""


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Nothing frees reference cycles during the test."""
    gc.disable()
    yield
    gc.enable()


Operation = Callable[[Store], Awaitable[object]]


async def call(operation: Operation, store: Store) -> tuple[weakref.ref[Marker], bool]:
    """Call *operation* from a frame with a marker. Return a reference to that, and its success."""
    marker = Marker()
    try:
        await operation(store)
    except StoreError:
        return weakref.ref(marker), False
    return weakref.ref(marker), True


async def is_freed(marker: weakref.ref[Marker]) -> bool:
    """Return whether the marker is freed as soon as the loop and a thread have ended their jobs."""
    await asyncio.sleep(0)
    for _ in range(1000):
        if marker() is None:
            return True
        time.sleep(0.001)  # noqa: ASYNC251  # the thread needs real time
    return False


# -- errors of redis-py that the store handles ----------------------------------------------------


def ask(store: Store) -> Awaitable[object]:
    return store.log(CHAT).max_acknowledged()


async def test_a_command_that_fails() -> None:
    """The script is not known, and then it is."""
    async with FaultyRedis(b"-NOSCRIPT No matching script") as store:
        await store.open()
        marker, succeeded = await call(ask, store)
        assert succeeded
        assert await is_freed(marker)


async def test_a_server_that_does_not_tell_its_version() -> None:
    """A new connection is opened, and may be used."""
    async with FaultyRedis(version=None) as store:
        await store.open()
        await store._connections._discard_idle()
        marker, succeeded = await call(ask, store)
        assert succeeded
        assert await is_freed(marker)


# -- errors that the store raises -----------------------------------------------------------------


@asynccontextmanager
async def damaged_file(folder: Path) -> AsyncIterator[Store]:
    """Open a store whose tables are gone."""
    path = folder / "store.sqlite"
    with suppress(StoreError):  # the end cannot store anything, either
        async with opened(SqliteStore(path)) as store:
            with closing(sqlite3.connect(path)) as db, db:
                for table in ("log", "entry", "reader", "announcement", "pace"):
                    db.execute(f"DROP TABLE {table}")
            yield store


@asynccontextmanager
async def failing_server(folder: Path) -> AsyncIterator[Store]:
    """Open a store on a server whose scripts fail."""
    async with FaultyRedis(*[b"-ERR it fails"] * 20) as store:
        await store.open()
        yield store


BROKEN_STORES: Final[dict[str, Callable[[Path], AbstractAsyncContextManager[Store]]]] = {
    "sqlite": damaged_file,
    "redis": failing_server,
}


async def flush(store: Store) -> None:
    reader = store.log(CHAT).reader("me")
    reader.ack(1)
    await reader.flush()


OPERATIONS: Final[dict[str, Operation]] = {
    "append": lambda store: store.log(CHAT).append([NewEntry(Item(1), 1)]),
    "begin_fetch": lambda store: store.log(CHAT).begin_fetch(10.0),
    "lost_fetches": lambda store: store.log(CHAT).lost_fetches(),
    "acquire_lease": lambda store: store.log(CHAT).acquire_lease(10.0),
    "position": lambda store: store.log(CHAT).reader("me").position(),
    "seek": lambda store: store.log(CHAT).reader("me").seek(1),
    "flush": flush,
    "acquire": lambda store: store.make_limiter("k", "chat", Rate(1.0)).acquire(Priority.POLL),
}


@pytest.mark.parametrize("kind", BROKEN_STORES)
@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_that_raises(name: str, kind: str, tmp_path: Path) -> None:
    """The error is freed with its handler, and the frames with the error."""
    async with BROKEN_STORES[kind](tmp_path) as store:
        for _ in range(2):
            marker, succeeded = await call(OPERATIONS[name], store)
            assert not succeeded
            assert await is_freed(marker)


async def close(store: Store) -> None:
    store.log(CHAT).reader("me").ack(1)
    await store.aclose()


@pytest.mark.parametrize("kind", BROKEN_STORES)
async def test_an_end_that_raises(kind: str, tmp_path: Path) -> None:
    """The acknowledgement cannot be stored."""
    async with BROKEN_STORES[kind](tmp_path) as store:
        marker, succeeded = await call(close, store)
        assert not succeeded
        assert await is_freed(marker)
