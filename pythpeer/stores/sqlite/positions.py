"""`ReaderPositions`: the positions of all readers of one log, in memory and in the database.

An acknowledgement is committed immediately, on the event loop, which takes some microseconds. If it
cannot be, because another program is writing or the disk must be waited for, the reader *is behind*
until its stream has called `flush`. A seek starts a new *epoch* of the name: acknowledgements from
an older epoch are ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from ..base import DIRECT
from .columns import integer
from .database import Database

if TYPE_CHECKING:
    import sqlite3

__all__ = ["ReaderPositions", "ReaderState", "max_stored"]

ACKNOWLEDGE: Final = "UPDATE reader SET place = max(place, ?) WHERE slot = ? AND epoch = ?"
SELECT_ROW: Final = "SELECT slot, epoch, place FROM reader WHERE log = ? AND name = ?"


class ReaderState:
    """The position of one name, as known in this process. Only the event loop changes it."""

    __slots__ = ("epoch", "name", "position", "slot", "stored")

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.position: int | None = None
        """The acknowledged id; ``None`` if it is not known."""
        self.stored: int | None = None
        """The position that the database has, as far as this process knows."""
        self.slot: int = 0
        """The id of its row in the database; 0 if it is not known."""
        self.epoch: int = 0
        """How often the name was moved by seek, as far as this process knows."""

    @property
    def is_behind(self) -> bool:
        """Whether an acknowledgement is not committed yet."""
        return self.position != self.stored


class StoredPosition(NamedTuple):
    """The row of a name in the database."""

    slot: int
    epoch: int
    position: int


class ReaderPositions:
    """The positions of all readers of one log.

    *ensure_row* starts a write, and returns the id of the log. *other_logs* returns the ids of the
    other logs in which a name has the same position. Methods that take a connection change nothing
    in this object, because their transaction may be rolled back.
    """

    def __init__(
        self,
        database: Database,
        ensure_row: Callable[[sqlite3.Connection], int],
        other_logs: Callable[[sqlite3.Connection], list[int]],
    ) -> None:
        self._database = database
        self._ensure_row = ensure_row
        self._other_logs = other_logs
        self._states: dict[str, ReaderState] = {}
        """The positions by name. Added by the event loop, never removed."""

    def state(self, name: str) -> ReaderState:
        """Return what is known of a name."""
        state = self._states.get(name)
        if state is None:
            state = self._states[name] = ReaderState(name)
        return state

    def ack(self, reader: ReaderState, position: int) -> None:
        """Move a position forwards, and commit that if nothing is in the way."""
        if reader.position is not None and position <= reader.position:
            return
        reader.position = position
        if reader.slot and self._database.try_execute(
            ACKNOWLEDGE, (position, reader.slot, reader.epoch)
        ):
            reader.stored = position

    async def flush(self, reader: ReaderState) -> None:
        """Ensure that a position is stored."""
        position = reader.position
        if position is not None and reader.is_behind:
            reader.slot, reader.epoch = await self._database.write(
                partial(self._store, reader, position)
            )
            reader.stored = position

    async def load(self, reader: ReaderState) -> int | None:
        """Return the position of a name, acknowledged in any process."""
        row = await self._database.write(partial(self._find, reader.name), sync="never")
        if row is not None:
            if reader.slot and reader.epoch != row.epoch:
                reader.position = None  # another process has moved the name by seek
            self._apply(reader, row, max(row.position, reader.position or 0))
        return reader.position

    async def seek(self, reader: ReaderState, position: int) -> None:
        """Move a name to *position*, unless it is there already."""
        row = await self._database.write(partial(self._seek, reader.name, position))
        self._apply(reader, row, position)

    async def allocate_slot(self, reader: ReaderState) -> None:
        """Insert a name if it is new. Does not move it."""
        if not reader.slot:
            row = await self._database.write(partial(self._find_or_insert, reader.name, 0))
            reader.slot, reader.epoch = row.slot, row.epoch

    async def max_acknowledged(self) -> int:
        """Return the highest position of all readers except that of direct calls."""
        stored = await self._database.write(
            lambda db: max_stored(self._ensure_row(db), db), sync="never"
        )
        local = (reader.position or 0 for reader in self._states.values() if reader.name != DIRECT)
        return max(stored, *local, 0)

    def _apply(self, reader: ReaderState, row: StoredPosition, position: int) -> None:
        reader.slot, reader.epoch = row.slot, row.epoch
        reader.position, reader.stored = position, row.position

    # -- in a transaction -------------------------------------------------------------------------

    def store_all(self, db: sqlite3.Connection) -> None:
        """Write all acknowledgements that are not committed, because the store is closing."""
        for reader in self._states.values():
            if reader.position is not None and reader.is_behind:
                self._store(reader, reader.position, db)

    def _store(self, reader: ReaderState, position: int, db: sqlite3.Connection) -> tuple[int, int]:
        """Write a position. Returns the slot and the epoch of the name in this process."""
        slot, epoch = reader.slot, reader.epoch
        if not slot:
            slot, epoch, _ = self._find_or_insert(reader.name, position, db)
        db.execute(ACKNOWLEDGE, (position, slot, epoch))
        return slot, epoch

    def _find(self, name: str, db: sqlite3.Connection) -> StoredPosition | None:
        """Return the position of a name, moved to the highest one that it has in the scope."""
        log = self._ensure_row(db)
        own = self._find_in(log, name, db)
        highest = max((stored.position for stored in self._find_others(name, db)), default=None)
        if highest is None or (own is not None and own.position >= highest):
            return own
        own = self._find_or_insert(name, highest, db)
        db.execute("UPDATE reader SET place = ? WHERE slot = ?", (highest, own.slot))
        return StoredPosition(own.slot, own.epoch, highest)

    def _find_others(self, name: str, db: sqlite3.Connection) -> list[StoredPosition]:
        """Return the positions of a name in the other logs of the scope."""
        others = (self._find_in(log, name, db) for log in self._other_logs(db))
        return [stored for stored in others if stored is not None]

    @staticmethod
    def _find_in(log: int, name: str, db: sqlite3.Connection) -> StoredPosition | None:
        row = db.execute(SELECT_ROW, (log, name)).fetchone()
        return None if row is None else _read_row(row)

    def _find_or_insert(self, name: str, position: int, db: sqlite3.Connection) -> StoredPosition:
        """Return the row of a name. A new name is inserted with *position*."""
        log = self._ensure_row(db)
        db.execute(
            "INSERT OR IGNORE INTO reader (log, name, place) VALUES (?, ?, ?)",
            (log, name, position),
        )
        return _read_row(db.execute(SELECT_ROW, (log, name)).fetchone())

    def _seek(self, name: str, position: int, db: sqlite3.Connection) -> StoredPosition:
        """Move a name to *position*, in every log of the scope."""
        row = self._find_or_insert(name, position, db)
        for other in self._find_others(name, db):
            self._start_epoch(other, position, db)
        return row if row.position == position else self._start_epoch(row, position, db)

    @staticmethod
    def _start_epoch(row: StoredPosition, position: int, db: sqlite3.Connection) -> StoredPosition:
        """Move a name to *position*, in a new epoch."""
        row = StoredPosition(row.slot, row.epoch + 1, position)
        db.execute(
            "UPDATE reader SET epoch = ?, place = ? WHERE slot = ?",
            (row.epoch, row.position, row.slot),
        )
        return row


def _read_row(row: tuple[int, int, int]) -> StoredPosition:
    return StoredPosition(*map(integer, row))


def max_stored(log: int, db: sqlite3.Connection) -> int:
    """Return the highest stored position of all readers except that of direct calls."""
    query = "SELECT max(place) FROM reader WHERE log = ? AND name != ?"
    return integer(db.execute(query, (log, DIRECT)).fetchone()[0] or 0)
