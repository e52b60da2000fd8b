"""`Database`: one SQLite file with the file of positions next to it, and the thread that uses them.

All work that can wait for a disk or for another process happens on that thread, in the order of the
calls. A submitted job is executed even if its caller is cancelled. No exception of sqlite3 leaves
this module, and no data is ever deleted to make a file usable.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from ...errors import StoreError
from ...pacing.limiter import loop_clock
from .ack_file import AckFile
from .worker import Worker

if TYPE_CHECKING:
    import sqlite3  # at run time only once a file is opened, to keep `import pythpeer` light

__all__ = ["Database", "Durability", "Job", "store_error"]

T = TypeVar("T")

Durability = Literal["normal", "full"]

Job = Callable[["sqlite3.Connection"], T]
"""A function that uses the file. Its result must not be bound to the connection."""

APPLICATION_ID: Final = 0x70797470
"""SQLite's ``application_id`` of our files: "pytp" in ASCII."""

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another process that is writing: each write of ours takes far less than
one."""

MAX_CHECKED_SIZE: Final = 64 * 2**20
"""The bytes of a file up to which it is checked completely when it is opened: that takes
under 0.2 s. In a larger file damage is detected when it is read."""

REBOOT_CLOCK_JUMP: Final = 60.0
"""The seconds by which a reboot changes the difference of wall clock and monotonic clock, at least;
an adjustment of the wall clock changes it by less."""

# A column keeps its name until the schema changes for another reason; the comments use the words of
# the code.
MIGRATIONS: Final = (
    """
    CREATE TABLE store (
        id BLOB NOT NULL,  -- identifies the file of positions that belongs to this database
        boot REAL NOT NULL  -- boot offset: wall clock minus monotonic clock, which all times are of
    );
    CREATE TABLE log (
        id INTEGER PRIMARY KEY,
        topic TEXT NOT NULL UNIQUE,
        head INTEGER NOT NULL DEFAULT 0,  -- the highest id
        length INTEGER NOT NULL DEFAULT 0,  -- the number of entries
        latecomers INTEGER NOT NULL DEFAULT 0,  -- out-of-order count: entries that ever arrived so
        leader TEXT,  -- the owner of the lease
        leads_until REAL NOT NULL DEFAULT 0  -- the time at which the lease expires
    );
    CREATE TABLE entry (
        log INTEGER NOT NULL REFERENCES log,
        id INTEGER NOT NULL,
        after INTEGER NOT NULL,
        gap INTEGER NOT NULL,
        late INTEGER,  -- arrived after: the head at its arrival if it arrived out of order,
        latecomer INTEGER,  -- and its number among the entries that did so
        item TEXT,  -- JSON; NULL if it is undecodable
        PRIMARY KEY (log, id)
    ) WITHOUT ROWID;
    CREATE INDEX latecomer ON entry (log, late, latecomer) WHERE late IS NOT NULL;
    CREATE TABLE seen (
        log INTEGER NOT NULL REFERENCES log,
        key TEXT NOT NULL,  -- the identity of items without an id
        copies INTEGER NOT NULL,  -- how many entries were appended with it
        doubtful INTEGER NOT NULL DEFAULT 0,  -- how many of them are possible duplicates
        PRIMARY KEY (log, key)
    ) WITHOUT ROWID;
    CREATE TABLE reader (
        slot INTEGER PRIMARY KEY,  -- the number of its record in the file of positions
        log INTEGER NOT NULL REFERENCES log,
        name TEXT NOT NULL,
        epoch INTEGER NOT NULL DEFAULT 1,  -- increased when the name is moved by seek
        place INTEGER NOT NULL DEFAULT 0,  -- the acknowledged position
        UNIQUE (log, name)
    );
    CREATE TABLE announcement (  -- a fetch intent
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        log INTEGER NOT NULL REFERENCES log,
        who TEXT NOT NULL,  -- the owner
        until REAL NOT NULL,  -- the time until which the read can take effect
        settled INTEGER NOT NULL DEFAULT 0  -- 1 if it was completed before that, by another owner
    );
    CREATE TABLE pace (  -- a shared bucket
        key TEXT PRIMARY KEY,  -- the endpoint's name, its address and the account
        state BLOB NOT NULL
    ) WITHOUT ROWID;
    """,
)
"""The statements that convert each version of the schema to the next one."""

SCHEMA_VERSION: Final = len(MIGRATIONS)
"""The present version of the schema, stored as SQLite's ``user_version``."""


