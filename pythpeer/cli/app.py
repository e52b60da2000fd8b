"""The commands, as cyclopts sees them. Each is its signature, a session, and something to print."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import sys
from collections.abc import Generator, Sequence
from typing import Annotated, Final

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from .. import ChatMessage, InvalidRequestError, Mail, Session, Stream
from ..version import version
from . import ending
from .show import Rows, as_json, facts, screen, table, write_json

__all__ = ["run"]

HELP: Final = """\
Talk on Peerbet chat, read and send PythBots mail, look people and chats up.

Try it first: "pythpeer demo" needs no key and no network.

Keys and addresses come from the environment, never from arguments:
  PYTHPEER_PEERBET_KEY        to post, and to see private messages
  PYTHPEER_PERSONAL_KEY       for mail
  PYTHPEER_PYTHBOTS_API_KEY   for PythBots, where it asks for one
  PYTHPEER_PEERBET_URL        another address of Peerbet
  PYTHPEER_PYTHBOTS_URL       another address of PythBots
  PYTHPEER_STORE              memory, the path of a file, or a redis:// URL

Exit codes:
  0    done; also if nobody reads on, or if the demo was interrupted
  1    the service or the network failed, or said no
  2    wrong usage or configuration: nothing was sent
  3    outcome unknown: it may have been sent, and was not repeated
  130  interrupted by Ctrl-C (143 by SIGTERM); a message may have been sent
"""

Json = Annotated[
    bool, Parameter(negative=(), show_default=False, help="Print one JSON object on each line.")
]
Messages = Annotated[
    int | None, Parameter(validator=Number(gte=1), help="End after this many rows.")
]
Name = Annotated[
    str | None,
    Parameter(help="Go on where the stream of this name left off, if the store still has that."),
]
Flag = Parameter(negative=(), show_default=False)
ChatId = Annotated[int, Parameter(help="The chat's number.")]

app: Final = App(
    name="pythpeer",
    help=HELP,
    help_format="plaintext",
    version=lambda: f"pythpeer {version()}",
)
chat: Final = App(name="chat", help="Follow Peerbet chat, and post there.")
mail: Final = App(name="mail", help="Follow, send and list PythBots mail.")
app.command(chat)
app.command(mail)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code. Raises what it failed with."""
    try:
        command, bound, _ = app.parse_args(
            arguments, console=screen(), print_error=False, exit_on_error=False
        )
    except CycloptsError as error:
        fault = str(error)
    else:
        result = command(*bound.args, **bound.kwargs)
        code = ending.run(result) if inspect.iscoroutine(result) else result
        return code if isinstance(code, int) else 0
    raise InvalidRequestError(f"{fault} (--help shows how)")


@app.command
def demo(
    *,
    messages: Messages = None,
    json: Json = False,
    seed: Annotated[
        int | None, Parameter(help="Have the same people say the same things again.")
    ] = None,
) -> int:
    """Watch a chat and a mailbox come alive, against fake services on this machine."""
    from .demo import Demo

    return Demo(Rows(json=json), messages, seed).run()


@chat.command
async def tail(
    *,
    after: Annotated[
        int | None,
        Parameter(help="Start after this message id, 0 for the oldest; by default from now on."),
    ] = None,
    name: Name = None,
    messages: Messages = None,
    json: Json = False,
) -> None:
    """Show chat messages as they come, until Ctrl-C."""
    async with Session.from_env() as session:
        stream = session.peerbet.chat_stream(after=after, name=name)
        await _follow(stream, Rows(json=json), messages, "the chat")


@chat.command
async def post(
    text: Annotated[str, Parameter(help="1 to 250 characters.")],
    /,
    *,
    bot: Annotated[bool, Flag, Parameter(help="Mark it as a bot's.")] = False,
    json: Json = False,
) -> None:
    """Post a message, once, and print its id."""
    _need("PYTHPEER_PEERBET_KEY", "posting")
    async with Session.from_env() as session:
        with _unsure():
            id = await session.peerbet.post(text, bot=bot)
    if json:
        write_json("posted", {"id": id})
    else:
        print(id)


