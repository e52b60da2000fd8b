"""The interface of a measured polling program, and the installed programs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import msgspec

from .installed import installed

__all__ = ["Candidate", "Poster", "Reader", "Reading", "ServiceAccess", "load_candidates"]

MODULES: Final = ("bare_loops", "praw_generator")


class ServiceAccess(msgspec.Struct, frozen=True):
    """The URLs of both services, and the keys for them."""

    peerbet_url: str
    pythbots_url: str
    peerbet_key: str
    personal_key: str


@dataclasses.dataclass
class Reading:
    """A program that reads."""

    step: Callable[[], Awaitable[Sequence[str]]]
    """Returns the next texts, or none after a while; may be cancelled and called again."""

    gaps: Callable[[], Iterable[tuple[int, int]]] = tuple
    """Returns the pairs of ids between which missing messages were reported."""

    marked: set[str] = dataclasses.field(default_factory=set[str])
    """The texts that were reported as possible duplicates."""


Reader = Callable[[ServiceAccess], AbstractAsyncContextManager[Reading]]
Poster = Callable[[ServiceAccess], AbstractAsyncContextManager[Callable[[str], Awaitable[object]]]]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A program that reads the chat, reads mail, or posts."""

    name: str
    chat: Reader | None = None
    mail: Reader | None = None
    post: Poster | None = None
    note: str = ""


@functools.cache
def load_candidates() -> tuple[dict[str, Candidate], list[str]]:
    """Return every candidate by its name, and a note for each missing library."""
    return installed(MODULES)
