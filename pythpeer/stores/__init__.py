"""Where cursors, logs and pacing live."""

from __future__ import annotations

from pathlib import Path

from ..errors import InvalidRequestError
from .base import DIRECT, Draft, Entry, Log, Reader, Store, Topic
from .memory import MemoryStore
from .redis import RedisStore
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
    "RedisStore",
    "SqliteStore",
    "Store",
    "Survey",
    "Topic",
    "from_text",
]


def from_text(text: str) -> Store | InvalidRequestError:
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
