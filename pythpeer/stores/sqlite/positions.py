"""`ReaderPositions`: the positions of all readers of one log, in memory, file and database.

An acknowledgement is written to the file of positions immediately, see `AckFile`. A *checkpoint*
copies positions into the database now and then, in a transaction that is made anyway. A seek starts
a new *epoch* of the name: acknowledgements from an older epoch are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from ..base import DIRECT
from .ack_file import AckFile
from .database import Database

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Checkpointed", "ReaderPositions", "ReaderState", "stored_positions"]


class ReaderState:
    """The position of one name, as known in this process.

    Only the event loop changes it. Where all are known, ``persisted`` and ``checkpointed`` are not
    greater than ``position``.
    """

    __slots__ = ("checkpointed", "epoch", "name", "persisted", "position", "slot")

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.position: int | None = None
        """The acknowledged id; ``None`` if it is not known."""
        self.persisted: int | None = None
        """The position that will be found after a crash."""
        self.checkpointed: int | None = None
        """The position that the database has, in case the file of positions is lost."""
        self.slot: int = 0
        """The number of its record in the file of positions; 0 if it is not known."""
        self.epoch: int = 0
        """How often the name was moved by seek, as far as this process knows."""


Checkpointed = Sequence[tuple[ReaderState, int]]
"""The positions that a transaction has written into the database: they count after its commit."""


class StoredPosition(NamedTuple):
    """The position of a name according to database and file together."""

    slot: int
    epoch: int
    position: int


class ReaderPositions:
    """The positions of all readers of one log.

    *ensure_row* starts a write, and returns the id of the log. *other_logs* returns the ids of the
    other logs in which a name has the same position. Methods that take a connection run
    on the thread of the database. They change nothing in this object, because their transaction may
    be rolled back.
    """

    def __init__(
        self,
        database: Database,
        ensure_row: Callable[[sqlite3.Connection], int],
        other_logs: Callable[[sqlite3.Connection], list[int]],
        *,
        durable: bool,
    ) -> None:
        self._database = database
        self._ensure_row = ensure_row
        self._other_logs = other_logs
        self._durable = durable
        """Whether only a transaction counts as persisted, because it waits for the disk."""
        self._states: dict[str, ReaderState] = {}
        """The positions by name. Added by the event loop, never removed; read by the thread."""

    def state(self, name: str) -> ReaderState:
        """Return what is known of a name."""
        return self._states.setdefault(name, ReaderState(name))

    def ack(self, reader: ReaderState, position: int) -> None:
        """Move a position forwards, also in the file of positions."""
        if reader.position is not None and position <= reader.position:
            return
        reader.position = position
        file = self._database.ack_file
        if reader.slot and file is not None:
            try:
                file.write(reader.slot, reader.epoch, position)
            except (OSError, ValueError):
                return  # the next transaction writes it, or raises the error
            if not self._durable:
                reader.persisted = position

    async def flush(self, reader: ReaderState) -> None:
        """Ensure that a position is stored."""
        if reader.position != reader.persisted:
            self.mark_checkpointed(await self._database.write(self.checkpoint))

    async def load(self, reader: ReaderState) -> int | None:
        """Return the position of a name, acknowledged in any process."""
        stored = await self._database.write(partial(self._find, reader.name))
        if stored is not None:
            if reader.slot and reader.epoch != stored.epoch:
                reader.position = None  # another process has moved the name by seek
            self._apply(reader, stored, max(stored.position, reader.position or 0))
        return reader.position

    async def seek(self, reader: ReaderState, position: int) -> None:
        """Move a name to *position*, unless it is there already."""
        stored = await self._database.write(partial(self._seek, reader.name, position))
        self._apply(reader, stored, position)

    async def allocate_slot(self, reader: ReaderState) -> None:
        """Assign a slot of the file of positions to a name. Does not move it."""
        if not reader.slot:
            stored = await self._database.write(partial(self._find_or_insert, reader.name, 0))
            reader.slot, reader.epoch = stored.slot, stored.epoch

    async def max_acknowledged(self) -> int:
        """Return the highest position of all readers except that of direct calls."""
        stored = await self._database.write(lambda db: self.max_stored(self._ensure_row(db), db))
        local = (reader.position or 0 for reader in self._states.values() if reader.name != DIRECT)
        return max(stored, *local, 0)

    def mark_checkpointed(self, checkpointed: Checkpointed) -> None:
        """Update the readers after the commit of a checkpoint."""
        for reader, position in checkpointed:
            reader.checkpointed = reader.persisted = position

    def _apply(self, reader: ReaderState, stored: StoredPosition, position: int) -> None:
        reader.slot, reader.epoch = stored.slot, stored.epoch
        reader.position, reader.checkpointed = position, None
        if position == stored.position:
            reader.persisted = position

    # -- on the thread ----------------------------------------------------------------------------

    def checkpoint(self, db: sqlite3.Connection) -> Checkpointed:
        """Write the positions that were acknowledged in this process into the database."""
        log, checkpointed = self._ensure_row(db), list[tuple[ReaderState, int]]()
        for reader in list(self._states.values()):
            position = reader.position
            if position is None or position == reader.checkpointed:
                continue
            if reader.slot:
                db.execute(
                    "UPDATE reader SET place = max(place, ?) WHERE slot = ? AND epoch = ?",
                    (position, reader.slot, reader.epoch),
                )
            else:
                db.execute(
                    "INSERT INTO reader (log, name, place) VALUES (?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET place = max(place, excluded.place)",
                    (log, reader.name, position),
                )
            checkpointed.append((reader, position))
        return checkpointed

    def max_stored(self, log: int, db: sqlite3.Connection) -> int:
        """Return the highest stored position of all readers except that of direct calls."""
        stored = self._stored_positions(log, db)
        return max((reader.position for name, reader in stored if name != DIRECT), default=0)

    def clamp_to_head(self, head: int, log: int, db: sqlite3.Connection) -> None:
        """Move positions beyond the end of the log to its head.

        They exist if the database was restored from an older copy. It assigns the ids after its
        head once more, and the new items must not count as acknowledged.
        """
        for _, stored in list(self._stored_positions(log, db)):
            if stored.position > head:
                self._start_epoch(stored, head, db)

    def _find(self, name: str, db: sqlite3.Connection) -> StoredPosition | None:
        """Return the position of a name, moved to the highest one that it has in the scope."""
        log = self._ensure_row(db)
        own = dict(self._stored_positions(log, db)).get(name)
        highest = max((stored.position for stored in self._find_others(name, db)), default=None)
        if highest is None or (own is not None and own.position >= highest):
            return own
        own = self._find_or_insert(name, highest, db)
        db.execute("UPDATE reader SET place = ? WHERE slot = ?", (highest, own.slot))
        return StoredPosition(own.slot, own.epoch, highest)

    def _find_others(self, name: str, db: sqlite3.Connection) -> list[StoredPosition]:
        """Return the positions of a name in the other logs of the scope."""
        others = (dict(self._stored_positions(log, db)).get(name) for log in self._other_logs(db))
        return [stored for stored in others if stored is not None]

    def _find_or_insert(self, name: str, position: int, db: sqlite3.Connection) -> StoredPosition:
        """Return the stored position of a name. A new name is inserted with *position*."""
        log = self._ensure_row(db)
        db.execute(
            "INSERT OR IGNORE INTO reader (log, name, place) VALUES (?, ?, ?)",
            (log, name, position),
        )
        return dict(self._stored_positions(log, db))[name]

    def _seek(self, name: str, position: int, db: sqlite3.Connection) -> StoredPosition:
        stored = self._find_or_insert(name, position, db)
        for other in self._find_others(name, db):
            self._start_epoch(other, position, db)
        return stored if stored.position == position else self._start_epoch(stored, position, db)

    def _start_epoch(
        self, stored: StoredPosition, position: int, db: sqlite3.Connection
    ) -> StoredPosition:
        """Move a name to *position*, in a new epoch."""
        moved = StoredPosition(stored.slot, stored.epoch + 1, position)
        db.execute(
            "UPDATE reader SET epoch = ?, place = ? WHERE slot = ?",
            (moved.epoch, moved.position, moved.slot),
        )
        return moved

    def _stored_positions(
        self, log: int, db: sqlite3.Connection
    ) -> Iterator[tuple[str, StoredPosition]]:
        return stored_positions(log, db, self._database.ack_file)


def stored_positions(
    log: int, db: sqlite3.Connection, file: AckFile | None
) -> Iterator[tuple[str, StoredPosition]]:
    """Yield the position of each name that reads *log*: the greater of database and file."""
    rows = db.execute(
        "SELECT name, slot, epoch, place FROM reader WHERE log = ?", (log,)
    ).fetchall()
    records = file.read() if file is not None and rows else dict[int, tuple[int, int]]()
    for name, slot, epoch, position in rows:
        file_epoch, file_position = records.get(slot, (0, 0))
        if file_epoch == epoch:
            position = max(position, file_position)  # noqa: PLW2901
        yield name, StoredPosition(slot, epoch, position)
