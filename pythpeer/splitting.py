"""Long text in parts that break at whitespace, and never inside what reads as one character. Pure.

What belongs together is derived from `unicodedata`, from the safe side: nothing is cut where
UAX #29 (https://www.unicode.org/reports/tr29/) sees an extended grapheme cluster, and some things
are kept together although it would let them be cut. Within a word that goes for characters newer
than this Python, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from .errors import InvalidRequestError
from .wire import check_integer

__all__ = ["split_text"]

LINE_BREAK_THRESHOLD: Final = 0.75
"""How much of a part must be full for a line break to be worth more than another word."""


def split_text(text: str, limit: int = 250) -> tuple[str, ...]:
    """Split *text* into parts of at most *limit* characters, in order; blank text has none.

    Characters are Unicode code points, as Peerbet counts them; 250 is its documented limit for one
    message. Parts break at whitespace, which is dropped there, rather at the end of a line if one
    is near. Only a word longer than a part is cut, and never inside an extended grapheme cluster
    (UAX #29): an emoji of several code points, or a letter with its accents, stays whole. Each part
    takes as much as it can, and none begins or ends with whitespace.

    Raises `InvalidRequestError` where a single cluster is longer than *limit*.
    """
    if not isinstance(text, str):
        raise InvalidRequestError(f"text must be text, not {type(text).__name__}")
    check_integer("limit", limit, 1)
    text = text.strip()
    parts: list[str] = []
    begin = end = 0  # of the part that is being filled
    line_end = line_begin = 0  # of the last line break in it
    for piece_begin, piece_end in _words_or_graphemes(text, limit):
        if "\n" in text[end:piece_begin]:
            line_end, line_begin = end, piece_begin
        if piece_end - begin > limit:
            # Not where the piece would still not fit: parts must not become more for it.
            near = (
                line_end - begin > limit * LINE_BREAK_THRESHOLD and piece_end - line_begin <= limit
            )
            parts.append(text[begin : line_end if near else end])
            begin = line_begin if near else piece_begin
        end = piece_end
    return (*parts, text[begin:]) if text else ()


def _words_or_graphemes(text: str, limit: int) -> Iterator[tuple[int, int]]:
    """Where the words of *text* begin and end; the clusters of a word longer than *limit*."""
    kinds = "".join(map(_break_class, text))
    for word in _WORD.finditer(kinds):
        if word.end() - word.start() <= limit:
            yield word.span()
            continue
        for cluster in _GRAPHEME.finditer(kinds, *word.span()):
            size = cluster.end() - cluster.start()
            if size > limit:
                raise InvalidRequestError(
                    f"text has {size} characters that must stay together; at most {limit} fit"
                )
            yield cluster.span()


# -- what belongs together ------------------------------------------------------------------------

# Each character is of one of seven kinds:
#   s  whitespace
#   p  belongs to what comes after it: jamo that begin a syllable, signs that are written first
#   x  belongs to what stands before it: marks, jamo that do not begin a syllable
#   v  belongs to both, also with marks between: viramas, the zero width joiner
#   u  as v, but nothing about it is certain: this Python does not know it
#   r  half of a flag
#   o  any other
# A blank can carry an accent, or follow a sign that is written first: then it is no place to break.

_BASE: Final = "(?=[por])(?:ps*)*(?:rr|[or])?"
_JOINED: Final = f"[vu][xvu]*(?:{_BASE})?"
_GRAPHEME: Final = re.compile(f"(?:{_BASE}|x|{_JOINED})(?:s*x|(?:s+(?=v))?{_JOINED})*")
_WORD: Final = re.compile(f"(?:{_GRAPHEME.pattern})+")

# What neither the general category nor the combining class tells.
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
# What may yet be encoded there are pictographs and ideographs, which belong to nothing else.
_UNASSIGNED_OTHER: Final = re.compile(r"[\U0001f000-\U0001faff\U0001fc00-\U0003ffff]")
_VIRAMA: Final = 9


@lru_cache(maxsize=4096)
def _break_class(character: str) -> str:
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
