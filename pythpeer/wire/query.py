"""The query of a request: parameters, encoded once, with keys kept apart."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from ..errors import InvalidRequestError
from ..secret import Secret
from ..validation import percent_encode

__all__ = [
    "FLAG",
    "Flag",
    "Json",
    "JsonObject",
    "Param",
    "encode_query",
    "redacted_query",
    "render_query",
]


class Flag(enum.Enum):
    """The type of `FLAG`."""

    FLAG = "FLAG"
    """The only value."""


FLAG: Final = Flag.FLAG
"""A parameter value that adds the bare name to the query: ``&readnew``, without ``=``."""

if TYPE_CHECKING:
    Json = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
    """A decoded JSON document."""
else:
    Json = Any  # msgspec reads annotations at run time, and does not support a recursive alias

JsonObject = dict[str, Json]
"""A decoded JSON object."""

Param = str | int | float | bool | Secret | Flag | None
"""Value of a parameter. ``None`` omits it; ``True`` and ``False`` are sent as 1 and 0."""


def encode_query(params: Mapping[str, Param], endpoint: str) -> list[str | Secret]:
    """Return a query as segments: encoded text, and keys still in `Secret`.

    Raises `InvalidRequestError` where a value cannot be sent.
    """
    segments: list[str | Secret] = []
    for name, value in params.items():
        if not isinstance(name, str):
            type_name = type(name).__name__
            raise InvalidRequestError(
                f"a parameter's name must be a str, not {type_name}", endpoint=endpoint
            )
        if not name:
            raise InvalidRequestError("a parameter's name must not be empty", endpoint=endpoint)
        if value is None:
            continue
        # An ASCII identifier needs no encoding, and neither does an integer.
        if name.isidentifier() and name.isascii():
            encoded_name = name
        else:
            encoded_name = percent_encode("a parameter's name", name, endpoint)
        if type(value) is int and -(2**63) < value < 2**63:
            segments.append(f"&{encoded_name}={value}")
        elif value is FLAG:
            segments.append("&" + encoded_name)
        elif isinstance(value, Secret):
            segments += ("&" + encoded_name + "=", value)
        else:
            segments.append(f"&{encoded_name}={_encode_value(name, value, endpoint)}")
    return segments


def _encode_value(name: str, value: object, endpoint: str) -> str:
    if isinstance(value, str):
        return percent_encode(name, value, endpoint)
    if isinstance(value, int) and abs(value) < 2**63:
        return str(int(value))
    if isinstance(value, float) and math.isfinite(value):
        return quote(repr(value), safe="")
    raise InvalidRequestError(
        f"{name} must be a str, a bool, a finite number of 64 bits, a Secret or FLAG",
        endpoint=endpoint,
    )


def redacted_query(params: Mapping[str, Param]) -> Iterator[str]:
    """Yield the segments of a query with every text and key replaced."""
    for name, value in params.items():
        encoded_name = quote(name, safe="")
        if value is FLAG:
            yield f"&{encoded_name}"
        elif isinstance(value, bool):
            yield f"&{encoded_name}={int(value)}"
        elif isinstance(value, int | float):
            yield f"&{encoded_name}={value}"
        elif value is not None:
            yield f"&{encoded_name}=***"


def render_query(segments: Iterable[str | Secret]) -> str:
    """Return the query with its keys in clear, for the function that writes the request only."""
    # Not kept in a variable, because a traceback can show the variables of each frame.
    return "".join(
        [segment if isinstance(segment, str) else segment.encoded() for segment in segments]
    )[1:]  # without the first "&"