class Database:
    """A file that is open between `open` and `aclose`. See `SqliteStore` for *durability*.

    Invariants: only the thread uses the connection, except that the event loop may read `version`
    while no job is under way, that is, while both counters of jobs are equal.
    """

    def __init__(self, path: Path, durability: Durability) -> None:
        self.path = path
        self.ack_file: AckFile | None = None
        """The file of positions, while the database is open. Set and cleared by the thread."""
        self.now: Callable[[], float] = time.monotonic
        """The clock of the event loop in which the file is open. Set by `open`."""
        self.rollbacks: int = 0
        """The number of transactions that were rolled back. Changed by the thread."""
        self._synchronous = durability.upper()
        """The value of SQLite's ``synchronous``: NORMAL or FULL."""
        self._worker: Worker | None = None
        """The thread, while the database is open. Changed by `open` and `aclose`."""
        self._connection: sqlite3.Connection | None = None
        """The connection, while the database is open. Set and cleared by the thread."""
        self._submitted = 0
        """The number of submitted jobs. Changed by the event loop."""
        self._completed = 0
        """The number of completed jobs. Changed by the thread."""

    # -- for the event loop -----------------------------------------------------------------------

    async def open(self) -> None:
        """Open the file, which is created if it does not exist."""
        self.now = loop_clock(asyncio.get_running_loop())
        self._worker = Worker("pythpeer-store")
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

    async def read(self, job: Job[T]) -> T:
        """Execute *job*, which must only read, and return its result."""
        return await self._run(lambda: job(self._require_open()))

    async def write(self, job: Job[T], *, durable: bool = False) -> T:
        """Execute *job* in one transaction, which is on the disk on return if it is *durable*."""
        return await self._run(lambda: self._transaction(job, durable=durable))

    def submit(self, job: Job[object]) -> None:
        """Execute *job* in one transaction, without waiting. An error is ignored."""
        if self._worker is not None:
            self._submitted += 1
            self._worker.submit_nowait(
                lambda: self._run_on_thread(lambda: self._transaction(job, durable=False))
            )

    @property
    def version(self) -> int:
        """A number that changes with the commits of other processes; 0 if it cannot be read now.

        It is read immediately, on the thread of the event loop. That is safe while no job is under
        way, and in a file with a write-ahead log it waits for no other process.
        """
        if self._submitted != self._completed or self._connection is None:
            return 0
        from sqlite3 import Error

        try:
            return data_version(self._connection)
        except Error:
            return 0

    async def _run(self, work: Callable[[], T]) -> T:
        if self._worker is None:
            raise StoreError("the store is not open: a session opens it")
        self._submitted += 1
        result = await self._worker.run(lambda: self._run_on_thread(work))
        if isinstance(result, StoreError):
            raise result
        return result

    # -- on the thread ----------------------------------------------------------------------------

    def _run_on_thread(self, work: Callable[[], T]) -> T | StoreError:
        """Return an error as a value: raised here, its context would be an exception of sqlite3."""
        from sqlite3 import Error

        try:
            return work()
        except Error as error:
            return self._to_store_error(error)
        except StoreError as error:
            return error.with_traceback(None)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            return store_error(Path(error.filename or self.path), f"cannot be opened: {reason}")
        finally:
            self._completed += 1

    def _require_open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("the store is not open: a session opens it")
        return self._connection

    def _transaction(self, job: Job[T], *, durable: bool) -> T:
        connection = self._require_open()
        if durable and self._synchronous != "FULL":
            connection.execute("PRAGMA synchronous = FULL")
        try:
            # IMMEDIATE: a transaction that starts to write later can fail without a retry.
            connection.execute("BEGIN IMMEDIATE")
            result = job(connection)
            connection.execute("COMMIT")
        except BaseException:
            self.rollbacks += 1
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        finally:
            if durable and self._synchronous != "FULL":
                connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        return result

    def _open(self) -> None:
        import sqlite3

        path = os.path.realpath(self.path)  # SQLite creates its own files next to that, too
        _create_file(path)
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        self._connection = connection
        try:
            self._verify(connection)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            # The file of positions in the same transaction, so that one process at a time opens it.
            self._transaction(lambda db: self._migrate(db, path + "-places"), durable=True)
        except BaseException:
            self._close()
            raise

    def _verify(self, connection: sqlite3.Connection) -> None:
        """Raise `StoreError` if the file is foreign, damaged, too new, or not on a local disk."""
        # In one transaction, because another process may be creating the schema now.
        connection.execute("BEGIN")
        application = pragma(connection, "application_id")
        version = pragma(connection, "user_version")
        foreign = application != APPLICATION_ID and (
            version or pragma(connection, "schema_version")
        )
        connection.execute("COMMIT")
        if foreign:
            raise store_error(self.path, "is another program's database: choose another file")
        if version > SCHEMA_VERSION:
            raise store_error(
                self.path,
                f"was written by a newer pythpeer (its version is {version}, this one knows"
                f" {SCHEMA_VERSION}): upgrade pythpeer, or choose another file",
            )
        if pragma(connection, "page_count") * pragma(connection, "page_size") <= MAX_CHECKED_SIZE:
            (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if result != "ok":
                raise self._damaged_error()
        if _enable_wal(connection) != "wal":
            raise store_error(self.path, "cannot be shared where it is: choose a local disk")

    def _migrate(self, connection: sqlite3.Connection, ack_path: str) -> None:
        """Update the schema, reset times from before a reboot, and open the file of positions."""
        for version in range(pragma(connection, "user_version"), SCHEMA_VERSION):
            # Not `executescript`, which would commit first.
            for statement in MIGRATIONS[version].split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        boot_offset = time.time() - time.monotonic()
        row = connection.execute("SELECT id, boot FROM store").fetchone()
        if row is None:
            row = (os.urandom(8), boot_offset)
            connection.execute("INSERT INTO store VALUES (?, ?)", row)
        elif abs(row[1] - boot_offset) > REBOOT_CLOCK_JUMP:
            # The monotonic clock has restarted, and all owners from before are dead.
            connection.execute("UPDATE store SET boot = ?", (boot_offset,))
            connection.execute("UPDATE log SET leader = NULL, leads_until = 0")
            connection.execute("UPDATE announcement SET until = 0")
            connection.execute("UPDATE pace SET state = x''")  # undecodable: treated as used up
        epochs = dict(connection.execute("SELECT slot, epoch FROM reader").fetchall())
        self.ack_file = AckFile(Path(ack_path), bytes(row[0]), epochs)

    def _close(self) -> None:
        ack_file, self.ack_file = self.ack_file, None
        connection, self._connection = self._connection, None
        if ack_file is not None:
            ack_file.close()
        if connection is not None:
            connection.close()

    def _to_store_error(self, error: sqlite3.Error) -> StoreError:
        import sqlite3

        kind = _primary_code(error)
        if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self._damaged_error()
        reason = {
            sqlite3.SQLITE_BUSY: (
                f"was locked by another program for over {BUSY_TIMEOUT:g} s: try again"
            ),
            sqlite3.SQLITE_LOCKED: "is locked by another connection: try again",
            sqlite3.SQLITE_FULL: "cannot grow, the disk is full: make room, then continue",
            sqlite3.SQLITE_READONLY: "cannot be written: check its permissions, and its folder's",
            sqlite3.SQLITE_CANTOPEN: "cannot be opened: check its permissions, and its folder's",
            sqlite3.SQLITE_PERM: "may not be opened: check its permissions",
            sqlite3.SQLITE_IOERR: "cannot be read or written: a disk error, or a deleted file",
        }.get(kind, f"cannot be used ({error})")
        return store_error(self.path, reason)

    def _damaged_error(self) -> StoreError:
        return store_error(
            self.path,
            "is damaged, or not an SQLite database; nothing was changed: move it away with the"
            " files next to it to start with an empty store, or try .recover of the sqlite3"
            " program",
        )


def _primary_code(error: sqlite3.Error) -> int:
    """Return the primary code of an error: the last byte. The bytes before it are a detail."""
    import sqlite3

    return (getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR) & 0xFF


_create_lock: Final = threading.Lock()
"""Held while a file is being created: no other thread of this process must open it then."""


def _create_file(path: str) -> None:
    """Create the file if it does not exist, readable by its owner only, as SQLite's own files are.

    An existing file must not be opened here: closing any descriptor of it releases the locks that
    other connections of this process hold, and other processes could then write at the same time.
    """
    with _create_lock:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            if os.path.isdir(path):  # noqa: PTH112
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None


def _enable_wal(connection: sqlite3.Connection) -> str:
    """Switch to a write-ahead log. Returns the journal mode, another one where it is impossible.

    If several processes try it at the same time, it fails immediately for all but one of them.
    """
    import sqlite3

    end = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= end:
                raise
        time.sleep(0.005)


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """Return the number that is the value of a pragma."""
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def data_version(connection: sqlite3.Connection) -> int:
    """Return a number that changes when another connection has committed a transaction."""
    return pragma(connection, "data_version")


def store_error(path: Path, reason: str) -> StoreError:
    """Create an error about the file at *path*."""
    return StoreError(f"the store {str(path)!r} {reason}")
