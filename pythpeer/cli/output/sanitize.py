"""Makes texts from other users safe for a terminal or a pipe. Pure, and without rich.

Names and messages are untrusted. Nothing in them may move the cursor, colour the screen, reverse
the line, or look like the beginning of another row.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Final

__all__ = ["json_line", "sanitize"]

# ECMA-48: control sequences, strings for the terminal with their ends, and shorter escapes.
_SEQUENCE: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]+[0-~]"
    r"|\x1b[0-Z\\^-~]"
)
_JOINERS: Final = "\u200c\u200d"  # Persian and emoji are spelled with them
_BREAKS: Final = "\t\n\v\f\r\x85\u2028\u2029"


def _is_safe(character: str) -> bool:
    """Return whether it is not a control, invisible formatting (bidi), or half of a pair."""
    if character.isprintable() or character in _JOINERS:
        return True
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def sanitize(text: str) -> str:
    """Return *text* without what a terminal would interpret; line breaks become spaces."""
    if text.isprintable():
        return text
    text = _SEQUENCE.sub("", text)
    safe = (" " if character in _BREAKS else character for character in text)
    return "".join(filter(_is_safe, safe))


def json_line(row: Mapping[str, object]) -> bytes:
    """Return *row* as one line of JSON in UTF-8.

    The JSON is equivalent: what `sanitize` would remove is escaped.
    """
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    if not text.isprintable():
        text = "".join(c if _is_safe(c) else _escaped(c) for c in text)
    return text.encode() + b"\n"


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
