"""Streams compared with other ways to follow a chat: delay, and cost of many consumers.

The chat is in memory, and is polled as the service is; see `memory_chat`.
"""

from __future__ import annotations

import asyncio

from .competitors.streaming import load_candidates
from .latency import latency
from .many_consumers import compare_consumers
from .memory_chat import PYTHPEER
from .report import Table

__all__ = ["run"]


def run(*, quick: bool) -> list[Table]:
    """Measure delays on virtual time, and 1, 100, 1,000 and 10,000 consumers."""
    others, missing = load_candidates()
    candidates = [PYTHPEER, *others.values()]
    tables = [
        *latency(candidates, quick=quick),
        asyncio.run(compare_consumers(candidates, quick=quick)),
    ]
    for table in tables:
        table.notes += missing
        table.notes += [candidate.note for candidate in candidates if candidate.note]
    return tables
