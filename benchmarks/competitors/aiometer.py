"""aiometer, which paces the start of a known list of jobs within one call."""

from __future__ import annotations

from typing import Final

import aiometer

from .limiting import Candidate, Get

__all__ = ["CANDIDATES"]


def _make(interval: float, _burst: int) -> float:
    return 1 / interval


async def _batch(max_per_second: float, get: Get, count: int, tasks: int) -> None:
    async def job(_number: int) -> None:
        await get()

    await aiometer.run_on_each(job, range(count), max_at_once=tasks, max_per_second=max_per_second)


CANDIDATES: Final = (
    Candidate(
        "aiometer",
        _make,
        batch=_batch,
        bursts=False,
        note="aiometer: paces jobs within one call, so it has no waiting callers.",
    ),
)
