"""One log in the file: its rows, and what is known of it in memory.

Rows and whatever belongs to them are written in one transaction, in one hop to the database's
thread for a whole page. What this process appended last stays in memory, so that a stream at the
end of its log costs no hop to read.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import msgspec

from ..base import Entry, NewEntry, Topic
from ..news import Notifier
from .database import Database, data_version
from .readers import Checkpointed, ReaderPositions

if TYPE_CHECKING:
    import sqlite3

__all__ = ["LogState"]

logger: Final = logging.getLogger("pythpeer.stores")

T = TypeVar("T")

CACHE_SIZE: Final = 600
"""How many of the entries that this process appended last it keeps in memory: two full pages."""

PendingFetch = tuple[int, str, float, int]
"""An announcement's number, who announced it, until when it can take effect, and whether it was
settled before that."""


# What comes in its order and what comes late have a statement each: numbers and texts go to SQLite
# as they are, while the sqlite3 module looks for an adapter for each None and each bool.
INSERT: Final = "INSERT OR IGNORE INTO entry (log, id, after, gap, item) VALUES (?, ?, ?, ?, ?)"
INSERT_OUT_OF_ORDER: Final = (
    "INSERT OR IGNORE INTO entry (log, id, after, gap, item, late, latecomer)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)

CHECKPOINT_EVERY: Final = 50
"""Every how many pages what was acknowledged is written into the database as well, in case the file
of places is lost."""

_encode: Final = msgspec.json.Encoder().encode

_Row = tuple[int, int, int, int, str | None]


class _AppendResult(NamedTuple, Generic[T]):
    """What came of appending: the drafts that were new, and the end of the log that they made."""

    drafts: Sequence[NewEntry[T]]
    tail: Sequence[Entry[T]]
    out_of_order_count: int
    """How many had ever come late by then."""
    folded: Checkpointed


class LogState(Generic[T]):
    """One log, as all holds on it in this process share it.

    Methods that take a connection run on the database's thread.
    """

    def __init__(
        self,
        topic: Topic[T],
        database: Database,
        *,
        max_length: int | None,
        durable: bool,
    ) -> None:
        self.topic = topic
        self.news: Final = Notifier()
        """Told when this process appends."""
        self.head: int = 0
        """The highest id in the log, as far as is known."""
        self.readers: Final = ReaderPositions(database, self.ensure_row, durable=durable)
        self.database = database
        self._max_length = max_length
        self._decode = msgspec.json.Decoder(topic.item).decode
        self._id = 0
        self._length = 0
        self._latecomers = 0
        self._version = -1
        self._append_count = 0
        self._checked_at_rollbacks = (
            -1
        )  # how often something had been rolled back by then, this perhaps
        self._cache: deque[Entry[T]] = deque(maxlen=min(CACHE_SIZE, max_length or CACHE_SIZE))
        self._out_of_order_at_cache = 0

    def ensure_row(self, db: sqlite3.Connection) -> int:
        """Begin to write: have the log's row there. Returns its id."""
        self._refresh(db)
        if not self._id:
            done = db.execute("INSERT INTO log (topic) VALUES (?)", (self.topic.name,))
            self._id = done.lastrowid or 0
        if self.topic.destructive and self._checked_at_rollbacks != self.database.rollbacks:
            self.readers.clamp_to_head(self.head, self._id, db)
            self._checked_at_rollbacks = self.database.rollbacks
        return self._id

    # -- reading ----------------------------------------------------------------------------------

    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        """At most *limit* entries with ids over *after*, ascending."""
        known = self._cached(after, limit)
        if known is None:
            known = await self.database.read(partial(self._select, after, limit))
        return known

    def _cached(self, after: int, limit: int) -> Sequence[Entry[T]] | None:
        """What can be said without looking into the file; ``None`` if that is nothing."""
        tail = self._cache
        current = self._out_of_order_at_cache == self._latecomers
        if current and tail and tail[0].after <= after < tail[-1].id == self.head:
            start = bisect_right(tail, after, key=attrgetter("id"))
            return [tail[index] for index in range(start, min(start + limit, len(tail)))]
        return () if after >= self.head and self.is_current() else None

    def is_current(self) -> bool:
        """Whether it is certain that no other process has written since this one looked."""
        return self._version == self.database.version

    async def refresh(self) -> int:
        """Look how far the log reaches."""
        return await self.database.read(self._refresh)

    def _refresh(self, db: sqlite3.Connection) -> int:
        self._version = data_version(db)  # first: what comes in between will be looked for again
        row = db.execute(
            "SELECT id, head, length, latecomers FROM log WHERE topic = ?", (self.topic.name,)
        ).fetchone()
        self._id, self.head, self._length, self._latecomers = row or (0, 0, 0, 0)
        return self.head

    def _select(self, after: int, limit: int, db: sqlite3.Connection) -> Sequence[Entry[T]]:
        self._refresh(db)
        rows = db.execute(
            "SELECT id, after, gap, item FROM entry WHERE log = ? AND id > ? ORDER BY id LIMIT ?",
            (self._id, after, limit),
        )
        return [
            Entry(id, link, bool(gap), self._read_item(id, item)) for id, link, gap, item in rows
        ]

    def _read_item(self, id: int, text: str | None) -> T | None:
        try:
            return None if text is None else self._decode(text)
        except (ValueError, RecursionError):
            about = {"log": self.topic.name, "item": id}
            logger.warning("%s: item %d is damaged in the store", *about.values(), extra=about)
            return None

    async def pending_fetches(self) -> Sequence[PendingFetch]:
        """All that is announced."""

        def job(db: sqlite3.Connection) -> Sequence[PendingFetch]:
            self._refresh(db)
            what = "SELECT number, who, until, settled FROM announcement WHERE log = ?"
            return db.execute(what, (self._id,)).fetchall()

        return await self.database.read(job)

    # -- appending --------------------------------------------------------------------------------

    async def append(
        self, drafts: Sequence[NewEntry[T]], finish: Callable[[sqlite3.Connection], object]
    ) -> Sequence[NewEntry[T]]:
        """Add what is new among *drafts*, and return that. *finish* is done with it."""
        done = await self.database.write(partial(self._append, drafts, finish))
        self.readers.mark_checkpointed(done.folded)
        if done.drafts:
            tail = self._cache
            late = done.out_of_order_count != self._out_of_order_at_cache
            if tail and (late or not done.tail or done.tail[0].after != tail[-1].id):
                tail.clear()
            tail.extend(done.tail)
            self._out_of_order_at_cache = done.out_of_order_count
            self.news.notify_all()
        return done.drafts

    def _append(
        self,
        drafts: Sequence[NewEntry[T]],
        finish: Callable[[sqlite3.Connection], object],
        db: sqlite3.Connection,
    ) -> _AppendResult[T]:
        log = self.ensure_row(db)
        added: list[NewEntry[T]] = []
        end: list[Entry[T]] = []
        rows: list[_Row] = []
        for draft in drafts:
            entry = self._entry(draft, db)
            if entry is None:
                continue
            if entry.id > self.head:
                rows.append(self._row(entry))  # nothing of it can be there already
            else:
                self._insert(rows, db)  # it may be among them
                if not self._insert_out_of_order(entry, db):
                    continue
            added.append(draft)
            # A link with a gap may yet be mended: that is to be seen in the file.
            if entry.gap or entry.after < self.head or (end and end[-1].id != entry.after):
                end.clear()
            if not entry.gap and entry.after >= self.head:
                end.append(entry)
            self.head = max(self.head, entry.id)
        self._insert(rows, db)
        length = self._length + len(added)
        length -= self._trim(length, len(drafts), db)
        db.execute(
            "UPDATE log SET head = ?, length = ?, latecomers = ? WHERE id = ?",
            (self.head, length, self._latecomers, log),
        )
        finish(db)
        self._append_count += 1
        folded = () if self._append_count % CHECKPOINT_EVERY else self.readers.checkpoint(db)
        return _AppendResult(added, end, self._latecomers, folded)

    def _entry(self, draft: NewEntry[T], db: sqlite3.Connection) -> Entry[T] | None:
        """What a draft becomes; nothing if it has no number and was seen often enough."""
        if draft.id is not None:
            return Entry(draft.id, draft.after, draft.gap, draft.item)
        found = db.execute(
            "SELECT copies, doubtful FROM seen WHERE log = ? AND key = ?",
            (self._id, draft.identity),
        ).fetchone()
        copies, doubtful = found or (0, 0)
        if draft.max_copies and copies >= draft.max_copies:
            return None
        item = draft.item
        if draft.from_history:
            doubtful += 1
        elif doubtful and not draft.max_copies:
            doubtful -= 1
            item = draft.as_duplicate
        db.execute(
            "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)",
            (self._id, draft.identity, copies + 1, doubtful),
        )
        return Entry(self.head + 1, self.head, gap=False, item=item)

    def _row(self, entry: Entry[T]) -> _Row:
        text = None
        try:
            if entry.item is not None:
                text = _encode(entry.item).decode()
        except (ValueError, RecursionError):
            about = {"log": self.topic.name, "item": entry.id}
            logger.warning("%s: item %d cannot be written down", *about.values(), extra=about)
        return (self._id, entry.id, entry.after, int(entry.gap), text)

    def _insert(self, rows: list[_Row], db: sqlite3.Connection) -> None:
        """Write *rows* down, and clear the list."""
        if rows:
            db.executemany(INSERT, rows)
            rows.clear()

    def _insert_out_of_order(self, entry: Entry[T], db: sqlite3.Connection) -> bool:
        """Add an entry among others, unless its id is known. Says whether it was new."""
        row = (*self._row(entry), self.head, self._latecomers)
        if db.execute(INSERT_OUT_OF_ORDER, row).rowcount:
            self._latecomers += 1
            return True
        link = {"log": self._id, "id": entry.id, "after": entry.after, "gap": entry.gap}
        db.execute(
            "UPDATE entry SET after = :after, gap = :gap"
            " WHERE log = :log AND id = :id AND (gap, after) > (:gap, :after)",
            link,
        )
        return False

    def _trim(self, length: int, batch: int, db: sqlite3.Connection) -> int:
        """Drop what came first, but no more than leaves room for a last batch of *batch*."""
        most = self._max_length
        if most is None or length <= max(most, batch):
            return 0
        acknowledged = self.readers.max_stored(self._id, db) if self.topic.destructive else None
        rows = [
            (self._id, id)
            for id in self._oldest(length - max(most, batch), db)
            if acknowledged is None or id <= acknowledged
        ]
        db.executemany("DELETE FROM entry WHERE log = ? AND id = ?", rows)
        return len(rows)

    def _oldest(self, many: int, db: sqlite3.Connection) -> Iterator[int]:
        """The ids of what came first: in their order, but for those that came late."""
        in_order = db.execute(
            "SELECT id, 0, id FROM entry WHERE log = ? AND late IS NULL ORDER BY id LIMIT ?",
            (self._id, many),
        ).fetchall()
        late = db.execute(
            "SELECT late, 1, id FROM entry WHERE log = ? AND late IS NOT NULL"
            " ORDER BY late, latecomer LIMIT ?",
            (self._id, many),
        ).fetchall()
        return (row[2] for row in islice(merge(in_order, late, key=_arrival_order), many))


def _arrival_order(row: tuple[int, int, int]) -> tuple[int, int]:
    """When an entry came: behind all up to an id, and behind those that were not late."""
    return row[:2]
