"""asynciolimiter: `Limiter`, which makes up for delays, and `StrictLimiter`, which does not.

Only its `LeakyBucketLimiter` has a burst, so that stands for it where a token is already there.
"""

from __future__ import annotations

from typing import Final

from asynciolimiter import LeakyBucketLimiter, Limiter, StrictLimiter

from .limiting import Arm, Get

__all__ = ["ARMS"]

_Any = Limiter | StrictLimiter | LeakyBucketLimiter


def _make(interval: float, burst: int) -> _Any:
    return Limiter(1 / interval) if burst == 1 else LeakyBucketLimiter(1 / interval, capacity=burst)


def _make_strict(interval: float, _burst: int) -> _Any:
    return StrictLimiter(1 / interval)


async def _pace(limiter: _Any, get: Get) -> None:
    await limiter.wait()
    await get()


async def _acquire(limiter: _Any) -> None:
    await limiter.wait()


ARMS: Final = (
    Arm(
        "asynciolimiter",
        _make,
        _pace,
        Limiter.wait,
        note="asynciolimiter: Limiter; where tokens are saved up, LeakyBucketLimiter.",
    ),
    Arm("asynciolimiter strict", _make_strict, _pace, StrictLimiter.wait, bursts=False),
)
