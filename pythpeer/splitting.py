"""Splits long text into parts at whitespace, and never inside a grapheme cluster. Pure.

Grapheme clusters are found with `unicodedata` by rules that are stricter than needed: a cut is
never inside an extended grapheme cluster of UAX #29 (https://www.unicode.org/reports/tr29/), and
some sequences are kept together although UAX #29 allows a cut. Within a word this is also true for
characters that are newer than this Python.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from .errors import InvalidRequestError
from .validation import check_integer

__all__ = ["split_text"]

LINE_BREAK_THRESHOLD: Final = 0.75
"""The share of a part that must be full for a break at the end of a line to be preferred to adding
further words."""


def split_text(text: str, limit: int = 250) -> tuple[str, ...]:
    """Split *text* into parts of at most *limit* characters, in order; blank text has no parts.

    Parts break at whitespace, which is dropped there; the end of a line is preferred if it is in
    the last quarter of *limit*. Only a word longer than *limit* is cut, and never inside an
    extended grapheme cluster (UAX #29): an emoji of several code points, or a letter with its
    accents, stays whole. Each part is as long as these rules allow, and no part begins or ends with
    whitespace.

    Args:
        text: The text to split.
        limit: Characters of a part at most, counted in Unicode code points as Peerbet does. The
            default, 250, is Peerbet's documented limit for one message.

    Raises:
        InvalidRequestError: If *text* is not text, *limit* is not a positive integer, or a single
            grapheme cluster is longer than *limit*.
    """
    if not isinstance(text, str):
        raise InvalidRequestError(f"text must be a str, not {type(text).__name__}")
    check_integer("limit", limit, 1)
    text = text.strip()
    parts: list[str] = []
    begin = end = 0  # the bounds of the part that is being filled
    line_end = line_begin = 0  # the bounds of the whitespace at its last line break
    for piece_begin, piece_end in _words_or_graphemes(text, limit):
        if "\n" in text[end:piece_begin]:
            line_end, line_begin = end, piece_begin
        if piece_end - begin > limit:
            # Only if the piece then fits into the next part: the number of parts must not grow.
            at_line_break = (
                line_end - begin > limit * LINE_BREAK_THRESHOLD and piece_end - line_begin <= limit
            )
            if at_line_break:
                parts.append(text[begin:line_end])
                begin = line_begin
            else:
                parts.append(text[begin:end])
                begin = piece_begin
        end = piece_end
    return (*parts, text[begin:]) if text else ()


def _words_or_graphemes(text: str, limit: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of each word of *text*, or of each cluster of a word longer than *limit*."""
    classes = "".join(map(_break_class, text))
    for word in _WORD.finditer(classes):
        if word.end() - word.start() <= limit:
            yield word.span()
            continue
        for cluster in _GRAPHEME.finditer(classes, *word.span()):
            size = cluster.end() - cluster.start()
            if size > limit:
                raise InvalidRequestError(
                    f"text has {size} characters that must stay together; at most {limit} fit"
                )
            yield cluster.span()


# -- grapheme clusters ----------------------------------------------------------------------------

# Each character has one of seven classes:
#   s  whitespace
#   p  joins the next character: jamo that begin a syllable, signs that precede what they modify
#   x  joins the previous character: marks, jamo that do not begin a syllable
#   v  joins both, also with marks in between: viramas, the zero width joiner
#   u  as v, because this Python does not know the character
#   r  half of a flag
#   o  any other
# A space can carry an accent, or follow a sign of class p: then the text must not break there.

_BASE: Final = "(?=[por])(?:ps*)*(?:rr|[or])?"
_JOINED: Final = f"[vu][xvu]*(?:{_BASE})?"
_GRAPHEME: Final = re.compile(f"(?:{_BASE}|x|{_JOINED})(?:s*x|(?:s+(?=v))?{_JOINED})*")
_WORD: Final = re.compile(f"(?:{_GRAPHEME.pattern})+")

# Properties that neither the general category nor the combining class shows.
_PREPEND: Final = re.compile(
    r"[\u1100-\u115f\ua960-\ua97f]"  # initial consonants of Hangul
    r"|[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]"  # signs around numbers
    r"|[\u0d4e\U000111c2\U000111c3\U000113d1\U0001193f\U00011941]"  # Indic prefixes
    r"|[\U00011a84-\U00011a89\U00011d46\U00011f02]"
)
_EXTEND: Final = re.compile(
    r"[\u0e33\u0eb3]"  # Thai and Lao AM
    r"|[\u1160-\u11ff\ud7b0-\ud7ff\U00016d63\U00016d67-\U00016d6a]"  # vowels, final consonants
    r"|[\u200c\uff9e\uff9f]"  # zero width non-joiner, halfwidth Katakana sound marks
    r"|[\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"  # skin tones, tags
)
_LINKER: Final = re.compile(r"[\u200d\u1cf5\u1cf6\U00011a3a]")
_REGIONAL_INDICATOR: Final = re.compile(r"[\U0001f1e6-\U0001f1ff]")
# Unassigned ranges reserved for pictographs and ideographs, which join no other character.
_UNASSIGNED_OTHER: Final = re.compile(r"[\U0001f000-\U0001faff\U0001fc00-\U0003ffff]")
_VIRAMA: Final = 9


@lru_cache(maxsize=4096)
def _break_class(character: str) -> str:
    """Return the letter of the character's class, of the seven listed above."""
    category = unicodedata.category(character)
    if character.isspace():
        return "s"
    if _PREPEND.match(character):
        return "p"
    if _EXTEND.match(character):
        return "x"
    if _LINKER.match(character) or unicodedata.combining(character) == _VIRAMA:
        return "v"
    if _REGIONAL_INDICATOR.match(character):
        return "r"
    if category == "Cn":
        return "o" if _UNASSIGNED_OTHER.match(character) else "u"
    return "x" if category.startswith("M") else "o"
