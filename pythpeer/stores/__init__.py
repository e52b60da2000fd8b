"""Stores: where positions, logs and pacing are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..deprecation import old_names
from ..errors import InvalidRequestError
from .base import DIRECT, Entry, Log, LogTail, NewEntry, Reader, Store, Topic
from .deprecated import CLASSES
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


__getattr__: Callable[[str], object] = old_names(__name__, CLASSES)


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
