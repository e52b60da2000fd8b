"""asyncio-throttle, whose waiters retry every 10 ms by default."""

from __future__ import annotations

from typing import Final

from asyncio_throttle.throttler import Throttler

from .limiting import Candidate, Get

__all__ = ["CANDIDATES"]


def _make(interval: float, burst: int) -> Throttler:
    return Throttler(rate_limit=burst, period=burst * interval)


async def _pace(throttler: Throttler, get: Get) -> None:
    async with throttler:
        await get()


CANDIDATES: Final = (Candidate("asyncio-throttle", _make, _pace, Throttler.acquire),)
