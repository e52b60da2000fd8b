"""The schema of the file: its tables, the checks of a file that exists, and the migrations.

All functions run on the thread of the database. No data is ever deleted to make a file usable.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..fingerprints import has_digest, make_salt, stored_name
from .columns import blob, text, timestamp
from .failures import damaged_error, store_error
from .owner import boot_id
from .positions_file import read_positions

if TYPE_CHECKING:
    import sqlite3

__all__ = ["migrate", "pragma", "verify"]

logger: Final = logging.getLogger("pythpeer.stores")

APPLICATION_ID: Final = 0x70797470
"""SQLite's ``application_id`` of our files: "pytp" in ASCII."""

MAX_CHECKED_SIZE: Final = 64 * 2**20
"""The bytes of a file up to which it is checked completely when it is opened: that takes
under 0.2 s. In a larger file damage is detected when it is read."""

CLOCK_STEP: Final = 60.0
"""The seconds by which a reboot changes the difference of wall clock and monotonic clock, at least;
a usual adjustment of the wall clock changes it by less."""

# A column keeps its name until the schema changes for another reason; the comments use the words of
# the code.
MIGRATIONS: Final = (
    """
    CREATE TABLE store (
        id BLOB NOT NULL,  -- identified the file of positions of version 0.1
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
        slot INTEGER PRIMARY KEY,
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
    """
    -- The salt of the fingerprints in topics and keys.
    ALTER TABLE store ADD COLUMN salt BLOB;
    -- The boot that all times are of.
    ALTER TABLE store ADD COLUMN boot_id TEXT NOT NULL DEFAULT '';
    -- Changed by each checkpoint, so that there is something to write.
    ALTER TABLE store ADD COLUMN checkpoints INTEGER NOT NULL DEFAULT 0;
    -- The head when the machine booted: entries up to it may have been acknowledged before.
    ALTER TABLE log ADD COLUMN suspect INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX in_order ON entry (log, id) WHERE late IS NULL;
    """,
)
"""The statements that convert each version of the schema to the next one."""

SCHEMA_VERSION: Final = len(MIGRATIONS)
"""The present version of the schema, stored as SQLite's ``user_version``."""


def verify(db: sqlite3.Connection, path: Path) -> None:
    """Raise `StoreError` if the file is foreign, damaged, too new, or has code of others in it."""
    # In one transaction, because another process may be creating the schema now.
    db.execute("BEGIN")
    try:
        application, version = pragma(db, "application_id"), pragma(db, "user_version")
        is_used = bool(version or pragma(db, "schema_version"))
        foreign_code = db.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view')"
            " OR sql LIKE 'CREATE VIRTUAL%'"
        ).fetchone()
    finally:
        db.execute("ROLLBACK")
    if application != APPLICATION_ID and is_used:
        raise store_error(path, "is another program's database: choose another file")
    if version > SCHEMA_VERSION:
        raise store_error(
            path,
            f"was written by a newer pythpeer (its version is {version}, this one knows"
            f" {SCHEMA_VERSION}): upgrade pythpeer, or choose another file",
        )
    if version < 0:
        raise damaged_error(path)
    if foreign_code is not None:
        raise store_error(
            path,
            "has a trigger, a view or a virtual table, which would be executed in this program:"
            " remove it, or choose another file",
        )
    if pragma(db, "page_count") * pragma(db, "page_size") <= MAX_CHECKED_SIZE:
        (result,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if result != "ok":
            raise damaged_error(path)


def migrate(db: sqlite3.Connection, positions_path: str) -> bytes:
    """Update the schema, and reset times from before a reboot. Returns the salt of the store.

    It is executed in one transaction.
    """
    version = pragma(db, "user_version")
    for migration in MIGRATIONS[version:]:
        # Not `executescript`, which would commit first.
        for statement in migration.split(";\n"):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    offset = time.time() - time.monotonic()
    row = db.execute("SELECT id, boot, boot_id, salt FROM store").fetchone()
    if row is None:
        salt = make_salt()
        db.execute(
            "INSERT INTO store (id, boot, boot_id, salt) VALUES (?, ?, ?, ?)",
            (os.urandom(8), offset, boot_id(), salt),
        )
        return salt
    owner, stored_offset, stored_boot_id, salt = row
    if salt is None:
        salt = make_salt()
        _adopt_positions(db, positions_path, blob(owner))
        _hide_digests(db, salt)
    _adjust_times(db, timestamp(stored_offset), text(stored_boot_id), offset)
    db.execute("UPDATE store SET boot = ?, boot_id = ?, salt = ?", (offset, boot_id(), salt))
    return blob(salt)


def _adopt_positions(db: sqlite3.Connection, path: str, owner: bytes) -> None:
    """Take over the positions of the file that version 0.1 kept next to the database.

    A position beyond the end of its log is of items that this database does not have.
    """
    for slot, (epoch, position) in read_positions(path, owner).items():
        db.execute(
            "UPDATE reader SET place = min(max(place, ?),"
            " max(place, (SELECT head FROM log WHERE log.id = reader.log)))"
            " WHERE slot = ? AND epoch = ?",
            (position, slot, epoch),
        )


def _hide_digests(db: sqlite3.Connection, salt: bytes) -> None:
    """Replace the digests of keys that version 0.1 stored, and overwrite them in the file."""
    db.execute("PRAGMA secure_delete = ON")
    for table, column in (("log", "topic"), ("pace", "key")):
        for (name,) in db.execute(f"SELECT {column} FROM {table}").fetchall():  # noqa: S608
            if has_digest(str(name)):
                db.execute(
                    f"UPDATE {table} SET {column} = ? WHERE {column} = ?",  # noqa: S608
                    (stored_name(name, salt), name),
                )


def _adjust_times(db: sqlite3.Connection, offset: float, boot: str, new_offset: float) -> None:
    """Reset the times after a reboot. Log a WARNING if only the wall clock was changed.

    No time in the file is of the wall clock, so that changing it has no other effect.
    """
    step = new_offset - offset
    if boot and boot_id():
        rebooted = boot != boot_id()
        if not rebooted and abs(step) > CLOCK_STEP:
            logger.warning("the wall clock was changed by %.0f s; pacing does not use it", step)
    else:
        rebooted = abs(step) > CLOCK_STEP
    if rebooted:
        # The monotonic clock has restarted, and all owners from before are dead.
        # After a power failure, the last acknowledgements may be missing.
        db.execute("UPDATE log SET leader = NULL, leads_until = 0, suspect = head")
        db.execute("UPDATE announcement SET until = 0")
        db.execute("UPDATE pace SET state = x''")  # undecodable: treated as used up


def pragma(db: sqlite3.Connection, name: str) -> int:
    """Return the number that is the value of a pragma."""
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
