"""``pythpeer chat``: follow Peerbet chat, and post there."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import App, Parameter
from cyclopts.validators import Number

from ..peerbet import MAX_TEXT
from ..validation import INT32_MAX
from .connect import PEERBET_KEY, connected
from .follow import follow
from .input import read_text
from .options import Flag, Json, Messages, Name, Stdin, StorePath
from .output.console import print_line, write_json
from .output.progress import Progress
from .output.rows import Rows
from .unsure import warn_if_interrupted

__all__ = ["chat"]

CONFLICT: Final = "programs with one key must use one --store, or they send requests too early"
"""What happens if two programs with one key have two stores."""

chat: Final = App(name="chat", help="Follow Peerbet chat, and post there.")


@chat.command
async def tail(
    *,
    after: Annotated[
        int | None,
        Parameter(
            validator=Number(gte=0, lte=INT32_MAX),
            help="Start after this message id, 0 for the oldest; by default with new ones.",
        ),
    ] = None,
    name: Name = None,
    messages: Messages = None,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Show chat messages as they are received, until Ctrl-C.

    Another program with the same key must use the same store: with two
    stores they send requests too early, which the service may reject.
    """
    async with connected(store) as session:
        stream = session.peerbet.chat_stream(after=after, name=name, on_gap="raise")
        await follow(stream, Rows(json=json), messages, "the chat", CONFLICT)


@chat.command(usage="Usage: pythpeer chat post [OPTIONS] TEXT | -")
async def post(
    text: Annotated[str | None, Parameter(help="The message, in quotes if it has blanks.")] = None,
    /,
    *,
    stdin: Stdin = False,
    bot: Annotated[bool, Flag, Parameter(help="Mark it as the message of a bot.")] = False,
    confirm: Annotated[
        bool, Flag, Parameter(help="If the outcome is unknown, look for it in the chat.")
    ] = False,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Post a message, once, and print its id.

    Text of more than 250 characters is posted in parts that end between
    words, about one a second, and the id of each is printed.
    """
    message = await read_text(text, stdin=stdin)
    posted: list[int] = []
    try:
        async with connected(store, PEERBET_KEY) as session:
            with (
                warn_if_interrupted(),
                Progress(session.limiters["peerbet.chat.set"], "posting") as progress,
            ):
                if len(message) <= MAX_TEXT or not message.strip():  # no parts
                    posted.append(await session.peerbet.post(message, bot=bot, confirm=confirm))
                else:
                    progress.count(message)
                    await session.peerbet.post_long(
                        message, bot=bot, confirm=confirm, on_part=progress.on_part(posted)
                    )
    finally:
        for id in posted:
            if json:
                write_json("posted", {"id": id})
            else:
                print_line(str(id))
