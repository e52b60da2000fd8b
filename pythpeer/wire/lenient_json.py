"""Lenient JSON: a document is found among byte-order marks, PHP warnings and markup."""

from __future__ import annotations

import enum
import json
import math
import re
from itertools import accumulate
from typing import Final

import msgspec

from .query import Json

__all__ = [
    "MAX_NESTING",
    "NO_JSON",
    "WHITESPACE",
    "NoJson",
    "canonical_json",
    "nests_too_deeply",
    "parse_json",
    "parse_shallow_json",
]

MAX_NESTING: Final = 500
"""Maximum nesting of arrays and objects in a response; documented responses have three levels.

Without it the limit would be the stack of the decoder. That differs between versions of Python, and
3.14 decodes values so deeply nested that comparing or printing them takes seconds.
"""

_NO_BRACKETS = re.compile(rb'(?:"(?:[^"\\]|\\.)*+"?|[^"\[{\]}])++', re.DOTALL)
_DEPTH_CHANGE = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def nests_too_deeply(body: bytes) -> bool:
    """Return whether *body* nests arrays and objects more than `MAX_NESTING` levels deep."""
    if body.count(b"[") + body.count(b"{") <= MAX_NESTING:
        return False
    brackets = _NO_BRACKETS.sub(b"", body)
    return max(accumulate(map(_DEPTH_CHANGE.__getitem__, brackets)), default=0) > MAX_NESTING


class NoJson(enum.Enum):
    """The type of `NO_JSON`."""

    NO_JSON = "NO_JSON"
    """The only value."""


NO_JSON: Final = NoJson.NO_JSON
"""What `parse_json` returns for a body without JSON; ``None`` is JSON's null."""

WHITESPACE: Final = "\ufeff\0 \t\r\n"
"""Characters that are ignored around a document."""

_HTML_TAG = re.compile(r"</?(?:!doctype|html|head|body|title|script|\?xml)\b", re.IGNORECASE)
_PHP = r"(?:PHP\s+)?(?:Warning|Notice|Deprecated|Strict Standards|Fatal error|Parse error)"
_DIAGNOSTICS = re.compile(rf"\s*(?:<[^>]*>\s*)*{_PHP}(?:</b>)?\s*:", re.IGNORECASE)
_JSON_START = re.compile(r"\bon line (?:<b>)?[0-9]+(?:</b>)?(?:<br ?/?>)?[\ufeff\s]*(?=[\[{])")
_MAX_STARTS: Final = 8
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(body: bytes) -> Json | NoJson:
    """Parse a body as JSON, leniently. Returns `NO_JSON` where it is not JSON.

    Ignores byte-order marks, control characters in strings, and PHP's diagnostics before and after
    the JSON; replaces invalid UTF-8 and lone surrogates. The JSON must end where the body ends,
    because otherwise the ``[]`` inside a broken document would be read as an empty list.
    """
    return NO_JSON if nests_too_deeply(body) else parse_shallow_json(body)


def parse_shallow_json(body: bytes) -> Json | NoJson:
    """Parse as `parse_json` does, for a body that was checked with `nests_too_deeply`."""
    text = body.decode("utf-8", "replace").strip(WHITESPACE)
    if not text:
        return NO_JSON
    decoder = json.JSONDecoder(strict=False, parse_constant=_reject_constant)
    if not _DIAGNOSTICS.match(text):
        return _decode_whole(decoder, text, 0)
    for attempt, match in enumerate(_JSON_START.finditer(text)):
        if attempt == _MAX_STARTS or _HTML_TAG.search(text, 0, match.end()):
            break
        value = _decode_whole(decoder, text, match.end())
        if value is not NO_JSON:
            return value
    return NO_JSON


def _decode_whole(decoder: json.JSONDecoder, text: str, start: int) -> Json | NoJson:
    """Decode the JSON at *start* if only white space, markup or diagnostics follow it."""
    try:
        value, end = decoder.raw_decode(text, start)
        rest = text[end:].strip(WHITESPACE)
        if rest and not _is_ignorable(rest):
            return NO_JSON
        return _without_surrogates(value)
    except (ValueError, RecursionError):
        return NO_JSON


def _is_ignorable(rest: str) -> bool:
    """Return whether text after the JSON can be ignored: markup or PHP's diagnostics, no page."""
    if _HTML_TAG.search(rest):
        return False
    return rest.startswith("<") or _DIAGNOSTICS.match(rest) is not None


def _reject_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _without_surrogates(value: Json) -> Json:
    # The first comparisons are cheap, because nearly all of the many values need only one of them.
    if isinstance(value, str):
        return value if value.isascii() else _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        if not all(map(str.isascii, value)):
            value = {_SURROGATE.sub("\ufffd", key): item for key, item in value.items()}
        for key, item in value.items():
            if type(item) is not int:
                value[key] = _without_surrogates(item)
    elif isinstance(value, list):
        value[:] = map(_without_surrogates, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number out of range")
    return value


_canonical_encoder: Final = msgspec.json.Encoder(order="deterministic")


def canonical_json(value: object) -> bytes:
    """Return the canonical encoding of a document: equal documents have equal encodings."""
    return _canonical_encoder.encode(value)
