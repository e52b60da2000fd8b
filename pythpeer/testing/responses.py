"""Responses of the fake services: JSON as PHP writes it, varied by the quirks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Final, TypeVar, cast

import msgspec

from .quirks import Quirks

__all__ = [
    "FakeResponse",
    "RejectedError",
    "as_bit",
    "as_php_list",
    "ordered",
    "php_json",
    "renamed",
]

T = TypeVar("T")

_EMPTY: Final[Mapping[str, object]] = {"list": (), "null": None, "object": {}}


class RejectedError(Exception):
    """A service returns an API error: its body, and its HTTP status if it has a specific one."""

    def __init__(self, document: object, *, status: int | None = None) -> None:
        super().__init__(document)
        self.document = document
        """The body, before it is encoded as JSON."""
        self.status = status
        """The HTTP status; ``None`` for that of the quirk ``refusal_status``."""


class FakeResponse(msgspec.Struct, frozen=True):
    """A whole HTTP response."""

    status: int
    """The HTTP status."""

    body: bytes
    """The body."""

    content_type: str
    """The type, without a charset."""

    headers: tuple[tuple[str, str], ...] = ()
    """Names and values of other headers."""

    delay: float = 0.0
    """Seconds from the effect until the service responds."""


def php_json(document: object, quirks: Quirks) -> bytes:
    r"""Encode *document* as PHP's ``json_encode`` does: ASCII only, compact, ``/`` as ``\/``."""
    if quirks.numbers_as_strings:
        document = _with_strings(document)
    text = json.dumps(document, separators=(",", ":")).replace("/", "\\/")
    return (quirks.prefix + text).encode()


def _with_strings(value: object) -> object:
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        return {name: _with_strings(inner) for name, inner in fields.items()}
    if isinstance(value, (list, tuple)):
        return [_with_strings(inner) for inner in cast("Sequence[object]", value)]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if is_number else value


def as_bit(value: bool, quirks: Quirks) -> object:  # noqa: FBT001  # what it encodes
    """Return a bit as the services write it."""
    return value if quirks.bits_as_booleans else int(value)


def ordered(ascending: Sequence[T], quirks: Quirks, rng: Random) -> list[T]:
    """Return items that are in *ascending* order, in the order that the quirks choose."""
    match quirks.order:
        case "ascending":
            return list(ascending)
        case "descending":
            return list(reversed(ascending))
        case "shuffled":
            return rng.sample(ascending, len(ascending))


def as_php_list(items: Sequence[object], quirks: Quirks) -> object:
    """Return a list, or what PHP makes of one."""
    if not items:
        return _EMPTY[quirks.empty]
    if quirks.numbered:
        return {str(number): item for number, item in enumerate(items)}
    return list(items)


def renamed(fields: Mapping[str, object], quirks: Quirks) -> dict[str, object]:
    """Return *fields* under the names that the quirks choose, without the fields that they omit."""
    named = ((quirks.names.get(name, name), value) for name, value in fields.items())
    return {name: value for name, value in named if name is not None}
