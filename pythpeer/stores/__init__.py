"""Where cursors, logs and pacing live."""

from __future__ import annotations

from pathlib import Path

from ..errors import InvalidRequestError
from .base import DIRECT, Entry, Log, NewEntry, Reader, Store, Topic
from .memory import MemoryStore
from .redis import RedisStore
from .sqlite import SqliteStore
from .survey import EndpointSnapshot, LatestItem, LogSnapshot, ReaderSnapshot, StoreSnapshot

__all__ = [
    "DIRECT",
    "EndpointSnapshot",
    "Entry",
    "LatestItem",
    "Log",
    "LogSnapshot",
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


def store_from_url(text: str) -> Store | InvalidRequestError:
    """The store that ``PYTHPEER_STORE`` names: ``memory``, a server's URL, or the path of a file.

    An error comes back as a value: there may be a password in *text*, which is in this frame.
    """
    if text == "memory":
        return MemoryStore()
    if "://" in text:
        try:
            return RedisStore(text)
        except InvalidRequestError as error:
            return InvalidRequestError(f"PYTHPEER_STORE: {error}")
    return SqliteStore(Path(text).expanduser())
