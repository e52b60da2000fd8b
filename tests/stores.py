"""The stores that everything has to work on, each by its name; a later one is one more line."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Final, ParamSpec, Protocol, TypeVar

from redis_virtual import VirtualRedisStore

from pythpeer import MemoryStore, Rate, SqliteStore
from pythpeer.limiter import Limiter
from pythpeer.stores import Draft, Entry, Log, Reader, Store, Survey, Topic

__all__ = ["STORES", "NewStore", "WrappedStore", "told"]

T = TypeVar("T")
P = ParamSpec("P")

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
"""Each makes a new store in a folder, not yet open, whose logs keep so many items."""


class NewStore(Protocol):
    """Makes a new store, not yet open: the fixture ``new_store``."""

    def __call__(self, *, max_length: int = 10_000) -> Store: ...


async def told(store: Store) -> None:
    """Leave a server the moment in which it is told what has happened, behind everybody's back."""
    if isinstance(store, VirtualRedisStore):
        await asyncio.sleep(1.0)


class WrappedStore(Store):
    """Another store, with a test in between: whatever is awaited of it goes through `do`."""

    def __init__(self, inner: Store) -> None:
        super().__init__()
        self.inner = inner

    async def do(self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do what was asked: *work*, a method of the other store or of one of its parts."""
        return await work(*args, **kwargs)

    async def open(self) -> None:
        await self.do(self.inner.open)

    async def aclose(self) -> None:
        await self.do(self.inner.aclose)

    def log(self, topic: Topic[T]) -> Log[T]:
        return _WrappedLog(self, self.inner.log(topic))

    def pace(self, key: str, name: str, rate: Rate) -> Limiter:
        return self.inner.pace(key, name, rate)

    async def survey(self, latest: int = 10) -> Survey:
        return await self.do(self.inner.survey, latest)


class _WrappedLog(Log[T]):
    def __init__(self, store: WrappedStore, inner: Log[T]) -> None:
        self._store = store
        self._do = store.do
        self._inner = inner

    def reader(self, name: str | None) -> Reader[T]:
        return _WrappedReader(self._store, self._inner.reader(name))

    async def append(
        self, drafts: Sequence[Draft[T]], *, settled: Collection[int] = ()
    ) -> Sequence[Draft[T]]:
        return await self._do(self._inner.append, drafts, settled=settled)

    async def acknowledged(self) -> int:
        return await self._do(self._inner.acknowledged)

    async def announce(self, seconds: float) -> int:
        return await self._do(self._inner.announce, seconds)

    async def withdraw(self, announcement: int) -> None:
        await self._do(self._inner.withdraw, announcement)

    async def give_up(self, announcement: int) -> None:
        await self._do(self._inner.give_up, announcement)

    async def unsettled(self) -> Collection[int]:
        return await self._do(self._inner.unsettled)

    async def lead(self, seconds: float) -> bool:
        return await self._do(self._inner.lead, seconds)

    def retire(self) -> None:
        self._inner.retire()

    async def news(self, seconds: float) -> None:
        await self._do(self._inner.news, seconds)


class _WrappedReader(Reader[T]):
    def __init__(self, store: WrappedStore, inner: Reader[T]) -> None:
        self._do = store.do
        self._inner = inner

    async def place(self) -> int | None:
        return await self._do(self._inner.place)

    async def seek(self, place: int) -> None:
        await self._do(self._inner.seek, place)

    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        return await self._do(self._inner.read, after, limit)

    def ack(self, place: int) -> None:
        self._inner.ack(place)

    async def flush(self) -> None:
        await self._do(self._inner.flush)

    @property
    def passed(self) -> int | None:
        return self._inner.passed

    async def join(self, place: int) -> None:
        await self._do(self._inner.join, place)

    async def leave(self) -> None:
        await self._do(self._inner.leave)
