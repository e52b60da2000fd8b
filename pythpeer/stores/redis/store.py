"""`RedisStore`: opens and closes the connections, and creates the handles and limiters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

import anyio

from ...errors import InvalidRequestError, PythpeerError, StoreError
from ...pacing.bucket import Rate
from ...pacing.limiter import Limiter
from ...secret import Secret
from ...validation import check_integer, check_seconds, check_text
from ..base import Log, Store, Topic
from ..forks import reset_after_fork
from ..snapshot import StoreSnapshot
from .address import Address, read_address
from .clock import ServerClock
from .connection import Connections
from .heartbeat import Heartbeat
from .keys import Keys
from .log import RedisLog
from .log_state import LogState
from .pacing_backend import RedisPacing
from .snapshot import read_snapshot

__all__ = ["RedisStore"]

T = TypeVar("T")

MAX_LENGTH: Final = 100_000
"""The default number of items in a log."""


class RedisStore(Store):
    """Keeps everything on a Redis (7.0 or newer) or Valkey server, for any number of machines.

    Programs with the same server and *prefix* share their pacing, and one of them polls for all.
    Streams of one name share its items: each item is returned to one of them. Streams of different
    names receive all items each. If a program dies, its pending items are returned to another one
    within two seconds. Needs the extra ``redis``.

    The store is as durable as the server: let it append to its file (``appendonly yes``), and never
    evict (``maxmemory-policy noeviction``, the default).

    Invariants: the connections are open while there are sessions; they belong to the running event
    loop.

    Args:
        url: The URL of the server: ``redis://``, ``rediss://`` (TLS) or ``valkey://``, with a user
            name and a password if the server needs them, and ``?prefix=`` for a *prefix*.
        prefix: Part of all keys: programs with another one share nothing. By default that of the
            URL, or else ``"main"``. At most 100 characters, without whitespace and braces.
        max_length: The number of last items that each log keeps, 100,000 by default; ``None`` keeps
            all. Mail that no stream has acknowledged is kept in addition.
        timeout: The seconds to wait for one response of the server, 5 by default.
        patience: The seconds for which a call retries while the server is not reachable, 3 by
            default; then it raises `StoreError`. Streams keep retrying.

    Raises:
        InvalidRequestError: if an argument is invalid. Its text contains no part of the URL.
    """

    def __init__(
        self,
        url: str | Secret,
        *,
        prefix: str | None = None,
        max_length: int | None = MAX_LENGTH,
        timeout: float = 5.0,
        patience: float = 3.0,
    ) -> None:
        # First, so that no later error can show a password among the variables of this frame.
        address = read_address(url)
        url = ""
        super().__init__()
        if isinstance(address, PythpeerError):
            raise address
        if max_length is not None:
            check_integer("max_length", max_length, 1)
        if prefix is None:
            prefix = "main" if address.prefix is None else address.prefix
        check_text("prefix", prefix, 100)
        if set(prefix) & set("{} \t\r\n"):
            raise InvalidRequestError("prefix must not contain whitespace or braces")
        if not check_seconds("timeout", timeout):
            raise InvalidRequestError("timeout must be more than 0 seconds")
        self._address: Address = address
        self._sessions = 0
        """The number of open sessions. Changed by `open` and `aclose`, under the lock."""
        self._keys = Keys(prefix)
        self._connections = Connections(
            address,
            self._keys,
            timeout=timeout,
            max_wait=check_seconds("patience", patience),
        )
        self._clock = ServerClock(address)
        self._heartbeat = Heartbeat(self._connections, self._keys, self._clock)
        self._max_length = max_length
        self._logs: dict[str, LogState[Any]] = {}
        """The logs by topic. Added by `log`. When the first session is opened, only those are kept
        whose last results the server does not have yet."""
        self._pacing: list[RedisPacing] = []
        """The pacing backends of all limiters. Added by `make_limiter`, never removed."""
        self._lock = asyncio.Lock()
        """Held while connections are being opened or closed."""
        reset_after_fork(self)

    def reset_after_fork(self) -> None:
        """Be another program in a child process: no session of the parent is open in it."""
        self._sessions = 0
        self._logs.clear()
        self._connections.reset_after_fork()
        self._heartbeat.reset_after_fork()
        for pacing in self._pacing:
            pacing.reset_after_fork()

    async def open(self) -> None:
        """Check that the server can be used by one more session.

        Raises:
            StoreError: if the server cannot be used; there is no retry.
        """
        if not self._sessions:
            self._lock = asyncio.Lock()  # the present one may belong to another event loop
        async with self._lock:
            if not self._sessions:
                self._logs = {name: log for name, log in self._logs.items() if log.has_unwritten}
                await self._connections.open()
            try:
                await self._prepare()
            except BaseException:
                if not self._sessions:
                    await self._connections.aclose()
                raise
            self._sessions += 1

    async def _prepare(self) -> None:
        """Compute the fingerprints, which are slow, in a thread, and rename keys of version 0.1."""
        names = [pacing.key for pacing in self._pacing]
        await asyncio.to_thread(lambda: [self._keys.stored(name) for name in names])
        if not self._connections.has_renamed:
            await self._connections.rename_keys()

    async def aclose(self) -> None:
        """Close the store for one session. The last one closes the connections."""
        with anyio.CancelScope(shield=True):
            async with self._lock:
                self._sessions = max(0, self._sessions - 1)
                if not self._sessions:
                    await self._close()

    async def _close(self) -> None:
        """Store acknowledgements, and release pending items and tokens. Raises the first error."""
        failure: StoreError | None = None
        try:
            for step in self._closing_steps():
                await step()
        except StoreError as error:
            failure = error.with_traceback(None)
        finally:
            await self._heartbeat.aclose()
            await self._connections.aclose()
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # otherwise the error and this frame would refer to each other

    def _closing_steps(self) -> list[Callable[[], Awaitable[None]]]:
        pending_writes = [state.write_pending for state in self._logs.values()]
        background = [state.wait_background for state in self._logs.values()]
        readers = [reader for state in self._logs.values() for reader in state.readers]
        reader_closes = [reader.leave for reader in readers]
        return [
            *pending_writes,
            *background,
            *reader_closes,
            *(pacing.close for pacing in self._pacing),
        ]

    def log(self, topic: Topic[T]) -> Log[T]:
        """Return a handle to the log of *topic*, shared by all programs with this prefix."""
        state = self._logs.get(topic.name)
        if state is None:
            state = self._logs[topic.name] = LogState(
                topic, self._connections, self._heartbeat, self._keys, self._max_length
            )
        return RedisLog(cast("LogState[T]", state))

    def make_limiter(self, key: str, name: str, rate: Rate) -> Limiter:
        """Create a limiter that shares its tokens with the other programs, as `Store` describes."""
        if not rate.interval:
            return Limiter(name, rate)
        pacing = RedisPacing(self._connections, self._heartbeat, self._clock, self._keys, key, rate)
        self._pacing.append(pacing)
        return Limiter(name, rate, pacing)

    async def snapshot(self, latest: int = 10) -> StoreSnapshot:
        """Return the present content with this prefix, with the last *latest* items of each log.

        Scans the names of all keys in the database, in small steps.
        """
        return await read_snapshot(self._connections, self._keys, latest)

    async def other_prefixes(self) -> list[str]:
        """Return the other prefixes under which the database has stores, sorted.

        Scans the names of all keys in the database, in small steps.
        """
        keys = await self._connections.scan("{pythpeer:")
        prefixes = {key.partition("}")[0].removeprefix("{pythpeer:") for key in keys}
        return sorted(prefixes - {self._keys.prefix})

    def __str__(self) -> str:
        return f"Redis at {self._address}, prefix {self._keys.prefix!r}"

    def __repr__(self) -> str:
        # A traceback may show a store whose constructor has failed, and that lacks attributes.
        keys: Keys | None = getattr(self, "_keys", None)
        if keys is None:
            return "<RedisStore>"
        state = "open" if self._sessions else "closed"
        return f"<RedisStore {self._address} {keys.prefix!r}, {state}>"
