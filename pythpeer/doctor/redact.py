"""Removes all data of users from responses: names, texts, ids, dates, keys. Pure.

The rule is a list of allowed words, not a list of secrets: the name of a field, or a word of an API
error, is kept if it consists of words listed here; everything else is replaced by a value of the
same type and length class. So no key and no text is kept, wherever a service puts it. A key or the
name of the requested user can consist of listed words: `Hidden` knows these, and they are replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from ..secret import Secret
from ..wire.echoes import mask_keys, without_texts
from ..wire.fields import parse_date
from ..wire.query import Json

__all__ = [
    "MAX_DEPTH",
    "NOTHING_HIDDEN",
    "Hidden",
    "allowed_field",
    "describe_types",
    "list_fields",
    "redact",
    "redact_words",
    "type_name",
]

MAX_DEPTH: Final = 24
"""The most levels of a response that are redacted; a deeper one is discarded."""

_WORDS: Final = frozenset(
    re.findall(
        "[a-z]+",
        """
    a about access account active admin age all allowed an and answer api are at authentication
    author authorized avatar avg ban banned bot bots box by can cannot chat chatid chatname chats
    content count created credential current data date day days denied description display does
    duration earned empty enabled end endpoint error errors exceeded exist exists expired failed
    fields first flag forbidden found from fromid full gender group groups guest has have held
    home hour hours icon id ids image in inbox index info int invalid is isnew isread it item items
    joined key keys kind lang language last level limit link list live location login long lost mail
    mailid mails main max me member members message messageid messagelist messages method mid min
    minute minutes missing mod moderator moderators month months msg much my name new nick nickname
    no not number of off offline ok old on online opted option or order owner owners page param
    parameter parts password peak per permission permissions personal personalkey photo pic please
    points posts power powers private profile public pythbots rank ranks rate reached read readall
    reason receiver recipient regdate registered regname remaining reply request requests required
    result results role room rooms score seconds seen send sender senderid sent service share size
    slow slug someone staff start state stats status subject success temporarily text the this time
    timeheld timestamp title to today token too top total totals type unauthorized uid unknown
    unread unseen updated url user userid username users value version views visible wait was week
    weeks when with word words wrong xat xatid year years yesterday you your zone
    """,
    )
)
"""Words in the field names and error texts of APIs of this kind."""

_PART: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_KEPT_VALUES: Final = frozenset(
    {
        *("", "true", "false", "yes", "no", "on", "off", "online", "offline", "read", "unread"),
        *("main owner", "owner", "moderator", "member", "guest", "error", "ok", "success"),
    }
)
"""Values that the models interpret, or that are documented."""

_DIGITS: Final = re.compile(r"[+-]?[0-9]{1,19}")
_NO_DATE: Final = "0000-00-00 00:00:00"
_KEPT_BELOW: Final = 10
_EPOCH: Final = datetime(2012, 12, 12, 21, 12, 21)
_LENGTHS: Final = (2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096)
_MAX_NAME: Final = 40
_MAX_MESSAGE: Final = 400
_MAX_LISTED: Final = 20
_MAX_NAMES: Final = 2_000
_SHORT_KEY: Final = 4


class Hidden:
    """What is not shown although it may consist of listed words.

    Args:
        keys: The keys of the session.
        texts: Texts of the requests, such as the name of the requested user.
    """

    def __init__(self, keys: Collection[Secret] = (), texts: Collection[str] = ()) -> None:
        self._keys = [key for key in keys if len(key.reveal()) >= _SHORT_KEY]
        """Not shown, nor any part of them that could be recognised."""
        self._short_keys = [key for key in keys if len(key.reveal()) < _SHORT_KEY]
        """Not shown as a whole name, nor as words of a message: a report without the letters of a
        key of one letter would be of no use."""
        self._texts = texts
        """Not shown as a whole name, nor as words of a message."""
        self._has_key: dict[str, bool] = {}
        """Whether a name has a key in it, for the names so far; `contains` adds to it."""

    def contains(self, name: str) -> bool:
        """Return whether *name* is one of the texts, or has a key in it; also if neither is known.

        It is unknown after `_MAX_NAMES` names, because the search for keys takes 50 µs for each.
        """
        if name.casefold() in map(str.casefold, self._whole_texts()):
            return True
        if not self._keys:
            return False
        if name not in self._has_key:
            if len(self._has_key) >= _MAX_NAMES:
                return True
            self._has_key[name] = mask_keys(name, self._get_keys, len(name)) != name
        return self._has_key[name]

    def remove_from(self, message: str) -> str:
        """Return the beginning of a message with ellipses for the texts and for keys."""
        masked = mask_keys(message, self._get_keys, _MAX_MESSAGE).replace("***", " … ")
        return without_texts(masked, self._whole_texts())

    def _whole_texts(self) -> Iterator[str]:
        yield from self._texts
        yield from (key.reveal() for key in self._short_keys)

    def _get_keys(self) -> Collection[Secret]:
        return self._keys


NOTHING_HIDDEN: Final = Hidden()
"""For documents that repeat no request."""


def allowed_field(name: str, hidden: Hidden = NOTHING_HIDDEN) -> str | None:
    """Return a field's name if it consists of listed words, else ``None``: it may be a user's."""
    return name if _is_listed(name) and not hidden.contains(name) else None


def _is_listed(name: str) -> bool:
    bare = re.sub("[_ -]", "", name)
    parts = _PART.findall(name)
    if not name.isascii() or not parts or len(name) > _MAX_NAME or "".join(parts) != bare:
        return False
    return {part.lower() for part in parts} <= _WORDS


def list_fields(names: Collection[str], hidden: Hidden = NOTHING_HIDDEN) -> str:
    """Return the first 20 names of fields that may be shown, and how many may not, as one text."""
    listed = sorted(filter(_is_listed, names))
    # Only what would be shown is searched for keys, because there can be many thousand names.
    shown = [name for name in listed[:_MAX_LISTED] if not hidden.contains(name)]
    others = len(names) - len(listed) + len(listed[:_MAX_LISTED]) - len(shown)
    if others:
        shown.append(f"{others} whose names are not shown")
    return ", ".join(shown)


def redact_words(text: str, hidden: Hidden = NOTHING_HIDDEN) -> str:
    """Return the listed words of an error text, with ellipses for the others."""
    words = re.findall(r"[\w'@.…-]+", hidden.remove_from(text))
    shown = [word if word.lower().rstrip(".") in _WORDS else "…" for word in words[:20]]
    return re.sub("…(?: …)+", "…", " ".join(shown))


# -- types ----------------------------------------------------------------------------------------


def type_name(value: Json) -> str:
    """Return the type of *value* in one word."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "fraction"
        case str():
            if _DIGITS.fullmatch(value):
                return "digits"
            return "date" if parse_date(value) or value == _NO_DATE else "text"
        case list():
            return "list"
        case _:
            return "object"


