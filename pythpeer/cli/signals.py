"""The handler of SIGINT and SIGTERM, installed before everything else.

Importing takes time, and Ctrl-C during an import would end in a traceback. So this module is
imported first, and must not import modules that take time themselves.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False  # known to type checkers; importing `typing` takes time

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["NOTICE_AFTER", "SIGNALS", "SIGNAL_EXIT_BASE", "Interrupted", "install"]

SIGNAL_EXIT_BASE = 128
"""What shells add to a signal's number: 130 for Ctrl-C, 143 for SIGTERM."""

DEBOUNCE = 0.5
"""Seconds within which a second signal is ignored, because wrappers forward a signal that the
terminal sent to all processes already."""

NOTICE_AFTER = 1.0
"""Seconds after which a notice is printed if a command that was stopped has not ended."""

SHOW_CURSOR = b"\x1b[?25h"
"""The escape sequence that makes the cursor visible again."""


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM was received; ``number`` is which."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        """The number of the signal."""


class Signals:
    """The handler of SIGINT and SIGTERM.

    The first signal ends the command in good order, a second one ends the process immediately. The
    handler never raises: in an import or a callback, an exception would be lost or do damage.
    """

    def __init__(self) -> None:
        self.ignore: bool = False
        """Whether signals have no effect any more, because the exit code is decided."""
        self.number: int = 0
        """The number of the first signal, 0 before it."""
        self.on_signal: Callable[[], None] | None = None
        """Called with the first signal: stops the command while one runs."""
        self._since = 0.0
        """When the first signal was received, in seconds of `time.monotonic`."""

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
    """Install the handler of both signals, in its initial state."""
    Signals.__init__(SIGNALS)
    try:
        signal.signal(signal.SIGINT, SIGNALS)
        signal.signal(signal.SIGTERM, SIGNALS)
    except ValueError:  # not the main thread, which alone can handle signals
        return


def _exit_now(number: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream.isatty():
                os.write(stream.fileno(), SHOW_CURSOR)
        except (OSError, ValueError):  # it is closed
            continue
    os._exit(SIGNAL_EXIT_BASE + number)
