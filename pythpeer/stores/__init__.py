"""Where cursors, logs and pacing live."""

from __future__ import annotations

from ..errors import InvalidRequestError
from .base import Draft, Entry, Log, Reader, Store, Topic
from .memory import MemoryStore

__all__ = ["Draft", "Entry", "Log", "MemoryStore", "Reader", "Store", "Topic", "from_text"]


def from_text(text: str) -> Store | InvalidRequestError:
    """The store that ``PYTHPEER_STORE`` names: ``memory``.

    An error comes back as a value: there may be a password in *text*, which is in this frame.
    """
    if text == "memory":
        return MemoryStore()
    return InvalidRequestError("PYTHPEER_STORE names a store that this version does not have")
