"""The commands of the command line, and the selection of one of them.

Each command has a module of its own, which is imported on first use, and a line in `overview`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from cyclopts import App, CycloptsError, UnknownCommandError, UnusedCliTokensError

from .. import InvalidRequestError
from . import VERSION, runner
from .output.console import make_console
from .overview import COMMANDS, HELP

__all__ = ["app", "run", "without_values"]

MIN_KEY: Final = 4
"""Characters of an argument from which it is not shown, because it may be a key."""

app: Final = App(name="pythpeer", help=HELP, help_format="plaintext", version=VERSION)
for _name, _command in COMMANDS.items():
    app.command(f"{__package__}.{_command[0]}", name=_name)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code. Raises the error that it fails with."""
    try:
        command, bound, _ = app.parse_args(
            arguments, console=make_console(), print_error=False, exit_on_error=False
        )
    except UnusedCliTokensError:
        reason = "there are too many arguments: a text with blanks must be in quotes"
    except CycloptsError as error:
        converted = (getattr(error, "value", ""), getattr(error.argument, "value", ""))
        reason = without_values(_message(error), [*arguments, *map(str, converted)])
    else:
        with runner.log_to_stderr():
            result = command(*bound.args, **bound.kwargs)
            code = runner.run(result) if inspect.iscoroutine(result) else result
        return code if isinstance(code, int) else 0
    raise InvalidRequestError(f"{reason} (see --help)")


def _message(error: CycloptsError) -> str:
    """Return the message of an error, with all commands where cyclopts lists only the first."""
    message = str(error)
    if not isinstance(error, UnknownCommandError) or error.app is None:
        return message
    commands = ", ".join(name for name in error.app if not name.startswith("-"))
    return f"{message.partition(' Available commands: ')[0]} Commands: {commands}"


def without_values(message: str, values: Iterable[str]) -> str:
    """Return an error message about arguments with ``***`` for each of the *values* in it.

    An argument in the wrong place can be a key. Names of commands and options are kept, and what is
    too short for a key.
    """
    parts = {part for value in values for part in (value, value.partition("=")[2])}
    for part in sorted(parts - set(_names(app)), key=len, reverse=True):
        if len(part) >= MIN_KEY:
            for spelling in (part, repr(part)[1:-1]):
                message = re.sub(rf"(?<![\w-]){re.escape(spelling)}(?![\w-])", "***", message)
    return message


def _names(command: App) -> Iterator[str]:
    """Yield the names of a command, of its options and of its subcommands."""
    yield from command.name
    if command.default_command is not None:
        for argument in command.assemble_argument_collection():
            yield from argument.names
    for name in command:
        if not name.startswith("-"):
            yield from _names(command[name])
