"""Counts of lost and duplicated texts, and of those that were reported to the program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

import msgspec

__all__ = ["LossCount", "count_losses", "within_gaps"]


class LossCount(msgspec.Struct, frozen=True):
    """One program in one experiment."""

    of: int
    """Number of texts that were posted."""

    lost: int
    """Number of texts that were never received."""

    duplicated: int
    """Number of repeated receptions of a text."""

    reported: int
    """Of both together, those that were reported to the program."""

    @property
    def unreported(self) -> int:
        """Of both together, those that were not reported."""
        return self.lost + self.duplicated - self.reported


def count_losses(
    posted: Collection[str], received: Iterable[str], reported: Collection[str] = ()
) -> LossCount:
    """Compare the texts *posted*, each once, with those *received*.

    *reported* are the texts that the program reported as possibly lost or duplicated. Raises
    ``RuntimeError`` if a text was posted twice, or received without being posted, because neither
    can be counted.
    """
    expected, counts = set(posted), Counter(received)
    if len(expected) < len(posted):
        raise RuntimeError("a text was posted twice")
    unexpected = counts.keys() - expected
    if unexpected:
        raise RuntimeError(f"{min(unexpected)!r} was never posted")
    lost = expected - counts.keys()
    repeats = {text: count - 1 for text, count in counts.items() if count > 1}
    reported_count = len(lost.intersection(reported)) + sum(
        repeats[text] for text in repeats.keys() & set(reported)
    )
    return LossCount(len(expected), len(lost), sum(repeats.values()), reported_count)


def within_gaps(posted: Iterable[tuple[int, str]], gaps: Iterable[tuple[int, int]]) -> set[str]:
    """Return the texts whose ids lie in one of the *gaps*, without the ends of the gaps."""
    ends = list(gaps)
    return {text for id, text in posted if any(after < id < before for after, before in ends)}
