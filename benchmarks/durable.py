"""The cost of durable streams, compared with a loop that stores nothing.

The polls are scripted and in memory, so that storing, delivering and acknowledging is measured.
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
from pythpeer.pacing.queue import Priority
from pythpeer.stores import RedisStore
from pythpeer.stores.base import Log, NewEntry, Store, Topic
from pythpeer.stores.sqlite.database import Durability
from pythpeer.stores.sqlite.worker import Worker
from pythpeer.streams.gaps import link_entries
from pythpeer.streams.poller import Poller, Pollers, PollSource
from pythpeer.streams.stream import Stream

from .chart import Bars
from .measure import interleave
from .redis_server import NOT_INSTALLED, redis_server
from .report import Table

__all__ = ["run"]

TOPIC: Final = Topic("benchmark", ChatMessage)
MAX_ONE_BY_ONE: Final = 120
MAX_IN_BATCHES: Final = 20
"""Maximum microseconds per message over the plain loop."""

TEXT: Final = "a message of about the length that messages have"


def message(id: int) -> ChatMessage:
    return ChatMessage(id, "somebody", TEXT, "", "2012-12-12 21:12:21")


class _ScriptedSource(PollSource[ChatMessage]):
    """A poll source of *messages* messages; each poll returns the next *batch* of them."""

    def __init__(self, messages: int, batch: int) -> None:
        self.name = "benchmark.chat"
        self._messages = messages
        self._batch = batch

    async def initial_position(self, log: Log[ChatMessage]) -> int | None:
        return 0

    async def try_poll(self, poller: Poller[ChatMessage]) -> PythpeerError | None:
        after = poller.min_position
        end = min(self._messages, after + self._batch)
        page = {id: message(id) for id in range(after + 1, end + 1)}
        await poller.log.append(link_entries(after, page, full=False))
        poller.confirm(after, full=False)
        return None


def run(*, quick: bool) -> list[Table]:
    """Measure messages with 1 and with 50 per poll, and the parts of their cost."""
    with redis_server() as url:
        tables = [
            asyncio.run(_run(url, quick=quick)),
            asyncio.run(_mail(url, quick=quick)),
            asyncio.run(_tokens(url, quick=quick)),
            asyncio.run(_transactions()),
        ]
        if url is None:
            tables[0].notes.append(NOT_INSTALLED)
    return tables


async def _run(url: str | None, *, quick: bool) -> Table:
    table = Table(
        "Time per message of a durable chat stream, by store",
        (
            "implementation",
            "1 per poll",
            "1 per poll, over plain",
            "50 per poll",
            "50 per poll, over plain",
            "target",
            "met",
        ),
        notes=[
            "over plain: the median of the differences to the plain loop of the same round.",
            (
                "SqliteStore: one transaction for each poll and one for each message, on the "
                "event loop; an empty thread job is a separate row."
            ),
            (
                "commit on the loop: sqlite3 used naively, an insert and a commit for "
                "each message, which block the event loop."
            ),
            (
                "RedisStore: its server is on loopback. With 1 per poll, it has five "
                "round trips per message: the lease, an append, an empty and a successful "
                "read, an acknowledgement."
            ),
        ],
        chart=Bars("implementation", ("1 per poll", "50 per poll"), log=True),
    )
    times: dict[int, dict[str, list[float]]] = {}
    for batch, messages in ((1, 300 if quick else 2_000), (50, 5_000 if quick else 20_000)):
        with tempfile.TemporaryDirectory() as folder:
            setups: dict[str, Callable[[], Awaitable[None]]] = {
                "plain loop": _plain(messages, batch),
                "plain loop, a thread job per poll": _threaded(messages, batch),
                "commit on the loop": _commit_each(_new_paths(folder), messages, batch),
                "pythpeer, MemoryStore": _stream(MemoryStore, messages, batch),
                "pythpeer, SqliteStore": _stream(_sqlite_stores(folder), messages, batch),
                "pythpeer, SqliteStore, ack() each": _stream(
                    _sqlite_stores(folder), messages, batch, ack=True
                ),
                "pythpeer, SqliteStore, full": _stream(
                    _sqlite_stores(folder, "full"), messages, batch
                ),
            }
            if url is not None:
                setups["pythpeer, RedisStore"] = _stream(_redis_stores(url), messages, batch)
            measured = await interleave(3 if quick else 9, setups)
            times[batch] = {
                name: [wall / messages * 1e6 for wall in setup.wall]
                for name, setup in measured.items()
            }
    for name in times[1]:
        cells: list[float] = []
        for batch in times:
            ours, plain = times[batch][name], times[batch]["plain loop"]
            cells.append(statistics.median(ours))
            cells.append(statistics.median(a - b for a, b in zip(ours, plain, strict=True)))
            table.samples[f"{name}, {batch}"] = ours
        if name == "pythpeer, SqliteStore":
            is_met = cells[1] < MAX_ONE_BY_ONE and cells[3] < MAX_IN_BATCHES
            table.add(name, *cells, f"< {MAX_ONE_BY_ONE}, < {MAX_IN_BATCHES}", is_met)
        else:
            table.add(name, *cells, None, None)
    return table


_NUMBERS: Final = count()


def _new_paths(folder: str) -> Iterator[Path]:
    return (Path(folder, f"{number}.sqlite") for number in _NUMBERS)


def _sqlite_stores(folder: str, durability: Durability = "normal") -> Callable[[], Store]:
    names = _new_paths(folder)
    return lambda: SqliteStore(next(names), durability=durability)


def _redis_stores(url: str) -> Callable[[], Store]:
    """Return a factory of independent stores on one server."""
    return lambda: RedisStore(url, prefix=uuid.uuid4().hex)


def _plain(messages: int, batch: int) -> Callable[[], Awaitable[None]]:
    """Return the simplest loop: poll, handle, poll."""

    async def work() -> None:
        last = 0
        while last < messages:
            await asyncio.sleep(0)
            end = min(messages, last + batch)
            for item in [message(id) for id in range(last + 1, end + 1)]:
                last = item.id

    return work


def _threaded(messages: int, batch: int) -> Callable[[], Awaitable[None]]:
    """Return the same with an empty thread job per poll, the minimum cost of storing."""

    async def work() -> None:
        worker = Worker("benchmark")
        last = 0
        while last < messages:
            await worker.run(_nothing)
            end = min(messages, last + batch)
            for item in [message(id) for id in range(last + 1, end + 1)]:
                last = item.id
        worker.close()

    return work


def _nothing() -> None:
    pass


def _commit_each(names: Iterator[Path], messages: int, batch: int) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        with closing(sqlite3.connect(next(names))) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, item TEXT)")
            last = 0
            while last < messages:
                await asyncio.sleep(0)
                end = min(messages, last + batch)
                for item in [message(id) for id in range(last + 1, end + 1)]:
                    row = (item.id, msgspec.json.encode(item))
                    db.execute("INSERT INTO message VALUES (?, ?)", row)
                    db.commit()
                    last = item.id

    return work


def _stream(
    make: Callable[[], Store], messages: int, batch: int, *, ack: bool = False
) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        await _follow(make(), messages, batch, ack=ack)

    return work


async def _follow(
    store: Store,
    messages: int,
    batch: int,
    *,
    ack: bool,
    trace: Callable[[str], object] | None = None,
) -> None:
    """Receive all messages from a stream; *trace* is called with each statement of SQLite."""
    await store.open()
    try:
        if isinstance(store, SqliteStore) and (connection := store._database._connection):
            connection.set_trace_callback(trace)
        pollers = Pollers()
        pollers.open(store, Retry())
        poller = pollers.get(TOPIC, lambda: _ScriptedSource(messages, batch))
        stream = Stream(poller, after=0, name="bench")
        async for item in stream:
            if ack:
                await stream.ack()
            if item.id == messages:
                break
        await stream.aclose()
    finally:
        await store.aclose()


async def _transactions() -> Table:
    """Return the table of the store's transactions, as SQLite reports them."""
    messages = 1_000
    table = Table(
        f"Statements that begin a transaction for {messages:,} messages, by size of a poll",
        ("messages per poll", "acknowledged by", "polls", "transactions", "per poll"),
        notes=[
            (
                "One per poll appends; the others open and close the store, or renew the lease. "
                "An acknowledgement is one statement without them."
            )
        ],
    )
    for batch in (1, 50):
        for ack, by in ((False, "requesting the next"), (True, "ack() each")):
            with tempfile.TemporaryDirectory() as folder:
                store = SqliteStore(Path(folder, "count.sqlite"))
                statements: list[str] = []
                await _follow(store, messages, batch, ack=ack, trace=statements.append)
            polls = messages // batch
            count = sum(statement.startswith("BEGIN") for statement in statements)
            table.add(batch, by, polls, count, count / polls)
    return table


