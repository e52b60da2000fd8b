"""python-telegram-bot: its `AIORateLimiter`, with the overall limit only."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from typing import Any, Final, cast

from telegram.ext import AIORateLimiter

from .limiting import Candidate, Get

__all__ = ["CANDIDATES"]

if find_spec("aiolimiter") is None:  # telegram raises only when it is used
    raise ImportError(name="aiolimiter")

_Callback = Callable[..., Coroutine[Any, Any, bool]]


def _make(interval: float, burst: int) -> AIORateLimiter:
    return AIORateLimiter(burst, burst * interval, group_max_rate=0, group_time_period=0)


async def _pace(limiter: AIORateLimiter, get: Get) -> None:
    await limiter.process_request(
        cast("_Callback", get),
        args=(),
        kwargs={},
        endpoint="sendMessage",
        data={"chat_id": 1},
        rate_limit_args=None,
    )


async def _nothing() -> None:
    pass


async def _acquire(limiter: AIORateLimiter) -> None:
    await _pace(limiter, _nothing)


CANDIDATES: Final = (
    Candidate(
        "python-telegram-bot",
        _make,
        _pace,
        _acquire,
        note="python-telegram-bot: AIORateLimiter has no acquire method; an empty request is used.",
    ),
)
