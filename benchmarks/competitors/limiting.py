"""The interface of a measured limiter, and the installed limiters.

Each limiter has a module here, with a `Candidate` for each measured configuration.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

from .installed import installed

__all__ = ["Candidate", "Get", "load_candidates", "share"]

L = TypeVar("L")

Get = Callable[[], Awaitable[object]]
"""Sends one request."""

MODULES: Final = (
    "aiolimiter",
    "asynciolimiter",
    "pyrate_limiter",
    "throttled",
    "asyncio_throttle",
    "aiometer",
    "discord_py",
    "telegram_bot",
    "lock_and_sleep",
)


@dataclasses.dataclass(frozen=True)
class Candidate(Generic[L]):
    """A limiter in one configuration; its functions are called in a running event loop."""

    name: str
    """The name in tables."""

    make: Callable[[float, int], L]
    """Makes a limiter with an interval in seconds, and a burst after a pause."""

    pace: Callable[[L, Get], Awaitable[object]] | None = None
    """Waits for a token and then sends a request; several tasks may wait."""

    acquire: Callable[[L], Awaitable[object]] | None = None
    """Only waits for a token, if the limiter can do that."""

    batch: Callable[[L, Get, int, int], Awaitable[object]] | None = None
    """Instead of `pace`: sends a number of requests, with a maximum of concurrent ones."""

    bursts: bool = True
    """Whether `make` supports a burst of more than one."""

    note: str = ""
    """A note below the table."""

    async def send(self, limiter: L, get: Get, count: int, tasks: int) -> None:
        """Send *count* requests by *tasks* tasks that share *limiter*."""
        if self.batch is not None:
            await self.batch(limiter, get, count, tasks)
        elif self.pace is not None:
            await share(functools.partial(self.pace, limiter, get), count, tasks)


async def share(work: Get, count: int, tasks: int) -> None:
    """Call *work* *count* times by *tasks* tasks."""
    left = iter(range(count))

    async def some() -> None:
        for _ in left:
            await work()

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(some())


@functools.cache
def load_candidates() -> tuple[dict[str, Candidate[Any]], list[str]]:
    """Return every candidate by its name, and a note for each missing limiter."""
    return installed(MODULES)
