"""`SqliteLog`: a handle to a log in the file: its readers, fetch intents and lease."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from ..base import Entry, Log, LogTail, NewEntry, Reader
from .columns import timestamp
from .log_state import LogState
from .owner import OwnerId, is_alive
from .positions import ReaderPositions

if TYPE_CHECKING:
    import sqlite3

__all__ = ["ANONYMOUS", "SqliteLog"]

T = TypeVar("T")

POLL_INTERVAL: Final = 0.05
"""Seconds between two checks whether another process has appended."""

RETRY_INTERVAL: Final = 1.0
"""Seconds after which a stream tries again at the latest: a try of a local file costs little."""

ANONYMOUS: Final = "\0"
"""The name of readers without a name in the file; a user's name cannot contain this character."""


class SqliteLog(Log[T]):
    """See `Log`."""

    def __init__(self, get_state: Callable[[], LogState[T]]) -> None:
        self._get_state = get_state
        self._owner = OwnerId()
        """The name of this handle in the file, for the lease and for fetch intents."""
        self._lease = ("", 0.0)
        """The owner of the lease of this handle, which is another one after a fork, and the time at
        which it expires, by the database's clock. Changed by `acquire_lease`."""
        self._unstored: set[int] = set()
        """The fetch intents whose results could not be stored: their reads are over. Changed by
        `append`."""

    def reader(self, name: str | None) -> Reader[T]:
        """Return a reader of this name, or with ``None`` one whose position is not stored."""
        return _SqliteReader(self._get_state, name)

    @property
    def _state(self) -> LogState[T]:
        """The state of the log in the open file. A handle outlives the closing of the store."""
        return self._get_state()

    async def append(
        self, entries: Sequence[NewEntry[T]], *, completes: Collection[int] = ()
    ) -> Sequence[NewEntry[T]]:
        """Append those of *entries* that are new, and return them."""
        if not entries and not completes:
            return ()
        self._unstored.update(completes)
        finish = partial(self._complete_fetches, completes, self._state.database.now())
        added = await self._state.append(entries, finish)
        self._unstored.difference_update(completes)
        return () if added is None else added

    async def append_at(
        self, head: int, entries: Sequence[NewEntry[T]]
    ) -> Sequence[NewEntry[T]] | None:
        """Append those of *entries* that are new if *head* is the highest id, else nothing."""
        if not entries:
            return ()
        return await self._state.append(entries, expected_head=head)

    async def tail(self, limit: int) -> LogTail[T]:
        """Return the highest id, and the last *limit* entries."""
        return await self._state.tail(limit)

    def _complete_fetches(
        self, fetches: Collection[int], now: float, db: sqlite3.Connection
    ) -> None:
        """Delete fetch intents; those of other owners that can still take effect are marked."""
        for number in fetches:
            db.execute(
                "DELETE FROM announcement WHERE number = ? AND (until <= ? OR who = ?)",
                (number, now, self._owner.name),
            )
            db.execute("UPDATE announcement SET settled = 1 WHERE number = ?", (number,))

    async def copies(self) -> Mapping[str, int]:
        """Return for each identity how many entries were appended."""
        return await self._state.copies()

    @property
    def retry_interval(self) -> float:
        """Seconds after which a stream tries again at the latest, after a failure of the store."""
        return RETRY_INTERVAL

    async def unacknowledged_of_others(self) -> int:
        """Return how many items other accounts of the service have that no reader has had."""
        return await self._state.unacknowledged_of_others()

    async def max_acknowledged(self) -> int:
        """Return the highest position of all readers except that of direct calls."""
        return await self._state.readers.max_acknowledged()

    # -- fetch intents ----------------------------------------------------------------------------

    async def begin_fetch(self, timeout: float) -> int:
        """Store a fetch intent. It is on the disk on return, with either durability.

        If a power failure could lose it, it could lose mail.
        """
        until = self._state.database.now() + timeout

        def job(db: sqlite3.Connection) -> int:
            row = (self._state.ensure_row(db), self._owner.name, until)
            inserted = db.execute(
                "INSERT INTO announcement (log, who, until) VALUES (?, ?, ?)", row
            )
            return inserted.lastrowid or 0

        return await self._state.database.write(job, sync="now")

    async def cancel_fetch(self, fetch: int) -> None:
        """Delete a fetch intent: the read did not happen."""

        def job(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM announcement WHERE number = ?", (fetch,))

        await self._state.database.write(job, brief=True)

    async def lose_fetch(self, fetch: int) -> None:
        """Mark a fetch intent as lost: the read is over, and its outcome is unknown.

        It is stored again if it was completed before: then the read took effect after its time,
        for example because the machine slept.
        """

        def job(db: sqlite3.Connection) -> None:
            row = (fetch, self._state.ensure_row(db), self._owner.name)
            db.execute("INSERT OR REPLACE INTO announcement VALUES (?, ?, ?, 0, 0)", row)

        await self._state.database.write(job)

    async def lost_fetches(self) -> Collection[int]:
        """Return the numbers of the fetch intents whose reads are over with unknown outcome.

        The fetch intent of a killed process counts immediately, although its request may still be
        under way: it is completed now, and once more after its time. A wrong assumption here only
        means that it is completed later, or once more than needed.
        """
        now = self._state.database.now()
        return [
            fetch.number
            for fetch in await self._state.pending_fetches()
            if fetch.until <= now
            or fetch.number in self._unstored
            or not (fetch.completed or is_alive(fetch.owner))
        ]

    # -- the lease --------------------------------------------------------------------------------

    async def acquire_lease(self, seconds: float) -> bool:
        """Acquire or extend the lease: return whether this handle may poll for *seconds*.

        The lease of a process that has ended is free.
        """
        now, owner = self._state.database.now(), self._owner.name
        if self._lease[0] == owner and now < self._lease[1] - seconds / 2:
            return True

        def job(db: sqlite3.Connection) -> bool:
            log = self._state.ensure_row(db)
            query = "SELECT leader, leads_until FROM log WHERE id = ?"
            leader, until = db.execute(query, (log,)).fetchone()
            # The lease of a process that has ended is free: another may poll immediately.
            if leader not in (None, owner) and timestamp(until) > now and is_alive(leader):
                return False
            db.execute(
                "UPDATE log SET leader = ?, leads_until = ? WHERE id = ?",
                (owner, now + seconds, log),
            )
            return True

        is_leader = await self._state.database.write(job, sync="never", brief=True)
        self._lease = (owner, now + seconds) if is_leader else ("", 0.0)
        return is_leader

    async def wait_for_append(self, timeout: float) -> None:
        """Wait until an entry is appended to the log, at most *timeout* seconds."""
        state = self._state
        head, generation = state.head, state.notifier.generation
        now = self._state.database.now
        end = now() + timeout
        while state.notifier.generation == generation and (left := end - now()) > 0:
            if not state.is_current() and await state.refresh() != head:
                return
            await state.notifier.wait(min(POLL_INTERVAL, left))


class _SqliteReader(Reader[T]):
    """See `Reader`."""

    def __init__(self, get_state: Callable[[], LogState[T]], name: str | None) -> None:
        self._get_state = get_state
        self._name = ANONYMOUS if name is None else name

    @property
    def _readers(self) -> ReaderPositions:
        """The positions of the log in the open file."""
        return self._get_state().readers

    async def position(self) -> int | None:
        if self._name == ANONYMOUS:
            return None
        return await self._readers.load(self._readers.state(self._name))

    async def seek(self, position: int) -> None:
        readers = self._readers
        reader = readers.state(self._name)
        if self._name == ANONYMOUS:
            await readers.allocate_slot(reader)  # all readers without a name share its row
        else:
            await readers.seek(reader, position)

    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        return await self._get_state().read(after, limit)

    def ack(self, position: int) -> None:
        readers = self._readers
        readers.ack(readers.state(self._name), position)

    @property
    def is_behind(self) -> bool:
        return self._readers.state(self._name).is_behind

    async def flush(self) -> None:
        readers = self._readers
        await readers.flush(readers.state(self._name))
