"""``pythpeer user``, ``staff`` and ``stats``: what PythBots knows."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .access import connected
from .bars import as_number
from .options import Json, StorePath
from .progress import Progress
from .show import as_json, write_json
from .tables import print_facts, print_statistics, table

__all__ = ["staff", "stats", "user"]

ChatId = Annotated[int, Parameter(help="The chat's number.")]


async def user(
    who: Annotated[str, Parameter(help="A user name, or a user id.")],
    /,
    *,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Look somebody up."""
    async with connected(store) as session:
        with Progress(session.limiters["pythbots.userinfo"], "asking"):
            found = await session.pythbots.user(who)
    if json:
        write_json("user", as_json(found))
    else:
        print_facts(found)


async def staff(chat_id: ChatId, /, *, store: StorePath = None, json: Json = False) -> None:
    """List the staff of a chat that is opted in, with bars for how long a rank has been held."""
    async with connected(store) as session:
        with Progress(session.limiters["pythbots.crank"], "asking"):
            members = await session.pythbots.staff(chat_id)
    if json:
        for one in members:
            write_json("staff", as_json(one))
        return
    rows = [(one.id, one.username, one.rank, one.time_held) for one in members]
    held = [as_number(one.time_held) or 0.0 for one in members]
    longest = max(held, default=0.0)
    bars = [amount / longest for amount in held] if longest else []
    table(("id", "username", "rank", "held for"), rows, bars=bars)


async def stats(chat_id: ChatId, /, *, store: StorePath = None, json: Json = False) -> None:
    """Show a chat's statistics, with bars for numbers that can be compared."""
    async with connected(store) as session:
        with Progress(session.limiters["pythbots.cstats"], "asking"):
            found = await session.pythbots.stats(chat_id)
    if json:
        write_json("stats", as_json(found))
    else:
        print_statistics(found)
