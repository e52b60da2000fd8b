"""What the requests that came in at the judge say of the interval that they should have kept."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

__all__ = ["NOISE", "Verdict", "judge", "sums", "target"]

SHORT: Final = 0.001
"""Seconds by which a gap must be under the interval to be counted as short."""

NOISE: Final = 0.01
"""What two rates must differ by in order to differ: timers are late by that much of 0.05 s."""


class Verdict(msgspec.Struct, frozen=True):
    """What the judge saw of one run."""

    gaps: int
    short: int
    doubtful: int
    worst: float
    rate: float


def judge(lane: dict[str, list[tuple[float, float]]], interval: float) -> Verdict:
    """What the requests that came in on a lane say of the interval."""
    requests = sorted(lane["requests"], key=lambda request: request[1])
    arrivals = [arrival for _, arrival in requests]
    short = doubtful = 0
    worst = 0.0
    for (stamp, before), after in zip(requests, arrivals[1:], strict=False):
        lack = interval - (after - before)
        worst = max(worst, lack)
        if lack > SHORT:
            short += 1
            doubtful += any(start <= stamp <= end + 0.001 for start, end in lane["late"])
    gaps = max(0, len(arrivals) - 1)
    rate = gaps * interval / (arrivals[-1] - arrivals[0]) if gaps else 0.0
    return Verdict(gaps, short, doubtful, worst, rate)


def sums(verdicts: Sequence[Verdict]) -> Verdict:
    """Several runs of one limiter as one: gaps are added up, of rates it is the mean."""
    return Verdict(
        sum(verdict.gaps for verdict in verdicts),
        sum(verdict.short for verdict in verdicts),
        sum(verdict.doubtful for verdict in verdicts),
        max(verdict.worst for verdict in verdicts),
        statistics.mean(verdict.rate for verdict in verdicts),
    )


def target(verdicts: Mapping[str, Verdict], ours: str, gaps: int) -> tuple[str, bool]:
    """What *ours* is held to beside the others, in words, and whether it did all of it.

    All its *gaps* are there, none of them is short, and of the others whose gaps are not short none
    is faster by more than noise.
    """
    own = verdicts[ours]
    faultless = [
        (verdict.rate, name)
        for name, verdict in verdicts.items()
        if name != ours and verdict.gaps and not verdict.short
    ]
    best, whose = max(faultless, default=(0.0, ""))
    words = f"0 short, {best:.3f} of {whose}" if whose else "0 short"
    return words, own.gaps == gaps and not own.short and own.rate >= best - NOISE
