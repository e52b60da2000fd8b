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
from .places import Places

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Folded", "Place", "Readers", "stored"]


class Place:
    """How far the readers of one name have got, as this process knows it."""

    __slots__ = ("epoch", "folded", "name", "recorded", "slot", "value")

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.value: int | None = None  # not known
        self.recorded: int | None = None  # what of it will be there after a crash
        self.folded: int | None = None  # what of it the database has, in case the file is lost
        self.slot: int = 0  # where it stands in the file of places; 0 before it is known
        self.epoch: int = 0


Folded = Sequence[tuple[Place, int]]
"""What a transaction has written into the database: of account once that is over."""


class Stored(NamedTuple):
    """What database and file together say of a name."""

    slot: int
    epoch: int
    place: int


class Readers:
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
        self._places: dict[str, Place] = {}

    def place(self, name: str) -> Place:
        """What is known of how far the readers of a name have got."""
        return self._places.setdefault(name, Place(name))

    def ack(self, place: Place, value: int) -> None:
        """Move a place forwards: on record at once, in the file of places."""
        if place.value is not None and value <= place.value:
            return
        place.value = value
        file = self._database.places
        if place.slot and file is not None:
            try:
                file.write(place.slot, place.epoch, value)
            except (OSError, ValueError):
                return  # the next transaction has it, and says what is wrong
            if not self._durable:
                place.recorded = value

    async def flush(self, place: Place) -> None:
        """Have a place on record."""
        if place.value != place.recorded:
            self.note(await self._database.write(self.fold))

    async def find(self, place: Place) -> int | None:
        """Where a name is, in whichever process it got there."""
        found = await self._database.write(partial(self._find, place.name))
        if found is not None:
            if place.slot and place.epoch != found.epoch:
                place.value = None  # another process has sent it elsewhere
            self._take(place, found, max(found.place, place.value or 0))
        return place.value

    async def seek(self, place: Place, value: int) -> None:
        """Send the readers of a name elsewhere, if that is not where they are."""
        found = await self._database.write(partial(self._seek, place.name, value))
        self._take(place, found, value)

    async def settle(self, place: Place) -> None:
        """Give a name a slot in the file of places, wherever it is."""
        if not place.slot:
            found = await self._database.write(partial(self._settle, place.name, 0))
            place.slot, place.epoch = found.slot, found.epoch

    async def highest(self) -> int:
        """The highest place that any reader but of direct calls has acknowledged."""
        stored = await self._database.write(lambda db: self.highest_stored(self._hold(db), db))
        here = (place.value or 0 for place in self._places.values() if place.name != DIRECT)
        return max(stored, *here, 0)

    def note(self, folded: Folded) -> None:
        """Take into account what a transaction has folded."""
        for place, value in folded:
            place.folded = place.recorded = value

    def _take(self, place: Place, found: Stored, value: int) -> None:
        place.slot, place.epoch = found.slot, found.epoch
        place.value, place.folded = value, None
        if value == found.place:
            place.recorded = value

    # -- on the thread ----------------------------------------------------------------------------

    def fold(self, db: sqlite3.Connection) -> Folded:
        """Write into the database what was acknowledged in this process."""
        log, folded = self._hold(db), list[tuple[Place, int]]()
        for place in list(self._places.values()):
            value = place.value
            if value is None or value == place.folded:
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

    def highest_stored(self, log: int, db: sqlite3.Connection) -> int:
        """The highest place that any reader but of direct calls has on record."""
        stored = self._stored(log, db)
        return max((found.place for name, found in stored if name != DIRECT), default=0)

    def forget_beyond(self, head: int, log: int, db: sqlite3.Connection) -> None:
        """Forget places beyond the log: a database that was put back from a copy has them.

        It numbers its items anew from where it ends, and they must not count as acknowledged.
        """
        for _, found in list(self._stored(log, db)):
            if found.place > head:
                self._send(found, head, db)

    def _find(self, name: str, db: sqlite3.Connection) -> Stored | None:
        return dict(self._stored(self._hold(db), db)).get(name)

    def _settle(self, name: str, place: int, db: sqlite3.Connection) -> Stored:
        """Find a name, and have it at *place* if it is new."""
        log = self._hold(db)
        db.execute(
            "INSERT OR IGNORE INTO reader (log, name, place) VALUES (?, ?, ?)", (log, name, place)
        )
        return dict(self._stored(log, db))[name]

    def _seek(self, name: str, place: int, db: sqlite3.Connection) -> Stored:
        found = self._settle(name, place, db)
        return found if found.place == place else self._send(found, place, db)

    def _send(self, found: Stored, place: int, db: sqlite3.Connection) -> Stored:
        """Send a name elsewhere, in a new epoch."""
        sent = Stored(found.slot, found.epoch + 1, place)
        db.execute(
            "UPDATE reader SET epoch = ?, place = ? WHERE slot = ?", (sent.epoch, place, sent.slot)
        )
        return sent

    def _stored(self, log: int, db: sqlite3.Connection) -> Iterator[tuple[str, Stored]]:
        """What is on record of each name: its place is as far as database or file have it."""
        return stored(log, db, self._database.places)


def stored(log: int, db: sqlite3.Connection, file: Places | None) -> Iterator[tuple[str, Stored]]:
    """What is on record of each name that reads *log*."""
    rows = db.execute(
        "SELECT name, slot, epoch, place FROM reader WHERE log = ?", (log,)
    ).fetchall()
    written = file.read() if file is not None and rows else dict[int, tuple[int, int]]()
    for name, slot, epoch, place in rows:
        further, ack = written.get(slot, (0, 0))
        yield name, Stored(slot, epoch, max(place, ack) if further == epoch else place)
