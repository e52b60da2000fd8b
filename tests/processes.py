"""Processes for tests that kill them, and a measure of how late this machine runs them.

Tests wait for events in these processes. A time limit only counts if the event never comes.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import pytest
from fork_server import HANG_TIMEOUT, ForkedProcess, ForkServer
from helpers import wait_until

PROGRAMS: Final = ("proc_reader", "proc_worker", "proc_redis_worker")
"""The programs, which are modules in this folder; the server imports what they import."""

needs_fork: Final = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


class AppendedLines:
    """The complete lines of a file to which other processes append; each is read once.

    The file need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        """Bytes of the file that were read."""
        self._rest = b""
        """The bytes before `_offset` that are not a complete line yet."""
        self._lines: list[str] = []
        """All complete lines before `_offset`."""

    def __call__(self) -> list[str]:
        """Return all complete lines so far."""
        if self._path.exists() and self._path.stat().st_size > self._offset:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
            self._offset += len(new)
            *complete, self._rest = (self._rest + new).split(b"\n")
            self._lines += [line.decode() for line in complete]
        return self._lines


class Process(ForkedProcess):
    """A process that runs *program*, one of `PROGRAMS`.

    What it prints is appended to two files in *folder* whose names begin with *name*. A test must
    `kill` it or wait for its end.
    """

    def __init__(
        self, server: ForkServer, program: str, *arguments: object, folder: Path, name: str
    ) -> None:
        output, self._errors = folder / f"{name}.stdout", folder / f"{name}.stderr"
        with output.open("ab") as stdout, self._errors.open("ab") as stderr:
            super().__init__(
                server,
                *map(str, arguments),
                program=str(Path(__file__).with_name(f"{program}.py")),
                stdout=stdout.fileno(),
                stderr=stderr.fileno(),
            )
        self.output = AppendedLines(output)
        """Returns the lines that it has printed."""

    @property
    def errors(self) -> str:
        """What it has printed on stderr."""
        return self._errors.read_text(encoding="utf-8")

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.poll() is None

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    async def wait_ended(self) -> None:
        """Wait for its end."""
        await wait_until(
            lambda: not self.is_alive, within=HANG_TIMEOUT, problem="a process does not end"
        )


@pytest.fixture(scope="session")
def process_server() -> Iterator[ForkServer]:
    """The server that forks the programs; all tests of a run share it, to import once only."""
    with ForkServer(*PROGRAMS) as server:
        yield server


class Delays:
    """Measures how late the event loop runs its timers while ``async with`` lasts.

    Other processes on this machine, which a test requires to act within some time, are as late.
    """

    STEP: Final = 0.01
    """Seconds between two measurements."""

    WAKES: Final = 20
    """Upper limit of the wake-ups, one after the other, in what a test measures."""

    def __init__(self) -> None:
        self.worst: float = 0.0
        """The longest delay in seconds."""
        self._total = 0.0
        """The sum of all delays in seconds."""
        self._count = 0
        """How many delays were measured."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.ensure_future(self._measure())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self.STEP
            await asyncio.sleep(self.STEP)
            late = loop.time() - due
            self.worst = max(self.worst, late)
            self._total += late
            self._count += 1

    @property
    def mean(self) -> float:
        """The mean delay in seconds, 0 before the first."""
        return self._total / max(1, self._count)

    def allowed(self, seconds: float) -> float:
        """The limit here for what takes at most *seconds* on a machine without other load."""
        return seconds + self.WAKES * self.worst
