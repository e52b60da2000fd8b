"""Failures of SQLite and the file system, as `StoreError`: which of them pass, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import StoreError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["damaged_error", "is_busy", "is_full", "store_error", "to_store_error"]


def store_error(path: Path, reason: str, *, transient: bool = False) -> StoreError:
    """Create an error about the file at *path*."""
    return StoreError(f"the store {str(path)!r} {reason}", transient=transient)


def damaged_error(path: Path) -> StoreError:
    """Create the error about a file that is not a store, or not any more."""
    return store_error(
        path,
        "is damaged, or not an SQLite database; nothing was changed: move it away with the"
        " files next to it to start with an empty store, or try .recover of the sqlite3"
        " program",
    )


def to_store_error(error: Exception, path: Path) -> StoreError:
    """Convert the exception of a job. One that no job raises by itself is due to the content."""
    from sqlite3 import Error

    if isinstance(error, StoreError):
        return error.with_traceback(None)
    if isinstance(error, Error) and hasattr(error, "sqlite_errorcode"):
        return _sqlite_error(error, path)
    if isinstance(error, OSError):
        if not path.parent.exists():
            return _no_folder(path)
        reason = error.strerror or type(error).__name__
        return store_error(Path(error.filename or path), f"cannot be opened: {reason}")
    return damaged_error(path)


def _no_folder(path: Path) -> StoreError:
    return store_error(path, "cannot be opened: its folder does not exist")


def _sqlite_error(error: sqlite3.Error, path: Path) -> StoreError:
    import sqlite3

    code = _primary_code(error)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH):
        return damaged_error(path)
    passing = {
        sqlite3.SQLITE_BUSY: "is locked by another program: a stream waits until it is free",
        sqlite3.SQLITE_LOCKED: "is locked by another connection: a stream waits until it is free",
        sqlite3.SQLITE_PROTOCOL: "is locked by another program: a stream waits until it is free",
        sqlite3.SQLITE_FULL: "cannot grow, the disk is full: free some space, then it continues",
        sqlite3.SQLITE_IOERR: (
            "cannot be read or written (the disk is full or has an error): a stream tries again"
        ),
        sqlite3.SQLITE_NOMEM: "cannot be used without more memory: a stream tries again",
    }.get(code)
    if passing is not None:
        return store_error(path, passing, transient=True)
    reason = {
        sqlite3.SQLITE_READONLY: "cannot be written: check its permissions, and its folder's",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened: check its permissions, and its folder's",
        sqlite3.SQLITE_PERM: "may not be opened: check its permissions",
    }.get(code, f"cannot be used ({error})")
    return store_error(path, reason)


def is_busy(error: Exception) -> bool:
    """Return whether another connection is writing, so that a later try can succeed."""
    import sqlite3

    return isinstance(error, sqlite3.Error) and _primary_code(error) == sqlite3.SQLITE_BUSY


def is_full(error: Exception) -> bool:
    """Return whether there may be no space on the disk: a quota is reported as an I/O error."""
    import sqlite3

    codes = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    return isinstance(error, sqlite3.Error) and _primary_code(error) in codes


def _primary_code(error: sqlite3.Error) -> int:
    """Return the primary code of an error: the last byte. The bytes before it are a detail."""
    import sqlite3

    return (getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR) & 0xFF
