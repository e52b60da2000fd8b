"""aiolimiter, with a rate of one, which its documentation uses "to enforce a strict interval"."""

from __future__ import annotations

from typing import Final

from aiolimiter import AsyncLimiter

from .limiting import Candidate, Get

__all__ = ["CANDIDATES"]


def _make(interval: float, burst: int) -> AsyncLimiter:
    return AsyncLimiter(burst, burst * interval)


async def _pace(limiter: AsyncLimiter, get: Get) -> None:
    async with limiter:
        await get()


CANDIDATES: Final = (Candidate("aiolimiter", _make, _pace, AsyncLimiter.acquire),)
