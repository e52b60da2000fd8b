"""How a command ends: exit codes, errors of one line, signals, and pipes whose reader is gone.

Must not import cyclopts or rich, because it reports that they are missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import stat
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar

from ..errors import InvalidRequestError, OutcomeUnknownError, PythpeerError
from ..sanitize import sanitize
from . import signals
from .signals import SIGNAL_EXIT_BASE, SIGNALS, Interrupted

__all__ = [
    "FAILED",
    "USAGE",
    "Interrupted",
    "print_error",
    "report_error",
    "run",
    "setup",
    "stop_when_pipe_closes",
    "teardown",
]

T = TypeVar("T")

FAILED: Final = 1
USAGE: Final = 2
UNKNOWN: Final = 3

LOOP_FACTORY: Callable[[], asyncio.AbstractEventLoop] | None = None
"""Makes the event loop of a command; ``None`` is asyncio's default."""


def print_error(text: str) -> None:
    """Print a text on stderr, as one line."""
    with contextlib.suppress(OSError, ValueError):  # stderr is closed
        print(f"pythpeer: {' '.join(sanitize(text).split())}", file=sys.stderr, flush=True)


def report_error(error: BaseException) -> int:
    """Print an error, and return its exit code."""
    match error:
        case Interrupted():
            if sys.stderr.isatty():
                print(file=sys.stderr)  # after the ^C of the terminal
            return SIGNAL_EXIT_BASE + error.number
        case PythpeerError():
            print_error("; ".join([str(error), *getattr(error, "__notes__", [])]))
            if isinstance(error, InvalidRequestError):
                return USAGE
            return UNKNOWN if isinstance(error, OutcomeUnknownError) else FAILED
        case BrokenPipeError():
            _silence_stdout()
            return 0  # the reader of the pipe needs no more
        case OSError():
            _silence_stdout()
            print_error(error.strerror or type(error).__name__)
            return FAILED
        case _:
            if sys.flags.dev_mode:
                raise error
            print_error(f"unexpected {type(error).__name__}: {error} (see python -X dev)")
            return FAILED


def _silence_stdout() -> None:
    """Discard the rest of the output, because Python would try to flush it at exit, and fail."""
    with contextlib.suppress(OSError, ValueError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)


# -- before and after -----------------------------------------------------------------------------


class _StderrHandler(logging.Handler):
    """Prints log records of this package as errors, and those of others in development mode."""

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "before") and sys.stdout.isatty():
            return  # a row on the same terminal shows it
        if record.name.startswith("pythpeer") or sys.flags.dev_mode:
            print_error(record.getMessage())


_handler: Final = _StderrHandler()
_package_logger: Final = logging.getLogger("pythpeer")


def setup() -> None:
    """Set up stdout, stderr and logging, before anything else; signal handlers are installed."""
    if sys.stdout is None:  # closed by the shell
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    logging.getLogger().addHandler(_handler)
    _package_logger.setLevel(logging.INFO)


def teardown() -> None:
    """Ignore signals and log records, because the exit code is decided."""
    SIGNALS.ignore = True
    logging.getLogger().removeHandler(_handler)
    _package_logger.setLevel(logging.NOTSET)


# -- while a command runs -------------------------------------------------------------------------


class _Runner:
    """Runs one command at a time, and stops it on a signal or when its pipe is closed.

    `reset` must be called before each `run`.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.pipe_closed = False
        """Whether the reader of stdout closed it; `on_pipe_closed` sets it."""
        self._stopped = False
        """Whether the command was cancelled, which happens once only."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the command, once it runs."""
        self._task: asyncio.Task[Any] | None = None
        """The task of the command, once it runs."""

    def run(self, command: Coroutine[Any, Any, T]) -> T:
        try:
            with asyncio.Runner(loop_factory=LOOP_FACTORY) as runner:
                return runner.run(self._run_cancellable(command))
        except asyncio.CancelledError:
            if self.pipe_closed and not SIGNALS.number:
                raise BrokenPipeError from None
            raise
        finally:
            SIGNALS.on_signal = None
            command.close()  # it may never have been started
            if SIGNALS.number:
                raise Interrupted(SIGNALS.number) from None

    async def _run_cancellable(self, command: Coroutine[Any, Any, T]) -> T:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        SIGNALS.on_signal = self._stop_soon
        if SIGNALS.number:  # a signal was received before there was a loop
            raise asyncio.CancelledError
        return await command

    def _stop_soon(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the command has ended
                self._loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Cancel the command, once, and print a notice if it does not end soon."""
        if self._loop is not None and self._task is not None and not self._stopped:
            self._stopped = True
            self._task.cancel()
            self._loop.call_later(
                signals.NOTICE_AFTER,
                print_error,
                "waiting for the response to a request; Ctrl-C exits immediately",
            )

    def on_pipe_closed(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
        loop.remove_reader(descriptor)
        self.pipe_closed = True
        self.stop()


_command: Final = _Runner()


def run(command: Coroutine[Any, Any, T]) -> T:
    """Run *command* in a new event loop. Raises `Interrupted` if a signal ended it."""
    _command.reset()
    return _command.run(command)


@contextlib.contextmanager
def stop_when_pipe_closes() -> Generator[None]:
    """Cancel the running command when the reader of its output closes the pipe.

    Writing would detect that as well, but the next row may be hours away.
    """
    loop, descriptor = asyncio.get_running_loop(), -1
    with contextlib.suppress(OSError, ValueError, NotImplementedError):
        output = sys.stdout.fileno()
        if stat.S_ISFIFO(os.fstat(output).st_mode):
            # The writing end of a pipe becomes readable only when the reading end is closed.
            loop.add_reader(output, _command.on_pipe_closed, loop, output)
            descriptor = output
    try:
        yield
    finally:
        if descriptor >= 0:
            loop.remove_reader(descriptor)
