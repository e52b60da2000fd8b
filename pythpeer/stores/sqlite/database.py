"""One SQLite file with the places beside it, and the one thread that works on it.

Everything that can wait for a disk or for another process happens on that thread, in the order in
which it was asked for, and once it was asked for it is done although the asker is cancelled. No
exception of sqlite3 leaves this module, and no data is ever deleted to make a file usable.
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
from ...limiter import loop_clock
from .places import AckFile
from .worker import Worker

if TYPE_CHECKING:
    import sqlite3  # at run time only once a file is opened, to keep `import pythpeer` light

__all__ = ["Database", "Durability", "Job", "store_error"]

T = TypeVar("T")

Durability = Literal["normal", "full"]

Job = Callable[["sqlite3.Connection"], T]
"""A piece of work on the file. What it returns must not be bound to the connection."""

APPLICATION_ID: Final = 0x70797470
"""SQLite's ``application_id`` of our files: "pytp" in ASCII."""

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another process that is writing: each of ours takes well under one."""

MAX_CHECKED_SIZE: Final = 64 * 2**20
"""Bytes up to which a file is read through for damage when it is opened, which takes under 0.2 s.
In larger ones damage is found where it is met."""

REBOOT_CLOCK_JUMP: Final = 60.0
"""Seconds by which the wall clock and the monotonic one move against each other in a reboot, at
least; when clocks are set right it is less."""

MIGRATIONS: Final = (
    """
    CREATE TABLE store (
        id BLOB NOT NULL,  -- what the file of places belongs to
        boot REAL NOT NULL  -- wall clock less monotonic clock: times below are monotonic ones
    );
    CREATE TABLE log (
        id INTEGER PRIMARY KEY,
        topic TEXT NOT NULL UNIQUE,
        head INTEGER NOT NULL DEFAULT 0,
        length INTEGER NOT NULL DEFAULT 0,
        latecomers INTEGER NOT NULL DEFAULT 0,  -- how many ever came late
        leader TEXT,
        leads_until REAL NOT NULL DEFAULT 0
    );
    CREATE TABLE entry (
        log INTEGER NOT NULL REFERENCES log,
        id INTEGER NOT NULL,
        after INTEGER NOT NULL,
        gap INTEGER NOT NULL,
        late INTEGER,  -- the head when it came, if it came after entries with greater ids,
        latecomer INTEGER,  -- and how many had come late before it
        item TEXT,  -- JSON; NULL where it could not be decoded
        PRIMARY KEY (log, id)
    ) WITHOUT ROWID;
    CREATE INDEX latecomer ON entry (log, late, latecomer) WHERE late IS NOT NULL;
    CREATE TABLE seen (
        log INTEGER NOT NULL REFERENCES log,
        key TEXT NOT NULL,
        copies INTEGER NOT NULL,
        doubtful INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (log, key)
    ) WITHOUT ROWID;
    CREATE TABLE reader (
        slot INTEGER PRIMARY KEY,
        log INTEGER NOT NULL REFERENCES log,
        name TEXT NOT NULL,
        epoch INTEGER NOT NULL DEFAULT 1,  -- how often it was sent elsewhere
        place INTEGER NOT NULL DEFAULT 0,
        UNIQUE (log, name)
    );
    CREATE TABLE announcement (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        log INTEGER NOT NULL REFERENCES log,
        who TEXT NOT NULL,
        until REAL NOT NULL,
        settled INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE pace (
        key TEXT PRIMARY KEY,
        state BLOB NOT NULL
    ) WITHOUT ROWID;
    """,
)
"""What makes each version of the file out of the one before."""

SCHEMA_VERSION: Final = len(MIGRATIONS)


class Database:
    """A file that is open between `open` and `aclose`. See `SqliteStore` for *durability*."""

    def __init__(self, path: Path, durability: Durability) -> None:
        self.path = path
        self.places: AckFile | None = None
        """How far readers have acknowledged, while the file is open."""
        self.now: Callable[[], float] = time.monotonic
        """The clock of the loop in which the file is open."""
        self.rollbacks: int = 0
        """How many transactions came to nothing."""
        self._synchronous = durability.upper()
        self._worker: Worker | None = None
        self._connection: sqlite3.Connection | None = None
        self._submitted = 0  # jobs, counted by the loop
        self._completed = 0  # jobs, counted by the thread

    # -- for the event loop -----------------------------------------------------------------------

    async def open(self) -> None:
        """Open the file, made if it is not there."""
        self.now = loop_clock(asyncio.get_running_loop())
        self._worker = Worker("pythpeer-store")
        try:
            await self._run(self._open)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the file, after all that was asked for before."""
        worker = self._worker
        if worker is not None:
            try:
                await self._run(self._close)
            finally:
                self._worker = None
                worker.close()

    async def read(self, job: Job[T]) -> T:
        """Have *job* done that only reads."""
        return await self._run(lambda: job(self._require_open()))

    async def write(self, job: Job[T], *, durable: bool = False) -> T:
        """Have *job* done in one transaction. A *lasting* one is on disk on return."""
        return await self._run(lambda: self._transaction(job, durable=durable))

    def submit(self, job: Job[object]) -> None:
        """Have *job* done in one transaction, without waiting. What it fails with is lost."""
        if self._worker is not None:
            self._submitted += 1
            self._worker.submit_nowait(
                lambda: self._run_on_thread(lambda: self._transaction(job, durable=False))
            )

    @property
    def version(self) -> int:
        """A number that other processes' commits change, or 0 if nothing is known just now.

        Answered at once, by the loop's own thread: while no job is under way that is safe, and in a
        file with a write-ahead log this question waits for nobody.
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
        """A failure is a value: it is raised where no exception of sqlite3 is around."""
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
            # At once: a transaction that becomes a writer later can be refused for good.
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

        path = os.path.realpath(self.path)  # SQLite's own files are beside that, too
        _create_file(path)
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        self._connection = connection
        try:
            self._verify(connection)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            # The places in the same transaction: one process at a time may make them what they
            # should be.
            self._transaction(lambda db: self._migrate(db, path + "-places"), durable=True)
        except BaseException:
            self._close()
            raise

    def _verify(self, connection: sqlite3.Connection) -> None:
        """Refuse what is not ours, not whole, not of our time or not in a place for it."""
        # At one moment: another process may just be making the file what it is to be.
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
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise self._damaged_error()
        if _enable_wal(connection) != "wal":
            raise store_error(self.path, "cannot be shared where it is: choose a local disk")

    def _migrate(self, connection: sqlite3.Connection, places: str) -> None:
        """Bring the file up to date: its version, times from before a reboot, and its places."""
        for version in range(pragma(connection, "user_version"), SCHEMA_VERSION):
            # Not `executescript`, which would commit first.
            for statement in MIGRATIONS[version].split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        boot = time.time() - time.monotonic()
        known = connection.execute("SELECT id, boot FROM store").fetchone()
        if known is None:
            known = (os.urandom(8), boot)
            connection.execute("INSERT INTO store VALUES (?, ?)", known)
        elif abs(known[1] - boot) > REBOOT_CLOCK_JUMP:
            # Monotonic clocks began anew, and whoever was at something then is gone.
            connection.execute("UPDATE store SET boot = ?", (boot,))
            connection.execute("UPDATE log SET leader = NULL, leads_until = 0")
            connection.execute("UPDATE announcement SET until = 0")
            connection.execute("UPDATE pace SET state = x''")  # not to be read any more
        epochs = dict(connection.execute("SELECT slot, epoch FROM reader").fetchall())
        self.places = AckFile(Path(places), bytes(known[0]), epochs)

    def _close(self) -> None:
        places, self.places = self.places, None
        connection, self._connection = self._connection, None
        if places is not None:
            places.close()
        if connection is not None:
            connection.close()

    def _to_store_error(self, error: sqlite3.Error) -> StoreError:
        import sqlite3

        kind = _primary_code(error)
        if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self._damaged_error()
        reason = {
            sqlite3.SQLITE_BUSY: (
                f"is held by another program for over {BUSY_TIMEOUT:g} s: try again"
            ),
            sqlite3.SQLITE_LOCKED: "is held by another connection: try again",
            sqlite3.SQLITE_FULL: "cannot grow, the disk is full: make room, and go on",
            sqlite3.SQLITE_READONLY: "cannot be written: check its permissions, and its folder's",
            sqlite3.SQLITE_CANTOPEN: "cannot be opened: check its permissions, and its folder's",
            sqlite3.SQLITE_PERM: "may not be opened: check its permissions",
            sqlite3.SQLITE_IOERR: "cannot be read or written: the disk fails, or the file is gone",
        }.get(kind, f"cannot be used ({error})")
        return store_error(self.path, reason)

    def _damaged_error(self) -> StoreError:
        return store_error(
            self.path,
            "is damaged, or no SQLite database; nothing was changed: move it away with the files"
            " beside it to start anew, or try the sqlite3 program's .recover",
        )


def _primary_code(error: sqlite3.Error) -> int:
    """What kind of error it is: the last byte of its code. What stands before it is a detail."""
    import sqlite3

    return (getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR) & 0xFF


_create_lock: Final = threading.Lock()


def _create_file(path: str) -> None:
    """Make the file if it is not there, for its owner's eyes only; SQLite's files beside it follow.

    One that is there must not be touched: to close any descriptor of it is to drop the locks that
    this process's other connections hold on it, and other processes would take it for theirs alone.
    """
    with _create_lock:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            if os.path.isdir(path):  # noqa: PTH112
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None


def _enable_wal(connection: sqlite3.Connection) -> str:
    """Have a write-ahead log. Returns what there is instead where that is impossible.

    Of several processes that want one at once SQLite refuses all but one, and lets none wait.
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
    """The number that a pragma answers with."""
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def data_version(connection: sqlite3.Connection) -> int:
    """The number that changes whenever another connection has committed something."""
    return pragma(connection, "data_version")


def store_error(path: Path, reason: str) -> StoreError:
    """Make an error about the file at *path*."""
    return StoreError(f"the store {str(path)!r} {reason}")
