"""The interface of a measured way to follow a chat, and the installed ones.

Each follows the same chat in memory, polls it after the last id, and keeps the interval between two
polls itself.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Generic, Protocol, TypeVar

from pythpeer import ChatMessage

from .installed import installed

__all__ = ["Candidate", "Chat", "Handle", "load_candidates"]

MODULES: Final = ("queues", "asyncpraw", "naive")

S = TypeVar("S")

Handle = Callable[[ChatMessage], bool]
"""Handles a message; returns whether it was the last one."""


class Chat(Protocol):
    """The chat that is polled."""

    interval: float
    """Minimum seconds between two polls."""

    async def ask(self, after: int | None, limit: int = ...) -> Sequence[ChatMessage]:
        """Return the first messages after an id, ascending; without an id, the newest."""
        ...


@dataclasses.dataclass(frozen=True)
class Candidate(Generic[S]):
    """An implementation with which many consumers follow one chat."""

    name: str
    """The name in tables."""

    open: Callable[[Chat], AbstractAsyncContextManager[Callable[[], S]]]
    """Opens the shared state; yields a factory of streams from the first message on."""

    follow: Callable[[S, Handle], Coroutine[Any, Any, None]]
    """Consumes one stream until the handler returns true."""

    note: str = ""
    """A note below the table."""


@functools.cache
def load_candidates() -> tuple[dict[str, Candidate[Any]], list[str]]:
    """Return every candidate by its name, and a note for each missing library."""
    return installed(MODULES)
