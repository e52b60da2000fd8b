"""What became of things that were said: which were lost, which came twice, and who was told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

import msgspec

__all__ = ["Tally", "between", "tally"]


class Tally(msgspec.Struct, frozen=True):
    """One program in one experiment."""

    of: int
    """How many there were."""

    lost: int
    """How many of them never came."""

    doubled: int
    """How often one came that had come before."""

    told: int
    """Of both together, how many the program was told of."""

    @property
    def silent(self) -> int:
        """How many of both it knows nothing of."""
        return self.lost + self.doubled - self.told


def tally(said: Collection[str], came: Iterable[str], told: Collection[str] = ()) -> Tally:
    """Compare what was *said*, each once, with what *came*.

    *told* is what the program has been told may be lost, or may have come before. Raises
    ``RuntimeError`` where something was said twice, or came that was not said: then neither can be
    counted.
    """
    expected, counts = set(said), Counter(came)
    if len(expected) < len(said):
        raise RuntimeError("something was said twice")
    strange = counts.keys() - expected
    if strange:
        raise RuntimeError(f"nobody said {min(strange)!r}")
    lost = expected - counts.keys()
    again = {one: count - 1 for one, count in counts.items() if count > 1}
    known = len(lost.intersection(told)) + sum(again[one] for one in again.keys() & set(told))
    return Tally(len(expected), len(lost), sum(again.values()), known)


def between(said: Iterable[tuple[int, str]], gaps: Iterable[tuple[int, int]]) -> set[str]:
    """Which of the things *said*, by their ids, lie in one of the *gaps*, whose ends do not."""
    ends = list(gaps)
    return {one for id, one in said if any(after < id < before for after, before in ends)}
