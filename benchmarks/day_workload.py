"""The workload of a day: post times, faults of the service, and the delivery result."""

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
"""Mean seconds between two messages, in each eighth of the day, from midnight on."""

BURST: Final = 500
BURSTS: Final = (0.2, 0.55, 0.85)
"""Messages of a burst, and the times of the bursts, as parts of the day."""

MAX_PAGE: Final = 300
DEFAULT_PAGE: Final = 50
"""Messages of a response: the maximum, and the default."""

REQUESTS_PER_BREAK: Final = 200
"""A connection breaks after this number of requests."""

OUTAGE: Final = (0.5, 0.507)
"""Begin and end of an outage, as parts of the day: ten minutes."""


def make_post_times(seconds: float, seed: int) -> array[float]:
    """Return the ascending times of all posts; message n, from 1 on, has the n-th time."""
    chance, post_times, now = random.Random(seed), array("d"), 10.0
    end = seconds - 60.0  # messages not received within a minute are lost
    while now < end:
        post_times.append(now)
        now += chance.expovariate(1.0 / PACES[int(now / seconds * len(PACES))])
    for part in BURSTS:
        post_times.extend([part * seconds] * BURST)
    return array("d", sorted(post_times))


class ModelService:
    """A model of the service: it returns the newest messages that fit."""

    def __init__(self, post_times: Sequence[float], seconds: float) -> None:
        self.requests = 0
        self._post_times = post_times
        self._outage = tuple(part * seconds for part in OUTAGE)

    def page(self, now: float, after: int | None, last: int | None) -> range | None:
        """Return the ids of a response, or ``None`` if the connection breaks."""
        self.requests += 1
        if self.requests % REQUESTS_PER_BREAK == 0 or self._outage[0] <= now < self._outage[1]:
            return None
        posted = bisect_right(self._post_times, now)
        page_size = min(last or (DEFAULT_PAGE if after is None else MAX_PAGE), MAX_PAGE)
        return range(max(after or 0, posted - page_size) + 1, posted + 1)


class DeliveryResult(msgspec.Struct, frozen=True):
    """The result of all readers together."""

    of: int
    delivered: int
    """Messages received, each counted once per reader."""

    duplicated: int
    reported: int
    """Lost messages within gaps that were reported to the reader."""

    delay: float
    """Median seconds from the post of a message until a reader received it."""

    @property
    def lost(self) -> int:
        """Messages that were never received."""
        return self.of - self.delivered


def delivery_result(
    post_times: Sequence[float],
    readers: Sequence[Sequence[float]],
    duplicated: int,
    gaps: Sequence[Iterable[tuple[int, int]]],
) -> DeliveryResult:
    """Compare with *readers*: when each first received each message, below 0 for never."""
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
