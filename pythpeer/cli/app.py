"""The commands of the command line, and the selection of one of them.

Each command has a module of its own, which is imported on first use, and a line in `overview`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError, UnusedCliTokensError

from .. import InvalidRequestError
from . import VERSION, runner
from .output.console import make_console
from .overview import COMMANDS, HELP

__all__ = ["app", "run"]

app: Final = App(name="pythpeer", help=HELP, help_format="plaintext", version=VERSION)
for _name, (_target, _) in COMMANDS.items():
    app.command(f"{__package__}.{_target}", name=_name)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code. Raises the error that it fails with."""
    try:
        command, bound, _ = app.parse_args(
            arguments, console=make_console(), print_error=False, exit_on_error=False
        )
    except UnusedCliTokensError:
        reason = "there are too many arguments: a text with blanks must be in quotes"
    except CycloptsError as error:
        reason = str(error)
    else:
        with runner.log_to_stderr():
            result = command(*bound.args, **bound.kwargs)
            code = runner.run(result) if inspect.iscoroutine(result) else result
        return code if isinstance(code, int) else 0
    raise InvalidRequestError(f"{reason} (see --help)")