async def _mail(url: str | None, *, quick: bool) -> Table:
    """Return the table of a destructive read: its fetch intent and the append."""
    messages = 100 if quick else 1_000
    table = Table(
        "Time of a destructive read of one mail, by store, in microseconds",
        ("store", "begin fetch", "append and complete"),
        notes=[
            "A fetch intent is on disk before `begin_fetch()` returns: this is the disk's time."
        ],
        chart=Bars("store", ("begin fetch", "append and complete")),
    )
    topic = Topic("benchmark.mail", ChatMessage, destructive=True)
    with tempfile.TemporaryDirectory() as folder:
        stores: dict[str, Store] = {
            "MemoryStore": MemoryStore(),
            "SqliteStore": SqliteStore(Path(folder, "normal.sqlite")),
            "SqliteStore, full": SqliteStore(Path(folder, "full.sqlite"), durability="full"),
        }
        if url is not None:
            stores["RedisStore"] = _redis_stores(url)()
        for name, store in stores.items():
            await store.open()
            log = store.log(topic)
            loop = asyncio.get_running_loop()
            intent_times: list[float] = []
            append_times: list[float] = []
            for number in range(messages):
                start = loop.time()
                fetch = await log.begin_fetch(20.0)
                within_gaps = loop.time()
                entries = [NewEntry(message(number), identity=str(number))]
                await log.append(entries, completes=[fetch])
                intent_times.append((within_gaps - start) * 1e6)
                append_times.append((loop.time() - within_gaps) * 1e6)
            await store.aclose()
            table.add(name, statistics.median(intent_times), statistics.median(append_times))
    return table


async def _tokens(url: str | None, *, quick: bool) -> Table:
    """Return the table of the cost per poll of pacing that is shared with other programs."""
    messages = 200 if quick else 2_000
    table = Table(
        "Time of a token for a poll (written, answered, closed), by store",
        ("store", "us"),
        notes=[
            ("SqliteStore shares tokens with other programs: three transactions."),
            "RedisStore shares them with other machines: one response of the server is awaited.",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        setups: dict[str, Callable[[], Awaitable[None]]] = {
            "MemoryStore": _pacing(MemoryStore, messages),
            "SqliteStore": _pacing(_sqlite_stores(folder), messages),
        }
        if url is not None:
            setups["RedisStore"] = _pacing(_redis_stores(url), messages)
        for name, times in (await interleave(3 if quick else 9, setups)).items():
            table.add(name, statistics.median(times.wall) / messages * 1e6)
    return table


def _pacing(make: Callable[[], Store], messages: int) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        store = make()
        await store.open()
        limiter = store.limiter("benchmark", "benchmark.chat", Rate(1e-6, guard=0.0))
        for _ in range(messages):
            permit = await limiter.acquire(Priority.POLL)
            permit.on_written()
            permit.on_answered()
            permit.close()
        await store.aclose()

    return work
