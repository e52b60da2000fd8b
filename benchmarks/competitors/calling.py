"""The interface of a measured HTTP client, and the installed clients.

Each client has a module here. All send the same requests: an object by the number of a roll, and a
page of the chat after an id.
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
"""The key in every URL."""

MODULES: Final = ("raw_streams", "aiohttp_msgspec", "aiohttp_json", "httpx_pydantic")


class Calls(NamedTuple):
    """The calls of a client, which any number of tasks may make concurrently."""

    roll: Callable[[int], Awaitable[object]]
    """Return the object of the small response."""

    page: Callable[[int], Awaitable[Sequence[object]]]
    """Return the 300 messages of the large response."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A client, used as its documentation describes."""

    name: str
    """The name in tables."""

    open: Callable[[str], AbstractAsyncContextManager[Calls]]
    """Opens a client, with the state that it keeps between calls, for the server at a URL."""

    plain: Callable[[Any], Mapping[str, object]]
    """Returns the fields of a decoded object, by their names on the wire."""

    note: str = ""
    """A note below the table."""


def roll_params(number: int) -> dict[str, str | int]:
    """Return the query of a call for a roll."""
    return {"key": KEY, "number": number}


def page_params(after: int) -> dict[str, str | int]:
    """Return the query of a call for a page."""
    return {"action": "get", "key": KEY, "mid": after, "last": 300}


@functools.cache
def load_candidates() -> tuple[dict[str, Candidate], list[str]]:
    """Return every candidate by its name, and a note for each missing one."""
    return installed(MODULES)
