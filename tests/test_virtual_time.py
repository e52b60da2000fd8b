"""`VirtualTimeLoop`: sockets and threads are real, and only waiting takes no time.

The virtual clock of all the other tests is this one too.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TypeVar

import pytest
from helpers import now, run_on_virtual_time

from pythpeer import SqliteStore
from pythpeer.testing import FakeServices, VirtualTimeLoop

pytestmark = pytest.mark.anyio

T = TypeVar("T")


def sleep_in_thread() -> None:
    """Sleep for some real time, in a thread."""
    threading.Event().wait(0.02)


# -- waiting --------------------------------------------------------------------------------------


async def test_an_hour_takes_a_moment() -> None:
    """Waiting for the clock only takes no real time."""
    real_start, start = time.perf_counter(), now()
    for _ in range(60):
        await asyncio.sleep(60.0)
    assert now() - start == 3600.0
    assert time.perf_counter() - real_start < 60.0  # one of the waits would take as long


async def test_timers_fire_in_their_order() -> None:
    """Tasks wake at their times, in any order of their sleeps."""
    wakeups: list[tuple[float, float]] = []
    start = now()

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)
        wakeups.append((seconds, now() - start))

    async with asyncio.TaskGroup() as group:
        for seconds in (5.0, 1.0, 86400.0 * 3, 0.25, 3.0):
            group.create_task(sleep(seconds))
    assert wakeups == [(seconds, seconds) for seconds in (0.25, 1.0, 3.0, 5.0, 86400.0 * 3)]


def test_the_class_is_a_loop_factory() -> None:
    """Each loop has a separate clock, which begins with 0."""
    for _ in range(2):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            assert runner.get_loop().time() == 0.0
            runner.run(asyncio.sleep(1.0))
            assert runner.get_loop().time() == 1.0


def test_the_clock_can_begin_anywhere() -> None:
    """*start* is the time at the beginning."""

    async def main() -> float:
        return now()

    assert run_on_virtual_time(main(), start=123.5) == 123.5


def test_decimals_add_up() -> None:
    """A tenth and two tenths make three tenths."""

    async def main() -> float:
        await asyncio.sleep(0.1)
        await asyncio.sleep(0.2)
        return now()

    assert run_on_virtual_time(main()) == 0.3


@pytest.mark.parametrize("early", [1e-10, 4e-10, 9e-10, 1e-9, 1e-6])
async def test_a_wait_can_be_shorter_than_any_decimal(early: float) -> None:
    """A task that is early by less than the rounding, and waits again, is not stuck."""
    due = now() + 1.0 + early
    for _ in range(10):
        if now() >= due:
            break
        await asyncio.sleep(due - now())
    assert now() == pytest.approx(due, abs=1e-9)
    assert now() >= due


# -- threads --------------------------------------------------------------------------------------


async def in_a_thread() -> None:
    await asyncio.to_thread(sleep_in_thread)


async def by_an_executor() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sleep_in_thread)


async def two_at_the_same_time() -> None:
    await asyncio.gather(asyncio.to_thread(lambda: None), asyncio.to_thread(sleep_in_thread))


@pytest.mark.parametrize("call", [in_a_thread, by_an_executor, two_at_the_same_time])
async def test_the_clock_waits_for_threads(call: Callable[[], Coroutine[None, None, None]]) -> None:
    """A call in a thread takes no virtual time, however soon a timer is due."""
    start = now()
    async with asyncio.timeout(1e-6):
        await call()
    assert now() == start


async def test_the_clock_waits_for_a_store(tmp_path: Path) -> None:
    """The thread of a `SqliteStore` takes no virtual time, so no time limit passes."""
    async with FakeServices() as fake:
        fake.chat.say("alice", "hello")
        start = now()
        async with asyncio.timeout(1e-6):
            async with fake.session(store=SqliteStore(tmp_path / "store.sqlite")) as session:
                stream = session.peerbet.chat_stream(name="test", after=0)
                assert (await anext(stream)).text == "hello"
                await stream.ack()
        assert now() == start


def test_a_cancelled_call_does_not_stop_the_clock() -> None:
    """After a call in a thread is cancelled, time advances although the thread still runs."""
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        release.wait(30.0)
        ended.set()

    async def main() -> None:
        call = asyncio.ensure_future(asyncio.to_thread(work))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.sleep(60.0)
        assert not ended.is_set()
        release.set()

    run_on_virtual_time(main(), patience=60.0)


def test_the_end_of_a_loop_waits_for_its_threads() -> None:
    """Python's time limit for that does not pass, however long a thread takes."""

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, sleep_in_thread).cancel()

    run_on_virtual_time(main())


def test_a_thread_may_wait_for_the_clock() -> None:
    """After *patience* seconds time advances, because the thread may be waiting for that."""

    async def main() -> float:
        loop = asyncio.get_running_loop()

        def sleep() -> None:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(60.0), loop).result(10.0)

        await asyncio.to_thread(sleep)
        return now()

    assert run_on_virtual_time(main(), patience=0.01) == 60.0


async def test_without_a_timer_there_is_real_waiting() -> None:
    """If only a socket or a thread can wake the loop, it waits for that."""
    called, loop, start = asyncio.Event(), asyncio.get_running_loop(), now()

    def call() -> None:
        sleep_in_thread()
        loop.call_soon_threadsafe(called.set)

    threading.Thread(target=call).start()
    await called.wait()
    assert now() == start


# -- sockets --------------------------------------------------------------------------------------


async def test_packets_arrive_before_time_advances() -> None:
    """Packets between two sockets of the process arrive before the next timer."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(b"x" * 50_000 + b"\n")
        writer.close()

    async with await asyncio.start_server(answer, "localhost", 0) as server:
        port = server.sockets[0].getsockname()[1]
        start = now()
        for _ in range(50):
            async with asyncio.timeout(1e-6):
                reader, writer = await asyncio.open_connection("localhost", port, limit=2**20)
                for _ in range(3):
                    writer.write(b"?\n")
                    assert len(await reader.readline()) == 50_001
            writer.close()
            await writer.wait_closed()
        assert now() == start
