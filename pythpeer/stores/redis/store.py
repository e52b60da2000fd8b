"""`RedisStore`: opens and closes the link to the server, and hands out what is on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

import anyio

from ...errors import InvalidRequestError, StoreError
from ...limiter import Limiter
from ...secret import Secret
from ...wire import Rate, check_integer, check_seconds, check_text
from ..base import Log, Store, Topic
from ..survey import StoreSnapshot
from .address import Address, read_address
from .gate import RedisPacing
from .link import Connections
from .log import RedisLog
from .pulse import Heartbeat
from .shelf import Keys, LogState
from .survey import read_snapshot

__all__ = ["RedisStore"]

T = TypeVar("T")

MAX_LENGTH: Final = 100_000


class RedisStore(Store):
    """Keeps everything on a Redis (7.0 or newer) or Valkey server, for any number of machines.

    *url* is ``redis://``, ``rediss://`` (TLS) or ``valkey://``, with a user name and a password
    where the server wants them. Programs with the same server and *prefix* share their pacing, and
    one of them polls for all. Streams of one name share the items among them, each item to one;
    streams of different names each get all. An item whose holder dies goes to another within two
    seconds. Needs the extra ``redis``.

    Each log keeps its last ``max_length`` items (``None``: all of them); of mail, all that no
    stream has acknowledged besides. ``timeout`` limits one answer of the server, and ``patience``
    is how long a call waits for a server that is away before it fails with a `StoreError`; streams
    go on waiting. Both are seconds.

    What the server promises is what holds: have it append to its file (``appendonly yes``), and
    never evict (``maxmemory-policy noeviction``, the default).
    """

    def __init__(
        self,
        url: str | Secret,
        *,
        prefix: str = "main",
        max_length: int | None = MAX_LENGTH,
        timeout: float = 5.0,
        patience: float = 3.0,
    ) -> None:
        # First of all, so that no later error can show a password among this frame's variables.
        address = read_address(url)
        url = ""
        super().__init__()
        if isinstance(address, InvalidRequestError):
            raise address
        if max_length is not None:
            check_integer("max_length", max_length, 1)
        check_text("prefix", prefix, 100)
        if set(prefix) & set("{} \t\r\n"):
            raise InvalidRequestError("prefix has no blanks and no braces in it")
        if not check_seconds("timeout", timeout):
            raise InvalidRequestError("timeout must be more than 0 seconds")
        self._address: Address = address
        self._sessions = 0
        self._keys = Keys(prefix)
        self._connections = Connections(
            address,
            run_key=self._keys.server,
            timeout=timeout,
            max_wait=check_seconds("patience", patience),
        )
        self._heartbeat = Heartbeat(self._connections, self._keys.alive, self._keys.deaths)
        self._max_length = max_length
        self._logs: dict[str, LogState[Any]] = {}
        self._pacing: list[RedisPacing] = []
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """See that the server is there and of use. Raises `StoreError` at once where it is not."""
        if not self._sessions:
            self._lock = asyncio.Lock()  # the one before may be another loop's
        async with self._lock:
            if not self._sessions:
                self._logs.clear()
                await self._connections.open()
            self._sessions += 1

    async def aclose(self) -> None:
        """One session less; the last one closes the connections."""
        with anyio.CancelScope(shield=True):
            async with self._lock:
                self._sessions = max(0, self._sessions - 1)
                if not self._sessions:
                    await self._close()

    async def _close(self) -> None:
        """Let others have what is in hand, and what was acknowledged be on record."""
        failure: StoreError | None = None
        for leaving in self._closing_steps():
            try:
                if failure is None:
                    await leaving()
            except StoreError as error:
                failure = error.with_traceback(None)
        await self._heartbeat.aclose()
        await self._connections.aclose()
        if failure is not None:
            raise failure

    def _closing_steps(self) -> list[Callable[[], Awaitable[None]]]:
        readers = [reader for shelf in self._logs.values() for reader in shelf.readers]
        settling = [shelf.wait_background for shelf in self._logs.values()]
        leaving = [reader.leave for reader in readers]
        return [*settling, *leaving, *(gate.close for gate in self._pacing)]

    def log(self, topic: Topic[T]) -> Log[T]:
        """The log of *topic*, shared by all sessions and programs on this server and prefix."""
        shelf = self._logs.get(topic.name)
        if shelf is None:
            shelf = self._logs[topic.name] = LogState(
                topic, self._connections, self._heartbeat, self._keys, self._max_length
            )
        return RedisLog(cast("LogState[T]", shelf))

    def make_limiter(self, key: str, name: str, rate: Rate) -> Limiter:
        """Make a limiter that shares its tokens with the other programs."""
        if not rate.interval:
            return Limiter(name, rate)
        gate = RedisPacing(self._connections, self._heartbeat, self._keys.bucket(key), rate)
        self._pacing.append(gate)
        return Limiter(name, rate, gate)

    async def snapshot(self, latest: int = 10) -> StoreSnapshot:
        """What is on the server now, under this prefix, with the last *latest* items of each log.

        Looks through the names of all keys in the database, in small steps.
        """
        return await read_snapshot(self._connections, self._keys, latest)

    def __repr__(self) -> str:
        # Not everything is there yet where a traceback shows a store that could not be made.
        keys: Keys | None = getattr(self, "_keys", None)
        if keys is None:
            return "<RedisStore>"
        state = "open" if self._sessions else "closed"
        return f"<RedisStore {self._address} {keys.prefix!r}, {state}>"
