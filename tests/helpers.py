"""Helpers of many test modules: loops, waiting, items of streams, numbers of examples."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import os
import random
import re
import socket
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, ParamSpec, Protocol, TypeVar, Unpack
from unittest.mock import patch

import pytest

import pythpeer
from pythpeer import Rate, Retry, Session, SessionOptions
from pythpeer.deprecation import REMOVED_IN
from pythpeer.running import Bot
from pythpeer.testing import DEFAULT_RATES, VirtualTimeLoop

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")

ROOT: Final = Path(__file__).parent.parent
"""The folder of the project."""

# -- number of examples ---------------------------------------------------------------------------

DEEP: Final = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
"""Whether ``nox -s tests-deep`` runs the tests: each property then takes many examples."""


def examples(count: int) -> int:
    """The number of examples of a property: a quarter of *count*, or ten times *count* if `DEEP`.

    The quarter is at least ten, because the first examples are the simplest ones.
    """
    return 10 * count if DEEP else max(10, count // 4)


# -- settings -------------------------------------------------------------------------------------

UNLIMITED: Final = MappingProxyType(dict.fromkeys(DEFAULT_RATES, Rate(0.0)))
"""No rate limit for any endpoint, for tests that are not about pacing."""

SHORT_BACKOFF: Final = Retry(max_delay=2.0)
"""A retry policy with short back-offs."""

# -- event loops ----------------------------------------------------------------------------------

Backend = tuple[str, dict[str, object]]
"""The type of the fixture ``anyio_backend`` of anyio's plugin."""

VIRTUAL: Final[Backend] = ("asyncio", {"loop_factory": VirtualTimeLoop})
"""The backend of each test that does not specify another one."""

REAL: Final[Backend] = ("asyncio", {"loop_factory": asyncio.SelectorEventLoop})
"""The backend of each test that is marked `real_time`."""

real_time = pytest.mark.real_time
"""Marks a test that waits for another process or a thread, which run on real time."""


def run_on_virtual_time(main: Coroutine[Any, Any, T], **options: float) -> T:
    """Run *main* in a new `VirtualTimeLoop` with these *options*, and return its result."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(**options)) as runner:
        return runner.run(main)


# -- waiting --------------------------------------------------------------------------------------


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


async def run_loop_turns(count: int = 20) -> None:
    """Run *count* iterations of the loop, so that all tasks that are ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def wait_for_io(seconds: float = 1.0) -> None:
    """Sleep, so that all data that was sent arrives; real sockets need no virtual time."""
    await asyncio.sleep(seconds)


def schedule(
    delay: float, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
) -> asyncio.TimerHandle:
    """Call *function* with these arguments after *delay* seconds of the loop's time."""
    return asyncio.get_running_loop().call_later(delay, lambda: function(*args, **kwargs))


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


async def run_together(cases: Mapping[str, Coroutine[Any, Any, object]]) -> None:
    """Run independent cases at the same time, because each of them waits most of its time.

    A failure cancels the others, and has the name of its case as a note.
    """

    async def run_case(name: str, case: Coroutine[Any, Any, object]) -> None:
        try:
            await case
        except BaseException as error:
            error.add_note(f"case: {name}")
            raise

    async with asyncio.TaskGroup() as group:
        for name, case in cases.items():
            group.create_task(run_case(name, case))


# -- items of streams -----------------------------------------------------------------------------


class Items(Protocol[T_co]):
    """A stream, or a merged one."""

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
    """Fail if an item arrives within this many seconds."""
    with pytest.raises(TimeoutError):
        await take(stream, 1, within)


@asynccontextmanager
async def running(
    *work: Coroutine[object, object, object],
) -> AsyncIterator[list[asyncio.Task[object]]]:
    """Run *work* in separate tasks, and leave no task behind."""
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# -- old names ------------------------------------------------------------------------------------


