"""The whole command line: its help, its commands, and the selection of one of them.

Each command is registered here with one line, and has a module of its own.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from cyclopts import App, CycloptsError

from .. import InvalidRequestError
from ..version import version
from . import runtime
from .chat import chat
from .completion import add_completion
from .demo.command import demo
from .doctor import doctor
from .lookups import staff, stats, user
from .mail import mail
from .output.console import make_console
from .serve import serve
from .top.command import top

__all__ = ["app", "run", "without_values"]

MIN_KEY: Final = 4
"""Characters of an argument from which it is not shown, because it may be a key."""

HELP: Final = """\
Use the Peerbet chat, read and send PythBots mail, look up users and chats.

"pythpeer demo" is a first trial without a key or a network, and so is
"pythpeer serve", with which you can try your own bot.

Keys and URLs are read from the environment, never from arguments. A key
that is required and not set is read from the terminal, without an echo.
  PYTHPEER_PEERBET_KEY        to post, and to read private messages
  PYTHPEER_PERSONAL_KEY       for mail
  PYTHPEER_PYTHBOTS_API_KEY   for PythBots, if it requires one
  PYTHPEER_PEERBET_URL        another URL of Peerbet
  PYTHPEER_PYTHBOTS_URL       another URL of PythBots
  PYTHPEER_STORE              the store of positions and pacing: a file, or a redis:// URL

Exit codes:
  0    success; also if the output is closed, or demo or serve is interrupted
  1    the service or the network failed, or there was an API error
  2    invalid usage or configuration: nothing was sent
  3    outcome unknown: it may have been sent, and was not repeated
  130  interrupted by Ctrl-C (143 by SIGTERM); a message may have been sent
"""

app: Final = App(
    name="pythpeer",
    help=HELP,
    help_format="plaintext",
    version=lambda: f"pythpeer {version()}",
)
app.command(demo)
app.command(serve)
app.command(chat)
app.command(mail)
app.command(user)
app.command(staff)
app.command(stats)
app.command(top)
app.command(doctor)
add_completion(app)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code. Raises the error that it fails with."""
    try:
        command, bound, _ = app.parse_args(
            arguments, console=make_console(), print_error=False, exit_on_error=False
        )
    except CycloptsError as error:
        converted = (getattr(error, "value", ""), getattr(error.argument, "value", ""))
        reason = without_values(str(error), [*arguments, *map(str, converted)])
    else:
        result = command(*bound.args, **bound.kwargs)
        code = runtime.run(result) if inspect.iscoroutine(result) else result
        return code if isinstance(code, int) else 0
    raise InvalidRequestError(f"{reason} (see --help)")


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
