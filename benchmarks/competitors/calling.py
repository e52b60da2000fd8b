"""What asks a server over HTTP and makes objects of its answers, and those that are installed.

Each client has a module here. All of them ask the same: an object by the number of a roll, or a
page of the chat by the id that it comes after.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple

from .installed import installed

__all__ = ["BARE", "KEY", "Calls", "Candidate", "load_candidates", "page_params", "roll_params"]

BARE: Final = "aiohttp + msgspec"

KEY: Final = "0123456789abcdef"
"""Travels in every URL."""

MODULES: Final = ("raw_streams", "aiohttp_msgspec", "aiohttp_json", "httpx_pydantic")


class Calls(NamedTuple):
    """What a client can be asked for, by any number of tasks at once."""

    roll: Callable[[int], Awaitable[object]]
    """The small answer."""

    page: Callable[[int], Awaitable[Sequence[object]]]
    """The large answer: its 300 messages."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A client, as its own documentation uses it."""

    name: str
    """As tables show it."""

    open: Callable[[str], AbstractAsyncContextManager[Calls]]
    """A client that has whatever it keeps between calls, for the server at a URL."""

    plain: Callable[[Any], Mapping[str, object]]
    """The fields of an object that it makes, by what the wire calls them."""

    note: str = ""
    """What a reader of figures should know."""


def roll_params(number: int) -> dict[str, str | int]:
    """What a call for a roll has in its query."""
    return {"key": KEY, "number": number}


def page_params(after: int) -> dict[str, str | int]:
    """What a call for a page has in its query."""
    return {"action": "get", "key": KEY, "mid": after, "last": 300}


@functools.cache
def load_candidates() -> tuple[dict[str, Candidate], list[str]]:
    """Every arm by its name, and a note for each that is not installed."""
    return installed(MODULES)
