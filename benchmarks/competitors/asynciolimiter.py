"""asynciolimiter: `Limiter`, which compensates for delays, and `StrictLimiter`, which does not.

Only its `LeakyBucketLimiter` has a burst, so it is used where tokens are available.
"""

from __future__ import annotations

from typing import Final, cast

from asynciolimiter import LeakyBucketLimiter, Limiter, StrictLimiter

from .limiting import Candidate, Get

__all__ = ["CANDIDATES"]


def _make(interval: float, burst: int) -> Limiter:
    if burst == 1:
        return Limiter(1 / interval)
    # Both classes have the method that is used.
    return cast("Limiter", LeakyBucketLimiter(1 / interval, capacity=burst))


def _make_strict(interval: float, _burst: int) -> StrictLimiter:
    return StrictLimiter(1 / interval)


async def _pace(limiter: Limiter | StrictLimiter, get: Get) -> None:
    await limiter.wait()
    await get()


CANDIDATES: Final = (
    Candidate(
        "asynciolimiter",
        _make,
        _pace,
        Limiter.wait,
        note=(
            "asynciolimiter: Limiter, which shortens the interval after a late timer; "
            "LeakyBucketLimiter where tokens are saved."
        ),
    ),
    Candidate("asynciolimiter strict", _make_strict, _pace, StrictLimiter.wait, bursts=False),
)
