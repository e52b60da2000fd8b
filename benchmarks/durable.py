"""What it costs to lose nothing: a durable stream beside a loop that stores nothing.

The polls are scripted and in memory, so that what is measured is storing, handing out and
acknowledging.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Final

import msgspec

from pythpeer import ChatMessage, MemoryStore, PythpeerError, Rate, Retry, SqliteStore
from pythpeer.feed import Poller, Pollers
from pythpeer.line import Priority
from pythpeer.polling import link_entries
from pythpeer.stores import RedisStore
from pythpeer.stores.base import Log, NewEntry, Store, Topic
from pythpeer.stores.sqlite.database import Durability
from pythpeer.stores.sqlite.worker import Worker
from pythpeer.streams import Stream

from .chart import Bars
from .measure import take_turns
from .redis_server import ABSENT, redis_server
from .report import Table

__all__ = ["run"]

TOPIC: Final = Topic("benchmark", ChatMessage)
ONE_BY_ONE: Final = 150
IN_BATCHES: Final = 10
"""Microseconds that a message may cost over the plain loop's."""

TEXT: Final = "a message of about the length that messages have"


def message(id: int) -> ChatMessage:
    return ChatMessage(id, "somebody", TEXT, "", "2012-12-12 21:12:21")


class _Script:
    """A chat of so many messages, of which each poll brings the next few."""

    def __init__(self, many: int, batch: int) -> None:
        self.name: Final = "benchmark.chat"
        self._many = many
        self._batch = batch

    async def initial_position(self, log: Log[ChatMessage]) -> int | None:
        return 0

    async def drain(self) -> None:
        pass

    async def try_poll(self, feed: Poller[ChatMessage]) -> PythpeerError | None:
        after = feed.min_position
        end = min(self._many, after + self._batch)
        page = {id: message(id) for id in range(after + 1, end + 1)}
        await feed.log.append(link_entries(after, page, full=False))
        feed.confirm(after, full=False)
        return None


def run(*, quick: bool) -> list[Table]:
    """Measure messages one by one and fifty at a time, and what goes on beside them."""
    with redis_server() as url:
        tables = [
            asyncio.run(_run(url, quick=quick)),
            asyncio.run(_mail(url, quick=quick)),
            asyncio.run(_tokens(url, quick=quick)),
            asyncio.run(_transactions()),
        ]
        if url is None:
            tables[0].notes.append(ABSENT)
    return tables


async def _run(url: str | None, *, quick: bool) -> Table:
    table = Table(
        "A durable chat stream, microseconds for each message",
        ("way", "one by one", "over plain", "by fifty", "by fifty over plain", "target", "met"),
        notes=[
            "over plain: the median of the differences to the plain loop of the same round.",
            "SqliteStore: one job in a thread for each poll, its append; the way there and back",
            "with nothing to do is a row of its own. A commit on the loop holds up all else.",
            "commit on the loop: sqlite3 used naively, an insert and a commit for each message.",
            "RedisStore: its server is on loopback. One by one, it answers five times a message:",
            "the lead, an append, a reading in vain and one that is not, an acknowledgement.",
        ],
        chart=Bars("way", ("one by one", "by fifty"), log=True),
    )
    times: dict[int, dict[str, list[float]]] = {}
    for batch, many in ((1, 300 if quick else 2_000), (50, 5_000 if quick else 20_000)):
        with tempfile.TemporaryDirectory() as folder:
            ways: dict[str, Callable[[], Awaitable[None]]] = {
                "plain loop": _plain(many, batch),
                "a job in a thread for each poll": _threaded(many, batch),
                "commit on the loop": _naive(_names(folder), many, batch),
                "pythpeer, MemoryStore": _stream(MemoryStore, many, batch),
                "pythpeer, SqliteStore": _stream(_files(folder), many, batch),
                "pythpeer, SqliteStore, ack() each": _stream(_files(folder), many, batch, ack=True),
                "pythpeer, SqliteStore, full": _stream(_files(folder, "full"), many, batch),
            }
            if url is not None:
                ways["pythpeer, RedisStore"] = _stream(_places(url), many, batch)
            taken = await take_turns(3 if quick else 9, ways)
            times[batch] = {
                name: [wall / many * 1e6 for wall in way.wall] for name, way in taken.items()
            }
    for name in times[1]:
        cells: list[float] = []
        for batch in times:
            ours, plain = times[batch][name], times[batch]["plain loop"]
            cells.append(statistics.median(ours))
            cells.append(statistics.median(a - b for a, b in zip(ours, plain, strict=True)))
            table.samples[f"{name}, {batch}"] = ours
        if name == "pythpeer, SqliteStore":
            met = cells[1] < ONE_BY_ONE and cells[3] < IN_BATCHES
            table.add(name, *cells, f"< {ONE_BY_ONE}, < {IN_BATCHES}", met)
        else:
            table.add(name, *cells, None, None)
    return table


_NUMBERS: Final = count()


def _names(folder: str) -> Iterator[Path]:
    return (Path(folder, f"{number}.sqlite") for number in _NUMBERS)


def _files(folder: str, durability: Durability = "normal") -> Callable[[], Store]:
    names = _names(folder)
    return lambda: SqliteStore(next(names), durability=durability)


def _places(url: str) -> Callable[[], Store]:
    """Stores on one server, that know nothing of each other."""
    return lambda: RedisStore(url, prefix=uuid.uuid4().hex)


