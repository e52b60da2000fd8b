"""Fields of undocumented JSON objects: parsers for the responses of PythBots. Pure.

The documentation lists what a response holds, but not the names of its fields. Models are therefore
read with lists of probable names, which are compared without case and punctuation. Every field may
be missing, and the complete decoded object is kept as ``raw``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final, TypeVar

from .query import Json, JsonObject

__all__ = [
    "Fields",
    "list_parser",
    "object_parser",
    "parse_date",
    "parse_success",
    "to_bool",
    "to_decimal",
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
    """Return *document* if it confirms a write: a non-empty object, 1, true, or words for it.

    The format of the response is undocumented, apart from being JSON. Other words may be an error
    message, and the meaning of other numbers and lists is not known: they raise ``ValueError``.
    """
    if document == 1 or (isinstance(document, dict) and document):  # true is 1
        return document
    if isinstance(document, str):
        words = set(re.findall(r"\w+", document.lower()))
        if words in ({"1"}, {"true"}, {"yes"}) or (
            words & _SUCCESS_WORDS and not words & _FAILURE_WORDS
        ):
            return document
    raise ValueError("not a success")


def object_parser(read: Callable[[Fields], T]) -> Callable[[Json], T]:
    """Return a parser for a response that must be an object with at least one field.

    *read* converts the object into the result. The parser raises ``ValueError`` for other
    documents.
    """

    def parse(document: Json) -> T:
        if not isinstance(document, dict) or not document:
            raise ValueError("not an object")
        return read(Fields(document))

    return parse


def list_parser(read: Callable[[Json, str], T]) -> Callable[[Json], tuple[T, ...]]:
    """Return a parser for a response that must be a list, as `iter_elements` finds it.

    *read* converts one element into a result. Its arguments are those that `iter_elements` yields.
    The parser raises ``ValueError`` for other documents.
    """

    def parse(document: Json) -> tuple[T, ...]:
        return tuple(read(item, key) for item, key in iter_elements(document))

    return parse


def iter_elements(document: Json) -> Iterator[tuple[Json, str]]:
    """Return the elements of the list in a response.

    That is a list, an object with numeric keys, or every such value of an object. With each element
    comes the key that its list has in *document*, or ``""``. Raises ``ValueError`` where there is
    no list.
    """
    elements = as_list(document)
    if elements is not None:
        return ((item, "") for item in elements)
    if not isinstance(document, dict):
        raise ValueError("not a list")
    lists = {key: as_list(value) for key, value in document.items()}
    if all(items is None for items in lists.values()):
        raise ValueError("no list in the object")
    return ((item, key) for key, items in lists.items() for item in items or ())


def as_list(value: Json) -> list[Json] | None:
    """Return *value* as a list if it is a list or an object with numeric keys, else ``None``."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and all(re.fullmatch("[0-9]+", key) for key in value):
        return list(value.values())
    return None


_PUNCTUATION: Final = re.compile("[^a-z0-9]")

CACHED_NAMES: Final = 1000
"""How many names of fields are kept in their normalized form: objects of a list mostly have the
same ones."""

MAX_CACHED_NAME: Final = 40
"""Characters of a name that is kept at most."""


