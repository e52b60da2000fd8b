"""discord.py: the `Ratelimit` of its client, which reads the headers of each response.

Here a prepared response has these headers: no request is left, and the limit resets after the
interval.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Final, cast

from aiohttp import ClientResponse
from discord.http import Ratelimit

from .limiting import Candidate, Get

__all__ = ["CANDIDATES"]


class _PreparedRatelimit(Ratelimit):
    """A `Ratelimit` with a prepared response."""

    __slots__ = ("answer",)

    answer: ClientResponse


@functools.cache
def _answer(limit: int, left: int, after: float) -> ClientResponse:
    headers = {
        "X-Ratelimit-Limit": str(limit),
        "X-Ratelimit-Remaining": str(left),
        "X-Ratelimit-Reset-After": str(after),
    }
    return cast("ClientResponse", SimpleNamespace(headers=headers))


def _make(interval: float, burst: int) -> _PreparedRatelimit:
    ratelimit = _PreparedRatelimit(None)
    ratelimit.update(_answer(burst, burst, burst * interval))
    ratelimit.answer = _answer(1, 0, interval)
    return ratelimit


async def _pace(ratelimit: _PreparedRatelimit, get: Get) -> None:
    async with ratelimit:
        await get()
        ratelimit.update(ratelimit.answer)


CANDIDATES: Final = (
    Candidate(
        "discord.py",
        _make,
        _pace,
        Ratelimit.acquire,
        note=(
            "discord.py: its Ratelimit, with responses that report no request left in the interval."
        ),
    ),
)
