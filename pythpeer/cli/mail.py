"""``pythpeer mail``: follow, send and list PythBots mail."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import App, Parameter

from .connect import PERSONAL_KEY, connected
from .follow import follow
from .input import read_text
from .options import Flag, Json, Messages, Name, Stdin, StorePath
from .output.console import as_json, print_line, write_json
from .output.progress import Progress
from .output.rows import Rows
from .output.tables import table
from .unsure import warn_if_interrupted

__all__ = ["mail"]

mail: Final = App(name="mail", help="Follow, send and list PythBots mail.")

ENDPOINT: Final = "pythbots.mail"

CONFLICT: Final = (
    "another program with this key receives none of this mail, unless it has the same --store"
)
"""What happens if two programs with one key have two stores."""


@mail.command
async def watch(
    *,
    name: Name = None,
    messages: Messages = None,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Show unread mail, and new mail as it is received, until Ctrl-C.

    The service marks mail as read when it sends it. Mail that was not shown
    because the command ended is shown the next time if there is a store, and
    is in "pythpeer mail all" in any case.

    Another program with the same key, such as your bot, does not receive the
    mail that is shown here, unless it uses the same store.
    """
    async with connected(store, PERSONAL_KEY) as session:
        stream = session.pythbots.mail_stream(name=name)
        await follow(stream, Rows(json=json), messages, "the mailbox", CONFLICT)


@mail.command(usage="Usage: pythpeer mail send [OPTIONS] TO (TEXT | -)")
async def send(
    to: Annotated[str, Parameter(help="A user name, or a user id in digits.")],
    text: Annotated[str | None, Parameter(help="The text, in quotes if it has blanks.")] = None,
    /,
    *,
    stdin: Stdin = False,
    user: Annotated[
        bool, Flag, Parameter(help="TO is a name, also if it consists of digits.")
    ] = False,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Send a mail, once."""
    recipient = int(to) if to.isascii() and to.isdigit() and not user else to
    message = await read_text(text, stdin=stdin)
    async with connected(store, PERSONAL_KEY) as session:
        with warn_if_interrupted(), Progress(session.limiters[ENDPOINT], "sending"):
            await session.pythbots.send_mail(recipient, message)
    if json:
        write_json("sent", {"to": recipient})
    else:
        print_line("sent")


@mail.command(name="all")
async def all_mail(*, store: StorePath = None, json: Json = False) -> None:
    """List all mail, read and unread. Whether that marks mail as read is undocumented."""
    async with connected(store, PERSONAL_KEY) as session:
        with Progress(session.limiters[ENDPOINT], "requesting mail"):
            mails = await session.pythbots.all_mail()
    if json:
        for item in mails:
            write_json("mail", as_json(item))
    else:
        rows = [
            (item.sent_at, item.sender or item.sender_id, item.is_read, item.text) for item in mails
        ]
        unread = [number for number, item in enumerate(mails) if item.is_read is False]
        table(("sent", "from", "read", "text"), rows, bold=unread)
