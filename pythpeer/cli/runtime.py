"""How a command begins and ends: its streams, exit codes, and errors of one line.

Must not import cyclopts or rich, because it reports that they are missing, nor at its top a module
that takes time, because the help and the version are printed without one.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys

from .signals import SIGNAL_EXIT_BASE, SIGNALS, Interrupted

TYPE_CHECKING = False  # known to type checkers; importing `typing` takes time

if TYPE_CHECKING:
    from ..errors import PythpeerError

__all__ = [
    "FAILED",
    "USAGE",
    "Interrupted",
    "print_error",
    "report_error",
    "setup",
    "teardown",
]

FAILED = 1
USAGE = 2
UNKNOWN = 3

COMMANDS = {
    "peerbet.chat.get": "chat",
    "peerbet.chat.set": "chat post",
    "peerbet.dice.roll": "dice roll",
    "pythbots.crank": "staff",
    "pythbots.cstats": "stats",
    "pythbots.mail": "mail",
    "pythbots.userinfo": "user",
}
"""The command whose requests an endpoint receives, by the endpoint's name."""


def print_error(text: str) -> None:
    """Print a text on stderr, as one line, which is broken between words on a terminal."""
    from ..sanitize import sanitize

    line = f"pythpeer: {' '.join(sanitize(text).split())}"
    with contextlib.suppress(OSError, ValueError):  # stderr is closed
        print(_wrapped(line) if sys.stderr.isatty() else line, file=sys.stderr, flush=True)


def _text_of(error: PythpeerError) -> str:
    """Return the text of an error, with the command in place of the endpoint's name."""
    command = COMMANDS.get(error.endpoint or "")
    return str(error) if command is None else f"{command}: {error.args[0]}"


def _wrapped(line: str) -> str:
    import shutil
    import textwrap

    columns = shutil.get_terminal_size().columns
    return textwrap.fill(line, columns, break_long_words=False, break_on_hyphens=False)


def report_error(error: BaseException) -> int:
    """Print an error, and return its exit code."""
    from ..errors import InvalidRequestError, OutcomeUnknownError, PythpeerError

    match error:
        case Interrupted():
            if sys.stderr.isatty():
                print(file=sys.stderr)  # after the ^C of the terminal
            return SIGNAL_EXIT_BASE + error.number
        case PythpeerError():
            print_error("; ".join([_text_of(error), *getattr(error, "__notes__", [])]))
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


def setup() -> None:
    """Set up stdout and stderr, before anything else; signal handlers are installed."""
    if sys.stdout is None:  # closed by the shell
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def teardown() -> None:
    """Ignore signals, because the exit code is decided."""
    SIGNALS.ignore = True
