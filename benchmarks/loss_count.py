"""What became of things that were said: which were lost, which came twice, and who was told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

import msgspec

__all__ = ["LossCount", "count_losses", "within_gaps"]


class LossCount(msgspec.Struct, frozen=True):
    """One program in one experiment."""

    of: int
    """How many there were."""

    lost: int
    """How many of them never came."""

    duplicated: int
    """How often one came that had come before."""

    reported: int
    """Of both together, how many the program was told of."""

    @property
    def unreported(self) -> int:
        """How many of both it knows nothing of."""
        return self.lost + self.duplicated - self.reported


def count_losses(
    posted: Collection[str], received: Iterable[str], reported: Collection[str] = ()
) -> LossCount:
    """Compare what was *said*, each once, with what *came*.

    *told* is what the program has been told may be lost, or may have come before. Raises
    ``RuntimeError`` where something was said twice, or came that was not said: then neither can be
    counted.
    """
    expected, counts = set(posted), Counter(received)
    if len(expected) < len(posted):
        raise RuntimeError("something was said twice")
    unexpected = counts.keys() - expected
    if unexpected:
        raise RuntimeError(f"nobody said {min(unexpected)!r}")
    lost = expected - counts.keys()
    repeats = {text: count - 1 for text, count in counts.items() if count > 1}
    reported_count = len(lost.intersection(reported)) + sum(
        repeats[text] for text in repeats.keys() & set(reported)
    )
    return LossCount(len(expected), len(lost), sum(repeats.values()), reported_count)


def within_gaps(posted: Iterable[tuple[int, str]], gaps: Iterable[tuple[int, int]]) -> set[str]:
    """Which of the things *said*, by their ids, lie in one of the *gaps*, whose ends do not."""
    ends = list(gaps)
    return {text for id, text in posted if any(after < id < before for after, before in ends)}
