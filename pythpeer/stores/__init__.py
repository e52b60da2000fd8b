"""Stores: where positions, logs and pacing are kept."""

from __future__ import annotations

from pathlib import Path

from ..errors import InvalidRequestError
from .base import DIRECT, Entry, Log, LogTail, NewEntry, Reader, Store, Topic
from .deprecated import CLASSES, warn_renamed
from .memory import MemoryStore
from .redis import RedisStore
from .snapshot import EndpointSnapshot, LatestItem, LogSnapshot, ReaderSnapshot, StoreSnapshot
from .sqlite import SqliteStore

__all__ = [
    "DIRECT",
    "EndpointSnapshot",
    "Entry",
    "LatestItem",
    "Log",
    "LogSnapshot",
    "LogTail",
    "MemoryStore",
    "NewEntry",
    "Reader",
    "ReaderSnapshot",
    "RedisStore",
    "SqliteStore",
    "Store",
    "StoreSnapshot",
    "Topic",
    "store_from_url",
]


def __getattr__(name: str) -> object:
    """Return what a public name of the version before was renamed to, with a warning."""
    new_name = CLASSES.get(name)
    if new_name is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn_renamed(f"{__name__}.{name}", f"{__name__}.{new_name}", stacklevel=2)
    renamed: object = globals()[new_name]
    return renamed


def store_from_url(text: str) -> Store | InvalidRequestError:
    """Return the store that ``PYTHPEER_STORE`` names.

    An error is returned, not raised, because *text* may contain a password and is a variable of
    this frame.

    Args:
        text: ``memory``, the URL of a Redis server, or the path of an SQLite file.
    """
    if text == "memory":
        return MemoryStore()
    if "://" in text:
        try:
            return RedisStore(text)
        except InvalidRequestError as error:
            return InvalidRequestError(f"PYTHPEER_STORE: {error}")
    return SqliteStore(Path(text).expanduser())
