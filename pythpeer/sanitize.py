"""Makes foreign text safe to show: of users, of services, of stores, of arguments. Pure.

Names, messages, topics and errors are untrusted. Nothing in them may move the cursor, colour the
screen, reverse the line, or look like the beginning of another row. Whatever is written to a
terminal or a log goes through one of the two functions here.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["is_safe", "printable", "sanitize"]

# ECMA-48: control sequences, strings for the terminal with their ends, and shorter escapes. No
# string contains an introducer of another one: otherwise each of them would be searched to the end.
_SEQUENCE: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]+[0-~]"
    r"|\x1b[0-Z\\^-~]"
)
_JOINERS: Final = "\u200c\u200d"  # Persian and emoji are spelled with them
_BREAKS: Final = "\t\n\v\f\r\x85\u2028\u2029"


def is_safe(character: str) -> bool:
    """Return whether it is not a control, invisible formatting (bidi), or half of a pair."""
    if character.isprintable() or character in _JOINERS:
        return True
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def sanitize(text: str) -> str:
    """Return *text* without what a terminal would interpret; line breaks become spaces.

    The time that it takes is proportional to the length of *text*.
    """
    if text.isprintable():
        return text
    text = _SEQUENCE.sub("", text)
    safe = (" " if character in _BREAKS else character for character in text)
    return "".join(filter(is_safe, safe))


def printable(text: str) -> str:
    """Return *text* with a space for each character that is not printable, for errors and logs.

    What is left of a terminal sequence stays, because it may explain the error.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in text)
