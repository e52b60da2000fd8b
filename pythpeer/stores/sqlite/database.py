"""`Database`: one SQLite file, and the connection that the event loop and a thread use alternately.

A small transaction costs less than a way to a thread and back, and without a sync it does not wait
for the disk: it is executed immediately, on the thread of the event loop, if no job is under way
and no other program is writing. Everything else happens on the worker's thread, in the order of the
calls: what waits for the disk or for another program, what is large, and what reads from the file.

A submitted job is executed even if its caller is cancelled. No other exception than `StoreError`
leaves this module.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from ...errors import StoreError
from ...pacing.limiter import loop_clock
from ..fingerprints import stored_name
from .failures import is_busy, is_full, store_error, to_store_error
from .files import WalFile, check_files, check_link, create_file
from .schema import migrate, pragma, verify
from .worker import NoThreadError, Worker

if TYPE_CHECKING:
    import sqlite3  # at run time only once a file is opened, to keep `import pythpeer` light

__all__ = ["Database", "Durability", "Job", "Sync", "data_version"]

logger: Final = logging.getLogger("pythpeer.stores")

T = TypeVar("T")

Durability = Literal["normal", "full"]

Sync = Literal["never", "soon", "now"]
"""When a transaction must be on the disk: whenever the system writes it there, within a second, or
on return. With ``full`` durability, "soon" is now."""

Job = Callable[["sqlite3.Connection"], T]
"""A function that uses the file. Its result must not be bound to the connection. A job that writes
may be executed again after a failure, so it must not depend on what it changed elsewhere."""

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another program that is writing: each write of ours takes far less than one.
Once they are over, further jobs wait for `BUSY_RETRY` only, until one succeeds."""

BUSY_RETRY: Final = 0.1
"""Seconds that a job waits for a file that has been locked for longer than `BUSY_TIMEOUT`."""

NO_THREAD: Final = "needs a thread, and none can be started: the program or its user has too many"
"""Why a file cannot be used."""

SYNC_DELAY: Final = 0.5
"""Seconds after a commit until it is synced, with those that followed: it must be on the disk after
one second."""

PAGE_SIZE: Final = 1024
"""The bytes of a page of a new file: an acknowledgement writes one page, whose checksum is a large
part of its time. A file keeps the size that it was created with."""

CHECKPOINT_SIZE: Final = 4 * 2**20
"""The bytes after which the write-ahead log is copied into the database; fewer on a disk with
little space, so that the log does not fill it."""

MIN_CHECKPOINT_SIZE: Final = 200 * 1024
"""The bytes after which it is copied on a full disk."""

MAX_WAL_SHARE: Final = 16
"""`CHECKPOINT_SIZE` is this part of the free space at most: a sixteenth."""

BYTES_PER_WRITE: Final = 16 * 1024
"""The bytes that a transaction adds to the write-ahead log, about, where it appends entries."""

MAX_WAL_SIZE: Final = 4 * 2**20
"""The bytes to which the write-ahead log is truncated when it was copied completely."""

READERS_TIMEOUT: Final = 100
"""The milliseconds that a checkpoint waits for programs that are reading. No program can write
during that, but as long as one reads, the log cannot start again at its beginning."""


class _Busy:
    """The outcome of a job that cannot be executed immediately."""


_BUSY: Final = _Busy()