@mail.command
async def watch(*, name: Name = None, messages: Messages = None, json: Json = False) -> None:
    """Show unread mail, and new mail as it comes, until Ctrl-C.

    The service marks mail as read when it hands it out. What was not shown any more because the
    command ended is in "pythpeer mail all".
    """
    _need("PYTHPEER_PERSONAL_KEY", "mail")
    async with Session.from_env() as session:
        stream = session.pythbots.mail_stream(name=name)
        await _follow(stream, Rows(json=json), messages, "the mailbox")


@mail.command
async def send(
    to: Annotated[str, Parameter(help="A user name, or a user id in digits.")],
    text: Annotated[str, Parameter(help="What to say.")],
    /,
    *,
    user: Annotated[bool, Flag, Parameter(help="TO is a name, although it is digits.")] = False,
    json: Json = False,
) -> None:
    """Send a mail, once."""
    _need("PYTHPEER_PERSONAL_KEY", "mail")
    by_id = to.isascii() and to.isdigit() and not user
    async with Session.from_env() as session:
        with _unsure():
            await session.pythbots.send_mail(int(to) if by_id else to, text)
    if json:
        write_json("sent", {"to": int(to) if by_id else to})
    else:
        print("sent")


@mail.command(name="all")
async def all_mail(*, json: Json = False) -> None:
    """List all mail, read and unread. Whether that marks any as read is not documented."""
    _need("PYTHPEER_PERSONAL_KEY", "mail")
    async with Session.from_env() as session:
        mails = await session.pythbots.all_mail()
    if json:
        for one in mails:
            write_json("mail", as_json(one))
    else:
        rows = [(one.sent_at, one.sender or one.sender_id, one.is_read, one.text) for one in mails]
        unread = [number for number, one in enumerate(mails) if one.is_read is False]
        table(("sent", "from", "read", "text"), rows, bold=unread)


@app.command
async def user(
    who: Annotated[str, Parameter(help="A user name, or a user id.")], /, *, json: Json = False
) -> None:
    """Look somebody up."""
    async with Session.from_env() as session:
        found = await session.pythbots.user(who)
    if json:
        write_json("user", as_json(found))
    else:
        facts(found)


@app.command
async def staff(chat_id: ChatId, /, *, json: Json = False) -> None:
    """List the staff of a chat that is opted in."""
    async with Session.from_env() as session:
        members = await session.pythbots.staff(chat_id)
    if json:
        for one in members:
            write_json("staff", as_json(one))
    else:
        rows = [(one.id, one.username, one.rank, one.time_held) for one in members]
        table(("id", "username", "rank", "held for"), rows)


@app.command
async def stats(chat_id: ChatId, /, *, json: Json = False) -> None:
    """Show a chat's statistics."""
    async with Session.from_env() as session:
        found = await session.pythbots.stats(chat_id)
    if json:
        write_json("stats", as_json(found))
    else:
        facts(found)


async def _follow(
    stream: Stream[ChatMessage] | Stream[Mail], rows: Rows, messages: int | None, what: str
) -> None:
    """Show what comes, and acknowledge it once it is out."""
    if rows.screen.is_terminal and not rows.json and sys.stderr.isatty():
        ending.complain(f"following {what}; Ctrl-C stops")
    shown = 0
    async with stream:
        with ending.while_read():
            async for item in stream:
                rows.show(item)
                await stream.ack()
                shown += 1
                if shown == messages:
                    return


@contextlib.contextmanager
def _unsure() -> Generator[None]:
    """Tell the truth about a message that an interruption caught on its way."""
    try:
        yield
    except asyncio.CancelledError:
        ending.complain("interrupted: the message may or may not have been sent")
        raise


def _need(variable: str, what: str) -> None:
    if not os.environ.get(variable, "").strip():
        raise InvalidRequestError(f"{what} needs a key: set {variable}")
