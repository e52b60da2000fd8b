"""How the fake services say yes and no: as PHP does, with the habits that they have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Final, TypeVar, cast

import msgspec

from .habits import Quirks

__all__ = [
    "FakeResponse",
    "RefusedError",
    "as_bit",
    "as_php_list",
    "ordered",
    "php_json",
    "renamed",
]

T = TypeVar("T")

_EMPTY: Final[Mapping[str, object]] = {"list": (), "null": None, "object": {}}


class RefusedError(Exception):
    """A service says no: ``document`` is the body, ``status`` the HTTP status if it has its own."""

    def __init__(self, document: object, *, status: int | None = None) -> None:
        super().__init__(document)
        self.document = document
        self.status = status


class FakeResponse(msgspec.Struct, frozen=True):
    """A whole answer of HTTP."""

    status: int
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()


def php_json(document: object, habits: Quirks) -> bytes:
    r"""Encode *document* as PHP's ``json_encode`` does: ASCII only, compact, ``/`` as ``\/``."""
    if habits.numbers_as_strings:
        document = _with_strings(document)
    text = json.dumps(document, separators=(",", ":")).replace("/", "\\/")
    return (habits.prefix + text).encode()


def _with_strings(value: object) -> object:
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        return {name: _with_strings(inner) for name, inner in fields.items()}
    if isinstance(value, (list, tuple)):
        return [_with_strings(inner) for inner in cast("Sequence[object]", value)]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def as_bit(value: bool, habits: Quirks) -> object:  # noqa: FBT001  # what it encodes
    """A bit as the services write it."""
    return value if habits.bits_as_booleans else int(value)


def ordered(ascending: Sequence[T], habits: Quirks, rng: Random) -> list[T]:
    """What comes in ascending order, in the order of the habits."""
    match habits.order:
        case "ascending":
            return list(ascending)
        case "descending":
            return list(reversed(ascending))
        case "shuffled":
            return rng.sample(ascending, len(ascending))


def as_php_list(items: Sequence[object], habits: Quirks) -> object:
    """A list, or what PHP makes of one."""
    if not items:
        return _EMPTY[habits.empty]
    if habits.numbered:
        return {str(number): item for number, item in enumerate(items)}
    return list(items)


def renamed(fields: Mapping[str, object], habits: Quirks) -> dict[str, object]:
    """*fields* under the names of the habits, without those that have none."""
    named = ((habits.names.get(name, name), value) for name, value in fields.items())
    return {name: value for name, value in named if name is not None}
