"""Streams beside other ways to follow a chat: how late messages come, and what many of them cost.

The chat is in memory and polled as the service is; see `script`.
"""

from __future__ import annotations

import asyncio

from .competitors.streaming import arms
from .latency import latency
from .many_consumers import crowd
from .memory_chat import PYTHPEER
from .report import Table

__all__ = ["run"]


def run(*, quick: bool) -> list[Table]:
    """Measure delays on virtual time, and 1, 100, 1,000 and 10,000 consumers."""
    found, absent = arms()
    everybody = [PYTHPEER, *found.values()]
    tables = [*latency(everybody, quick=quick), asyncio.run(crowd(everybody, quick=quick))]
    for table in tables:
        table.notes += absent
        table.notes += [arm.note for arm in everybody if arm.note]
    return tables
