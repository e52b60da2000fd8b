"""Rows of newline-delimited JSON that are safe for a terminal. Pure, and without rich."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ...sanitize import is_safe

__all__ = ["json_line"]


def json_line(row: Mapping[str, object]) -> bytes:
    """Return *row* as one line of JSON in UTF-8.

    The JSON is equivalent: what a terminal would interpret is escaped.
    """
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    if not text.isprintable():
        text = "".join(c if is_safe(c) else _escaped(c) for c in text)
    return text.encode() + b"\n"


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
