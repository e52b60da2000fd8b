"""Bars next to numbers: which numbers are comparable, and how long each bar is. Pure."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

__all__ = ["as_number", "bar", "comparable", "fractions"]

EIGHTHS: Final = " ▏▎▍▌▋▊▉"


def as_number(value: object) -> int | float | None:
    """Return a count or an amount, ``None`` for values without a bar: text, flags, negatives."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # An integer over this cannot be divided by a fraction.
    return value if 0 <= value <= sys.float_info.max else None


def fractions(fields: Mapping[str, object]) -> dict[str, float]:
    """Return each number as a fraction of the greatest comparable one, from 0 to 1.

    Fields are comparable if their names share a word: ``active_users`` with ``peak_users``, not
    with ``messages``. A number without a comparable one has no fraction.
    """
    amounts = {name: as_number(value) for name, value in fields.items()}
    numbers = {name: amount for name, amount in amounts.items() if amount}
    groups = {name: comparable(name, numbers) for name in numbers}
    return {
        name: amount / max(numbers[other] for other in groups[name])
        for name, amount in numbers.items()
        if len(groups[name]) > 1
    }


def bar(share: float, width: int, *, ascii_only: bool = False) -> str:
    """Return the filled part of a bar of *width* columns; a positive share is never empty."""
    least = 1 if share > 0 else 0
    if ascii_only:
        return "#" * max(least, round(share * width))
    eighths = max(least, round(share * width * 8))
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def comparable(name: str, others: Iterable[str]) -> Sequence[str]:
    """Return the names that share a word with *name*, including itself."""
    words = _words(name)
    return [other for other in others if words & _words(other)]


def _words(name: str) -> frozenset[str]:
    """Return the words of a field's name: ``activeUsers`` and ``active_users`` have the same."""
    spaced = "".join(f" {letter}" if letter.isupper() else letter for letter in name)
    parts = spaced.lower().replace("_", " ").replace("-", " ").split()
    return frozenset(part for part in parts if part not in {"total", "count", "number", "of"})
