"""Where cursors, logs and pacing live."""

from __future__ import annotations

from pathlib import Path

from ..errors import InvalidRequestError
from .base import DIRECT, Draft, Entry, Log, Reader, Store, Topic
from .memory import MemoryStore
from .sqlite import SqliteStore

__all__ = [
    "DIRECT",
    "Draft",
    "Entry",
    "Log",
    "MemoryStore",
    "Reader",
    "SqliteStore",
    "Store",
    "Topic",
    "from_text",
]


def from_text(text: str) -> Store | InvalidRequestError:
    """The store that ``PYTHPEER_STORE`` names: ``memory``, or the path of a file.

    An error comes back as a value: there may be a password in *text*, which is in this frame.
    """
    if text == "memory":
        return MemoryStore()
    if "://" in text:
        return InvalidRequestError("PYTHPEER_STORE names a store that this version does not have")
    return SqliteStore(Path(text).expanduser())
