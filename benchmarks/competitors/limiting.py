"""What a limiter has to have in order to be measured, and those that are installed.

Each limiter has a module here, with one `Arm` for each of its ways of use that are compared.
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
"""One request, and whatever comes of it."""

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
    """A limiter, used in one way. All of it is called inside of a running loop."""

    name: str
    """As tables show it."""

    make: Callable[[float, int], L]
    """A limiter that lets one through each so many seconds, and so many at once after a rest."""

    pace: Callable[[L, Get], Awaitable[object]] | None = None
    """Make a request when its time has come; several may wait for theirs."""

    acquire: Callable[[L], Awaitable[object]] | None = None
    """Wait until it has come and no more, where there is such a thing."""

    batch: Callable[[L, Get, int, int], Awaitable[object]] | None = None
    """Instead of `pace`: make so many requests, so many of them at once at most."""

    bursts: bool = True
    """Whether `make` can let more than one through at once."""

    note: str = ""
    """What a reader of figures should know."""

    async def send(self, limiter: L, get: Get, count: int, tasks: int) -> None:
        """Make *count* requests by *tasks* tasks that share *limiter*."""
        if self.batch is not None:
            await self.batch(limiter, get, count, tasks)
        elif self.pace is not None:
            await share(functools.partial(self.pace, limiter, get), count, tasks)


async def share(work: Get, count: int, tasks: int) -> None:
    """Have *work* done *count* times by *tasks* tasks."""
    left = iter(range(count))

    async def some() -> None:
        for _ in left:
            await work()

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(some())


@functools.cache
def load_candidates() -> tuple[dict[str, Candidate[Any]], list[str]]:
    """Every arm by its name, and a note for each limiter that is not installed."""
    return installed(MODULES)
