"""Bars beside numbers: which of them can be compared, and how long each is drawn. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

__all__ = ["as_number", "bar", "comparable", "fractions"]

EIGHTHS: Final = " ▏▎▍▌▋▊▉"


def as_number(value: object) -> int | float | None:
    """A count or an amount; text, flags and what is below nothing have no bar."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if 0 <= value < math.inf else None


def fractions(fields: Mapping[str, object]) -> dict[str, float]:
    """What each number among *fields* is of the greatest that it can be compared with, 0 to 1.

    Fields can be compared that share a word of their names: ``active_users`` with ``peak_users``,
    not with ``messages``. A number without company has no share.
    """
    numbers = {name: amount for name, value in fields.items() if (amount := as_number(value))}
    companies = {name: comparable(name, numbers) for name in numbers}
    return {
        name: amount / max(numbers[other] for other in companies[name])
        for name, amount in numbers.items()
        if len(companies[name]) > 1
    }


def bar(share: float, width: int, *, ascii_only: bool = False) -> str:
    """A bar of *width* columns, so much of it filled; a little something is never nothing."""
    if ascii_only:
        return "#" * max(1 if share > 0 else 0, round(share * width))
    eighths = max(1 if share > 0 else 0, round(share * width * 8))
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def comparable(name: str, others: Iterable[str]) -> Sequence[str]:
    """The names that have a word in common with *name*, itself among them."""
    words = _words(name)
    return [other for other in others if words & _words(other)]


def _words(name: str) -> frozenset[str]:
    """The words in a field's name: ``activeUsers`` and ``active_users`` have the same two."""
    spaced = "".join(f" {letter}" if letter.isupper() else letter for letter in name)
    parts = spaced.lower().replace("_", " ").replace("-", " ").split()
    return frozenset(part for part in parts if part not in {"total", "count", "number", "of"})
