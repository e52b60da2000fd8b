"""Runs the command ``pythpeer`` for tests: in this process, as a process, on a terminal."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple, TypeVar

import pytest
from fork_server import HANG_TIMEOUT, ForkedProcess, ForkServer
from helpers import UNLIMITED
from patient import make_patient, set_rates

from pythpeer.cli import main, overview, runner
from pythpeer.testing import FakeServices, VirtualTimeLoop

T = TypeVar("T")

PEERBET_KEY = "canary-of-peerbet"
PERSONAL_KEY = "canary-of-pythbots"
CHAT = "220531305"
IMPORTED = (
    *("pythpeer.cli.app", "pythpeer.testing.server", "pythpeer.testing.scenes", "aiohttp.web"),
    *("anyio._backends._asyncio", "difflib", "rich.panel", "patient"),
    *(f"pythpeer.cli.{target.partition(':')[0]}" for target, _ in overview.COMMANDS.values()),
)
"""What commands import, some of it late."""

COMMAND: Final[dict[str, Any]] = {
    "module": "pythpeer",
    "warnings_are_errors": True,
    "patient": True,
}
"""How the fork server runs a command."""


needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and pipes")


class Result(NamedTuple):
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the output as NDJSON: every line of it."""
        assert self.out == "" or self.out.endswith("\n")
        return [json.loads(line) for line in self.out.splitlines()]


@contextlib.contextmanager
def threaded(service: AbstractAsyncContextManager[T]) -> Generator[T]:
    """Run *service* in a thread with a separate loop."""
    started, over = threading.Event(), asyncio.Event()
    box: list[tuple[T, asyncio.AbstractEventLoop]] = []

    async def serve() -> None:
        async with service as running:
            box.append((running, asyncio.get_running_loop()))
            started.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(HANG_TIMEOUT)
    running, loop = box[0]
    try:
        yield running
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


@pytest.fixture
def threaded_fake() -> Iterator[FakeServices]:
    """The fake services, with canaries as keys."""
    with threaded(FakeServices(peerbet_key=PEERBET_KEY, personal_key=PERSONAL_KEY)) as running:
        yield running


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the developer's settings: keys, colours, terminal; 80 columns."""
    for name in list(os.environ):
        if name.startswith(("PYTHPEER_", "FORCE_COLOR", "NO_COLOR", "TTY_", "COLUMNS", "LINES")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


@pytest.fixture
def configured(
    threaded_fake: FakeServices, environment: None, monkeypatch: pytest.MonkeyPatch
) -> FakeServices:
    """The fake services, with an environment that has their URLs and keys."""
    fake = threaded_fake
    monkeypatch.setenv("PYTHPEER_PEERBET_URL", fake.peerbet_url)
    monkeypatch.setenv("PYTHPEER_PYTHBOTS_URL", fake.pythbots_url)
    monkeypatch.setenv("PYTHPEER_PEERBET_KEY", PEERBET_KEY)
    monkeypatch.setenv("PYTHPEER_PERSONAL_KEY", PERSONAL_KEY)
    make_patient(monkeypatch.setattr)
    return fake


@pytest.fixture
def unlimited(configured: FakeServices, monkeypatch: pytest.MonkeyPatch) -> FakeServices:
    """Fake services as `configured`, for tests that are not about pacing: requests do not wait."""
    set_rates(UNLIMITED, monkeypatch.setattr)
    return configured


Run = Callable[..., Result]


@pytest.fixture
def run(environment: None, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command in this process, and check that its output contains no key."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]

    def run_here(*arguments: str) -> Result:
        code = main(arguments)
        out, err = capfd.readouterr()
        assert "canary" not in out + err
        assert "Traceback" not in err
        return Result(code, out, err)

    yield run_here
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """The server that forks commands, so that their imports happen once."""
    with ForkServer(*IMPORTED) as server:
        yield server


class Process(ForkedProcess):
    """A command as a process, with what is found out about every one of them.

    Warnings are errors in it. Options are those of `Forked`.
    """

    def __init__(self, server: ForkServer, *arguments: str, **options: Any) -> None:
        super().__init__(server, *arguments, **COMMAND | options)

    def finish(self, out: str = "") -> Result:
        """Wait for the end; *out* is the output that was read before."""
        rest, err = self.communicate()
        out += rest
        assert "canary" not in out + err
        assert "Traceback" not in err
        assert "ignored" not in err
        assert self.returncode is not None
        return Result(self.returncode, out, err)


Spawn = Callable[..., Process]


@pytest.fixture
def spawn(environment: None, fork_server: ForkServer) -> Iterator[Spawn]:
    """Start commands as processes, and stop them at the end."""
    with contextlib.ExitStack() as started:

        def start(*arguments: str, **options: Any) -> Process:
            process = Process(fork_server, *arguments, **options)
            started.callback(process.close)
            return process

        yield start


class Terminal:
    """A command as a process with a separate terminal, of a given number of columns."""

    def __init__(
        self,
        server: ForkServer,
        *arguments: str,
        columns: int = 80,
        lines: int = 24,
        **options: Any,
    ) -> None:
        import fcntl
        import termios

        self.fd, own = os.openpty()
        fcntl.ioctl(own, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        whole: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), own) | options
        self.process = Process(server, *arguments, terminal=own, **whole)
        os.close(own)
        os.set_blocking(self.fd, False)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.shown = ""
        """Everything that the terminal was sent so far."""

    def type(self, keys: str) -> None:
        """Type *keys*."""
        os.write(self.fd, keys.encode())

    def read_until(self, text: str) -> None:
        """Wait until *text* is on the screen."""
        wait_for(lambda: text in unstyled(self._read()))

    def finish(self) -> int:
        """Wait for the end and return the exit code. There is never a traceback or a key."""
        wait_for(lambda: [self._read()] and self.process.poll() is not None)
        self._read()
        assert "canary" not in self.shown
        assert "Traceback" not in self.shown
        assert self.process.returncode is not None
        return self.process.returncode

    def close(self) -> None:
        """Close the terminal, and end the process if necessary."""
        self.process.close()
        os.close(self.fd)

    def _read(self) -> str:
        with contextlib.suppress(BlockingIOError, OSError):  # an error is the end
            while piece := os.read(self.fd, 1 << 16):
                self.shown += self._decoder.decode(piece)
        return self.shown


OnTerminal = Callable[..., Terminal]


@pytest.fixture
def on_terminal(environment: None, fork_server: ForkServer) -> Iterator[OnTerminal]:
    """Start commands on terminals, and stop them at the end."""
    with contextlib.ExitStack() as started:

        def start(*arguments: str, **options: Any) -> Terminal:
            terminal = Terminal(fork_server, *arguments, **options)
            started.callback(terminal.close)
            return terminal

        yield start


@pytest.fixture
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process run on virtual time; they must not use other processes."""
    monkeypatch.setattr(runner, "LOOP_FACTORY", VirtualTimeLoop)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make this process's output a terminal of so many columns."""

    def make(columns: int) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))

    return make


def cells(line: str) -> int:
    """Return how many columns a line takes on a terminal."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def unstyled(text: str) -> str:
    """Return text without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def one_line(text: str) -> bool:
    """Return whether it is one line of an error, as users are to read it."""
    return re.fullmatch(r"pythpeer: [^\n]+\n", text) is not None


def run_python(source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a program that uses the command line."""
    command = [sys.executable, *options, "-c", source]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until an event has happened in another thread."""
    pause, end = threading.Event(), time.monotonic() + HANG_TIMEOUT
    while not condition():
        assert time.monotonic() < end, "it never happened"
        pause.wait(0.01)
