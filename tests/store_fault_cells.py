"""Runs a row of the fault table of stores: a program on a store, with a trouble.

`run_program` and `run_opening` return the outcome without using the expectations of the table.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from helpers import SHORT_BACKOFF, now
from redis_proxy import RedisProxy
from redis_server import real_server
from redis_virtual import VirtualRedisStore
from scripted import Scripted
from store_faults import (
    OpeningFault,
    Outcome,
    Program,
    StoreFault,
    Trouble,
    finished,
)

from pythpeer import ChatMessage, Mail, Rate, Session, SqliteStore, StoreError, Stream
from pythpeer.stores import RedisStore

Item = ChatMessage | Mail

LAST: Final = 6
"""The number of the last message, and of the last mail. The third ones are added in the trouble."""

MARK: Final = ", recovered"
"""The mark of mail that may have been delivered before."""


class StoreOutcome(NamedTuple):
    """What happened to a program."""

    streams: tuple[Outcome, Outcome]
    """The outcomes of a stream of the chat, and of one of the mail."""
    call: Outcome
    was_ok: bool
    """Whether its health was ok during the trouble, before any stream was asked again."""
    warnings: int
    """Warnings about streams that were logged during the trouble."""
    items: tuple[tuple[str, ...], tuple[str, ...]]
    """The texts of all items that each stream returned, in their order; of mail that is marked as
    recovered, with a mark."""
    delay: float
    """Seconds from the end of the trouble until both streams had returned an item."""
    is_ok: bool
    """Whether its health was ok after that."""
    shortest: float
    """The shortest time between two requests to an endpoint, in seconds."""


@asynccontextmanager
async def running_program(kind: str, folder: Path) -> AsyncIterator[Program]:
    """What a program on a store of this kind has."""
    if kind == "sqlite":
        path = folder / "store.sqlite"
        yield Program(SqliteStore(path), path)
        return
    if kind == "real redis":
        (folder / "data").mkdir()
        with real_server(folder / "data") as process:
            yield Program(RedisStore(process.url), folder, real_server=process)
        return
    server = VirtualRedisStore(max_length=100)
    await server.open()
    try:
        async with RedisProxy(server.port) as proxy:
            yield Program(RedisStore(proxy.url), folder, proxy, server)
    finally:
        await server.aclose()


def outcome_of(task: asyncio.Task[Any]) -> Outcome:
    """Return what a task has done by now."""
    if not task.done():
        return "waits"
    error = task.exception()
    if error is None:
        return "continues"
    assert isinstance(error, StoreError), repr(error)
    return "raises transient" if error.transient else "raises"


async def run_program(
    row: StoreFault, trouble: Trouble, folder: Path, warnings: Callable[[], list[str]]
) -> StoreOutcome:
    """Read two streams and make a call, during a trouble and after it."""
    async with Scripted() as services, running_program(row.store, folder) as program:
        services.say(1)
        services.deliver("mail 1")
        rate = Rate(row.unit, guard=row.guard)
        session = services.session(
            store=program.store,
            retry=SHORT_BACKOFF,
            rates={"peerbet.chat.get": rate, "pythbots.mail": rate},
        )
        async with session:
            return await _run(row, trouble, services, session, program, warnings)


async def _run(
    row: StoreFault,
    trouble: Trouble,
    services: Scripted,
    session: Session,
    program: Program,
    warnings: Callable[[], list[str]],
) -> StoreOutcome:
    streams: tuple[Stream[Item], Stream[Item]] = (
        session.peerbet.chat_stream(after=0, name="me"),
        session.pythbots.mail_stream(name="me"),
    )
    texts = ([await _next_text(streams[0])], [await _next_text(streams[1])])
    await finished(row.earlier(program))
    await _continue(services, streams, texts, 2)
    await asyncio.sleep(3.0 * row.unit)  # the acknowledgements and events are stored
    before = len(warnings())
    async with trouble(program):
        items = [asyncio.ensure_future(_next_text(stream)) for stream in streams]
        await asyncio.sleep(row.unit)
        _add(services, 3)
        call = asyncio.ensure_future(session.peerbet.messages(last=1))
        await asyncio.wait([*items, call], timeout=row.seconds)
        was_ok, warned = session.health().ok, len(warnings()) - before
        outcomes = [outcome_of(item) for item in items]
        called = outcome_of(call)
    end = now()
    for number, stream in enumerate(streams):
        if outcomes[number].startswith("raises"):
            items[number] = asyncio.ensure_future(_next_text(stream))
    async with asyncio.timeout(120.0):
        for found, item in zip(texts, items, strict=True):
            found.append(await item)
    delay = now() - end
    await asyncio.gather(call, return_exceptions=True)
    for number in range(4, LAST + 1):
        await _continue(services, streams, texts, number)
    is_ok = session.health().ok
    for stream in streams:
        await stream.aclose()
    return StoreOutcome(
        (outcomes[0], outcomes[1]),
        called,
        was_ok,
        warned,
        (tuple(texts[0]), tuple(texts[1])),
        delay,
        is_ok,
        shortest_interval(services),
    )


def _add(services: Scripted, number: int) -> None:
    services.say(1)
    services.deliver(f"mail {number}")


async def _continue(
    services: Scripted,
    streams: tuple[Stream[Item], Stream[Item]],
    texts: tuple[list[str], ...],
    number: int,
) -> None:
    """Add a message and a mail, and read until them."""
    _add(services, number)
    await asyncio.gather(*map(_read_to, streams, texts, (f"message {number}", f"mail {number}")))


async def _next_text(stream: Stream[Item]) -> str:
    item = await anext(stream)
    mark = MARK if isinstance(item, Mail) and item.recovered else ""
    return f"{item.text}{mark}"


async def _read_to(stream: Stream[Item], texts: list[str], last: str) -> None:
    """Read until an item with this text, recovered or not."""
    async with asyncio.timeout(120.0):
        while not texts[-1].startswith(last):
            texts.append(await _next_text(stream))


def shortest_interval(services: Scripted) -> float:
    """Return the shortest time between two requests to an endpoint."""
    endpoints = (["get"], ["readnew", "readall"])
    times = ([call.at for call in services.asked(*kinds)] for kinds in endpoints)
    return min(
        later - earlier for arrivals in times for earlier, later in itertools.pairwise(arrivals)
    )


async def run_opening(row: OpeningFault, name: str, folder: Path) -> Outcome:
    """Open a session on a store with a trouble."""
    async with row.prepare[name](folder) as store, Scripted() as services:
        session = services.session(store=store)
        opening = asyncio.ensure_future(session.open())
        await asyncio.wait([opening])
        outcome = outcome_of(opening)
        if outcome == "continues":
            await session.aclose()
        return outcome


def stream_warnings(records: list[logging.LogRecord]) -> list[str]:
    """Return the texts of the warnings about streams."""
    return [
        record.getMessage()
        for record in records
        if record.levelno >= logging.WARNING and record.name == "pythpeer.streams"
    ]
