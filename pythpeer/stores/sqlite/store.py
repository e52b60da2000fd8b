"""`SqliteStore`: opens and closes the file, and creates the handles and limiters that use it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import anyio

from ...errors import InvalidRequestError, StoreError
from ...misuse import tolerant_repr
from ...pacing.bucket import Rate
from ...pacing.limiter import Limiter
from ...validation import check_integer
from ..base import Log, Store, Topic
from ..snapshot import StoreSnapshot
from .database import Database, Durability
from .log import SqliteLog
from .log_state import LogState
from .pacing_backend import SqlitePacing
from .snapshot import read_snapshot

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SqliteStore"]

logger: Final = logging.getLogger("pythpeer.stores")

T = TypeVar("T")

OPEN_TIMEOUT: Final = 60.0
"""Seconds for which opening is tried while another program has locked the file, as for a backup."""

OPEN_RETRY: Final = 1.0
"""Seconds between two tries. Each of them waits for the lock itself."""

MAX_LENGTH: Final = 100_000
"""The default number of items in a log."""


class SqliteStore(Store):
    """Keeps everything in one SQLite file, which outlives the program.

    Streams with a name resume at their position, and mail that a killed program was fetching is
    recovered. Sessions and programs of one machine that use the same file share its pacing, and one
    of them polls for all. The file must be on a local disk. SQLite's own files are next to it
    (``-wal``, ``-shm``): move or copy them together, while no program uses them. All of them are
    readable by their owner only, and contain no key. A file that other users own or can write is
    rejected.

    The file is created if it does not exist. Opening a session raises `StoreError` if the file is
    damaged, belongs to another program or was written by a newer version; it is not changed then.

    Invariants: the file is open while there are sessions, all in one event loop.

    Args:
        path: The path of the file.
        durability: What a stream returns again after a power failure. With ``"normal"``, the
            default: what was acknowledged in the last second before it. With ``"full"``: one item,
            because each step waits for the disk. The fetch intent of mail is on the disk before the
            mail is requested, with either. A killed program gets one item again, with either.
        max_length: The number of last items that each log keeps, 100,000 by default; ``None`` keeps
            all. Mail that no stream has acknowledged is kept in addition.
        read_only: Open the file for `snapshot` only: nothing is created, changed or locked.

    Raises:
        InvalidRequestError: if an argument is invalid.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "normal",
        max_length: int | None = MAX_LENGTH,
        read_only: bool = False,
    ) -> None:
        super().__init__()
        if durability not in ("normal", "full"):
            raise InvalidRequestError('durability must be "normal" or "full"')
        if max_length is not None:
            check_integer("max_length", max_length, 1)
        self._database = Database(_checked(path), durability, read_only=read_only)
        self._max_length = max_length
        self._read_only = read_only
        self._logs: dict[str, LogState[Any]] = {}
        """The logs by topic. Added when a handle is used, and cleared when the file is opened."""
        self._pacing: list[SqlitePacing] = []
        """The pacing backends of all limiters. Added by `make_limiter`, never removed."""
        self._sessions = 0
        """The number of open sessions. Changed by `open` and `aclose`, under the lock."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the lock."""
        self._lock = asyncio.Lock()
        """Held while the file is being opened or closed."""

    @property
    def path(self) -> Path:
        """The absolute path of the file, which exists after the first session was opened."""
        return self._database.path

    async def open(self) -> None:
        """Open the file for one more session.

        Waits while the file is locked or the disk is full, for a minute at most.

        Raises:
            StoreError: if the file cannot be used; ``transient`` if that did not end in a minute.
        """
        self._abandon_if_forked()
        async with self._open_lock():
            if not self._sessions:
                self._logs.clear()
                for pacing in self._pacing:
                    pacing.reset()
                await self._open_file()
            try:
                await self._database.prepare([pacing.key for pacing in self._pacing])
            except BaseException:
                if not self._sessions:
                    await self._database.aclose()
                raise
            self._sessions += 1

    async def _open_file(self) -> None:
        """Open the file. Waits while it is locked or the disk is full, and logs that once."""
        end, has_warned = time.monotonic() + OPEN_TIMEOUT, False
        while True:
            try:
                return await self._database.open()
            except StoreError as error:
                if not error.transient or time.monotonic() > end:
                    raise
                if not has_warned:
                    logger.warning("%s; opening it is tried for %.0f s", error, OPEN_TIMEOUT)
                    has_warned = True
            await asyncio.sleep(OPEN_RETRY)

    async def aclose(self) -> None:
        """Close the store for one session. The last one closes the file."""
        self._abandon_if_forked()
        with anyio.CancelScope(shield=True):
            async with self._open_lock():
                self._sessions = max(0, self._sessions - 1)
                if not self._sessions and self._database.is_open:
                    await self._close()

    def _abandon_if_forked(self) -> None:
        """Forget sessions of the process that this one was forked from."""
        if self._database.is_forked:
            self._sessions, self._loop = 0, None
            self._database.abandon()

    def _open_lock(self) -> asyncio.Lock:
        """Return the lock of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._sessions and self._loop is not None and not self._loop.is_closed():
                raise StoreError("the store is open in another event loop: create one for each")
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock

    async def _close(self) -> None:
        try:
            if not self._read_only:
                await self._database.write(self._release, sync="now")
        finally:
            await self._database.aclose()

    def _release(self, db: sqlite3.Connection) -> None:
        for state in self._logs.values():
            state.readers.store_all(db)
        for pacing in self._pacing:
            pacing.close(db)

    def log(self, topic: Topic[T]) -> Log[T]:
        """Return a handle to the log of *topic*, shared by all programs on this file."""
        return SqliteLog(partial(self._log_state, topic))

    def _log_state(self, topic: Topic[T]) -> LogState[T]:
        state = self._logs.get(topic.name)
        if state is None:
            state = self._logs[topic.name] = LogState(
                topic, self._database, max_length=self._max_length
            )
        return cast("LogState[T]", state)

    def make_limiter(self, key: str, name: str, rate: Rate) -> Limiter:
        """Create a limiter that shares its tokens with the other programs on this file."""
        if not rate.interval:
            return Limiter(name, rate)
        pacing = SqlitePacing(self._database, key, rate)
        self._pacing.append(pacing)
        return Limiter(name, rate, pacing)

    async def snapshot(self, latest: int = 10) -> StoreSnapshot:
        """Return the present content of the file, with the last *latest* items of each log."""
        database = self._database
        return await database.read(lambda db: read_snapshot(db, database.now(), latest))

    def __str__(self) -> str:
        return f"file {str(self._database.path)!r}"

    @tolerant_repr
    def __repr__(self) -> str:
        state = "open" if self._sessions else "closed"
        return f"<SqliteStore {str(self._database.path)!r}, {state}>"


def _checked(path: object) -> Path:
    if isinstance(path, os.PathLike):
        path = os.fspath(cast("os.PathLike[str]", path))
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidRequestError("path must be a str or a Path, and not empty")
    if path == ":memory:":
        raise InvalidRequestError('":memory:" is not supported, use MemoryStore()')
    try:
        os.fsencode(path)
        return Path(path).absolute()
    except UnicodeEncodeError:
        problem = f"path {path!r} cannot be the name of a file: use other characters"
    except OSError:
        problem = (
            f"path {path!r} is relative, and the current directory does not exist any more: use an"
            " absolute path"
        )
    raise InvalidRequestError(problem)