class Fields:
    """The fields of an object; names are compared without case and punctuation.

    Each method takes names in that form, such as ``"userid"``, and returns the first field that is
    present and not null, or ``None``.
    """

    __slots__ = ("_by_name", "raw")

    def __init__(self, raw: Json) -> None:
        if not isinstance(raw, dict):
            raise ValueError("not an object")
        self.raw: Final[JsonObject] = raw
        """The decoded object, unchanged."""

        self._by_name: dict[str, Json] = {_normalized(name): raw[name] for name in raw}
        """By normalized name, the value of each field."""

    def unwrap(self, *names: str) -> Fields:
        """Return the fields of the only object within, where none of *names* is a field here."""
        if any(not isinstance(self._by_name.get(name, {}), dict) for name in names):
            return self
        inner = [value for value in self.raw.values() if isinstance(value, dict) and value]
        return Fields(inner[0]) if len(inner) == 1 else self

    def without(self, *names: str) -> JsonObject:
        """Return the object without these fields."""
        return {name: value for name, value in self.raw.items() if _normalized(name) not in names}

    def first_of_each(self, *groups: Sequence[str]) -> JsonObject:
        """Return the object with only the field of each group that `first` would return."""
        chosen = set(map(self._first_name, groups))
        return {name: value for name, value in self.raw.items() if _normalized(name) in chosen}

    def first(self, *names: str) -> Json:
        """Return the first field of *names* that is present and not null."""
        # A loop, because it runs for each field of each item of a list.
        present = self._by_name.get
        for name in names:
            value = present(name)
            if value is not None:
                return value
        return None

    def _first_name(self, names: Sequence[str]) -> str | None:
        """Return the name of the field that `first` returns."""
        return next((name for name in names if self._by_name.get(name) is not None), None)

    def text(self, *names: str) -> str | None:
        """Return a field as `to_text` converts it."""
        return to_text(self.first(*names))

    def integer(self, *names: str) -> int | None:
        """Return a field as `to_int` converts it."""
        return to_int(self.first(*names))

    def boolean(self, *names: str) -> bool | None:
        """Return a field as `to_bool` converts it."""
        return to_bool(self.first(*names))

    def date(self, *names: str) -> datetime | None:
        """Return a field as `parse_date` converts it."""
        return parse_date(self.first(*names))


_TRUE_WORDS: Final = frozenset({"1", "true", "yes", "online", "on", "read"})
_FALSE_WORDS: Final = frozenset({"0", "false", "no", "offline", "off", "unread", ""})


def _normalized(name: str) -> str:
    return _normalized_short(name) if len(name) <= MAX_CACHED_NAME else _without_punctuation(name)


def _without_punctuation(name: str) -> str:
    return _PUNCTUATION.sub("", name.lower())


_normalized_short: Final = lru_cache(CACHED_NAMES)(_without_punctuation)


def to_text(value: Json) -> str | None:
    """Return text unchanged, a number as text, and ``None`` for any other value."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def to_bool(value: Json) -> bool | None:
    """Return a boolean, an integer or a word such as ``"yes"`` as a boolean, else ``None``."""
    if not isinstance(value, (bool, int, str)):
        return None
    word = str(value).strip().lower()
    if word in _TRUE_WORDS:
        return True
    return False if word in _FALSE_WORDS else None


def to_int(value: Json) -> int | None:
    """Return an integer, a float without a fraction, or such a number as text, as an integer.

    ``None`` for any other value. Text may contain commas and spaces between the digits.
    """
    if isinstance(value, str):
        digits = value.strip().replace(",", "").replace(" ", "")
        if not re.fullmatch(r"[+-]?[0-9]{1,18}(?:\.0+)?", digits):
            return None
        return int(digits.partition(".")[0])
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return None if isinstance(value, bool) or not isinstance(value, int) else value


_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)


def to_decimal(value: object) -> Decimal | None:
    """Return a number, or a number as text, without a loss of digits; else ``None``.

    A ``float`` is taken as what it is written as.
    """
    if isinstance(value, bool) or not isinstance(value, (Decimal, int, float, str)):
        return None
    text = str(value).strip()
    return Decimal(text) if _NUMBER.fullmatch(text) else None


# It checks the hour, because Python 3.14 reads 24:00:00 as the next midnight, and older versions
# reject it.
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} (?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}")


def parse_date(value: object) -> datetime | None:
    """Return a date of the services, ``yyyy-MM-dd HH:mm:ss``, or ``None`` for any other value.

    The result is naive, because the services do not document their time zone. PHP writes
    ``0000-00-00 00:00:00`` where there is no date.
    """
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None
