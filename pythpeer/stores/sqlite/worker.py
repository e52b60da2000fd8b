"""`Worker`: one thread that executes jobs for event loops, one after the other, with low overhead.

For each job a loop's `run_in_executor` creates three futures, one of them with locks, if the job
must survive the cancellation of its caller: that costs as much as one of our jobs. Here it is one
future. A submitted job is executed even if its caller is cancelled or its loop is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar, cast

__all__ = ["Worker"]

T = TypeVar("T")


class Worker:
    """A thread that exists until `close`."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        """The executor of the thread."""

    async def run(self, work: Callable[[], T]) -> T:
        """Execute *work* on the thread. Returns its result, or raises its exception."""
        loop = asyncio.get_running_loop()
        # By way of the loop, because a loop with virtual time must know of work outside of it. It
        # calls `submit`, and returns what that returns: a future of the loop.
        return await loop.run_in_executor(cast("Executor", self), work)

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Execute *work* on the thread. Returns a future of the running loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._pool.submit(_run, work, loop, future)
        return future

    def submit_nowait(self, work: Callable[[], object]) -> None:
        """Execute *work* on the thread, without a result. The loop may be closed before it ends."""
        self._pool.submit(work)

    def close(self) -> None:
        """End the thread after the submitted jobs. Does not wait for it."""
        self._pool.shutdown(wait=False)


def _run(work: Callable[[], T], loop: asyncio.AbstractEventLoop, future: asyncio.Future[T]) -> None:
    """Run on the thread. If the loop was closed, its exception is kept by the pool, unread."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  # raised by `run`, at its caller
        loop.call_soon_threadsafe(_fail, future, error)
    else:
        loop.call_soon_threadsafe(_finish, future, result)


def _finish(future: asyncio.Future[T], result: T) -> None:
    if not future.done():  # the caller may have been cancelled
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
