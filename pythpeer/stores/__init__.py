"""Stores: where positions, logs and pacing are kept."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

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
    "is_like_url",
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
    if is_like_url(text):
        try:
            return RedisStore(text)
        except InvalidRequestError as error:
            return InvalidRequestError(f"PYTHPEER_STORE: {error}")
    try:
        path = Path(text).expanduser()
        os.fsencode(path)
    except (RuntimeError, ValueError):
        path = None
    if path is None or "\0" in text:
        problem = "the path cannot be used: its user is unknown, or it is no valid text"
        return InvalidRequestError(f"PYTHPEER_STORE: {problem}")
    return SqliteStore(path)


# A mistyped URL of a server must not be treated as a path: errors show paths, and the URL can have
# a password: "redis:/:password@host", "//:password@host", "name:password@host",
# "password@host:6379/0", "host:6379:password", "host/0?password=password".
_LIKE_URL: Final = re.compile(
    r"\s*(?:rediss?|valkeys?|unix|https?|tcp):|.*://|\s*//|(?![a-z]:[/\\]).*:.*@"
    r"|.*@.*:[0-9]|[^/\\]*:[0-9]{2,5}(?![^/:?])|[^?]*\?.*=",
    re.IGNORECASE | re.DOTALL,
)


def is_like_url(text: str) -> bool:
    """Return whether *text* is the URL of a server, or may have been meant as one."""
    return _LIKE_URL.match(text) is not None
