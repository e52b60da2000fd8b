"""What a way of following a chat has to have in order to be measured, and those that are installed.

Each follows the same chat in memory, by asking it for what came after the last id, and each keeps
the interval between two polls by its own means.
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
"""What is done with a message. Says whether that was the last one wanted."""


class Chat(Protocol):
    """What is polled."""

    interval: float
    """Seconds that there have to be between two polls."""

    async def ask(self, after: int | None, limit: int = ...) -> Sequence[ChatMessage]:
        """The first messages after an id, ascending; without one, the newest."""
        ...


@dataclasses.dataclass(frozen=True)
class Candidate(Generic[S]):
    """One way for many consumers to follow one chat."""

    name: str
    """As tables show it."""

    open: Callable[[Chat], AbstractAsyncContextManager[Callable[[], S]]]
    """Whatever the consumers share; inside of it streams from the first message on are made."""

    follow: Callable[[S, Handle], Coroutine[Any, Any, None]]
    """Be the consumer of one stream, until it has the last message that it wants."""

    note: str = ""
    """What a reader of figures should know."""


@functools.cache
def load_candidates() -> tuple[dict[str, Candidate[Any]], list[str]]:
    """Every arm by its name, and a note for each library that is not installed."""
    return installed(MODULES)
