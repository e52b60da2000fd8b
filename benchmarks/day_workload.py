"""A day of a chat: who speaks when, what goes wrong, and what a program got of it."""

from __future__ import annotations

import random
import statistics
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

__all__ = ["DeliveryResult", "ModelService", "delivery_result", "make_post_times"]

HOUR: Final = 3600.0

PACES: Final = (120.0, 240.0, 30.0, 6.0, 5.0, 4.0, 3.0, 8.0)
"""Seconds between two messages on average, in each eighth of the time, from midnight on."""

BURST: Final = 500
BURSTS: Final = (0.2, 0.55, 0.85)
"""How many messages come at once, and after which parts of the time."""

MAX_PAGE: Final = 300
DEFAULT_PAGE: Final = 50
"""How many messages an answer holds at most, and how many without being asked for more."""

REQUESTS_PER_BREAK: Final = 200
"""Every how many requests a connection breaks."""

OUTAGE: Final = (0.5, 0.507)
"""From which part of the time to which nothing is answered: ten minutes of a day."""


def make_post_times(seconds: float, seed: int) -> array[float]:
    """When something is said, ascending: the n-th moment, from 1 on, is that of message n."""
    chance, post_times, now = random.Random(seed), array("d"), 10.0
    end = seconds - 60.0  # whoever has not got the last of it in a minute has lost it
    while now < end:
        post_times.append(now)
        now += chance.expovariate(1.0 / PACES[int(now / seconds * len(PACES))])
    for part in BURSTS:
        post_times.extend([part * seconds] * BURST)
    return array("d", sorted(post_times))


class ModelService:
    """What the service shows of it: always the newest that fit."""

    def __init__(self, post_times: Sequence[float], seconds: float) -> None:
        self.requests = 0
        self._post_times = post_times
        self._outage = tuple(part * seconds for part in OUTAGE)

    def page(self, now: float, after: int | None, last: int | None) -> range | None:
        """The ids of an answer, or nothing where the connection breaks."""
        self.requests += 1
        if self.requests % REQUESTS_PER_BREAK == 0 or self._outage[0] <= now < self._outage[1]:
            return None
        posted = bisect_right(self._post_times, now)
        page_size = min(last or (DEFAULT_PAGE if after is None else MAX_PAGE), MAX_PAGE)
        return range(max(after or 0, posted - page_size) + 1, posted + 1)


class DeliveryResult(msgspec.Struct, frozen=True):
    """What all readers together got."""

    of: int
    delivered: int
    """How many messages came, each counted once for each reader."""

    duplicated: int
    reported: int
    """How many of those that did not come lie in gaps that the reader was told of."""

    delay: float
    """Seconds from when a message was said until a reader had it: the median."""

    @property
    def lost(self) -> int:
        """How many never came."""
        return self.of - self.delivered


def delivery_result(
    post_times: Sequence[float],
    readers: Sequence[Sequence[float]],
    duplicated: int,
    gaps: Sequence[Iterable[tuple[int, int]]],
) -> DeliveryResult:
    """Judge what *readers* got: for each message when it came first, or less than 0 for never."""
    delays: list[float] = []
    reported = 0
    for received_at, reader_gaps in zip(readers, gaps, strict=True):
        ids_in_gaps = {id for after, before in reader_gaps for id in range(after + 1, before)}
        for id, (posted, received) in enumerate(zip(post_times, received_at, strict=True), 1):
            if received >= 0.0:
                delays.append(received - posted)
            else:
                reported += id in ids_in_gaps
    of = len(post_times) * len(readers)
    return DeliveryResult(of, len(delays), duplicated, reported, statistics.median(delays or [0.0]))
