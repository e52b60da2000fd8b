"""What many test modules use: loops, waiting on a clock, taking items, numbers of examples."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import pytest

from pythpeer import Rate, Retry
from pythpeer.testing import DEFAULT_RATES, VirtualTimeLoop

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")

# -- how much is tried ----------------------------------------------------------------------------

DEEP: Final = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
"""Whether ``nox -s tests-deep`` runs the tests: each property then takes many examples."""


def examples(many: int) -> int:
    """How many examples a property takes: a quarter of *many*, and ten times *many* if `DEEP`.

    A quarter is at least ten, so that each run sees more than the simplest examples.
    """
    return 10 * many if DEEP else max(10, many // 4)


# -- settings -------------------------------------------------------------------------------------

UNLIMITED: Final = MappingProxyType(dict.fromkeys(DEFAULT_RATES, Rate(0.0)))
"""No pacing, for tests about something else."""

SHORT_BACKOFF: Final = Retry(max_delay=2.0)
"""Short back-offs, so that little time passes."""

# -- event loops ----------------------------------------------------------------------------------

Backend = tuple[str, dict[str, object]]
"""What anyio's plugin takes as ``anyio_backend``."""

VIRTUAL: Final[Backend] = ("asyncio", {"loop_factory": VirtualTimeLoop})
"""The backend of every test that does not ask for another one."""

REAL: Final[Backend] = ("asyncio", {"loop_factory": asyncio.SelectorEventLoop})
"""The backend of a test that is marked `real_time`."""

real_time = pytest.mark.real_time
"""Marks a test that waits for another process or a thread, which know no virtual time."""


def run_on_virtual_time(main: Coroutine[Any, Any, T], **options: float) -> T:
    """Run *main* in a new `VirtualTimeLoop`, whose clock starts at 0 unless *options* say more."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(**options)) as runner:
        return runner.run(main)


# -- waiting --------------------------------------------------------------------------------------


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


async def run_loop_turns(count: int = 20) -> None:
    """Let everything happen that can happen in this moment."""
    for _ in range(count):
        await asyncio.sleep(0)


async def wait_for_io(seconds: float = 1.0) -> None:
    """Let everything arrive that is being sent."""
    await asyncio.sleep(seconds)


def schedule(
    delay: float, act: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
) -> asyncio.TimerHandle:
    """Call *act* with these arguments in *delay* seconds of the loop's time."""
    return asyncio.get_running_loop().call_later(delay, lambda: act(*args, **kwargs))


async def wait_until(
    condition: Callable[[], object], within: float = 60.0, problem: str = "it did not become true"
) -> None:
    """Check *condition*, which may be awaitable, until it is true.

    Fails with *problem* after *within* seconds of the loop's time.
    """
    end = now() + within
    while True:
        result = condition()
        if await result if inspect.isawaitable(result) else result:
            return
        assert now() < end, problem
        await asyncio.sleep(0.002)


# -- items of streams -----------------------------------------------------------------------------


class Items(Protocol[T_co]):
    """A stream, or several as one."""

    async def __anext__(self) -> T_co: ...


class HasId(Protocol):
    """An item that has an id."""

    @property
    def id(self) -> int: ...


WithId = TypeVar("WithId", bound=HasId)


async def take(stream: Items[T], count: int, within: float = 60.0) -> list[T]:
    """Return the next *count* items. Raises `TimeoutError` if they do not come in time."""
    async with asyncio.timeout(within):
        return [await stream.__anext__() for _ in range(count)]


async def take_ids(stream: Items[WithId], count: int, within: float = 60.0) -> list[int]:
    """Return the ids of the next *count* items, as `take` does."""
    return [item.id for item in await take(stream, count, within)]


async def assert_nothing_more(stream: Items[T], within: float = 5.0) -> None:
    """Fail if an item comes within so many seconds."""
    with pytest.raises(TimeoutError):
        await take(stream, 1, within)


# -- what was logged ------------------------------------------------------------------------------


def logged_levels(caplog: pytest.LogCaptureFixture) -> list[int]:
    """The levels of what was logged from INFO, but for what asyncio logs itself."""
    records = (record for record in caplog.records if record.name != "asyncio")
    return [record.levelno for record in records if record.levelno >= logging.INFO]


@contextmanager
def little_to_collect() -> Iterator[None]:
    """Let the garbage collector look only at what is made from now on: what was there is not seen.

    A collection of all that a run of the tests has made takes a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
