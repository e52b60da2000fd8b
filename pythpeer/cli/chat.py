"""``pythpeer chat``: follow Peerbet chat, and post there."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import App, Parameter

from ..peerbet import MAX_TEXT
from .access import PEERBET_KEY, connected, warn_if_volatile
from .follow import follow
from .options import Flag, Json, Messages, Name, Stdin, StorePath
from .progress import Progress
from .reading import read_text
from .rows import Rows
from .show import write_json
from .unsure import warn_if_interrupted

__all__ = ["chat"]

chat: Final = App(name="chat", help="Follow Peerbet chat, and post there.")


@chat.command
async def tail(
    *,
    after: Annotated[
        int | None,
        Parameter(help="Start after this message id, 0 for the oldest; by default from now on."),
    ] = None,
    name: Name = None,
    messages: Messages = None,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Show chat messages as they come, until Ctrl-C."""
    warn_if_volatile(store, name)
    async with connected(store) as session:
        stream = session.peerbet.chat_stream(after=after, name=name, on_gap="raise")
        await follow(stream, Rows(json=json), messages, "the chat")


@chat.command
async def post(
    text: Annotated[str | None, Parameter(help="What to say.")] = None,
    /,
    *,
    stdin: Stdin = False,
    bot: Annotated[bool, Flag, Parameter(help="Mark it as a bot's.")] = False,
    confirm: Annotated[
        bool, Flag, Parameter(help="If no answer says whether it was posted, look for it.")
    ] = False,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Post a message, once, and print its id.

    Text of more than 250 characters is posted in parts that break at words, about one a second,
    and there is an id for each.
    """
    words = await read_text(text, stdin=stdin)
    posted: list[int] = []
    try:
        async with connected(store, PEERBET_KEY) as session:
            with (
                warn_if_interrupted(),
                Progress(session.limiters["peerbet.chat.set"], "posting") as progress,
            ):
                if len(words) <= MAX_TEXT or not words.strip():  # which has no parts
                    posted.append(await session.peerbet.post(words, bot=bot, confirm=confirm))
                else:
                    progress.count(words)
                    await session.peerbet.post_long(
                        words, bot=bot, confirm=confirm, on_part=progress.on_part(posted)
                    )
    finally:
        for id in posted:
            if json:
                write_json("posted", {"id": id})
            else:
                print(id, flush=True)
