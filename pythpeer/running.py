"""`run`: the whole of a bot's main, with logging, signals and the session."""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Final, Self, TypeAlias, Unpack

from .errors import InvalidRequestError
from .session import Session, SessionOptions
from .version import __version__

__all__ = ["Bot", "run"]

logger: Final = logging.getLogger("pythpeer.run")

Bot: TypeAlias = Callable[[Session], Awaitable[object]]
"""A coroutine function that takes the open session."""

LOG_FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
"""The form of a log line, unless the program has configured logging."""

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
"""The signals that end a bot."""


def run(bot: Bot, /, *, log_level: str | int = "INFO", **options: Unpack[SessionOptions]) -> None:
    """Run a bot: open a session, call *bot* with it, and stop cleanly at Ctrl-C or SIGTERM.

    The first SIGINT or SIGTERM calls `Session.stop`: each ``async for`` over a stream ends after
    the item it has, calls and posts in progress end as usual, and the session is closed. Then `run`
    returns, and the process exits with 0. A second signal cancels *bot*; the session is closed, and
    the process exits with 128 plus the number of the signal (130 for SIGINT, 143 for SIGTERM),
    without a traceback. A third signal kills the process.

    Signals are handled in the main thread only; in another thread `run` does not handle them.

    Args:
        bot: A coroutine function that takes the open session. When it returns, `run` returns. Its
            exceptions are raised by `run`.
        log_level: The level from which log records are printed to stderr, one line for each. Not
            used if the program has configured logging before.
        **options: Options of `Session.from_env`, which reads all others from the environment.

    Raises:
        InvalidRequestError: If *bot* is no coroutine function, an option is not valid, or an event
            loop runs in this thread already; there, use ``async with Session.from_env()``.
        StoreError: If the store cannot be opened.
        SystemExit: After a second signal.
    """
    _check_bot(bot)
    _check_no_loop()
    _configure_logging(log_level)
    session = Session.from_env(**options)
    logger.info("pythpeer %s: %s", __version__, session.describe())
    with _Signals(session) as signals:
        try:
            asyncio.run(_run_bot(bot, session, signals))
            _log_end(signals.stopped_at)
        except asyncio.CancelledError:
            if signals.number is None:
                raise  # the bot was not cancelled by a signal
            raise SystemExit(128 + signals.number) from None


def _check_bot(bot: object) -> None:
    if inspect.iscoroutine(bot):
        bot.close()  # it will not be awaited, and Python would warn about that
        raise InvalidRequestError("run() calls the bot itself: write run(main), not run(main())")
    if not callable(bot):
        raise InvalidRequestError(f"run() needs a coroutine function, not {type(bot).__name__}")


def _check_no_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise InvalidRequestError(
        "run() starts an event loop, but one runs in this thread already; here write "
        "'async with Session.from_env() as session: await main(session)'"
    )


def _configure_logging(level: str | int) -> None:
    """Print log records to stderr, unless the program has configured logging."""
    if isinstance(level, str):
        level = logging.getLevelNamesMapping().get(level.upper(), level)
    if not isinstance(level, int):
        raise InvalidRequestError(f"log_level must be a level such as 'INFO', not {level!r}")
    handlers = (*logging.getLogger().handlers, *logging.getLogger("pythpeer").handlers)
    if all(isinstance(handler, logging.NullHandler) for handler in handlers):
        logging.basicConfig(level=level, format=LOG_FORMAT, stream=sys.stderr)


class _Signals:
    """Handles SIGINT and SIGTERM while a bot runs: stops the session, then cancels the bot.

    The handlers run between two bytecodes of the main thread, also while the event loop starts. So
    they only set attributes and use what is safe in a signal handler.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        """The session that the first signal stops."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the bot, once it runs. Set by `watch`."""
        self._task: asyncio.Task[object] | None = None
        """The task of the bot, once it runs. Set by `watch`."""
        self._previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        """The handlers that were installed before, by signal; empty in other threads."""
        self.stopped_at: float | None = None
        """The monotonic time of the first signal, in seconds; ``None`` before it."""
        self.number: int | None = None
        """The number of the signal that cancelled the bot, ``None`` before a second one."""

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._previous.items():
            if handler is not None:  # None: installed by other means than Python's `signal`
                signal.signal(number, handler)

    def watch(self) -> None:
        """Stop the session of the current task, and cancel the task, from now on."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self.number is not None:
            self._cancel()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.stopped_at is None:
            self.stopped_at = time.monotonic()
            self._session.stop()
            self._call_soon(_log_stop, number)
            return
        self.number = number
        for ending in SIGNALS:
            signal.signal(ending, signal.SIG_DFL)
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._call_soon(self._task.cancel)

    def _call_soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call *callback* in the event loop, which a signal does not wake up by itself."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *args)


def _log_stop(number: int) -> None:
    name = signal.Signals(number).name
    logger.info("%s: streams end after the current item; a second signal cancels the bot", name)


def _log_end(stopped_at: float | None) -> None:
    if stopped_at is None:
        logger.info("the bot has returned, and the session is closed")
    else:
        seconds = time.monotonic() - stopped_at
        logger.info("stopped: the session is closed, %.1f s after the signal", seconds)


async def _run_bot(bot: Bot, session: Session, signals: _Signals) -> None:
    signals.watch()
    async with session:
        if signals.stopped_at is not None:
            session.stop()  # the signal came before the session was open
        result = bot(session)
        if not inspect.isawaitable(result):
            raise InvalidRequestError("run() needs a coroutine function: write 'async def'")
        await result
