"""Where cursors, logs and pacing live."""

from __future__ import annotations

from pathlib import Path

from ..errors import InvalidRequestError
from .base import DIRECT, Draft, Entry, Log, Reader, Store, Topic
from .memory import MemoryStore
from .sqlite import SqliteStore
from .survey import EndpointSurvey, Latest, LogSurvey, NameSurvey, Survey

__all__ = [
    "DIRECT",
    "Draft",
    "EndpointSurvey",
    "Entry",
    "Latest",
    "Log",
    "LogSurvey",
    "MemoryStore",
    "NameSurvey",
    "Reader",
    "SqliteStore",
    "Store",
    "Survey",
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
