"""`RedisLog`: a handle to a log on the server: its readers, fetch intents and lease."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

from ..base import DIRECT, Log, LogTail, NewEntry, Reader
from .connection import Argument
from .heartbeat import SESSION_TIMEOUT, to_microseconds
from .log_state import LogState
from .readers import GroupReader, StandaloneReader

__all__ = ["RedisLog"]

T = TypeVar("T")

BLOCK_TIMEOUT: Final = 1.0
"""The seconds for which one command waits for an append on the server."""

RELEASE_DELAY: Final = 0.25
"""The seconds after which a leader that does not poll again releases the lease: it is processing
items."""

RETRY_INTERVAL: Final = 5.0
"""Seconds after which a stream tries again at the latest while the server fails: longer than for a
file, because many programs may wait for the same server."""


class RedisLog(Log[T]):
    """See `Log`.

    Invariant: while the lease is held, either the heartbeat keeps it alive, or its time is over.
    """

    def __init__(self, state: LogState[T]) -> None:
        self._state = state
        self._heartbeat = state.heartbeat
        self._owner = state.heartbeat.new_owner()
        """The name of this handle on the server, for the lease and for fetch intents."""
        self._is_leader = False
        """Whether this handle has acquired the lease, and not released it."""
        self._release_timer: asyncio.TimerHandle | None = None
        """Releases the lease. Set by `release_lease`, cancelled by `acquire_lease`."""
        weakref.finalize(self, state.heartbeat.report_dead, self._owner).atexit = False

    @property
    def retry_interval(self) -> float:
        """Seconds after which a stream tries again at the latest, after a failure of the store."""
        return RETRY_INTERVAL

    def reader(self, name: str | None) -> Reader[T]:
        """Return a reader of this name, which shares its items with the others of the name.

        With ``None`` the reader receives all items, and its position is not stored.
        """
        if name is None or name == DIRECT:
            return StandaloneReader(self._state, name)
        return GroupReader(self._state, name)

    async def append(
        self, entries: Sequence[NewEntry[T]], *, completes: Collection[int] = ()
    ) -> Sequence[NewEntry[T]]:
        """Append those of *entries* that are new, and return them."""
        if not entries and not completes:
            return ()
        added = await self._state.append(self._owner, entries, completes)
        for fetch in completes:
            self._heartbeat.stop(self._owner, fetch)
        return () if added is None else added

    async def append_at(
        self, head: int, entries: Sequence[NewEntry[T]]
    ) -> Sequence[NewEntry[T]] | None:
        """Append those of *entries* that are new if *head* is the highest id, else nothing."""
        if not entries:
            return ()
        return await self._state.append(self._owner, entries, (), expected_head=head)

    async def tail(self, limit: int) -> LogTail[T]:
        """Return the highest id, and the last *limit* entries."""
        return await self._state.tail(limit)

    @property
    def keeps_failed_appends(self) -> bool:
        """Return True: only the server knows whether it has executed the append."""
        return True

    async def copies(self) -> Mapping[str, int]:
        """Return for each identity how many entries were appended."""
        fields: list[bytes] = await self._run_command("copies")
        pairs = zip(fields[::2], fields[1::2], strict=True)
        return {identity.decode(): int(copies.split()[0]) for identity, copies in pairs}

    async def unacknowledged_of_others(self) -> int:
        """Return how many items other accounts of the service have that no reader has had."""
        return sum(await self._state.run_for_other_accounts("unacknowledged"))

    async def max_acknowledged(self) -> int:
        """Return the highest position of all readers except that of direct calls."""
        for reader in list(self._state.readers):
            await reader.flush()
        position: int = await self._run_command("max acknowledged")
        return position

    async def _run_command(self, command: str, *args: Argument) -> Any:
        return await self._state.run_script("lease_and_fetches", command, self._owner, *args)

    # -- fetch intents ----------------------------------------------------------------------------

    async def begin_fetch(self, timeout: float) -> int:
        """Store a fetch intent. The server has it on return."""
        await self._state.write_pending()
        args = (to_microseconds(SESSION_TIMEOUT), to_microseconds(timeout))
        fetch: int = await self._run_command("begin fetch", *args)
        self._heartbeat.keep_alive(self._owner, fetch, timeout)
        return fetch

    async def cancel_fetch(self, fetch: int) -> None:
        """Delete a fetch intent: the read did not happen."""
        self._heartbeat.stop(self._owner, fetch)
        await self._run_command("cancel fetch", fetch)

    async def lose_fetch(self, fetch: int) -> None:
        """Mark a fetch intent as lost: the read is over, and its outcome is unknown."""
        self._heartbeat.stop(self._owner, fetch)
        await self._state.lose_fetch(self._owner, fetch)

    async def lost_fetches(self) -> Collection[int]:
        """Return the numbers of the fetch intents whose reads are over with unknown outcome."""
        await self._state.write_pending()
        fetches: list[int] = await self._run_command("lost fetches")
        return fetches

    # -- the lease --------------------------------------------------------------------------------

    async def acquire_lease(self, seconds: float) -> bool:
        """Acquire or extend the lease: return whether this handle may poll for *seconds*.

        If the process of the leader dies, its lease is free after the session timeout.
        """
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None
        await self._state.write_pending()
        args = (to_microseconds(SESSION_TIMEOUT), to_microseconds(seconds))
        is_leader = bool(await self._run_command("acquire lease", *args))
        if is_leader:
            self._is_leader = True
            self._heartbeat.keep_alive(self._owner, "lease", seconds)
        return is_leader

    def release_lease(self) -> None:
        """Release the lease after a delay, unless this handle extends it before.

        Another handle can then poll while this one processes items.
        """
        if self._is_leader and self._release_timer is None:
            loop = asyncio.get_running_loop()
            self._release_timer = loop.call_later(RELEASE_DELAY, self._release_now)

    def _release_now(self) -> None:
        self._is_leader, self._release_timer = False, None
        self._heartbeat.stop(self._owner, "lease")
        self._state.run_in_background(self._run_command("release lease"))

    async def wait_for_append(self, timeout: float) -> None:
        """Wait until an entry is appended or an owner dies, at most *timeout* seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        self._heartbeat.keep_alive(self._owner, "waiting")
        death = asyncio.ensure_future(self._heartbeat.death_event.wait())
        try:
            while not death.done() and (left := end - loop.time()) > 0:
                if await self._wait_appended(min(left, BLOCK_TIMEOUT), death):
                    return
        finally:
            self._heartbeat.stop(self._owner, "waiting")
            death.cancel()

    async def _wait_appended(self, seconds: float, death: asyncio.Future[Any]) -> bool:
        """Return whether an entry was appended within *seconds*. Ends early with *death*."""
        state = self._state
        wait = asyncio.ensure_future(
            state.connections.wait_for_entry(state.stream, state.head, seconds)
        )
        try:
            await asyncio.wait((wait, death), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not wait.done():
                wait.cancel()
                await asyncio.wait([wait])
        return not wait.cancelled() and wait.result()
