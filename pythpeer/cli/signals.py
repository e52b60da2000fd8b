"""SIGINT and SIGTERM, minded from the first moment on.

Importing takes time, and Ctrl-C in the midst of it would end in a traceback. So this comes before
all other imports, and must not import what takes time itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False  # as type checkers take it; `typing` would take time

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["NOTICE_AFTER", "SIGNALS", "SIGNAL_EXIT_BASE", "Interrupted", "install"]

SIGNAL_EXIT_BASE = 128
"""What shells add to a signal's number: 130 for Ctrl-C, 143 for SIGTERM."""

DEBOUNCE = 0.5
"""Seconds within which a second signal is taken for the first: wrappers pass on what the terminal
sent to everybody already."""

NOTICE_AFTER = 1.0
"""Seconds after which it is said that a command that is to end has not ended yet."""

SHOW_CURSOR = b"\x1b[?25h"


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came; ``number`` is which."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Signals:
    """The handler of SIGINT and SIGTERM.

    The first ends the command in good order, another one ends the process at once. Nothing is ever
    raised from here: within an import or a callback that would be lost, or do damage.

    ``number`` is that of the first one, 0 before it. Once something runs that can be stopped, its
    way to be is in ``stop``. When it is ``over``, signals change nothing any more.
    """

    def __init__(self) -> None:
        self.ignore: bool = False
        self.number: int = 0
        self.on_signal: Callable[[], None] | None = None
        self._since = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.ignore:
            return
        now = time.monotonic()
        if self.number:
            if now - self._since > DEBOUNCE:
                _exit_now(number)
            return
        self.number, self._since = number, now
        if self.on_signal is not None:
            self.on_signal()


SIGNALS = Signals()


def install() -> None:
    """Have both signals come here from now on, as if none ever had."""
    Signals.__init__(SIGNALS)
    try:
        signal.signal(signal.SIGINT, SIGNALS)
        signal.signal(signal.SIGTERM, SIGNALS)
    except ValueError:  # not the main thread: signals are another's business
        return


def _exit_now(number: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream.isatty():
                os.write(stream.fileno(), SHOW_CURSOR)
        except (OSError, ValueError):  # it is closed
            continue
    os._exit(SIGNAL_EXIT_BASE + number)