def describe_types(value: Json, hidden: Hidden = NOTHING_HIDDEN) -> str:
    """Return the types in a document, such as ``{status: integer, message_list: 50 x {...}}``."""
    return _shape([value], 6, hidden)


def _shape(values: list[Json], depth: int, hidden: Hidden) -> str:
    """Return the types of *values*, which have the same position in the document."""
    kinds = sorted({type_name(value) for value in values} - {"list", "object"})
    lists = [value for value in values if isinstance(value, list)]
    if lists:
        within = [item for items in lists for item in items[:500]][:500]
        longest = max(map(len, lists))
        inner = _shape(within, depth - 1, hidden) if within and depth else "..."
        kinds.append(f"{longest} x {inner}" if longest else "empty list")
    objects = [value for value in values if isinstance(value, dict)]
    if objects:
        kinds.append(_object(objects, depth, hidden) if depth else "{...}")
    return " or ".join(kinds)


def _object(objects: list[dict[str, Json]], depth: int, hidden: Hidden) -> str:
    columns: dict[str, list[Json]] = {}
    for fields in objects:
        for name, value in list(fields.items())[:100]:
            columns.setdefault(name, []).append(value)
    if not columns:
        return "empty object"
    if len(columns) > 1 and all(name.isascii() and name.isdigit() for name in columns):
        numbered = [value for values in columns.values() for value in values]
        inner = _shape(numbered, depth - 1, hidden)
        return f"{{{len(columns)} numbers: {inner}}}"
    parts: list[str] = []
    for name, values in list(columns.items())[:40]:
        sometimes = "?" if len(values) < len(objects) else ""
        shown = _display_name(name, hidden)
        parts.append(f"{shown}{sometimes}: {_shape(values, depth - 1, hidden)}")
    if len(columns) > len(parts):
        parts.append(f"{len(columns) - len(parts)} more")
    return f"{{{', '.join(parts)}}}"


def _display_name(name: str, hidden: Hidden) -> str:
    return allowed_field(name, hidden) or f"(a name of {_length_class(len(name))})"


