"""One session's hold on a log in the file: readers, announcements, and whose turn to poll it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from ..base import Entry, Log, NewEntry, Reader
from .owner import OwnerId, is_alive
from .shelf import LogState

if TYPE_CHECKING:
    import sqlite3

__all__ = ["ANONYMOUS", "SqliteLog"]

T = TypeVar("T")

POLL_INTERVAL: Final = 0.05
"""Seconds between looks for what other processes appended."""

ANONYMOUS: Final = "\0"
"""What readers without a name are called in the file; no name has this in it."""


class SqliteLog(Log[T]):
    """See `Log`."""

    def __init__(self, shelf: Callable[[], LogState[T]]) -> None:
        self._get_state = shelf
        self._owner = OwnerId()
        self._lease_until = 0.0

    def reader(self, name: str | None) -> Reader[T]:
        """A reader of this name, or one without a memory."""
        return _SqliteReader(self._get_state, name)

    @property
    def _shelf(self) -> LogState[T]:
        """The log as it is open now: a hold may be made before, and be used again after it."""
        return self._get_state()

    async def append(
        self, drafts: Sequence[NewEntry[T]], *, completes: Collection[int] = ()
    ) -> Sequence[NewEntry[T]]:
        """Add what is new among *drafts*, and return that part of them."""
        if not drafts and not completes:
            return ()
        return await self._shelf.append(
            drafts, partial(self._complete_fetches, completes, self._shelf.database.now())
        )

    def _complete_fetches(
        self, settled: Collection[int], now: float, db: sqlite3.Connection
    ) -> None:
        """Strike announcements out, but for those of others that can still take effect."""
        for number in settled:
            known = (number, now, self._owner.name)
            db.execute(
                "DELETE FROM announcement WHERE number = ? AND (until <= ? OR who = ?)", known
            )
            db.execute("UPDATE announcement SET settled = 1 WHERE number = ?", (number,))

    async def max_acknowledged(self) -> int:
        """The highest place that any reader but of direct calls has acknowledged."""
        return await self._shelf.readers.max_acknowledged()

    # -- announcements ----------------------------------------------------------------------------

    async def begin_fetch(self, seconds: float) -> int:
        """Note that a consuming read is about to be sent: on disk, whatever the durability is.

        Losing that note in a power failure would be losing the mail.
        """
        until = self._shelf.database.now() + seconds

        def job(db: sqlite3.Connection) -> int:
            row = (self._shelf.ensure_row(db), self._owner.name, until)
            done = db.execute("INSERT INTO announcement (log, who, until) VALUES (?, ?, ?)", row)
            return done.lastrowid or 0

        return await self._shelf.database.write(job, durable=True)

    async def cancel_fetch(self, announcement: int) -> None:
        """Take an announcement back: nothing was consumed."""

        def job(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM announcement WHERE number = ?", (announcement,))

        await self._shelf.database.write(job)

    async def lose_fetch(self, announcement: int) -> None:
        """The announced read is over, and nobody knows what it consumed.

        Nor if it was settled before: then it took effect behind its time, because the machine slept
        meanwhile, say.
        """

        def job(db: sqlite3.Connection) -> None:
            row = (announcement, self._shelf.ensure_row(db), self._owner.name)
            db.execute("INSERT OR REPLACE INTO announcement VALUES (?, ?, ?, 0, 0)", row)

        await self._shelf.database.write(job)

    async def lost_fetches(self) -> Collection[int]:
        """The announcements of which nobody knows what they consumed.

        One whose process was killed counts at once, although what it sent may still be on its way:
        it is settled now, and once more when its time is over. To be wrong about that is to settle
        later, or once more than needed.
        """
        now = self._shelf.database.now()
        return [
            number
            for number, who, until, settled in await self._shelf.pending_fetches()
            if until <= now or not (settled or is_alive(who))
        ]

    # -- who polls --------------------------------------------------------------------------------

    async def acquire_lease(self, seconds: float) -> bool:
        """Whether this hold may poll for all that share the log, for *seconds* from now."""
        now = self._shelf.database.now()
        if now < self._lease_until - seconds / 2:
            return True

        def job(db: sqlite3.Connection) -> bool:
            row = {
                "who": self._owner.name,
                "until": now + seconds,
                "now": now,
                "log": self._shelf.ensure_row(db),
            }
            done = db.execute(
                "UPDATE log SET leader = :who, leads_until = :until WHERE id = :log"
                " AND (leader IS NULL OR leader = :who OR leads_until <= :now)",
                row,
            )
            return done.rowcount > 0

        leads = await self._shelf.database.write(job)
        self._lease_until = now + seconds if leads else 0.0
        return leads

    async def wait_for_append(self, seconds: float) -> None:
        """Wait until somebody appends to the log, *seconds* at most."""
        shelf = self._shelf
        head, told = shelf.head, shelf.news.generation
        end = self._shelf.database.now() + seconds
        while shelf.news.generation == told and (left := end - self._shelf.database.now()) > 0:
            if not shelf.is_current() and await shelf.refresh() != head:
                return
            await shelf.news.wait(min(POLL_INTERVAL, left))


class _SqliteReader(Reader[T]):
    def __init__(self, shelf: Callable[[], LogState[T]], name: str | None) -> None:
        self._get_state = shelf
        self._name = ANONYMOUS if name is None else name

    @property
    def _shelf(self) -> LogState[T]:
        return self._get_state()

    async def position(self) -> int | None:
        if self._name == ANONYMOUS:
            return None
        readers = self._shelf.readers
        return await readers.load(readers.state(self._name))

    async def seek(self, place: int) -> None:
        readers = self._shelf.readers
        if self._name == ANONYMOUS:
            await readers.allocate_slot(
                readers.state(ANONYMOUS)
            )  # it acknowledges for all without a name
        else:
            await readers.seek(readers.state(self._name), place)

    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        return await self._shelf.read(after, limit)

    def ack(self, place: int) -> None:
        readers = self._shelf.readers
        readers.ack(readers.state(self._name), place)

    async def flush(self) -> None:
        readers = self._shelf.readers
        await readers.flush(readers.state(self._name))
