"""The thread of the SQLite store: it executes jobs in order, also if callers are cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from pythpeer.stores.sqlite.worker import Worker

LIMIT = 5.0
"""The maximum of seconds that a test waits for the thread."""


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("test")
    yield worker
    worker.close()


class PausedWorker:
    """Keeps a worker busy until `resume`."""

    def __init__(self, worker: Worker) -> None:
        self._resumed = threading.Event()
        worker.submit_nowait(lambda: self._resumed.wait(LIMIT))

    def resume(self) -> None:
        self._resumed.set()


def test_the_result_of_work_is_returned(worker: Worker) -> None:
    """It runs on the thread of the worker, and its caller gets the result."""

    async def main() -> str:
        return await worker.run(lambda: threading.current_thread().name)

    assert asyncio.run(main()).startswith("test")


def test_an_error_of_work_is_raised(worker: Worker) -> None:
    """Its caller gets the error, and the thread continues."""

    async def main() -> int:
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 // 0)
        return await worker.run(int)

    assert asyncio.run(main()) == 0


def test_work_is_done_in_order(worker: Worker) -> None:
    """In the order of the calls, whether or not a caller waits for it."""
    done: list[int] = []

    async def main() -> None:
        paused = PausedWorker(worker)
        first = worker.submit(lambda: done.append(1))
        worker.submit_nowait(lambda: done.append(2))
        third = worker.submit(lambda: done.append(3))
        paused.resume()
        await asyncio.gather(first, third)

    asyncio.run(main())
    assert done == [1, 2, 3]


@pytest.mark.parametrize("fails", [False, True])
def test_a_cancelled_caller_changes_nothing(
    worker: Worker, fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Work that had not started when its caller was cancelled is still executed."""
    done: list[int] = []

    def work() -> None:
        done.append(1)
        if fails:
            raise ValueError

    async def main() -> None:
        paused = PausedWorker(worker)
        caller = asyncio.ensure_future(worker.run(work))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert not done
        paused.resume()
        await worker.run(int)

    asyncio.run(main())
    assert done == [1]
    assert not caplog.records


def test_work_outlives_its_loop(worker: Worker) -> None:
    """Work of a loop that was closed is executed, and so is that of the next loop."""
    done: list[int] = []
    submitted: list[asyncio.Future[None]] = []

    async def submit() -> PausedWorker:
        paused = PausedWorker(worker)
        submitted.append(worker.submit(lambda: done.append(1)))
        worker.submit_nowait(lambda: done.append(2))
        return paused

    asyncio.run(submit()).resume()

    async def main() -> int:
        return await worker.run(int)

    assert asyncio.run(main()) == 0
    assert done == [1, 2]


def test_submitted_work_is_executed_before_the_thread_ends() -> None:
    """Closing does not discard it."""
    done = threading.Event()
    worker = Worker("test")
    paused = PausedWorker(worker)
    worker.submit_nowait(done.set)
    worker.close()
    assert not done.is_set()
    paused.resume()
    assert done.wait(LIMIT)


@pytest.mark.anyio
async def test_virtual_time_stands_still_during_work(worker: Worker) -> None:
    """A loop with virtual time knows of the work, so that no time limit expires during it."""
    loop = asyncio.get_running_loop()
    passed = threading.Event()
    timer = loop.call_later(0.001, passed.set)
    assert not await worker.run(lambda: passed.wait(0.05))
    timer.cancel()
