"""The command line as a whole: its help, its commands, and how one of them is found and run.

A command is registered here with one line. What it does stands in a file of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError

from .. import InvalidRequestError
from ..version import version
from . import ending
from .chat import chat
from .completion import completion
from .demo import demo
from .doctor import doctor
from .lookups import staff, stats, user
from .mail import mail
from .serve import serve
from .show import make_console
from .top import top

__all__ = ["app", "run"]

HELP: Final = """\
Talk on Peerbet chat, read and send PythBots mail, look people and chats up.

Try it first: "pythpeer demo" needs no key and no network. Nor does
"pythpeer serve", which is there to try your own bot against.

Keys and addresses come from the environment, never from arguments. A key
that is needed and not set is asked for on a terminal, and not shown there.
  PYTHPEER_PEERBET_KEY        to post, and to see private messages
  PYTHPEER_PERSONAL_KEY       for mail
  PYTHPEER_PYTHBOTS_API_KEY   for PythBots, where it asks for one
  PYTHPEER_PEERBET_URL        another address of Peerbet
  PYTHPEER_PYTHBOTS_URL       another address of PythBots
  PYTHPEER_STORE              where places and pacing are kept: a file, or a redis:// URL

Exit codes:
  0    done; also if nobody reads on, or if the demo or serve was interrupted
  1    the service or the network failed, or said no
  2    wrong usage or configuration: nothing was sent
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
app.command(completion)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code. Raises what it failed with."""
    try:
        command, bound, _ = app.parse_args(
            arguments, console=make_console(), print_error=False, exit_on_error=False
        )
    except CycloptsError as error:
        fault = str(error)
    else:
        result = command(*bound.args, **bound.kwargs)
        code = ending.run(result) if inspect.iscoroutine(result) else result
        return code if isinstance(code, int) else 0
    raise InvalidRequestError(f"{fault} (--help shows how)")
