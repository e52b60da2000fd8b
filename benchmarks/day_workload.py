"""A day of a chat: who speaks when, what goes wrong, and what a program got of it."""

from __future__ import annotations

import random
import statistics
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

__all__ = ["Receipt", "Room", "receipt", "timetable"]

HOUR: Final = 3600.0

PACES: Final = (120.0, 240.0, 30.0, 6.0, 5.0, 4.0, 3.0, 8.0)
"""Seconds between two messages on average, in each eighth of the time, from midnight on."""

BURST: Final = 500
BURSTS: Final = (0.2, 0.55, 0.85)
"""How many messages come at once, and after which parts of the time."""

MOST: Final = 300
USUAL: Final = 50
"""How many messages an answer holds at most, and how many without being asked for more."""

BREAKS: Final = 200
"""Every how many requests a connection breaks."""

OUTAGE: Final = (0.5, 0.507)
"""From which part of the time to which nothing is answered: ten minutes of a day."""


def timetable(seconds: float, seed: int) -> array[float]:
    """When something is said, ascending: the n-th moment, from 1 on, is that of message n."""
    chance, moments, at = random.Random(seed), array("d"), 10.0
    end = seconds - 60.0  # whoever has not got the last of it in a minute has lost it
    while at < end:
        moments.append(at)
        at += chance.expovariate(1.0 / PACES[int(at / seconds * len(PACES))])
    for part in BURSTS:
        moments.extend([part * seconds] * BURST)
    return array("d", sorted(moments))


class Room:
    """What the service shows of it: always the newest that fit."""

    def __init__(self, moments: Sequence[float], seconds: float) -> None:
        self.requests = 0
        self._moments = moments
        self._outage = tuple(part * seconds for part in OUTAGE)

    def page(self, now: float, after: int | None, last: int | None) -> range | None:
        """The ids of an answer, or nothing where the connection breaks."""
        self.requests += 1
        if self.requests % BREAKS == 0 or self._outage[0] <= now < self._outage[1]:
            return None
        said = bisect_right(self._moments, now)
        most = min(last or (USUAL if after is None else MOST), MOST)
        return range(max(after or 0, said - most) + 1, said + 1)


class Receipt(msgspec.Struct, frozen=True):
    """What all readers together got."""

    of: int
    delivered: int
    """How many messages came, each counted once for each reader."""

    doubled: int
    told: int
    """How many of those that did not come lie in gaps that the reader was told of."""

    delay: float
    """Seconds from when a message was said until a reader had it: the median."""

    @property
    def lost(self) -> int:
        """How many never came."""
        return self.of - self.delivered


def receipt(
    moments: Sequence[float],
    readers: Sequence[Sequence[float]],
    doubled: int,
    gaps: Sequence[Iterable[tuple[int, int]]],
) -> Receipt:
    """Judge what *readers* got: for each message when it came first, or less than 0 for never."""
    delays: list[float] = []
    told = 0
    for came, holes in zip(readers, gaps, strict=True):
        known = {id for after, before in holes for id in range(after + 1, before)}
        for id, (said, had) in enumerate(zip(moments, came, strict=True), 1):
            if had >= 0.0:
                delays.append(had - said)
            else:
                told += id in known
    of = len(moments) * len(readers)
    return Receipt(of, len(delays), doubled, told, statistics.median(delays or [0.0]))
