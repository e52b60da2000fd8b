"""What the requests that came in at the judge say of the interval that they should have kept."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

__all__ = ["NOISE", "Analysis", "analyse", "check_target", "combine"]

SHORT_THRESHOLD: Final = 0.001
"""Seconds by which a gap must be under the interval to be counted as short."""

NOISE: Final = 0.01
"""What two rates must differ by in order to differ: timers are late by that much of 0.05 s."""


class Analysis(msgspec.Struct, frozen=True):
    """What the judge saw of one run."""

    gaps: int
    short: int
    doubtful: int
    worst: float
    rate: float


def analyse(channel: dict[str, list[tuple[float, float]]], interval: float) -> Analysis:
    """What the requests that came in on a lane say of the interval."""
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
    """Several runs of one limiter as one: gaps are added up, of rates it is the mean."""
    return Analysis(
        sum(analysis.gaps for analysis in analyses),
        sum(analysis.short for analysis in analyses),
        sum(analysis.doubtful for analysis in analyses),
        max(analysis.worst for analysis in analyses),
        statistics.mean(analysis.rate for analysis in analyses),
    )


def check_target(analyses: Mapping[str, Analysis], ours: str, gaps: int) -> tuple[str, bool]:
    """What *ours* is held to beside the others, in words, and whether it did all of it.

    All its *gaps* are there, none of them is short, and of the others whose gaps are not short none
    is faster by more than noise.
    """
    ours_analysis = analyses[ours]
    faultless = [
        (analysis.rate, name)
        for name, analysis in analyses.items()
        if name != ours and analysis.gaps and not analysis.short
    ]
    best, best_name = max(faultless, default=(0.0, ""))
    words = f"0 too early, {best:.3f} of {best_name}" if best_name else "0 too early"
    return (
        words,
        ours_analysis.gaps == gaps
        and not ours_analysis.short
        and ours_analysis.rate >= best - NOISE,
    )