def warns_renamed(old: str, new: str) -> pytest.WarningsRecorder:
    """Expect the warning that *old* is *new* now, with its whole text."""
    text = f"{old} is now {new}; the old name will be removed in version {REMOVED_IN}"
    return pytest.warns(DeprecationWarning, match=f"^{re.escape(text)}$")


# -- logging and memory ---------------------------------------------------------------------------

FIRST_POLL: Final = "the first poll succeeded"
"""The end of the INFO line for the first successful poll of a session."""


def logged_levels(caplog: pytest.LogCaptureFixture) -> list[int]:
    """The levels of the log records from INFO on, without asyncio's and that of the first poll."""
    return [
        record.levelno
        for record in caplog.records
        if record.name != "asyncio"
        and record.levelno >= logging.INFO
        and not record.getMessage().endswith(FIRST_POLL)
    ]


def logged_skips(caplog: pytest.LogCaptureFixture) -> int:
    """How many items the WARNINGs state that were skipped, which are all that was logged."""
    levels = logged_levels(caplog)
    skips = [record for record in caplog.records if " skipped " in record.getMessage()]
    assert levels == [logging.WARNING] * len(skips)
    return sum(vars(record)["count"] for record in skips)


def freeze_collector() -> None:
    """Exclude all objects that exist now from the garbage collections of the rest of the run.

    They are not included again, because a collection of all objects of a run takes a tenth of a
    second.
    """
    gc.collect()
    gc.freeze()


# -- programs of the documentation ----------------------------------------------------------------


INCLUDE: Final = re.compile(r"^--8<--\n(.+)\n--8<--\n", re.MULTILINE)
"""The lines of a page that include a file of the project."""


def with_examples(page: str) -> str:
    """Return the text of a page with the files that it includes."""
    return INCLUDE.sub(lambda include: (ROOT / include[1]).read_text(encoding="utf-8"), page)


CLEAR_SCREEN: Final = "mallory\x1b[2J"
"""What a user may send, and a terminal would execute."""


def coroutine_of(program: str) -> Coroutine[Any, Any, object]:
    """Execute *program*, and return what it passes to `asyncio.run`, or its bot for `run`."""
    coroutines: list[Coroutine[Any, Any, object]] = []

    def run(bot: Bot, /, **options: Unpack[SessionOptions]) -> None:
        coroutines.append(run_bot(bot, options))

    with patch.object(asyncio, "run", coroutines.append), patch.object(pythpeer, "run", run):
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
    [coroutine] = coroutines
    return coroutine


async def run_bot(bot: Bot, options: SessionOptions) -> None:
    """Call *bot* with a session, as `run` does."""
    async with Session.from_env(**options) as session:
        await bot(session)


def memory_folder() -> str | None:
    """Return a folder in memory, if there is one: stores sync their files often."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def free_port() -> int:
    """Return a free loopback port that the kernel assigns to no socket, so that it stays free.

    A cluster of Redis uses another port, which is greater by 10,000.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 22_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


class ReusablePort:
    """A loopback port on which a server can listen again and again.

    Between two servers a socket is bound to it. Otherwise the kernel could assign it to any
    connection of this machine.
    """

    def __init__(self) -> None:
        self.number = 0
        """The port; 0 before the first `listener`."""
        self._reserved: socket.socket | None = None

    def listener(self) -> socket.socket:
        """Return a socket that is bound to the port. The server that listens with it closes it."""
        listener, self._reserved = self._reserved or self._bind(), None
        self.number = listener.getsockname()[1]
        return listener

    def reserve(self) -> None:
        """Keep the port; the server must have closed its socket."""
        if self._reserved is None:
            self._reserved = self._bind()
            weakref.finalize(self, self._reserved.close)

    def _bind(self) -> socket.socket:
        bound = socket.socket(proto=socket.IPPROTO_TCP)  # otherwise asyncio sets no TCP_NODELAY
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", self.number))
        return bound
