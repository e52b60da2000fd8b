"""Long text in parts that fit into messages. Pure.

Parts break at blanks. A word that is longer than a part is cut, but never within what people see as
one character: an extended grapheme cluster of Unicode (UAX #29). Its rules are kept here by what
`unicodedata` knows, and where that is too little (it does not know which characters are pictures)
more is kept together than has to be, never less.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Final

from .errors import InvalidRequestError
from .wire import check_integer

__all__ = ["split_text"]

LIMIT: Final = 250
"""How many characters one message of Peerbet has at most."""

_JOINER: Final = "\u200d"
_VIRAMA: Final = 9
"""The combining class of what binds consonants of Indic scripts to clusters."""

_LETTERS: Final = ("Lo", "Lm")


def split_text(text: str, limit: int = LIMIT) -> tuple[str, ...]:
    """Split *text* into parts of at most *limit* characters (code points, as the service counts).

    Each part has as many whole words as fit. The blanks at its ends are dropped, blanks and line
    breaks within it stay as they are; blank text has no parts. Raises `InvalidRequestError` for
    wrong arguments, and where a single grapheme is longer than *limit*.
    """
    if not isinstance(text, str):
        raise InvalidRequestError(f"text must be text, not {type(text).__name__}")
    check_integer("limit", limit, 1)
    parts: list[str] = []
    rest = _trimmed(text)
    while len(rest) > limit:
        end = _end(rest, limit)
        parts.append(_trimmed(rest[:end]))
        rest = _trimmed(rest[end:])
    return (*parts, rest) if rest else tuple(parts)


def _end(text: str, limit: int) -> int:
    """Where the first part of *text*, which is longer than *limit*, ends."""
    for at in range(limit, 0, -1):
        if _is_blank(text, at) and not _joins(text, at):
            return at
    for at in range(limit, 0, -1):
        if not _joins(text, at):
            return at
    raise InvalidRequestError(f"one character of the text is over {limit} code points long")


def _trimmed(text: str) -> str:
    start, end = 0, len(text)
    while start < end and _is_blank(text, start):
        start += 1
    while start < end and _is_blank(text, end - 1):
        end -= 1
    return text[start:end]


def _is_blank(text: str, at: int) -> bool:
    """Whether there is a blank, and no part of a grapheme that is more than blanks."""
    if not text[at].isspace():
        return False
    before, after = text[max(0, at - 1) : at], text[at + 1 : at + 2]
    alone = not before or before.isspace() or not _joins(text, at)
    return alone and (not after or after.isspace() or not _joins(text, at + 1))


def _joins(text: str, at: int) -> bool:
    """Whether a cut before ``text[at]`` could be within a grapheme. The numbers are UAX #29's."""
    before, after = text[at - 1], text[at]
    if (
        "Cc" in (unicodedata.category(before), unicodedata.category(after))
        or (before + after).isascii()
    ):
        return before == "\r" and after == "\n"  # GB3 to GB5
    return (
        _extends(after)  # GB9, GB9a
        or before == _JOINER  # GB11, and more
        or _prepends(before)  # GB9b
        or (_is_flag(before) and _is_flag(after) and _flags_before(text, at) % 2 == 1)  # GB12, GB13
        or (_is_jamo(before) and _is_jamo(after))  # GB6 to GB8, and more
        or (unicodedata.category(after) in _LETTERS and _is_linked(text, at))  # GB9c, and more
    )


def _extends(character: str) -> bool:
    """Combining marks, joiners, variation selectors, skin tones, the tags of flags.

    And whatever this Python's Unicode does not know yet: it may be one of them.
    """
    return (
        unicodedata.category(character) in ("Mn", "Me", "Mc", "Cn")
        or character in "\u200c\u200d\u0e33\u0eb3\uff9e\uff9f"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e007f"
    )


def _prepends(character: str) -> bool:
    """Signs that belong to what is behind them, and whatever is invisible or not known yet."""
    return unicodedata.category(character) in ("Cf", "Cn") or character in _PREPENDED


_PREPENDED: Final = frozenset(
    "\u0d4e\U000111c2\U000111c3\U0001193f\U00011941\U00011a3a\U00011a84\U00011a85\U00011a86"
    "\U00011a87\U00011a88\U00011a89\U00011d46"
)


def _is_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _flags_before(text: str, at: int) -> int:
    """How many regional indicators stand right before *at*: the first two of them are a pair."""
    start = at
    while start and _is_flag(text[start - 1]):
        start -= 1
    return at - start


def _is_jamo(character: str) -> bool:
    return (
        "\u1100" <= character <= "\u11ff"
        or "\ua960" <= character <= "\ua97f"
        or "\uac00" <= character <= "\ud7ff"
    )


def _is_linked(text: str, at: int) -> bool:
    """Whether a virama is among the marks right before *at*."""
    for character in _backwards(text, at):
        if unicodedata.combining(character) == _VIRAMA:
            return True
        if not _extends(character):
            return False
    return False


def _backwards(text: str, at: int) -> Iterator[str]:
    return (text[index] for index in range(at - 1, -1, -1))
