"""One session's hold on a log in the file: readers, announcements, and whose turn to poll it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from ..base import Draft, Entry, Log, Reader
from .owner import Owner, lives
from .shelf import Shelf

if TYPE_CHECKING:
    import sqlite3

__all__ = ["NOBODY", "SqliteLog"]

T = TypeVar("T")

LOOK: Final = 0.05
"""Seconds between looks for what other processes appended."""

NOBODY: Final = "\0"
"""What readers without a name are called in the file; no name has this in it."""


class SqliteLog(Log[T]):
    """See `Log`."""

    def __init__(self, shelf: Callable[[], Shelf[T]]) -> None:
        self._find_shelf = shelf
        self._owner = Owner()
        self._leads_until = 0.0

    def reader(self, name: str | None) -> Reader[T]:
        """A reader of this name, or one without a memory."""
        return _SqliteReader(self._find_shelf, name)

    @property
    def _shelf(self) -> Shelf[T]:
        """The log as it is open now: a hold may be made before, and be used again after it."""
        return self._find_shelf()

    async def append(
        self, drafts: Sequence[Draft[T]], *, settled: Collection[int] = ()
    ) -> Sequence[Draft[T]]:
        """Add what is new among *drafts*, and return that part of them."""
        if not drafts and not settled:
            return ()
        return await self._shelf.append(
            drafts, partial(self._end, settled, self._shelf.database.now())
        )

    def _end(self, settled: Collection[int], now: float, db: sqlite3.Connection) -> None:
        """Strike announcements out, but for those of others that can still take effect."""
        for number in settled:
            known = (number, now, self._owner.name)
            db.execute(
                "DELETE FROM announcement WHERE number = ? AND (until <= ? OR who = ?)", known
            )
            db.execute("UPDATE announcement SET settled = 1 WHERE number = ?", (number,))

    async def acknowledged(self) -> int:
        """The highest place that any reader but of direct calls has acknowledged."""
        return await self._shelf.readers.highest()

    # -- announcements ----------------------------------------------------------------------------

    async def announce(self, seconds: float) -> int:
        """Note that a consuming read is about to be sent: on disk, whatever the durability is.

        Losing that note in a power failure would be losing the mail.
        """
        until = self._shelf.database.now() + seconds

        def job(db: sqlite3.Connection) -> int:
            row = (self._shelf.hold(db), self._owner.name, until)
            done = db.execute("INSERT INTO announcement (log, who, until) VALUES (?, ?, ?)", row)
            return done.lastrowid or 0

        return await self._shelf.database.write(job, lasting=True)

    async def withdraw(self, announcement: int) -> None:
        """Take an announcement back: nothing was consumed."""

        def job(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM announcement WHERE number = ?", (announcement,))

        await self._shelf.database.write(job)

    async def give_up(self, announcement: int) -> None:
        """The announced read is over, and nobody knows what it consumed.

        Nor if it was settled before: then it took effect behind its time, because the machine slept
        meanwhile, say.
        """

        def job(db: sqlite3.Connection) -> None:
            row = (announcement, self._shelf.hold(db), self._owner.name)
            db.execute("INSERT OR REPLACE INTO announcement VALUES (?, ?, ?, 0, 0)", row)

        await self._shelf.database.write(job)

    async def unsettled(self) -> Collection[int]:
        """The announcements of which nobody knows what they consumed.

        One whose process was killed counts at once, although what it sent may still be on its way:
        it is settled now, and once more when its time is over. To be wrong about that is to settle
        later, or once more than needed.
        """
        now = self._shelf.database.now()
        return [
            number
            for number, who, until, settled in await self._shelf.announcements()
            if until <= now or not (settled or lives(who))
        ]

    # -- who polls --------------------------------------------------------------------------------

    async def lead(self, seconds: float) -> bool:
        """Whether this hold may poll for all that share the log, for *seconds* from now."""
        now = self._shelf.database.now()
        if now < self._leads_until - seconds / 2:
            return True

        def job(db: sqlite3.Connection) -> bool:
            row = {
                "who": self._owner.name,
                "until": now + seconds,
                "now": now,
                "log": self._shelf.hold(db),
            }
            done = db.execute(
                "UPDATE log SET leader = :who, leads_until = :until WHERE id = :log"
                " AND (leader IS NULL OR leader = :who OR leads_until <= :now)",
                row,
            )
            return done.rowcount > 0

        leads = await self._shelf.database.write(job)
        self._leads_until = now + seconds if leads else 0.0
        return leads

    async def news(self, seconds: float) -> None:
        """Wait until somebody appends to the log, *seconds* at most."""
        shelf = self._shelf
        head, told = shelf.head, shelf.news.told
        end = self._shelf.database.now() + seconds
        while shelf.news.told == told and (left := end - self._shelf.database.now()) > 0:
            if not shelf.unchanged() and await shelf.look() != head:
                return
            await shelf.news.wait(min(LOOK, left))


class _SqliteReader(Reader[T]):
    def __init__(self, shelf: Callable[[], Shelf[T]], name: str | None) -> None:
        self._find_shelf = shelf
        self._name = NOBODY if name is None else name

    @property
    def _shelf(self) -> Shelf[T]:
        return self._find_shelf()

    async def place(self) -> int | None:
        if self._name == NOBODY:
            return None
        readers = self._shelf.readers
        return await readers.find(readers.place(self._name))

    async def seek(self, place: int) -> None:
        readers = self._shelf.readers
        if self._name == NOBODY:
            await readers.settle(readers.place(NOBODY))  # it acknowledges for all without a name
        else:
            await readers.seek(readers.place(self._name), place)

    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        return await self._shelf.read(after, limit)

    def ack(self, place: int) -> None:
        readers = self._shelf.readers
        readers.ack(readers.place(self._name), place)

    async def flush(self) -> None:
        readers = self._shelf.readers
        await readers.flush(readers.place(self._name))
