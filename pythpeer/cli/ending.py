"""How a command ends: exit codes, errors as one line, signals, and pipes that nobody reads.

Must not import cyclopts or rich: it is what says that they are missing.
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
from . import signals
from .plain import sanitize
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
"""What makes the event loop of a command; ``None`` is asyncio's own choice."""


def print_error(text: str) -> None:
    """Say something on stderr, as one line."""
    with contextlib.suppress(OSError, ValueError):  # nobody listens there either
        print(f"pythpeer: {' '.join(sanitize(text).split())}", file=sys.stderr, flush=True)


def report_error(error: BaseException) -> int:
    """Say what went wrong, and return the exit code for it."""
    match error:
        case Interrupted():
            if sys.stderr.isatty():
                print(file=sys.stderr)  # behind the ^C that the terminal shows
            return SIGNAL_EXIT_BASE + error.number
        case PythpeerError():
            print_error("; ".join([str(error), *getattr(error, "__notes__", [])]))
            if isinstance(error, InvalidRequestError):
                return USAGE
            return UNKNOWN if isinstance(error, OutcomeUnknownError) else FAILED
        case BrokenPipeError():
            _silence_stdout()
            return 0  # whoever closed the pipe has all they wanted
        case OSError():
            _silence_stdout()
            print_error(error.strerror or type(error).__name__)
            return FAILED
        case _:
            if sys.flags.dev_mode:
                raise error
            print_error(f"unexpected {type(error).__name__}: {error} (python -X dev shows where)")
            return FAILED


def _silence_stdout() -> None:
    """Let the rest of the output go nowhere: Python would try, and complain, once more at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


# -- before and after -----------------------------------------------------------------------------


class _StderrHandler(logging.Handler):
    """Shows what the library logs like errors; what others do is for developers."""

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "before") and sys.stdout.isatty():
            return  # the rows on the same terminal say so, in its place among them
        if record.name.startswith("pythpeer") or sys.flags.dev_mode:
            print_error(record.getMessage())


_handler: Final = _StderrHandler()
_package_logger: Final = logging.getLogger("pythpeer")


def setup() -> None:
    """Mind streams and logs, before anything else is done. Signals are minded already."""
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
    """There is an exit code: let no signal spoil it, and no log record come after it."""
    SIGNALS.ignore = True
    logging.getLogger().removeHandler(_handler)
    _package_logger.setLevel(logging.NOTSET)


# -- while a command runs -------------------------------------------------------------------------


class _Runner:
    """What runs at the moment, and how it is stopped."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.pipe_closed = False
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

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
        if SIGNALS.number:  # it came while there was no loop yet
            raise asyncio.CancelledError
        return await command

    def _stop_soon(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the command is over
                self._loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Cancel the command, once, and say so if its end takes a while."""
        if self._loop is not None and self._task is not None and not self._stopped:
            self._stopped = True
            self._task.cancel()
            self._loop.call_later(
                signals.NOTICE_AFTER,
                print_error,
                "waiting for the answer to a request; Ctrl-C leaves at once",
            )

    def on_pipe_closed(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
        loop.remove_reader(descriptor)
        self.pipe_closed = True
        self.stop()


_command: Final = _Runner()


def run(command: Coroutine[Any, Any, T]) -> T:
    """Run *command* in an event loop of its own. Raises `Interrupted` where a signal ended it."""
    _command.reset()
    return _command.run(command)


@contextlib.contextmanager
def stop_when_pipe_closes() -> Generator[None]:
    """End the running command when nobody reads its output any more, although it is silent.

    Writing would tell, but the next row may be hours away.
    """
    loop, descriptor = asyncio.get_running_loop(), -1
    with contextlib.suppress(OSError, ValueError, NotImplementedError):
        output = sys.stdout.fileno()
        if stat.S_ISFIFO(os.fstat(output).st_mode):
            # The end that is written to becomes readable only when the other one is closed.
            loop.add_reader(output, _command.on_pipe_closed, loop, output)
            descriptor = output
    try:
        yield
    finally:
        if descriptor >= 0:
            loop.remove_reader(descriptor)
