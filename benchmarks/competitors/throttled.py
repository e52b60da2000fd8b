"""throttled-py with GCRA and a timeout, which its documentation uses for waiting.

Its four other algorithms count whole seconds. A period cannot be under a second, so a rate is set
instead: 20/s for 50 ms. A waiter waits at least 0.2 s.
"""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Final

from throttled.asyncio import RateLimiterType, Throttled, rate_limiter

from .limiting import Candidate, Get

__all__ = ["CANDIDATES"]

HOUR: Final = 3600

_numbers = itertools.count()


def _make(interval: float, burst: int) -> Throttled:
    quota = (
        rate_limiter.per_sec(round(1 / interval), burst=burst)
        if interval < 1
        else rate_limiter.per_duration(timedelta(seconds=interval), limit=1, burst=burst)
    )
    # All share one store, as its documentation recommends; each has a different key.
    key = f"request {next(_numbers)}"
    return Throttled(key=key, using=RateLimiterType.GCRA.value, quota=quota, timeout=HOUR)


async def _acquire(throttled: Throttled) -> None:
    if (await throttled.limit()).limited:
        raise RuntimeError("no token within an hour")


async def _pace(throttled: Throttled, get: Get) -> None:
    await _acquire(throttled)
    await get()


CANDIDATES: Final = (
    Candidate(
        "throttled-py",
        _make,
        _pace,
        _acquire,
        note=(
            "throttled-py: GCRA; intervals under 1 s are set as a rate, 1 ms as 1000/s; "
            "it waits at least 0.2 s."
        ),
    ),
)
