"""``pythpeer top``: shows a running bot by the snapshots of its store.

It changes nothing: it does not poll, makes no request to the services, and uses no token.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.live import Live

from ...errors import InvalidRequestError
from ...stores import MemoryStore, SqliteStore, Store, StoreSnapshot, store_from_url
from .. import runner
from ..connect import reject_store_url, store_name
from ..options import Json
from ..output.console import is_interactive, make_console, write_json
from .screen import TopScreen

__all__ = ["top"]

MAX_LATEST: Final = 50
"""How many of the latest items a snapshot contains: enough for a tall terminal."""

UNLIMITED_WIDTH: Final = 10_000
"""Columns without a terminal, so that nothing is cut."""


async def top(
    *,
    store: Annotated[
        str | None, Parameter(help="The bot's store, a file; PYTHPEER_STORE is the default.")
    ] = None,
    interval: Annotated[
        float, Parameter(validator=Number(gte=0.1), help="Seconds between two snapshots.")
    ] = 1.0,
    count: Annotated[
        int | None,
        Parameter(
            name=("--count", "--looks"),
            validator=Number(gte=1),
            help="End after this many snapshots. --looks is the old name.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Watch a running bot: rates, lag, pacing and the latest items, until Ctrl-C.

    Without a terminal there is one snapshot.
    """
    reject_store_url(store)
    console = make_console()
    if count is None and not json and not console.is_terminal:
        count = 1
    async with _opened(store_name(store)) as watched:
        screen = TopScreen(str(watched.path) if isinstance(watched, SqliteStore) else str(watched))
        live = Live(console=console, auto_refresh=False, screen=True)
        display = live if is_interactive(console) and not json else contextlib.nullcontext()
        with display, runner.stop_when_pipe_closes():
            others: Sequence[str] = ()
            for number in itertools.count(1):
                snapshot = await watched.snapshot(MAX_LATEST)
                if number == 1:  # once, because it reads the names of all keys of the server
                    others = await _other_prefixes(watched, snapshot)
                screen.add(time.monotonic(), snapshot, others)
                if json:
                    # The kind of row is "survey", because programs that read it depend on it.
                    write_json("survey", msgspec.to_builtins(snapshot))
                elif live.is_started:
                    live.update(screen.render(console.size), refresh=True)
                if number == count:
                    break
                await asyncio.sleep(interval)
        if not json and console.is_terminal:
            console.print(screen.render(console.size))
        elif not json:
            console.width = UNLIMITED_WIDTH
            console.print(screen.render(None))


async def _other_prefixes(store: Store, snapshot: StoreSnapshot) -> Sequence[str]:
    """Return the other prefixes of a server on which the store is empty."""
    if snapshot.logs or snapshot.endpoints or isinstance(store, SqliteStore):
        return ()
    from ...stores import RedisStore  # late: it imports the client of Redis

    return await store.other_prefixes() if isinstance(store, RedisStore) else ()


@contextlib.asynccontextmanager
async def _opened(name: str) -> AsyncGenerator[Store]:
    """Open the store *name*, which must exist. Raises `InvalidRequestError` otherwise."""
    store = store_from_url(name)
    if isinstance(store, InvalidRequestError):
        raise store
    if isinstance(store, MemoryStore):
        raise InvalidRequestError(
            "a store that other programs can open is required: --store FILE, or PYTHPEER_STORE"
        )
    if isinstance(store, SqliteStore) and not store.path.exists():
        raise InvalidRequestError(f"{name} does not exist: a bot with that store creates it")
    if isinstance(store, SqliteStore):
        store = SqliteStore(store.path, read_only=True)
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()
