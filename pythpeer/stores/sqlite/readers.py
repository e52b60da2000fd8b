"""How far the readers of one log have got: here, in the file of places and in the database.

What was acknowledged here stands in the file of places at once, see `Places`, and is folded into
the database now and then, in a transaction that is made anyway. A name that was sent elsewhere
begins a new epoch: what is acknowledged in an older one counts for nobody any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from ..base import DIRECT
from .database import Database
from .places import AckFile

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Checkpointed", "ReaderPositions", "ReaderState", "stored_positions"]


class ReaderState:
    """How far the readers of one name have got, as this process knows it."""

    __slots__ = ("checkpointed", "epoch", "name", "persisted", "position", "slot")

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.position: int | None = None  # not known
        self.persisted: int | None = None  # what of it will be there after a crash
        self.checkpointed: int | None = (
            None  # what of it the database has, in case the file is lost
        )
        self.slot: int = 0  # where it stands in the file of places; 0 before it is known
        self.epoch: int = 0


Checkpointed = Sequence[tuple[ReaderState, int]]
"""What a transaction has written into the database: of account once that is over."""


class StoredPosition(NamedTuple):
    """What database and file together say of a name."""

    slot: int
    epoch: int
    place: int


class ReaderPositions:
    """The readers of one log.

    *hold* begins to write, and returns the log's id. Methods that take a connection run on the
    database's thread, and change nothing here: their transaction may be rolled back.
    """

    def __init__(
        self, database: Database, hold: Callable[[sqlite3.Connection], int], *, durable: bool
    ) -> None:
        self._database = database
        self._hold = hold
        self._durable = durable
        self._places: dict[str, ReaderState] = {}

    def state(self, name: str) -> ReaderState:
        """What is known of how far the readers of a name have got."""
        return self._places.setdefault(name, ReaderState(name))

    def ack(self, place: ReaderState, value: int) -> None:
        """Move a place forwards: on record at once, in the file of places."""
        if place.position is not None and value <= place.position:
            return
        place.position = value
        file = self._database.places
        if place.slot and file is not None:
            try:
                file.write(place.slot, place.epoch, value)
            except (OSError, ValueError):
                return  # the next transaction has it, and says what is wrong
            if not self._durable:
                place.persisted = value

    async def flush(self, place: ReaderState) -> None:
        """Have a place on record."""
        if place.position != place.persisted:
            self.mark_checkpointed(await self._database.write(self.checkpoint))

    async def load(self, place: ReaderState) -> int | None:
        """Where a name is, in whichever process it got there."""
        found = await self._database.write(partial(self._find, place.name))
        if found is not None:
            if place.slot and place.epoch != found.epoch:
                place.position = None  # another process has sent it elsewhere
            self._apply(place, found, max(found.place, place.position or 0))
        return place.position

    async def seek(self, place: ReaderState, value: int) -> None:
        """Send the readers of a name elsewhere, if that is not where they are."""
        found = await self._database.write(partial(self._seek, place.name, value))
        self._apply(place, found, value)

    async def allocate_slot(self, place: ReaderState) -> None:
        """Give a name a slot in the file of places, wherever it is."""
        if not place.slot:
            found = await self._database.write(partial(self._settle, place.name, 0))
            place.slot, place.epoch = found.slot, found.epoch

    async def max_acknowledged(self) -> int:
        """The highest place that any reader but of direct calls has acknowledged."""
        stored = await self._database.write(lambda db: self.max_stored(self._hold(db), db))
        here = (place.position or 0 for place in self._places.values() if place.name != DIRECT)
        return max(stored, *here, 0)

    def mark_checkpointed(self, folded: Checkpointed) -> None:
        """Take into account what a transaction has folded."""
        for place, value in folded:
            place.checkpointed = place.persisted = value

    def _apply(self, place: ReaderState, found: StoredPosition, value: int) -> None:
        place.slot, place.epoch = found.slot, found.epoch
        place.position, place.checkpointed = value, None
        if value == found.place:
            place.persisted = value

    # -- on the thread ----------------------------------------------------------------------------

    def checkpoint(self, db: sqlite3.Connection) -> Checkpointed:
        """Write into the database what was acknowledged in this process."""
        log, folded = self._hold(db), list[tuple[ReaderState, int]]()
        for place in list(self._places.values()):
            value = place.position
            if value is None or value == place.checkpointed:
                continue
            if place.slot:
                db.execute(
                    "UPDATE reader SET place = max(place, ?) WHERE slot = ? AND epoch = ?",
                    (value, place.slot, place.epoch),
                )
            else:
                db.execute(
                    "INSERT INTO reader (log, name, place) VALUES (?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET place = max(place, excluded.place)",
                    (log, place.name, value),
                )
            folded.append((place, value))
        return folded

    def max_stored(self, log: int, db: sqlite3.Connection) -> int:
        """The highest place that any reader but of direct calls has on record."""
        stored = self._stored_positions(log, db)
        return max((found.place for name, found in stored if name != DIRECT), default=0)

    def clamp_to_head(self, head: int, log: int, db: sqlite3.Connection) -> None:
        """Forget places beyond the log: a database that was put back from a copy has them.

        It numbers its items anew from where it ends, and they must not count as acknowledged.
        """
        for _, found in list(self._stored_positions(log, db)):
            if found.place > head:
                self._start_epoch(found, head, db)

    def _find(self, name: str, db: sqlite3.Connection) -> StoredPosition | None:
        return dict(self._stored_positions(self._hold(db), db)).get(name)

    def _settle(self, name: str, place: int, db: sqlite3.Connection) -> StoredPosition:
        """Find a name, and have it at *place* if it is new."""
        log = self._hold(db)
        db.execute(
            "INSERT OR IGNORE INTO reader (log, name, place) VALUES (?, ?, ?)", (log, name, place)
        )
        return dict(self._stored_positions(log, db))[name]

    def _seek(self, name: str, place: int, db: sqlite3.Connection) -> StoredPosition:
        found = self._settle(name, place, db)
        return found if found.place == place else self._start_epoch(found, place, db)

    def _start_epoch(
        self, found: StoredPosition, place: int, db: sqlite3.Connection
    ) -> StoredPosition:
        """Send a name elsewhere, in a new epoch."""
        sent = StoredPosition(found.slot, found.epoch + 1, place)
        db.execute(
            "UPDATE reader SET epoch = ?, place = ? WHERE slot = ?", (sent.epoch, place, sent.slot)
        )
        return sent

    def _stored_positions(
        self, log: int, db: sqlite3.Connection
    ) -> Iterator[tuple[str, StoredPosition]]:
        """What is on record of each name: its place is as far as database or file have it."""
        return stored_positions(log, db, self._database.places)


def stored_positions(
    log: int, db: sqlite3.Connection, file: AckFile | None
) -> Iterator[tuple[str, StoredPosition]]:
    """What is on record of each name that reads *log*."""
    rows = db.execute(
        "SELECT name, slot, epoch, place FROM reader WHERE log = ?", (log,)
    ).fetchall()
    written = file.read() if file is not None and rows else dict[int, tuple[int, int]]()
    for name, slot, epoch, place in rows:
        further, ack = written.get(slot, (0, 0))
        yield name, StoredPosition(slot, epoch, max(place, ack) if further == epoch else place)
