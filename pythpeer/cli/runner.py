"""Runs a command in an event loop, and stops it on a signal or when its pipe is closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar

from . import signals
from .runtime import print_error
from .signals import SIGNALS, Interrupted

__all__ = ["log_to_stderr", "run", "stop_when_pipe_closes"]

T = TypeVar("T")

LOOP_FACTORY: Callable[[], asyncio.AbstractEventLoop] | None = None
"""Makes the event loop of a command; ``None`` is asyncio's default."""


class _StderrHandler(logging.Handler):
    """Prints log records of this package as errors, and those of others in development mode."""

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "before") and sys.stdout.isatty():
            return  # a row on the same terminal shows it
        if hasattr(record, "attempts"):
            return  # the first poll succeeded, as the rows show
        if record.name.startswith("pythpeer") or sys.flags.dev_mode:
            print_error(record.getMessage())


@contextlib.contextmanager
def log_to_stderr() -> Generator[None]:
    """Print the log records of a command while the context lasts."""
    handler, package_logger = _StderrHandler(), logging.getLogger("pythpeer")
    logging.getLogger().addHandler(handler)
    package_logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        package_logger.setLevel(logging.NOTSET)


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
