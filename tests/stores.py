"""`STORES`: the stores that every feature is tested with, by name."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from redis_virtual import VirtualRedisStore

from pythpeer import MemoryStore, Rate, SqliteStore
from pythpeer.pacing.limiter import Limiter
from pythpeer.stores import (
    Entry,
    Log,
    LogTail,
    NewEntry,
    Reader,
    RedisStore,
    Store,
    StoreSnapshot,
    Topic,
)

__all__ = [
    "STORES",
    "InterceptingStore",
    "StoreFactory",
    "flush_events",
    "open_store",
    "opened",
    "opened_file",
    "redis_programs",
]

T = TypeVar("T")
P = ParamSpec("P")
AnyStore = TypeVar("AnyStore", bound=Store)

STORES: Final[dict[str, Callable[[Path, int], Store]]] = {
    "memory": lambda folder, length: MemoryStore(max_length=length),
    "sqlite": lambda folder, length: SqliteStore(
        folder / f"{uuid.uuid4()}.sqlite", max_length=length
    ),
    "sqlite-full": lambda folder, length: SqliteStore(
        folder / f"{uuid.uuid4()}.sqlite", max_length=length, durability="full"
    ),
    "redis": lambda folder, length: VirtualRedisStore(max_length=length),
}
"""Functions that create a new store in a folder, not yet open, whose logs keep so many items."""


class StoreFactory(Protocol):
    """Creates a new store, not yet open: the fixture ``new_store``."""

    def __call__(self, *, max_length: int = 10_000) -> Store: ...


async def flush_events(store: Store) -> None:
    """Wait until events that are sent to a server in the background have arrived."""
    if isinstance(store, VirtualRedisStore):
        await asyncio.sleep(1.0)


@asynccontextmanager
async def opened(store: AnyStore) -> AsyncIterator[AnyStore]:
    """Use a store without a session, while the block lasts."""
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


def opened_file(path: Path, **options: Any) -> AbstractAsyncContextManager[SqliteStore]:
    """Open a store on a file, with these options, while the block lasts."""
    return opened(SqliteStore(path, **options))


@asynccontextmanager
async def redis_programs(url: str, **defaults: Any) -> AsyncIterator[Callable[..., RedisStore]]:
    """Yield a function that creates stores on one server, as those of several programs.

    They have the options *defaults*, and are closed at the end, however often they were opened.
    """
    stores: list[RedisStore] = []

    def create(**options: Any) -> RedisStore:
        stores.append(RedisStore(url, **(defaults | options)))
        return stores[-1]

    yield create
    for store in stores:
        while store._sessions:
            await store.aclose()


async def open_store(store: RedisStore) -> RedisStore:
    """Open a store, and return it."""
    await store.open()
    return store


class InterceptingStore(Store):
    """A wrapper of another store: every awaited call goes through `intercept`."""

    def __init__(self, inner: Store) -> None:
        super().__init__()
        self.inner = inner

    async def intercept(
        self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call *work*, a method of the wrapped store or of one of its parts."""
        return await work(*args, **kwargs)

    async def open(self) -> None:
        await self.intercept(self.inner.open)

    async def aclose(self) -> None:
        await self.intercept(self.inner.aclose)

    def log(self, topic: Topic[T]) -> Log[T]:
        return _WrappedLog(self, self.inner.log(topic))

    def make_limiter(self, key: str, name: str, rate: Rate) -> Limiter:
        return self.inner.make_limiter(key, name, rate)

    async def snapshot(self, latest: int = 10) -> StoreSnapshot:
        return await self.intercept(self.inner.snapshot, latest)


class _WrappedLog(Log[T]):
    def __init__(self, store: InterceptingStore, inner: Log[T]) -> None:
        self._store = store
        self._intercept = store.intercept
        self._inner = inner

    def reader(self, name: str | None) -> Reader[T]:
        return _WrappedReader(self._store, self._inner.reader(name))

    async def append(
        self, entries: Sequence[NewEntry[T]], *, completes: Collection[int] = ()
    ) -> Sequence[NewEntry[T]]:
        return await self._intercept(self._inner.append, entries, completes=completes)

    @property
    def outlasts_program(self) -> bool:
        return self._inner.outlasts_program

    @property
    def keeps_failed_appends(self) -> bool:
        return self._inner.keeps_failed_appends

    @property
    def retry_interval(self) -> float:
        return self._inner.retry_interval

    async def copies(self) -> Mapping[str, int] | None:
        return await self._intercept(self._inner.copies)

    async def append_at(
        self, head: int, entries: Sequence[NewEntry[T]]
    ) -> Sequence[NewEntry[T]] | None:
        return await self._intercept(self._inner.append_at, head, entries)

    async def tail(self, limit: int) -> LogTail[T]:
        return await self._intercept(self._inner.tail, limit)

    async def max_acknowledged(self) -> int:
        return await self._intercept(self._inner.max_acknowledged)

    async def begin_fetch(self, timeout: float) -> int:
        return await self._intercept(self._inner.begin_fetch, timeout)

    async def cancel_fetch(self, fetch: int) -> None:
        await self._intercept(self._inner.cancel_fetch, fetch)

    async def lose_fetch(self, fetch: int) -> None:
        await self._intercept(self._inner.lose_fetch, fetch)

    async def lost_fetches(self) -> Collection[int]:
        return await self._intercept(self._inner.lost_fetches)

    async def acquire_lease(self, seconds: float) -> bool:
        return await self._intercept(self._inner.acquire_lease, seconds)

    def release_lease(self) -> None:
        self._inner.release_lease()

    async def wait_for_append(self, timeout: float) -> None:
        await self._intercept(self._inner.wait_for_append, timeout)


class _WrappedReader(Reader[T]):
    def __init__(self, store: InterceptingStore, inner: Reader[T]) -> None:
        self._intercept = store.intercept
        self._inner = inner

    async def position(self) -> int | None:
        return await self._intercept(self._inner.position)

    async def seek(self, position: int) -> None:
        await self._intercept(self._inner.seek, position)

    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        return await self._intercept(self._inner.read, after, limit)

    def ack(self, position: int) -> None:
        self._inner.ack(position)

    async def flush(self) -> None:
        await self._intercept(self._inner.flush)

    @property
    def group_position(self) -> int | None:
        return self._inner.group_position

    async def seek_if_new(self, position: int) -> None:
        await self._intercept(self._inner.seek_if_new, position)

    async def leave(self) -> None:
        await self._intercept(self._inner.leave)
