"""`SqliteStore`: opens and closes the file, and hands out what is in it."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import anyio

from ...errors import InvalidRequestError, StoreError
from ...limiter import Limiter
from ...wire import Rate, check_integer
from ..base import Log, Store, Topic
from ..survey import StoreSnapshot
from .database import Database, Durability
from .gate import SqlitePacing
from .log import SqliteLog
from .shelf import LogState
from .survey import survey

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SqliteStore"]

T = TypeVar("T")

MAX_LENGTH: Final = 100_000


class SqliteStore(Store):
    """Keeps everything in the SQLite file *path*, which is made if it is not there.

    It outlives the program: streams with a name go on where they were, and mail that a killed
    program had asked for is found again. Sessions and programs of one machine that use the same
    file share its pacing, and one of them polls for all. The file must be on a local disk. Beside
    it lie SQLite's own files and the places of the streams (``-wal``, ``-shm``, ``-places``): move
    or copy them together, while nobody uses them. All of them are readable by their owner only,
    and no key is in any.

    Each log keeps its last ``max_length`` items (``None``: all of them); of mail, all that no
    stream has acknowledged besides. ``durability="normal"`` survives whatever becomes of the
    program; after a power failure the last moments of chat may have to be fetched again, and what
    was acknowledged in them comes again. ``"full"`` waits for the disk at each step instead. That
    mail was asked for is on disk before it is asked for, either way.

    Opening a session raises `StoreError` where the file is damaged, another program's or from a
    newer version; it is left as it is.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "normal",
        max_length: int | None = MAX_LENGTH,
    ) -> None:
        super().__init__()
        if durability not in ("normal", "full"):
            raise InvalidRequestError('durability is "normal" or "full"')
        if max_length is not None:
            check_integer("max_length", max_length, 1)
        self._database = Database(_checked(path), durability)
        self._max_length = max_length
        self._durable = durability == "full"
        self._shelves: dict[str, LogState[Any]] = {}
        self._gates: list[SqlitePacing] = []
        self._sessions = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()

    @property
    def path(self) -> Path:
        """Where the file is, or will be."""
        return self._database.path

    async def open(self) -> None:
        """Open the file for one more session. Raises `StoreError` where that is impossible."""
        async with self._open_lock():
            if not self._sessions:
                self._shelves.clear()
                await self._database.open()
            self._sessions += 1

    async def aclose(self) -> None:
        """One session less; the last one closes the file."""
        with anyio.CancelScope(shield=True):
            async with self._open_lock():
                self._sessions = max(0, self._sessions - 1)
                if not self._sessions and self._database.places is not None:
                    await self._close()

    def _open_lock(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._sessions and self._loop is not None and not self._loop.is_closed():
                raise StoreError("the store is open in another event loop")
            self._loop, self._turn = loop, asyncio.Lock()
        return self._turn

    async def _close(self) -> None:
        try:
            await self._database.write(self._leave)
        finally:
            await self._database.aclose()

    def _leave(self, db: sqlite3.Connection) -> None:
        for shelf in self._shelves.values():
            shelf.readers.checkpoint(db)
        for gate in self._gates:
            gate.close(db)

    def log(self, topic: Topic[T]) -> Log[T]:
        """The log of *topic*, shared by all sessions and programs on this file."""
        return SqliteLog(partial(self._shelf, topic))

    def _shelf(self, topic: Topic[T]) -> LogState[T]:
        shelf = self._shelves.get(topic.name)
        if shelf is None:
            shelf = self._shelves[topic.name] = LogState(
                topic, self._database, max_length=self._max_length, durable=self._durable
            )
        return cast("LogState[T]", shelf)

    def make_limiter(self, key: str, name: str, rate: Rate) -> Limiter:
        """Make a limiter that shares its tokens with the other programs on this file."""
        if not rate.interval:
            return Limiter(name, rate)
        gate = SqlitePacing(self._database, key, rate)
        self._gates.append(gate)
        return Limiter(name, rate, gate)

    async def snapshot(self, latest: int = 10) -> StoreSnapshot:
        """What is in the file now, with the last *latest* items of each log."""
        database = self._database
        return await database.read(lambda db: survey(db, database.places, database.now(), latest))

    def __repr__(self) -> str:
        state = "open" if self._sessions else "closed"
        return f"<SqliteStore {str(self._database.path)!r}, {state}>"


def _checked(path: object) -> Path:
    if isinstance(path, os.PathLike):
        path = os.fspath(cast("os.PathLike[str]", path))
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidRequestError("a store's path is text, or a Path")
    if path == ":memory:":
        raise InvalidRequestError("for a store in memory there is MemoryStore()")
    return Path(path).absolute()
