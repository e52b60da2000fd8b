"""``pythpeer user``, ``staff`` and ``stats``: look-ups in PythBots."""

from __future__ import annotations

import sys
from typing import Annotated, Final

from cyclopts import Parameter

from ..pythbots import StaffMember
from .connect import connected
from .options import Json, StorePath
from .output.bars import as_number
from .output.console import as_json, write_json
from .output.progress import Progress
from .output.tables import print_facts, print_statistics, table

__all__ = ["staff", "stats", "user"]

DAY: Final = 86_400
"""Seconds of a day."""

MAX_OFFICE: Final = 40 * 365 * DAY
"""The longest time in office that is plausible, in seconds."""

ChatId = Annotated[int, Parameter(help="The chat's number.")]


async def user(
    name_or_id: Annotated[str, Parameter(help="A user name, or a user id.")],
    /,
    *,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Look up a user."""
    async with connected(store) as session:
        with Progress(session.limiters["pythbots.userinfo"], "requesting"):
            result = await session.pythbots.user(name_or_id)
    if json:
        write_json("user", as_json(result))
    else:
        print_facts(result)


async def staff(chat_id: ChatId, /, *, store: StorePath = None, json: Json = False) -> None:
    """List the staff of a chat that has opted in, with bars for the time in office."""
    async with connected(store) as session:
        with Progress(session.limiters["pythbots.crank"], "requesting"):
            members = await session.pythbots.staff(chat_id)
    if json:
        for member in members:
            write_json("staff", as_json(member))
        return
    rows = [(member.id, member.username, member.rank, _duration(member)) for member in members]
    seconds = [as_number(member.time_held) or 0.0 for member in members]
    longest = max(seconds, default=0.0)
    bars = [amount / longest for amount in seconds] if longest else []
    table(("id", "username", "rank", "held for"), rows, bars=bars)


def _duration(member: StaffMember) -> str:
    """Return the time in office as sent, and on a terminal the days if it can be seconds.

    The service does not document the unit.
    """
    held = as_number(member.time_held)
    if held is None or not DAY <= held <= MAX_OFFICE or not sys.stdout.isatty():
        return "" if member.time_held is None else str(member.time_held)
    days = int(held // DAY)
    return f"{days:,} day{'' if days == 1 else 's'}"


async def stats(chat_id: ChatId, /, *, store: StorePath = None, json: Json = False) -> None:
    """Show a chat's statistics, with bars for comparable numbers."""
    async with connected(store) as session:
        with Progress(session.limiters["pythbots.cstats"], "requesting"):
            result = await session.pythbots.stats(chat_id)
    if json:
        write_json("stats", as_json(result))
    else:
        print_statistics(result)
