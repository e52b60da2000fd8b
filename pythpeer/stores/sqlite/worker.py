"""One thread that works for event loops, one job after the other, and a short way there and back.

A loop's `run_in_executor` makes three futures for each job, one of them with locks, if a cancelled
asker is not to cancel the job: that costs as much as a job of ours. Here is one. Whatever becomes
of the asker or of its loop, a job that was asked for must be done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar, cast

__all__ = ["Worker"]

T = TypeVar("T")


class Worker:
    """The thread, until it is closed."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, work: Callable[[], T]) -> T:
        """Have *work* done, and return what it returns or raise what it raises."""
        loop = asyncio.get_running_loop()
        # Through the loop all the same: one that makes its time up has to know that there is work
        # outside. It calls `submit` and hands on what that returns, which is a loop's future.
        return await loop.run_in_executor(cast("Executor", self), work)

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have *work* done. The future is the running loop's."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._pool.submit(_run, work, loop, future)
        return future

    def submit_nowait(self, work: Callable[[], object]) -> None:
        """Have *work* done, without a word of what came of it. The loop may be gone by then."""
        self._pool.submit(work)

    def close(self) -> None:
        """Let the thread end once it has done what it was asked for."""
        self._pool.shutdown(wait=False)


def _run(work: Callable[[], T], loop: asyncio.AbstractEventLoop, future: asyncio.Future[T]) -> None:
    """On the thread. A loop that is closed meanwhile raises, and the pool keeps that to itself."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  # it is the asker's
        loop.call_soon_threadsafe(_fail, future, error)
    else:
        loop.call_soon_threadsafe(_finish, future, result)


def _finish(future: asyncio.Future[T], result: T) -> None:
    if not future.done():  # its asker may have been cancelled
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
