"""`Worker`: one thread that executes jobs for event loops, one after the other, with low overhead.

For each job a loop's `run_in_executor` creates three futures, one of them with locks, if the job
must survive the cancellation of its caller, and a pool's `submit` creates one more: that costs as
much as one of our jobs. Here it is one future. A submitted job is executed even if its caller is
cancelled or its loop is closed.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar, cast

__all__ = ["NoThreadError", "Worker"]

T = TypeVar("T")

_Job = Callable[[], object]


class NoThreadError(Exception):
    """No thread can be started: the program, or its user, has too many."""


class Worker:
    """A thread that exists from the first job until `close`, or until the program ends.

    *on_timer* is called on the thread some time after `start_timer`.
    """

    def __init__(self, name: str, on_timer: Callable[[], object] = lambda: None) -> None:
        self._name = name
        """The name of the thread."""
        self._on_timer = on_timer
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        """The submitted jobs; ``None`` ends the thread."""
        self._thread: threading.Thread | None = None
        """The thread. Set by the first job."""
        self._pid = 0
        """The process that the thread belongs to. Set with it."""
        self._timer_at = math.inf
        """When `on_timer` is due, in seconds of `time.monotonic`. Only the thread uses it."""

    async def run(self, work: Callable[[], T]) -> T:
        """Execute *work* on the thread. Returns its result, or raises its exception.

        Raises `NoThreadError` if the thread cannot be started.
        """
        loop = asyncio.get_running_loop()
        # By way of the loop, because a loop with virtual time must know of work outside of it. It
        # calls `submit`, and returns what that returns: a future of the loop.
        return await loop.run_in_executor(cast("Executor", self), work)

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Execute *work* on the thread. Returns a future of the running loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self.submit_nowait(lambda: _run(work, loop, future))
        return future

    def submit_nowait(self, work: _Job) -> None:
        """Execute *work* on the thread, without a result. The loop may be closed before it ends."""
        if self._thread is None:
            self._start()
        self._jobs.put(work)

    def start_timer(self, seconds: float) -> None:
        """Call `on_timer` in *seconds*, on the thread, between two jobs."""
        due = time.monotonic() + seconds
        self.submit_nowait(lambda: self._set_timer(due))

    def close(self) -> None:
        """End the thread after the submitted jobs. Does not wait for it."""
        atexit.unregister(self._finish)
        if self._thread is not None:
            self._jobs.put(None)

    def _start(self) -> None:
        # A daemon, so that a store which was not closed does not keep the program from ending;
        # `_finish` executes the submitted jobs before that.
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise NoThreadError from None
        self._thread, self._pid = thread, os.getpid()
        atexit.register(self._finish)

    def _finish(self) -> None:
        """Wait for the submitted jobs, because the program ends. A forked process has no thread."""
        if self._thread is not None and self._pid == os.getpid():
            self._jobs.put(None)
            self._thread.join()

    # -- on the thread ----------------------------------------------------------------------------

    def run_timer(self) -> None:
        """Call `on_timer` if it is due. A job that takes long calls this from time to time."""
        if time.monotonic() >= self._timer_at:
            self._timer_at = math.inf
            self._on_timer()

    def _set_timer(self, due: float) -> None:
        self._timer_at = min(self._timer_at, due)

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=self._timeout)
            except Empty:
                self.run_timer()
                continue
            if job is None:
                return
            job()
            del job  # what it refers to must not live until the next job
            self.run_timer()

    @property
    def _timeout(self) -> float | None:
        """The seconds to wait for a job; ``None`` without a timer."""
        if self._timer_at == math.inf:
            return None
        return max(0.0, self._timer_at - time.monotonic())


def _run(work: Callable[[], T], loop: asyncio.AbstractEventLoop, future: asyncio.Future[T]) -> None:
    """Run on the thread."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  # raised by `run`, at its caller
        _call_in(loop, _fail, future, error)
    else:
        _call_in(loop, _finish, future, result)


_LOOP_CLOSED: Final = RuntimeError
"""What a loop raises that was closed before the job ended."""


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    with contextlib.suppress(_LOOP_CLOSED):  # no caller waits any more
        loop.call_soon_threadsafe(function, *args)


def _finish(future: asyncio.Future[T], result: T) -> None:
    if not future.done():  # the caller may have been cancelled
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
