"""What a program that polls has to have in order to be measured, and those that are installed."""

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
    """Where both services are, and whose keys to show them."""

    peerbet_url: str
    pythbots_url: str
    peerbet_key: str
    personal_key: str


@dataclasses.dataclass
class Reading:
    """A program that reads."""

    step: Callable[[], Awaitable[Sequence[str]]]
    """Wait for the next texts, or for a while in vain. May be given up and called again."""

    gaps: Callable[[], Iterable[tuple[int, int]]] = tuple
    """The ids between which it has been told that something may be missing."""

    marked: set[str] = dataclasses.field(default_factory=set[str])
    """The texts of which it has been told that they may have come before."""


Reader = Callable[[ServiceAccess], AbstractAsyncContextManager[Reading]]
Poster = Callable[[ServiceAccess], AbstractAsyncContextManager[Callable[[str], Awaitable[object]]]]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to do one thing or several of them."""

    name: str
    chat: Reader | None = None
    mail: Reader | None = None
    post: Poster | None = None
    note: str = ""


@functools.cache
def load_candidates() -> tuple[dict[str, Candidate], list[str]]:
    """Every arm by its name, and a note for each module whose library is not installed."""
    return installed(MODULES)
