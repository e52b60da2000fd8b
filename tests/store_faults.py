"""The fault table of stores: each trouble of a store, with what the contract promises, as data.

A trouble is either there when a session opens, or it begins while a program runs. A row of the
first kind has the outcome of opening. One of the second kind has the outcomes of a stream and of a
call, and of the pacing. ``store_fault_cells.py`` runs a row, ``test_store_faults.py`` runs all of
them, and ``fault_page.py`` writes them as a part of the page.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from fork_server import HANG_TIMEOUT
from full_disk import no_file_over
from raw_server import closed_port
from redis_proxy import RedisProxy
from redis_server import RealServer
from redis_virtual import VirtualRedisStore, flush_server

from pythpeer import SqliteStore
from pythpeer.stores import RedisStore, Store

Outcome = Literal["continues", "waits", "raises", "raises transient"]
"""``"continues"``: without any error. ``"waits"``: until the trouble is over, and then continues.
``"raises transient"``: a `StoreError` whose ``transient`` is true."""


StoreKind = Literal["sqlite", "redis", "real redis"]
"""``"real redis"`` is a server process; the other servers are on virtual time."""


class StoreExpectation(NamedTuple):
    """The outcomes that the contract promises for a trouble."""

    stream: Outcome
    call: Outcome
    """The outcome of a call that needs a token, and is made during the trouble."""

    repeats_mail: bool = False
    """Whether mail is redelivered, marked as recovered."""

    is_older: bool = False
    """Whether the store has an older snapshot, so that messages that were acknowledged since may be
    redelivered; mail then is marked."""


WAITS: Final = StoreExpectation("waits", "raises transient")
"""Streams wait with a back-off, and log it once. A call raises, because its caller waits."""

RAISES: Final = StoreExpectation("raises", "raises")
"""Waiting does not help: streams raise, each time they are asked for an item."""

CONTINUES: Final = StoreExpectation("continues", "continues")
"""The store repairs it within the time that a call waits for it, without a log record."""

# -- while a program runs -------------------------------------------------------------------------


class Program(NamedTuple):
    """What a trouble can act on."""

    store: Store
    path: Path
    """The file of an SQLite store."""
    proxy: RedisProxy | None = None
    server: VirtualRedisStore | None = None
    real_server: RealServer | None = None


Trouble = Callable[[Program], AbstractAsyncContextManager[object]]
"""Begins a trouble of a running program, and ends it."""


class StoreFault(NamedTuple):
    """A row: a trouble that begins while a program runs."""

    title: str
    expectation: StoreExpectation
    troubles: Mapping[str, Trouble]
    """All ways to cause it, by unique names."""
    store: StoreKind
    seconds: float = 30.0
    """How long it lasts, unless the streams and the call have an outcome before."""

    earlier: Callable[[Program], object] = lambda program: None
    """Called between the first and the second item of the streams."""

    @property
    def unit(self) -> float:
        """The seconds that stand for one: a real server needs real time, which must be short."""
        return 0.2 if self.store == "real redis" else 1.0

    @property
    def guard(self) -> float:
        """The guard of the pacing; long where the services may record a request late."""
        return 0.4 if self.store == "real redis" else 0.0


def trouble(begin: Callable[[Program], object], end: Callable[[Program], object]) -> Trouble:
    """Make a trouble from two functions."""

    @asynccontextmanager
    async def manage(program: Program) -> AsyncIterator[None]:
        await finished(begin(program))
        try:
            yield
        finally:
            await finished(end(program))

    return manage


async def finished(result: object) -> None:
    """Wait for the result of a function, if it is a coroutine."""
    if asyncio.iscoroutine(result):
        await result


def once(act: Callable[[Program], object]) -> Trouble:
    """Make a trouble that is over immediately."""
    return trouble(act, lambda program: None)


@asynccontextmanager
async def locked(program: Program) -> AsyncIterator[None]:
    """Lock the file for writing, as a backup or a shell does."""
    with closing(sqlite3.connect(program.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@asynccontextmanager
async def full_disk(program: Program) -> AsyncIterator[None]:
    with no_file_over(1):
        yield


def error(text: str) -> Mapping[str, Trouble]:
    """Let the server respond to each command with this error."""

    def set_error(program: Program, error: bytes | None) -> None:
        assert program.proxy is not None
        program.proxy.error = error

    return {
        text.partition(" ")[0]: trouble(
            lambda program: set_error(program, text.encode()),
            lambda program: set_error(program, None),
        )
    }


def proxied(act: Callable[[RedisProxy], object]) -> Callable[[Program], object]:
    def run(program: Program) -> object:
        assert program.proxy is not None
        return act(program.proxy)

    return run


def set_silent(proxy: RedisProxy, *, silent: bool) -> None:
    proxy.is_silent = silent


def lose_replies(proxy: RedisProxy, count: int) -> None:
    proxy.lose = count


def rotate_password(proxy: RedisProxy) -> None:
    """Close the connections; new ones are rejected."""
    proxy.error = b"NOAUTH Authentication required."
    proxy.reset()


def accept_password(proxy: RedisProxy) -> None:
    proxy.error = None


def set_clock(seconds: float) -> Callable[[Program], object]:
    def run(program: Program) -> None:
        assert program.server is not None
        program.server.step += seconds

    return run


async def flush(program: Program) -> None:
    assert program.proxy is not None
    await flush_server(program.proxy.upstream_port)


def save_data(program: Program) -> None:
    """Copy the data of the server, as a snapshot does."""
    assert program.real_server is not None
    shutil.copytree(program.real_server.folder, program.path / "saved")


def restart(program: Program, *, older: bool) -> None:
    """Kill the server, and start it with all its data, or with those of the snapshot."""
    assert program.real_server is not None
    program.real_server.kill()
    if older:
        program.real_server.delete_data()
        saved = program.path / "saved"
        shutil.copytree(saved, program.real_server.folder, dirs_exist_ok=True)
    program.real_server.start()


SQLITE: Final = (
    StoreFault(
        "another program has locked the file", WAITS, {"locked": locked}, "sqlite", seconds=7.0
    ),
    StoreFault(
        "another program has locked the file for long", WAITS, {"locked long": locked}, "sqlite"
    ),
    StoreFault("the disk, or the quota, is full", WAITS, {"full disk": full_disk}, "sqlite"),
)

REDIS: Final = (
    StoreFault(
        "the server is down, or cannot be reached",
        WAITS,
        {"refused": trouble(proxied(RedisProxy.stop), proxied(RedisProxy.start))},
        "redis",
    ),
    StoreFault(
        "the server is frozen, and responds to nothing",
        WAITS,
        {
            "silent": trouble(
                proxied(lambda proxy: set_silent(proxy, silent=True)),
                proxied(lambda proxy: set_silent(proxy, silent=False)),
            )
        },
        "redis",
    ),
    StoreFault(
        "all connections are reset", CONTINUES, {"reset": once(proxied(RedisProxy.reset))}, "redis"
    ),
    StoreFault(
        "responses are lost with their connections",
        CONTINUES,
        {
            "one response": once(proxied(lambda proxy: lose_replies(proxy, 1))),
            "three responses": once(proxied(lambda proxy: lose_replies(proxy, 3))),
        },
        "redis",
    ),
    StoreFault(
        "`BUSY`: a script of another program runs",
        WAITS,
        error("BUSY Redis is busy running a script."),
        "redis",
    ),
    StoreFault(
        "`NOREPLICAS`: too few replicas are connected",
        WAITS,
        error("NOREPLICAS Not enough good replicas to write."),
        "redis",
    ),
    StoreFault(
        "`OOM`, `MISCONF`: its memory or its disk is full",
        WAITS,
        {
            **error("OOM command not allowed when used memory > 'maxmemory'."),
            **error("MISCONF Redis is configured to save RDB snapshots, but cannot."),
        },
        "redis",
    ),
    StoreFault(
        "`LOADING`, `READONLY`, `MASTERDOWN`: it starts, or is a replica now",
        WAITS,
        {
            **error("LOADING Redis is loading the dataset in memory"),
            **error("READONLY You can't write against a read only replica."),
            **error("MASTERDOWN Link with MASTER is down."),
        },
        "redis",
    ),
    StoreFault(
        "`MOVED`, `ASK`, `TRYAGAIN`, `CLUSTERDOWN`: a cluster is resharded, without an end",
        WAITS,
        {
            **error("ASK 1729 127.0.0.1:1"),
            **error("MOVED 1729 127.0.0.1:1"),
            **error("TRYAGAIN Multiple keys request during rehashing of slot"),
            **error("CLUSTERDOWN The cluster is down"),
        },
        "redis",
    ),
    StoreFault(
        "the password is changed, and then accepted again",
        WAITS,
        {"password": trouble(proxied(rotate_password), proxied(accept_password))},
        "redis",
    ),
    StoreFault(
        "`NOPERM`: the user loses a right",
        RAISES,
        error("NOPERM this user has no permissions to run the 'evalsha' command"),
        "redis",
    ),
    StoreFault(
        "the server's clock is set back, or forward",
        CONTINUES,
        {
            "clock back": once(set_clock(-3600.0)),
            "clock forward": once(set_clock(3600.0)),
        },
        "redis",
    ),
    StoreFault(
        "the server comes back empty",
        CONTINUES._replace(repeats_mail=True),
        {"empty": once(flush)},
        "redis",
    ),
    StoreFault(
        "the server is killed, and restarted with its data",
        CONTINUES,
        {"restart": once(lambda program: restart(program, older=False))},
        "real redis",
        seconds=HANG_TIMEOUT,
    ),
    StoreFault(
        "the server comes back with an older snapshot",
        CONTINUES._replace(repeats_mail=True, is_older=True),
        {"older": once(lambda program: restart(program, older=True))},
        "real redis",
        seconds=HANG_TIMEOUT,
        earlier=save_data,
    ),
)

STORE_TABLE: Final = MappingProxyType({"SQLite": SQLITE, "Redis": REDIS})
"""The rows for a running program by kind of store."""

STORE_FAULTS: Final = MappingProxyType({row.title: row for row in (*SQLITE, *REDIS)})

# -- when a session opens -------------------------------------------------------------------------


class OpeningFault(NamedTuple):
    """A row: a trouble that is there when a session opens."""

    title: str
    outcome: Outcome
    prepare: Mapping[str, Callable[[Path], AbstractAsyncContextManager[Store]]]
    """All ways to cause it, by unique names: each yields a store to open."""


def damaged_file(
    change: Callable[[Path], object],
) -> Callable[..., AbstractAsyncContextManager[Store]]:
    """Make a store whose file was changed after it was closed."""

    @asynccontextmanager
    async def manage(folder: Path) -> AsyncIterator[Store]:
        path = folder / "store.sqlite"
        store = SqliteStore(path)
        await store.open()
        await store.aclose()
        change(path)
        yield SqliteStore(path)

    return manage


def execute(statement: str) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute(statement)

    return run


def without_folder_access(path: Path) -> None:
    """Put a file where the folder of the store was."""
    shutil.rmtree(path.parent)
    path.parent.write_bytes(b"")


@asynccontextmanager
async def locked_file(folder: Path) -> AsyncIterator[Store]:
    path = folder / "store.sqlite"
    store = SqliteStore(path)
    await store.open()
    await store.aclose()
    async with locked(Program(store, path)):
        yield SqliteStore(path)


@asynccontextmanager
async def unreachable_server(folder: Path) -> AsyncIterator[Store]:
    with closed_port() as url:
        yield RedisStore(url.replace("http:", "redis:"))


def responding(text: str) -> Callable[[Path], AbstractAsyncContextManager[Store]]:
    """Make a store whose server responds to each command with an error."""

    @asynccontextmanager
    async def manage(folder: Path) -> AsyncIterator[Store]:
        server = VirtualRedisStore(max_length=100)
        await server.open()
        try:
            async with RedisProxy(server.port) as proxy:
                proxy.error = text.encode()
                yield RedisStore(proxy.url)
        finally:
            await server.aclose()

    return manage


OPENING: Final = (
    OpeningFault(
        "the file is damaged, or no SQLite database",
        "raises",
        {
            "no database": damaged_file(lambda path: path.write_bytes(b"no database" * 1000)),
            "cut": damaged_file(lambda path: os.truncate(path, 5000)),
        },
    ),
    OpeningFault(
        "a newer version has written it",
        "raises",
        {"newer schema": damaged_file(execute("PRAGMA user_version = 1000"))},
    ),
    OpeningFault(
        "it cannot be opened, or other users can write it",
        "raises",
        {
            "no folder": damaged_file(without_folder_access),
            "writable": damaged_file(lambda path: path.chmod(0o666)),
        },
    ),
    OpeningFault(
        "another program has locked it for longer than a minute",
        "raises transient",
        {"locked": locked_file},
    ),
    OpeningFault(
        "it contains a trigger or a view",
        "raises",
        {
            "trigger": damaged_file(
                execute("CREATE TRIGGER t AFTER INSERT ON entry BEGIN DELETE FROM entry; END")
            ),
            "view": damaged_file(execute("CREATE VIEW v AS SELECT 1")),
        },
    ),
    OpeningFault(
        "a server cannot be reached, or is loading its data",
        "raises transient",
        {"refused": unreachable_server, "loading": responding("LOADING Redis is loading")},
    ),
    OpeningFault(
        "a server rejects the password, or the user lacks a right",
        "raises",
        {
            "wrong password": responding("WRONGPASS invalid username-password pair"),
            "no password": responding("NOAUTH Authentication required."),
            "no right": responding("NOPERM this user has no permissions"),
        },
    ),
)

OPENING_FAULTS: Final = MappingProxyType({row.title: row for row in OPENING})
