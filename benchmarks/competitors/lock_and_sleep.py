"""The simplest limiter: a lock, the request, and a sleep."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from .limiting import Candidate, Get

__all__ = ["CANDIDATES"]


class _Lock(NamedTuple):
    lock: asyncio.Lock
    interval: float


def _make(interval: float, _burst: int) -> _Lock:
    return _Lock(asyncio.Lock(), interval)


async def _pace(limiter: _Lock, get: Get) -> None:
    async with limiter.lock:
        await get()
        await asyncio.sleep(limiter.interval)


CANDIDATES: Final = (Candidate("lock + request + sleep", _make, _pace, bursts=False),)
