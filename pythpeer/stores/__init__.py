"""Where cursors, logs and pacing live."""

from __future__ import annotations

from ..errors import InvalidRequestError
from .base import Draft, Entry, Log, Reader, Store, Topic
from .memory import MemoryStore

__all__ = ["Draft", "Entry", "Log", "MemoryStore", "Reader", "Store", "Topic", "from_text"]


def from_text(text: str) -> Store:
    """The store that ``PYTHPEER_STORE`` names: ``memory``."""
    if text == "memory":
        return MemoryStore()
    raise InvalidRequestError("PYTHPEER_STORE names a store that this version does not have")
