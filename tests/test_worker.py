"""The thread behind the SQLite store: jobs in order, each done whatever becomes of its asker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from pythpeer.stores.sqlite.worker import Worker

LIMIT = 5.0
"""Seconds that a test waits for the thread at most."""


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("test")
    yield worker
    worker.close()


class Stopped:
    """Keeps a worker busy until it is told to go on."""

    def __init__(self, worker: Worker) -> None:
        self._go = threading.Event()
        worker.submit_nowait(lambda: self._go.wait(LIMIT))

    def go(self) -> None:
        self._go.set()


def test_what_work_returns_comes_back(worker: Worker) -> None:
    """It is done on the worker's own thread, and its result is the asker's."""

    async def main() -> str:
        return await worker.run(lambda: threading.current_thread().name)

    assert asyncio.run(main()).startswith("test")


def test_what_work_raises_comes_back(worker: Worker) -> None:
    """An error is the asker's too, and the thread goes on."""

    async def main() -> int:
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 // 0)
        return await worker.run(int)

    assert asyncio.run(main()) == 0


def test_work_is_done_in_order(worker: Worker) -> None:
    """Whoever asked first is served first, whether or not they wait for it."""
    done: list[int] = []

    async def main() -> None:
        stopped = Stopped(worker)
        first = worker.submit(lambda: done.append(1))
        worker.submit_nowait(lambda: done.append(2))
        third = worker.submit(lambda: done.append(3))
        stopped.go()
        await asyncio.gather(first, third)

    asyncio.run(main())
    assert done == [1, 2, 3]


@pytest.mark.parametrize("fails", [False, True])
def test_a_cancelled_asker_changes_nothing(
    worker: Worker, fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Work that had not begun when its asker was cancelled is done all the same."""
    done: list[int] = []

    def work() -> None:
        done.append(1)
        if fails:
            raise ValueError

    async def main() -> None:
        stopped = Stopped(worker)
        asker = asyncio.ensure_future(worker.run(work))
        await asyncio.sleep(0)
        asker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asker
        assert not done
        stopped.go()
        await worker.run(int)

    asyncio.run(main())
    assert done == [1]
    assert not caplog.records


def test_work_outlives_its_loop(worker: Worker) -> None:
    """What a loop that is closed had asked for is done, and the next loop is served."""
    done: list[int] = []
    asked: list[asyncio.Future[None]] = []

    async def ask() -> Stopped:
        stopped = Stopped(worker)
        asked.append(worker.submit(lambda: done.append(1)))
        worker.submit_nowait(lambda: done.append(2))
        return stopped

    asyncio.run(ask()).go()

    async def main() -> int:
        return await worker.run(int)

    assert asyncio.run(main()) == 0
    assert done == [1, 2]


def test_closing_leaves_nothing_undone() -> None:
    """The thread ends, but not before its work."""
    done = threading.Event()
    worker = Worker("test")
    stopped = Stopped(worker)
    worker.submit_nowait(done.set)
    worker.close()
    assert not done.is_set()
    stopped.go()
    assert done.wait(LIMIT)


@pytest.mark.anyio
async def test_virtual_time_stands_still_meanwhile(worker: Worker) -> None:
    """A loop that makes its time up knows of the work, so that no time limit passes over it."""
    loop = asyncio.get_running_loop()
    passed = threading.Event()
    timer = loop.call_later(0.001, passed.set)
    assert not await worker.run(lambda: passed.wait(0.05))
    timer.cancel()
