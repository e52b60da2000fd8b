"""The help of the command ``pythpeer`` itself, printed without cyclopts and rich.

Must not import modules that take time. The help of each command is printed by cyclopts.
"""

from __future__ import annotations

import shutil
import sys
import textwrap

__all__ = ["COMMANDS", "HELP", "format_help", "print_overview"]

HELP = """\
Use the Peerbet chat, read and send PythBots mail, look up users and chats.

"pythpeer demo" is a first trial without a key or a network, and so is \
"pythpeer serve", with which you can try your own bot.

Keys and URLs are read from the environment, never from arguments. A key \
that is required and not set is read from the terminal, without an echo.
  PYTHPEER_PEERBET_KEY         to post, to read private messages, to roll
  PYTHPEER_PERSONAL_KEY        for mail
  PYTHPEER_PERSONAL_KEY_PARAM  "personalkey", if mail spells it that way
  PYTHPEER_PYTHBOTS_API_KEY    for PythBots, if it requires one
  PYTHPEER_PEERBET_URL         another URL of Peerbet
  PYTHPEER_PYTHBOTS_URL        another URL of PythBots
  PYTHPEER_STORE               the store of positions and pacing: a file, or a redis:// URL

Exit codes:
  0    success; also if the output is closed, or demo or serve is interrupted
  1    the service or the network failed, or there was an API error
  2    invalid usage or configuration: nothing was sent
  3    outcome unknown: it may have been sent, and was not repeated
  4    of doctor: there are warnings, and no problem
  130  interrupted by Ctrl-C (143 by SIGTERM); a message or a roll may have been sent
"""

COMMANDS = {
    "chat": ("chat:chat", "Follow Peerbet chat, and post there."),
    "completion": (
        "completion:completion",
        "Print the script that completes commands and options in a shell.",
    ),
    "demo": (
        "demo.command:demo",
        "Follow a chat and a mailbox, with fake services on this machine.",
    ),
    "dice": ("dice:dice", "Roll the dice of Peerbet. THIS SPENDS MONEY."),
    "doctor": (
        "doctor:doctor",
        "Compare both services, with your keys, with what this library expects.",
    ),
    "mail": ("mail:mail", "Follow, send and list PythBots mail."),
    "serve": (
        "serve:serve",
        "Serve the fake services to your bot, with a page to chat in, until Ctrl-C.",
    ),
    "staff": (
        "lookups:staff",
        "List the staff of a chat that has opted in, with bars for the time in office.",
    ),
    "stats": ("lookups:stats", "Show a chat's statistics, with bars for comparable numbers."),
    "top": (
        "top.command:top",
        "Watch a running bot: rates, lag, pacing and the latest items, until Ctrl-C.",
    ),
    "user": ("lookups:user", "Look up a user."),
}
"""Each command: the object that runs it, in which module, and one line of help.

The module is imported when the command is used.
"""

MIN_WIDTH = 40
"""The fewest columns for which the help is laid out."""

MAX_TEXT_WIDTH = 88
"""The most columns of a line of text, which is hard to read if it is longer."""

OPTIONS = {
    "--help (-h)": "Display this message and exit.",
    "--version": "Display application version.",
}

BOX = "╭╮╰╯─│"
BOX_ASCII = "++++-|"
"""What the box of the commands is drawn with where the output cannot show `BOX`."""


def print_overview() -> None:
    """Print the help, as wide as the terminal."""
    print(format_help(shutil.get_terminal_size().columns, _box()), end="")


def format_help(columns: int, box: str = BOX) -> str:
    """Return the help for a terminal of so many *columns*, or of `MIN_WIDTH` if it is narrower."""
    width = max(columns, MIN_WIDTH)
    lines = ["Usage: pythpeer COMMAND", ""]
    for line in HELP.splitlines():
        lines += _wrap(line, min(width, MAX_TEXT_WIDTH))
    return "\n".join([*lines, "", *_panel("Commands", _entries(), width, box), ""])


def _entries() -> dict[str, str]:
    return {name: text for name, (_, text) in sorted(COMMANDS.items())} | OPTIONS


def _wrap(line: str, width: int) -> list[str]:
    """Break a line of the help; an indented line continues below its second column."""
    column = line.rindex("  ") + 2 if line.startswith(" ") else 0
    return textwrap.wrap(line, width, subsequent_indent=" " * min(column, width // 2)) or [""]


def _panel(title: str, entries: dict[str, str], width: int, box: str) -> list[str]:
    """Draw *entries* as two columns in a box of *width* columns."""
    top_left, top_right, bottom_left, bottom_right, bar, side = tuple(box)
    left = max(map(len, entries)) + 2
    right = width - left - 4
    lines = [f"{top_left}{bar} {title} ".ljust(width - 1, bar) + top_right]
    for name, text in entries.items():
        for number, part in enumerate(textwrap.wrap(text, right)):
            lines.append(f"{side} {'' if number else name:<{left}}{part:<{right}} {side}")
    return [*lines, f"{bottom_left}{bar * (width - 2)}{bottom_right}"]


def _box() -> str:
    """Return `BOX`, or `BOX_ASCII` if stdout cannot encode it."""
    try:
        BOX.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return BOX_ASCII
    return BOX
