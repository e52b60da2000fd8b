"""pyrate-limiter in its asynchronous form, with a wrapped bucket in memory.

By default a waiter waits 50 ms longer (``buffer_ms``), "to absorb clock drift". That avoids early
requests and reduces the rate, so the option is measured with 0 as well.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable
from typing import Final, cast

from pyrate_limiter import BucketAsyncWrapper, InMemoryBucket, Limiter, Rate

from .limiting import Candidate, Get

__all__ = ["CANDIDATES"]

NAME: Final = "pyrate-limiter"


def _make(interval: float, burst: int, buffer_ms: int = 50) -> Limiter:
    rate = Rate(burst, round(burst * interval * 1e3))
    return Limiter(BucketAsyncWrapper(InMemoryBucket([rate])), buffer_ms=buffer_ms)


async def _pace(limiter: Limiter, get: Get) -> None:
    await _acquire(limiter)
    await get()


def _acquire(limiter: Limiter) -> Awaitable[bool]:
    return cast("Awaitable[bool]", limiter.try_acquire_async("request"))


CANDIDATES: Final = (
    Candidate(NAME, _make, _pace, _acquire, note=f"{NAME}: by default it waits 50 ms longer."),
    Candidate(f"{NAME} buffer 0", functools.partial(_make, buffer_ms=0), _pace, _acquire),
)
