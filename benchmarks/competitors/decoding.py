"""The interface of a measured decoder, and the installed decoders.

Each decoder has a module here, whose models have the field names of the wire.
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
    """A decoder, used as its documentation describes."""

    name: str
    """The name in tables."""

    roll: Callable[[bytes], object]
    """Decodes the small response."""

    page: Callable[[bytes], Sequence[object]]
    """Decodes the large response, and returns its messages."""

    plain: Callable[[Any], Mapping[str, object]]
    """Returns the fields of an object, by their names on the wire."""

    note: str = ""
    """A note below the table."""


@functools.cache
def load_candidates() -> tuple[dict[str, Candidate], list[str]]:
    """Return every candidate by its name, and a note for each missing one."""
    return installed(MODULES)
