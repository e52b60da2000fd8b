"""``pythpeer top``: a running bot, watched through its store.

It looks and changes nothing: it is no poller, asks the services nothing, and takes no token.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from itertools import count
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.live import Live

from ..errors import InvalidRequestError
from ..stores import MemoryStore, SqliteStore, Store, from_text
from . import ending
from .access import check_file, store_name
from .options import Json
from .show import is_lively, screen, write_json
from .sight import Sight

__all__ = ["top"]

LATEST: Final = 50
"""How many of the last items are asked for: a tall terminal's worth."""

ENDLESS: Final = 10_000
"""Columns where there is no terminal, and nothing to be cut."""


async def top(
    *,
    store: Annotated[
        str | None, Parameter(help="The bot's store, a file; PYTHPEER_STORE is the default.")
    ] = None,
    interval: Annotated[
        float, Parameter(validator=Number(gte=0.1), help="Seconds between two looks.")
    ] = 1.0,
    looks: Annotated[
        int | None, Parameter(validator=Number(gte=1), help="End after this many looks.")
    ] = None,
    json: Json = False,
) -> None:
    """Watch a running bot: rates, lag, pacing and the last messages, until Ctrl-C.

    Without a terminal it looks once.
    """
    check_file(store)
    console = screen()
    if looks is None and not json and not console.is_terminal:
        looks = 1
    async with _opened(store_name(store)) as watched:
        sight = Sight(str(watched.path) if isinstance(watched, SqliteStore) else repr(watched))
        live = Live(console=console, auto_refresh=False, screen=True)
        drawn = live if is_lively(console) and not json else contextlib.nullcontext()
        with drawn, ending.while_read():
            for at in count(1):
                survey = await watched.survey(LATEST)
                sight.add(time.monotonic(), survey)
                if json:
                    write_json("survey", msgspec.to_builtins(survey))
                elif live.is_started:
                    live.update(sight.picture(console.size), refresh=True)
                if at == looks:
                    break
                await asyncio.sleep(interval)
        if not json and console.is_terminal:
            console.print(sight.picture(console.size))
        elif not json:
            console.width = ENDLESS
            console.print(sight.picture(None))


@contextlib.asynccontextmanager
async def _opened(name: str) -> AsyncGenerator[Store]:
    """The store *name*, which must be there. Raises `InvalidRequestError` where there is none."""
    store = from_text(name)
    if isinstance(store, InvalidRequestError):
        raise store
    if isinstance(store, MemoryStore):
        raise InvalidRequestError(
            "a store that other programs can see is needed: --store FILE, or PYTHPEER_STORE"
        )
    if isinstance(store, SqliteStore) and not store.path.exists():
        raise InvalidRequestError(f"there is no {name}: a bot with that store makes it")
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()
