"""The files of a store: they are created for their owner only, and nothing else is opened."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Final

from .failures import store_error

__all__ = ["WalFile", "check_files", "check_link", "create_file"]

_create_lock: Final = threading.Lock()
"""Held while a file is being created: no other thread of this process must open it then."""

_OWN_FILES: Final = ("-wal", "-shm", "-journal")
"""The ends of the names of SQLite's own files."""


def create_file(path: str) -> None:
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


def check_link(path: Path) -> None:
    """Raise `StoreError` if *path* is a symbolic link that another user has made: it can move."""
    if os.name == "nt":
        return
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode) and status.st_uid not in (os.geteuid(), 0):
        raise store_error(
            path, "is a symbolic link of another user: give the path that it leads to"
        )


def check_files(path: str) -> None:
    """Raise `StoreError` unless all files are regular ones that only this user can write.

    Another user could forge messages in them, and a pipe would block the program.
    """
    if os.name == "nt":
        return
    for name in (path, *(path + end for end in _OWN_FILES)):
        try:
            status = os.lstat(name)
        except FileNotFoundError:
            continue
        _check_file(Path(name), status)


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise store_error(path, "is not a regular file: remove it, or choose another file")
    if status.st_uid != os.geteuid():
        raise store_error(
            path, "belongs to another user, who can change it: use chown, or choose another file"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise store_error(path, "can be written by other users: use chmod 600, or another file")


class WalFile:
    """The write-ahead log, opened once more: syncing it makes all commits until then durable.

    SQLite has no call for that except a further transaction, which would lock the file for other
    programs while the disk works. SQLite holds no locks on this file, so that closing this
    descriptor releases none.
    """

    def __init__(self, path: str) -> None:
        flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(path + "-wal", flags | getattr(os, "O_BINARY", 0))
        """The open file; -1 after `close`."""

    def sync(self) -> None:
        """Wait until what was written is on the disk. Raises ``OSError``."""
        getattr(os, "fdatasync", os.fsync)(self._descriptor)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