class Database:
    """A file that is open between `open` and `aclose`. See `SqliteStore` for *durability*.

    Invariants: the event loop uses the connection only while no job is under way, that is, while
    both counters of jobs are equal; the connection is never used in another process than the one
    that opened it.
    """

    def __init__(self, path: Path, durability: Durability, *, read_only: bool = False) -> None:
        self.path = path
        self.now: Callable[[], float] = time.monotonic
        """The clock of the event loop in which the file is open. Set by `open`."""
        self._is_full = durability == "full"
        """Whether each transaction that must be kept is synced immediately."""
        self._read_only = read_only
        """Whether the file is opened for reading only."""
        self._worker: Worker | None = None
        """The thread, while the database is open. Changed by `open` and `aclose`."""
        self._connection: sqlite3.Connection | None = None
        """The connection, while the database is open. Set and cleared by the thread."""
        self._checkpointer: sqlite3.Connection | None = None
        """A second connection, which copies the write-ahead log while the first one is in use. Set
        by the first checkpoint, cleared by `_close`. Only the thread uses it."""
        self._wal: WalFile | None = None
        """The write-ahead log, while the database is open. Set and cleared by the thread."""
        self._salt = b""
        """The salt of the store. Set by the thread when it opens the file."""
        self._pid = 0
        """The process that opened the file. Set by `open`."""
        self._submitted = 0
        """The number of submitted jobs. Changed by the event loop."""
        self._completed = 0
        """The number of completed jobs. Changed by the thread."""
        self._unsynced = False
        """Whether a commit is to be synced soon. Set with the commit, cleared by the thread."""
        self._checkpoint_size = CHECKPOINT_SIZE
        """The bytes after which a checkpoint is made. Set by the thread when it opens the file."""
        self._page_size = PAGE_SIZE
        """The bytes of a page. Set by the thread when it opens the file."""
        self._written = 0
        """The bytes written since the last checkpoint, about. Changed with each commit."""
        self._on_commit: list[Callable[[], object]] = []
        """What is called when the current transaction is committed. Changed by jobs."""
        self._busy_since: float | None = None
        """When a job first found the file locked, by `time.monotonic`; ``None`` since one
        succeeded. Changed by the thread."""

    # -- for the event loop -----------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the file is open, in this process or in the one that it was forked from."""
        return self._connection is not None

    @property
    def is_forked(self) -> bool:
        """Whether the file was opened by the process that this one was forked from."""
        return self.is_open and self._pid != os.getpid()

    async def open(self) -> None:
        """Open the file, which is created if it does not exist."""
        self.now = loop_clock(asyncio.get_running_loop())
        self._worker = Worker("pythpeer-store", self._sync)
        self._pid = os.getpid()
        try:
            await self._run(self._open)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the file, after the jobs that were submitted before."""
        worker = self._worker
        if worker is not None:
            try:
                await self._run(self._close)
            finally:
                self._worker = None
                worker.close()

    def abandon(self) -> None:
        """Forget what the process opened that this one was forked from, without touching it.

        Closing a connection of another process could release its locks.
        """
        _abandoned.extend((self._connection, self._checkpointer, self._wal, self._worker))
        self._connection = self._checkpointer = self._wal = self._worker = None
        self._submitted = self._completed = self._written = 0
        self._unsynced, self._busy_since = False, None

    async def prepare(self, names: Iterable[str]) -> None:
        """Compute the stored names of *names*, some of which take long, on the thread."""
        await self._run(lambda: [self.stored_name(name) for name in names])

    def stored_name(self, name: str) -> str:
        """Return what the file has for *name*, of a topic or of a limiter."""
        return stored_name(name, self._salt)

    async def read(self, job: Job[T]) -> T:
        """Execute *job*, which must only read, and return its result."""
        return await self._run(lambda: self._retry_while_busy(lambda: job(self._require_open())))

    async def write(self, job: Job[T], *, sync: Sync = "soon", brief: bool = False) -> T:
        """Execute *job* in one transaction, and return its result.

        A *brief* job takes far less than a millisecond: it may be executed on the event loop.
        """
        if sync == "soon" and self._is_full:
            sync = "now"
        if brief and sync != "now":
            result = self._try_now(lambda db: self._execute(job, db), sync)
            if isinstance(result, StoreError):
                try:
                    raise result
                finally:
                    del result  # otherwise the error and this frame would refer to each other
            if not isinstance(result, _Busy):
                return result
        return await self._run(lambda: self._transaction(job, sync))

    def submit(self, job: Job[object]) -> None:
        """Execute the brief *job* in one transaction, without waiting. An error is ignored."""
        if self._worker is None or self.is_forked:
            return
        if isinstance(self._try_now(lambda db: self._execute(job, db), "never"), _Busy):
            self._submitted += 1
            self._worker.submit_nowait(
                lambda: self._run_on_thread(lambda: self._transaction(job, "never"))
            )

    def try_execute(self, statement: str, parameters: tuple[Any, ...]) -> bool:
        """Execute one statement as a transaction, if nothing is in its way and none must wait.

        Returns whether it was executed. It is synced soon.
        """
        connection = self._connection
        if connection is None or self._is_full or not self._is_free:
            return False
        try:
            connection.execute(statement, parameters)
        except Exception:  # noqa: BLE001  # the transaction that writes it later raises the error
            return False
        self._committed("soon", self._page_size)
        return True

    @property
    def version(self) -> int:
        """A number that changes with the commits of other connections; 0 if it is not known now."""
        result = self._try_now(data_version, None)
        return result if isinstance(result, int) else 0

    @property
    def _is_free(self) -> bool:
        """Whether the event loop may use the connection: no job is under way."""
        return self._submitted == self._completed and self._pid == os.getpid()

    def _try_now(self, work: Job[T], sync: Sync | None) -> T | StoreError | _Busy:
        """Execute *work* on the event loop, if nothing is in its way. Returns an error as a value.

        *sync* is ``None`` if it does not write.
        """
        connection = self._connection
        if connection is None or not self._is_free:
            return _BUSY
        try:
            result = work(connection)
        except Exception as error:  # noqa: BLE001  # returned as an error of ours
            if is_busy(error) or is_full(error):
                return _BUSY  # the thread can wait, or free space
            return to_store_error(error, self.path)
        if sync is not None:
            self._committed(sync, BYTES_PER_WRITE if sync == "soon" else self._page_size)
        return result

    async def _run(self, work: Callable[[], T]) -> T:
        if self._worker is None:
            raise StoreError("the store is not open: a session opens it")
        if self._pid != os.getpid():
            raise StoreError("the store was opened before this process was forked: open a session")
        self._submitted += 1
        try:
            result = await self._worker.run(lambda: self._run_on_thread(work))
        except NoThreadError:
            self._completed += 1
            raise store_error(self.path, NO_THREAD, transient=True) from None
        if isinstance(result, StoreError):
            try:
                raise result
            finally:
                del result  # otherwise the error and this frame would refer to each other
        return result

    # -- on the event loop or on the thread -------------------------------------------------------

    def _execute(self, job: Job[T], db: sqlite3.Connection) -> T:
        """Execute *job* in one transaction, which is not synced."""
        # IMMEDIATE: a job that reads first could otherwise fail when it writes, and run again.
        db.execute("BEGIN IMMEDIATE")
        self._on_commit.clear()
        try:
            result = job(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        for callback in self._on_commit:
            callback()
        return result

    def on_commit(self, callback: Callable[[], object]) -> None:
        """Call *callback* when the transaction of the job that is being executed is committed."""
        self._on_commit.append(callback)

    def _committed(self, sync: Sync, size: int) -> None:
        """Arrange for what must follow a commit: a sync, and now and then a checkpoint."""
        worker = self._worker
        if worker is None:
            return
        if sync == "soon" and not self._unsynced:
            self._unsynced = True
            worker.start_timer(SYNC_DELAY)
        self._written += size
        if self._written >= self._checkpoint_size:
            self._written = 0
            worker.submit_nowait(self._checkpoint)

    # -- on the thread ----------------------------------------------------------------------------

    def _run_on_thread(self, work: Callable[[], T]) -> T | StoreError:
        """Return an error as a value: raised here, its context would be an exception of sqlite3."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001  # returned as an error of ours
            return to_store_error(error, self.path)
        finally:
            self._completed += 1

    def _require_open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("the store is not open: a session opens it")
        return self._connection

    def _transaction(self, job: Job[T], sync: Sync) -> T:
        db = self._require_open()
        if sync == "now":
            db.execute("PRAGMA synchronous = FULL")
        try:
            result = self._execute_or_free_space(job, db)
        finally:
            if sync == "now":
                db.execute("PRAGMA synchronous = NORMAL")
        self._committed(sync, BYTES_PER_WRITE)
        return result

    def _execute_or_free_space(self, job: Job[T], db: sqlite3.Connection) -> T:
        """Execute *job*, on a full disk once more after the write-ahead log was started again."""
        try:
            return self._retry_while_busy(lambda: self._execute(job, db))
        except Exception as error:
            if not is_full(error):
                raise
        self._checkpoint("TRUNCATE")
        return self._retry_while_busy(lambda: self._execute(job, db))

    def _retry_while_busy(self, work: Callable[[], T]) -> T:
        """Execute *work* again while another program has the file locked, for a limited time."""
        started = time.monotonic()
        while True:
            try:
                result = work()
            except Exception as error:
                if not is_busy(error):
                    raise
                now = time.monotonic()
                if self._busy_since is None:
                    self._busy_since = started
                if now >= max(self._busy_since + BUSY_TIMEOUT, started + BUSY_RETRY):
                    raise
                if self._worker is not None:
                    self._worker.run_timer()
            else:
                self._busy_since = None
                return result
            time.sleep(min(0.02, 0.001 + (now - started) / 10))

    def _sync(self) -> None:
        """Sync what was committed until now. If that fails, it is tried again."""
        self._unsynced = False  # before the sync, which may not include what is committed during it
        try:
            if self._wal is not None:
                self._wal.sync()
        except OSError:
            if self._worker is not None:
                self._unsynced = True
                self._worker.start_timer(SYNC_DELAY)

    def _checkpoint(self, mode: Literal["RESTART", "TRUNCATE"] = "RESTART") -> None:
        """Copy the write-ahead log into the database, and start it again if all of it was copied.

        The first write after that syncs the header of the log. It is made here, because the next
        one could be on the event loop.
        """
        if self._connection is None:
            return
        try:
            if self._checkpointer is None:
                self._checkpointer = self._connect_for_writing(os.path.realpath(self.path))
            self._checkpoint_by(self._checkpointer, mode)
        except Exception:  # locked, or no space: the next one copies all
            logger.debug("a checkpoint failed", exc_info=True)

    def _checkpoint_by(self, db: sqlite3.Connection, mode: str) -> None:
        db.execute(f"PRAGMA busy_timeout = {READERS_TIMEOUT}")
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()  # nearly all, while others write
        was_busy, _, _ = db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        if not was_busy:
            db.execute("UPDATE store SET checkpoints = checkpoints + 1")

    def _open(self) -> None:
        check_link(self.path)
        path = os.path.realpath(self.path)  # SQLite creates its own files next to that, too
        if not self._read_only:
            create_file(path)
        check_files(path)
        share = shutil.disk_usage(Path(path).parent).free // MAX_WAL_SHARE
        self._checkpoint_size = min(CHECKPOINT_SIZE, max(MIN_CHECKPOINT_SIZE, share))
        self._retry_while_busy(lambda: self._open_connection(path))

    def _open_connection(self, path: str) -> None:
        try:
            if self._read_only:
                self._connection = self._connect(path)
                verify(self._connection, self.path)
                self._reject_empty(self._connection)
            else:
                self._connection = self._connect_for_writing(path)
                self._prepare(self._connection, path)
                self._page_size = pragma(self._connection, "page_size")
                self._wal = WalFile(path)
        except BaseException:
            self._close()
            raise

    def _reject_empty(self, db: sqlite3.Connection) -> None:
        if not pragma(db, "user_version"):
            raise store_error(self.path, "is empty: a program that uses it fills it")

    def _connect(self, path: str, *settings: str) -> sqlite3.Connection:
        """Return a new connection with these settings, or close it if one of them fails."""
        import sqlite3

        uri = Path(path).as_uri() + ("?mode=ro" if self._read_only else "?mode=rw")
        connection = sqlite3.connect(
            uri, timeout=0, isolation_level=None, check_same_thread=False, uri=True
        )
        try:
            for setting in ("trusted_schema = OFF", *settings):
                connection.execute(f"PRAGMA {setting}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_for_writing(self, path: str) -> sqlite3.Connection:
        return self._connect(
            path,
            f"page_size = {PAGE_SIZE}",
            "synchronous = NORMAL",
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {MAX_WAL_SIZE}",
        )

    def _prepare(self, db: sqlite3.Connection, path: str) -> None:
        """Check the file, set it up for writing, and update the schema."""
        verify(db, self.path)
        # If several processes switch to the log at the same time, it fails for all but one of them.
        if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise store_error(self.path, "cannot be shared where it is: choose a local disk")
        positions_path, is_old = path + "-places", pragma(db, "user_version") == 1
        self._salt = self._transaction(lambda db: migrate(db, positions_path), "now")
        if is_old:
            # The digests of keys that it had are in the pages before the migration.
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            Path(positions_path).unlink(missing_ok=True)

    def _close(self) -> None:
        wal, self._wal = self._wal, None
        connections = (self._checkpointer, self._connection)
        self._checkpointer = self._connection = None
        if wal is not None:
            wal.close()
        for connection in connections:
            if connection is not None:
                connection.close()


_abandoned: Final[list[object]] = []
"""What forked processes have inherited: referred to indefinitely, so that nothing closes it."""


def data_version(db: sqlite3.Connection) -> int:
    """Return a number that changes when another connection has committed a transaction."""
    return pragma(db, "data_version")
