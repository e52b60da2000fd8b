"""``pythpeer mail``: follow, send and list PythBots mail."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import App, Parameter

from .access import PERSONAL_KEY, connected, warn_if_volatile
from .follow import follow
from .options import Flag, Json, Messages, Name, Stdin, StorePath
from .progress import Progress
from .reading import read_text
from .rows import Rows
from .show import as_json, write_json
from .tables import table
from .unsure import warn_if_interrupted

__all__ = ["mail"]

mail: Final = App(name="mail", help="Follow, send and list PythBots mail.")

ENDPOINT: Final = "pythbots.mail"


@mail.command
async def watch(
    *,
    name: Name = None,
    messages: Messages = None,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Show unread mail, and new mail as it comes, until Ctrl-C.

    The service marks mail as read when it hands it out. What was not shown any more because the
    command ended comes the next time if there is a store, and is in "pythpeer mail all" anyway.
    """
    warn_if_volatile(store, name)
    async with connected(store, PERSONAL_KEY) as session:
        stream = session.pythbots.mail_stream(name=name)
        await follow(stream, Rows(json=json), messages, "the mailbox")


@mail.command
async def send(
    to: Annotated[str, Parameter(help="A user name, or a user id in digits.")],
    text: Annotated[str | None, Parameter(help="What to say.")] = None,
    /,
    *,
    stdin: Stdin = False,
    user: Annotated[bool, Flag, Parameter(help="TO is a name, although it is digits.")] = False,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Send a mail, once."""
    recipient = int(to) if to.isascii() and to.isdigit() and not user else to
    words = await read_text(text, stdin=stdin)
    async with connected(store, PERSONAL_KEY) as session:
        with warn_if_interrupted(), Progress(session.limiters[ENDPOINT], "sending"):
            await session.pythbots.send_mail(recipient, words)
    if json:
        write_json("sent", {"to": recipient})
    else:
        print("sent")


@mail.command(name="all")
async def all_mail(*, store: StorePath = None, json: Json = False) -> None:
    """List all mail, read and unread. Whether that marks any as read is not documented."""
    async with connected(store, PERSONAL_KEY) as session:
        with Progress(session.limiters[ENDPOINT], "asking for mail"):
            mails = await session.pythbots.all_mail()
    if json:
        for one in mails:
            write_json("mail", as_json(one))
    else:
        rows = [(one.sent_at, one.sender or one.sender_id, one.is_read, one.text) for one in mails]
        unread = [number for number, one in enumerate(mails) if one.is_read is False]
        table(("sent", "from", "read", "text"), rows, bold=unread)
