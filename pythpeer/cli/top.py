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
from ..stores import MemoryStore, SqliteStore, Store, store_from_url
from . import ending
from .access import reject_store_url, store_name
from .options import Json
from .show import is_interactive, make_console, write_json
from .sight import TopScreen

__all__ = ["top"]

MAX_LATEST: Final = 50
"""How many of the last items are asked for: a tall terminal's worth."""

UNLIMITED_WIDTH: Final = 10_000
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
    reject_store_url(store)
    console = make_console()
    if looks is None and not json and not console.is_terminal:
        looks = 1
    async with _opened(store_name(store)) as watched:
        sight = TopScreen(str(watched.path) if isinstance(watched, SqliteStore) else repr(watched))
        live = Live(console=console, auto_refresh=False, screen=True)
        drawn = live if is_interactive(console) and not json else contextlib.nullcontext()
        with drawn, ending.stop_when_pipe_closes():
            for at in count(1):
                survey = await watched.snapshot(MAX_LATEST)
                sight.add(time.monotonic(), survey)
                if json:
                    write_json("survey", msgspec.to_builtins(survey))
                elif live.is_started:
                    live.update(sight.render(console.size), refresh=True)
                if at == looks:
                    break
                await asyncio.sleep(interval)
        if not json and console.is_terminal:
            console.print(sight.render(console.size))
        elif not json:
            console.width = UNLIMITED_WIDTH
            console.print(sight.render(None))


@contextlib.asynccontextmanager
async def _opened(name: str) -> AsyncGenerator[Store]:
    """The store *name*, which must be there. Raises `InvalidRequestError` where there is none."""
    store = store_from_url(name)
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