def _plain(many: int, batch: int) -> Callable[[], Awaitable[None]]:
    """The loop that everybody writes: poll, handle, poll."""

    async def work() -> None:
        last = 0
        while last < many:
            await asyncio.sleep(0)
            end = min(many, last + batch)
            for one in [message(id) for id in range(last + 1, end + 1)]:
                last = one.id

    return work


def _threaded(many: int, batch: int) -> Callable[[], Awaitable[None]]:
    """The same, and a thread is asked for nothing once a poll: the least that storing takes."""

    async def work() -> None:
        worker = Worker("benchmark")
        last = 0
        while last < many:
            await worker.run(_nothing)
            end = min(many, last + batch)
            for one in [message(id) for id in range(last + 1, end + 1)]:
                last = one.id
        worker.close()

    return work


def _nothing() -> None:
    pass


def _naive(names: Iterator[Path], many: int, batch: int) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        with closing(sqlite3.connect(next(names))) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, item TEXT)")
            last = 0
            while last < many:
                await asyncio.sleep(0)
                end = min(many, last + batch)
                for one in [message(id) for id in range(last + 1, end + 1)]:
                    row = (one.id, msgspec.json.encode(one))
                    db.execute("INSERT INTO message VALUES (?, ?)", row)
                    db.commit()
                    last = one.id

    return work


def _stream(
    make: Callable[[], Store], many: int, batch: int, *, ack: bool = False
) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        await _follow(make(), many, batch, ack=ack)

    return work


async def _follow(
    store: Store,
    many: int,
    batch: int,
    *,
    ack: bool,
    note: Callable[[str], object] | None = None,
) -> None:
    """Have *many* messages from a stream. *note* is told each statement of a `SqliteStore`."""
    await store.open()
    try:
        if isinstance(store, SqliteStore) and (connection := store._database._connection):
            connection.set_trace_callback(note)
        feeds = Pollers()
        feeds.open(store, Retry())
        feed = feeds.get(TOPIC, lambda: _Script(many, batch))
        stream = Stream(feed, after=0, name="bench")
        async for one in stream:
            if ack:
                await stream.ack()
            if one.id == many:
                break
        await stream.aclose()
    finally:
        await store.aclose()


async def _transactions() -> Table:
    """What the store writes, counted by SQLite itself."""
    many = 1_000
    table = Table(
        f"Transactions for {many:,} messages, all of them acknowledged",
        ("polls bring", "acknowledged by", "polls", "transactions", "for each poll"),
        notes=["One for each poll appends; the others open and close, or renew the right to poll."],
    )
    for batch in (1, 50):
        for ack, by in ((False, "asking for the next"), (True, "ack() each")):
            with tempfile.TemporaryDirectory() as folder:
                store = SqliteStore(Path(folder, "count.sqlite"))
                begun: list[str] = []
                await _follow(store, many, batch, ack=ack, note=begun.append)
            polls = many // batch
            count = sum(statement.startswith("BEGIN") for statement in begun)
            table.add(batch, by, polls, count, count / polls)
    return table


async def _mail(url: str | None, *, quick: bool) -> Table:
    """A consuming read: its announcement, and the transaction that ends it."""
    many = 100 if quick else 1_000
    table = Table(
        "A consuming read of one mail, microseconds for each",
        ("store", "announce", "append and settle"),
        notes=["An announcement is on disk before it is over: this is the disk's time."],
        chart=Bars("store", ("announce", "append and settle")),
    )
    topic = Topic("benchmark.mail", ChatMessage, destructive=True)
    with tempfile.TemporaryDirectory() as folder:
        stores: dict[str, Store] = {
            "MemoryStore": MemoryStore(),
            "SqliteStore": SqliteStore(Path(folder, "normal.sqlite")),
            "SqliteStore, full": SqliteStore(Path(folder, "full.sqlite"), durability="full"),
        }
        if url is not None:
            stores["RedisStore"] = _places(url)()
        for name, store in stores.items():
            await store.open()
            log = store.log(topic)
            loop = asyncio.get_running_loop()
            announcing: list[float] = []
            appending: list[float] = []
            for number in range(many):
                start = loop.time()
                announced = await log.begin_fetch(20.0)
                between = loop.time()
                drafts = [NewEntry(message(number), identity=str(number))]
                await log.append(drafts, completes=[announced])
                announcing.append((between - start) * 1e6)
                appending.append((loop.time() - between) * 1e6)
            await store.aclose()
            table.add(name, statistics.median(announcing), statistics.median(appending))
    return table


async def _tokens(url: str | None, *, quick: bool) -> Table:
    """What each poll pays for sharing its pacing with other programs."""
    many = 200 if quick else 2_000
    table = Table(
        "A token for a poll, written, answered and closed: microseconds of one",
        ("store", "us"),
        notes=[
            "SqliteStore shares tokens with other programs: three transactions, one is awaited.",
            "RedisStore shares them with other machines: one answer of the server is awaited.",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], Awaitable[None]]] = {
            "MemoryStore": _pacing(MemoryStore, many),
            "SqliteStore": _pacing(_files(folder), many),
        }
        if url is not None:
            ways["RedisStore"] = _pacing(_places(url), many)
        for name, times in (await take_turns(3 if quick else 9, ways)).items():
            table.add(name, statistics.median(times.wall) / many * 1e6)
    return table


def _pacing(make: Callable[[], Store], many: int) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        store = make()
        await store.open()
        limiter = store.limiter("benchmark", "benchmark.chat", Rate(1e-6, guard=0.0))
        for _ in range(many):
            permit = await limiter.acquire(Priority.POLL)
            permit.on_written()
            permit.on_answered()
            permit.close()
        await store.aclose()

    return work
