"""What makes objects of an answer's bytes, and those decoders that are installed.

Each decoder has a module here, whose models call their fields what the wire calls them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from .installed import installed

__all__ = ["Candidate", "load_candidates"]

MODULES: Final = ("msgspec_structs", "orjson_dataclasses", "pydantic_models", "json_dataclasses")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A decoder, as its own documentation uses it."""

    name: str
    """As tables show it."""

    roll: Callable[[bytes], object]
    """The small answer."""

    page: Callable[[bytes], Sequence[object]]
    """The large answer: its messages."""

    plain: Callable[[Any], Mapping[str, object]]
    """The fields of an object, by what the wire calls them."""

    note: str = ""
    """What a reader of figures should know."""


@functools.cache
def load_candidates() -> tuple[dict[str, Candidate], list[str]]:
    """Every arm by its name, and a note for each that is not installed."""
    return installed(MODULES)