def _length_class(length: int) -> str:
    low = 1
    for high in _LENGTHS:
        if length <= high:
            return f"{low} to {high} characters"
        low = high + 1
    return "many characters"


# -- samples --------------------------------------------------------------------------------------


def redact(
    document: Json, hidden: Hidden = NOTHING_HIDDEN, *, refusal: bool = False
) -> bytes | None:
    """Encode *document* with all data of users replaced; ``None`` if it is nested too deeply.

    Structure, types, the order of numbers and of dates, and the equality of texts are kept. Of a
    *refusal*, an API error, the listed words are kept, because they decide which error it is.
    """
    redactor = _Redactor(document, hidden, refusal=refusal)
    if redactor.too_deep:
        return None
    return json.dumps(redactor.replace(document), ensure_ascii=False).encode()


class _Redactor:
    """Replaces values so that equal ones stay equal, and greater ones stay greater."""

    def __init__(self, document: Json, hidden: Hidden, *, refusal: bool) -> None:
        self._hidden = hidden
        self._is_rejection = refusal
        self._texts: dict[str, int] = {}
        self.too_deep = False
        numbers: set[int] = set()
        dates: set[datetime] = set()
        self._collect(document, numbers, dates, 0)
        self._numbers = _order_preserving(numbers)
        self._dates = {date: _EPOCH + timedelta(seconds=n) for n, date in enumerate(sorted(dates))}

    def _collect(self, value: Json, numbers: set[int], dates: set[datetime], depth: int) -> None:
        if depth > MAX_DEPTH:
            self.too_deep = True
        elif isinstance(value, dict):
            numbers.update(int(name) for name in value if _DIGITS.fullmatch(name))
            for inner in value.values():
                self._collect(inner, numbers, dates, depth + 1)
        elif isinstance(value, list):
            for inner in value:
                self._collect(inner, numbers, dates, depth + 1)
        elif isinstance(value, int) and not isinstance(value, bool):
            numbers.add(value)
        elif isinstance(value, str):
            date = parse_date(value)
            if date is not None:
                dates.add(date)
            elif _DIGITS.fullmatch(value):
                numbers.add(int(value))

    def replace(self, value: Json) -> Json:
        match value:
            case bool() | None:
                return value
            case int():
                return self._numbers[value]
            case float():
                return _sign(value) / 2
            case str():
                return self._text(value)
            case list():
                return [self.replace(inner) for inner in value]
            case _:
                return self._object(value)

    def _object(self, value: Mapping[str, Json]) -> dict[str, Json]:
        replaced: dict[str, Json] = {}
        for number, (name, inner) in enumerate(value.items(), start=1):
            if _DIGITS.fullmatch(name):
                replacement = str(self._numbers[int(name)])
            else:
                replacement = allowed_field(name, self._hidden) or f"unlisted_{number}"
            if replacement in replaced:  # "7" and "07" are the same number
                replacement = f"unlisted_{number}"
            replaced[replacement] = self.replace(inner)
        return replaced

    def _text(self, value: str) -> str:
        is_kept = value.lower() in _KEPT_VALUES and not self._hidden.contains(value)
        if is_kept or value == _NO_DATE:
            return value
        date = parse_date(value)
        if date is not None:
            return f"{self._dates[date]:%Y-%m-%d %H:%M:%S}"
        if _DIGITS.fullmatch(value):
            return str(self._numbers[int(value)])
        if self._is_rejection:
            return redact_words(value, self._hidden)
        number = self._texts.setdefault(value, len(self._texts) + 1)
        length = next((high for high in _LENGTHS if len(value) <= high), _LENGTHS[-1])
        begin = "https://example.com/" if re.match("https?://", value) else ""
        begin += f"{'x' if value.isascii() else 'é'}{number}"
        return begin.ljust(min(length, 250), "x")


def _sign(value: float) -> float:
    """Return 1, 0 or -1; 0 for NaN."""
    return float(value > 0) - float(value < 0)


def _order_preserving(numbers: Iterable[int]) -> dict[int, int]:
    """Return a number of as many digits for each number, in the same order; digits are kept."""
    ranked: dict[int, int] = {}
    counts: dict[int, int] = {}
    for number in sorted(numbers, key=abs):
        if abs(number) < _KEPT_BELOW:
            ranked[number] = number
            continue
        digits = len(str(abs(number)))
        sign = 1 if number > 0 else -1
        first = counts.setdefault(digits * sign, 10 ** (digits - 1))
        counts[digits * sign] += 1
        ranked[number] = sign * first
    return ranked
