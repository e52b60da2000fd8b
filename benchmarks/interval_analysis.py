"""Analysis of the intervals between the requests that the measuring server received."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

__all__ = ["NOISE", "Analysis", "analyse", "check_target", "combine"]

SHORT_THRESHOLD: Final = 0.001
"""Seconds by which a gap must be under the interval to count as short."""

NOISE: Final = 0.01
"""Difference of two rates that is not significant: timers of 0.05 s are late by this share."""


class Analysis(msgspec.Struct, frozen=True):
    """The gaps of one run, as measured at the server; `worst` is in seconds."""

    gaps: int
    short: int
    doubtful: int
    worst: float
    rate: float


def analyse(channel: dict[str, list[tuple[float, float]]], interval: float) -> Analysis:
    """Compare the gaps between the requests of a channel with *interval*, in seconds."""
    requests = sorted(channel["requests"], key=lambda request: request[1])
    arrivals = [arrival for _, arrival in requests]
    short = doubtful = 0
    worst = 0.0
    for (stamp, before), after in zip(requests, arrivals[1:], strict=False):
        shortfall = interval - (after - before)
        worst = max(worst, shortfall)
        if shortfall > SHORT_THRESHOLD:
            short += 1
            doubtful += any(start <= stamp <= end + 0.001 for start, end in channel["late"])
    gaps = max(0, len(arrivals) - 1)
    rate = gaps * interval / (arrivals[-1] - arrivals[0]) if gaps else 0.0
    return Analysis(gaps, short, doubtful, worst, rate)


def combine(analyses: Sequence[Analysis]) -> Analysis:
    """Combine several runs of one limiter: gaps are added, rates are averaged."""
    return Analysis(
        sum(analysis.gaps for analysis in analyses),
        sum(analysis.short for analysis in analyses),
        sum(analysis.doubtful for analysis in analyses),
        max(analysis.worst for analysis in analyses),
        statistics.mean(analysis.rate for analysis in analyses),
    )


def check_target(analyses: Mapping[str, Analysis], ours: str, gaps: int) -> tuple[str, bool]:
    """Return the target of *ours* as text, and whether it was met.

    The target is met if *ours* has all its *gaps*, none of them is short, and no other limiter
    without a short gap is faster by more than `NOISE`.
    """
    ours_analysis = analyses[ours]
    candidates = [
        (analysis.rate, name)
        for name, analysis in analyses.items()
        if name != ours and analysis.gaps and not analysis.short
    ]
    best, best_name = max(candidates, default=(0.0, ""))
    words = f"0 too early, {best:.3f} of {best_name}" if best_name else "0 too early"
    return (
        words,
        ours_analysis.gaps == gaps
        and not ours_analysis.short
        and ours_analysis.rate >= best - NOISE,
    )
