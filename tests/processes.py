"""Processes for tests that kill them, and how late the machine makes this one.

Whatever is waited for here is waited for as an event. Limits are for what hangs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import pytest
from helpers import wait_until

FORKER: Final = Path(__file__).with_name("forker.py")

HANG_TIMEOUT: Final = 60.0
"""Seconds after which something that is waited for counts as never happening."""

needs_fork: Final = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


class AppendedLines:
    """The lines of a file to which others append, as far as they are whole; each is read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._rest = b""
        self._lines: list[str] = []

    def __call__(self) -> list[str]:
        """All lines so far."""
        if self._path.exists() and self._path.stat().st_size > self._read:
            with self._path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
            self._read += len(new)
            *whole, self._rest = (self._rest + new).split(b"\n")
            self._lines += [line.decode() for line in whole]
        return self._lines


class Process:
    """A program in a process of its own. ``said`` is what it has printed."""

    def __init__(self, pid: int, said: Path, errors: Path) -> None:
        self.pid = pid
        self.output = AppendedLines(said)
        self._errors = errors

    @property
    def errors(self) -> str:
        return self._errors.read_text(encoding="utf-8")

    @property
    def is_alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    async def wait_ended(self) -> None:
        """Wait for its end."""
        await wait_until(lambda: not self.is_alive, problem="a process does not end")


class Forker:
    """Forks processes in which a module's ``main`` runs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, FORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def fork(self, program: str, *arguments: object, folder: Path, name: str) -> Process:
        """Run *program*, a module beside this one; what it prints is in *folder*, under *name*."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        said, errors = folder / f"{name}.said", folder / f"{name}.errors"
        order = [program, [str(each) for each in arguments], str(said), str(errors)]
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return Process(int(self._process.stdout.readline()), said, errors)

    def close(self) -> None:
        """End, with whatever still runs."""
        os.killpg(self._process.pid, signal.SIGKILL)
        with self._process:
            pass


@pytest.fixture(scope="session")
def forker() -> Iterator[Forker]:
    """One for all tests of a run: to import what programs need takes long."""
    forker = Forker()
    yield forker
    forker.close()


class Delays:
    """How late this machine makes those who wait, which is measured while ``async with`` lasts.

    Where other processes have to be done within some time, they are late as well.
    """

    STEP: Final = 0.01
    WAKES: Final = 20
    """In how many places, one after the other, what is judged may have been late."""

    def __init__(self) -> None:
        self.worst: float = 0.0
        self._total = 0.0
        self._count = 0

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
        return self._total / max(1, self._count)

    def allowed(self, seconds: float) -> float:
        """How long something may take here that takes *seconds* on a machine of its own."""
        return seconds + self.WAKES * self.worst
