"""Making sense of PythBots' answers, whose shapes are published nowhere. Pure.

The documentation names what an answer holds, not what its fields are called. So models are read
through lists of likely names, compared without case and punctuation, every field may be missing,
and the whole decoded object stays beside them as ``raw``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final, TypeVar

from .answers import parse_date
from .wire import Json, JsonObject

__all__ = [
    "Fields",
    "list_parser",
    "object_parser",
    "parse_success",
    "to_bool",
    "to_int",
    "to_text",
]

T = TypeVar("T")

_SUCCESS_WORDS: Final = frozenset(
    {"ok", "done", "sent", "delivered", "success", "successful", "successfully"}
)
_FAILURE_WORDS: Final = frozenset(
    {"not", "no", "never", "error", "fail", "failed", "failure", "invalid", "cannot", "unable"}
)


def parse_success(document: Json) -> Json:
    """What says that a write was done: an object that is not empty, 1, true, or words for it.

    That it is JSON is all that is known of the answer. Other words may be a refusal, and other
    numbers and lists anything.
    """
    if document == 1 or (isinstance(document, dict) and document):  # true is 1
        return document
    if isinstance(document, str):
        words = set(re.findall(r"\w+", document.lower()))
        if words in ({"1"}, {"true"}, {"yes"}) or (
            words & _SUCCESS_WORDS and not words & _FAILURE_WORDS
        ):
            return document
    raise ValueError("no success")


def object_parser(read: Callable[[Fields], T]) -> Callable[[Json], T]:
    """Where an object is due: any that is not empty."""

    def shape(document: Json) -> T:
        if not isinstance(document, dict) or not document:
            raise ValueError("not an object")
        return read(Fields(document))

    return shape


def list_parser(read: Callable[[Json, str], T]) -> Callable[[Json], tuple[T, ...]]:
    """Where a list is due: a list, or an object with numeric keys, or either one level down.

    *read* gets each element, and the key that the list it is in stood under, or ``""``.
    """

    def shape(document: Json) -> tuple[T, ...]:
        return tuple(read(item, key) for item, key in iter_elements(document))

    return shape


def iter_elements(document: Json) -> Iterator[tuple[Json, str]]:
    found = as_list(document)
    if found is not None:
        return ((item, "") for item in found)
    if not isinstance(document, dict):
        raise ValueError("not a list")
    lists = {key: as_list(value) for key, value in document.items()}
    if all(items is None for items in lists.values()):
        raise ValueError("no list within")
    return ((item, key) for key, items in lists.items() for item in items or ())


def as_list(found: Json) -> list[Json] | None:
    if isinstance(found, list):
        return found
    if isinstance(found, dict) and all(re.fullmatch("[0-9]+", key) for key in found):
        return list(found.values())
    return None


_PUNCTUATION: Final = re.compile("[^a-z0-9]")


class Fields:
    """An object's fields under whatever names they came."""

    __slots__ = ("_by_name", "raw")

    def __init__(self, raw: Json) -> None:
        if not isinstance(raw, dict):
            raise ValueError("not an object")
        self.raw: Final[JsonObject] = raw
        self._by_name: dict[str, Json] = {_normalized(name): value for name, value in raw.items()}

    def unwrap(self, *names: str) -> Fields:
        """The fields of the one object within, where none of *names* is a field here."""
        if any(not isinstance(self._by_name.get(name, {}), dict) for name in names):
            return self
        inner = [value for value in self.raw.values() if isinstance(value, dict) and value]
        return Fields(inner[0]) if len(inner) == 1 else self

    def without(self, *names: str) -> JsonObject:
        """The whole object but for these fields."""
        return {name: value for name, value in self.raw.items() if _normalized(name) not in names}

    def first(self, *names: str) -> Json:
        """The first of *names* that is here and not null."""
        values = map(self._by_name.get, names)
        return next((value for value in values if value is not None), None)

    def text(self, *names: str) -> str | None:
        """A field that is text, or a number as text."""
        return to_text(self.first(*names))

    def integer(self, *names: str) -> int | None:
        """A field that is a whole number, however it was sent."""
        return to_int(self.first(*names))

    def boolean(self, *names: str) -> bool | None:
        """A field that says yes or no."""
        return to_bool(self.first(*names))

    def date(self, *names: str) -> datetime | None:
        """A field that is a date in the services' form."""
        return parse_date(self.first(*names))


_TRUE_WORDS: Final = frozenset({"1", "true", "yes", "online", "on", "read"})
_FALSE_WORDS: Final = frozenset({"0", "false", "no", "offline", "off", "unread", ""})


def _normalized(name: str) -> str:
    return _PUNCTUATION.sub("", name.lower())


def to_text(value: Json) -> str | None:
    """Text, or a number as text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def to_bool(value: Json) -> bool | None:
    """A yes or a no, however it was sent."""
    word = str(value).strip().lower() if isinstance(value, (bool, int, str)) else None
    return True if word in _TRUE_WORDS else False if word in _FALSE_WORDS else None


def to_int(value: Json) -> int | None:
    """A whole number, however it was sent."""
    if isinstance(value, str):
        digits = value.strip().replace(",", "").replace(" ", "")
        if not re.fullmatch(r"[+-]?[0-9]{1,18}(?:\.0+)?", digits):
            return None
        return int(digits.partition(".")[0])
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return None if isinstance(value, bool) or not isinstance(value, int) else value
