"""`LogState`: one log in the file: its rows, and a cache of its last entries.

The entries of a page, and all that belongs to them, are written in one transaction. The last
entries that this process appended stay in memory, so that a stream at the end of its log does not
read the file.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import msgspec

from ..base import Entry, LogTail, NewEntry, Topic
from ..new_entries import Copies, assign_id, is_better_link
from ..notify import Notifier
from .columns import integer, text, timestamp
from .database import Database, data_version
from .positions import ReaderPositions, max_stored

if TYPE_CHECKING:
    import sqlite3

__all__ = ["LogState"]

logger: Final = logging.getLogger("pythpeer.stores")

T = TypeVar("T")

CACHE_SIZE: Final = 600
"""The number of entries in the cache, the last that this process appended: two full pages."""


class PendingFetch(NamedTuple):
    """A fetch intent in the file."""

    number: int
    owner: str
    until: float
    """The time until which the read can take effect, by the database's clock."""

    completed: int
    """1 if it was completed by another owner before that time, else 0."""


# Entries in order and out of order have separate statements: numbers and texts are passed to SQLite
# directly, while the sqlite3 module searches for an adapter for each None and each bool.
INSERT: Final = "INSERT OR IGNORE INTO entry (log, id, after, gap, item) VALUES (?, ?, ?, ?, ?)"
INSERT_OUT_OF_ORDER: Final = (
    "INSERT OR IGNORE INTO entry (log, id, after, gap, item, late, latecomer)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)

COUNT_UNACKNOWLEDGED: Final = (
    "SELECT count(*) FROM entry WHERE log = ?"
    " AND id > (SELECT coalesce(max(place), 0) FROM reader WHERE log = ?)"
)

MAX_BRIEF_PAGE: Final = 50
"""The entries that are appended on the event loop at most: that takes well under a millisecond."""

MAX_TRIMMED: Final = 500
"""The entries that an append deletes at most, in addition to as many as it has: the first append
after a long time without an acknowledgement would take long otherwise."""

_encode: Final = msgspec.json.Encoder().encode

_Row = tuple[int, int, int, int, str | None]
"""The parameters of `INSERT`."""


class _AppendResult(NamedTuple, Generic[T]):
    """The result of an append."""

    added: Sequence[NewEntry[T]]
    """The entries that were new."""

    tail: Sequence[Entry[T]]
    """Those at the end of the log that may be cached: linked, and without a gap."""

    out_of_order_count: int
    """The number of entries that have ever arrived out of order, with these."""


class LogState(Generic[T]):
    """One log of the file, shared by all its handles in this process.

    Methods that take a connection are jobs of the database, the others run in the event loop.

    Invariants: what was read from the log's row is the state at `_version`; the cache holds linked
    entries without gaps, and is only used while no entry has arrived out of order since it was
    filled, and while it ends at `head`.
    """

    def __init__(
        self,
        topic: Topic[T],
        database: Database,
        *,
        max_length: int | None,
    ) -> None:
        self.topic = topic
        self.notifier: Final = Notifier()
        """Notified when this process has appended."""
        self.head: int = 0
        """The highest id of the log, as last read or appended by a job."""
        self.readers: Final = ReaderPositions(database, self.ensure_row, self._other_logs)
        self.database = database
        self._max_length = max_length
        """The number of entries to keep, or ``None`` for all."""
        self._decode = msgspec.json.Decoder(topic.item).decode
        self._id = 0
        """The id of the log's row; 0 if there is none. Set by jobs."""
        self._suspect = 0
        """The id up to which items may have been acknowledged before a power failure. Set by
        jobs."""
        self._length = 0
        """The number of entries, as last read by a job."""
        self._out_of_order_count = 0
        """The number of entries that have ever arrived out of order. Set by jobs."""
        self._version = -1
        """The database's version when the row was last read, -1 before. Set by jobs."""
        self._cache: deque[Entry[T]] = deque(maxlen=min(CACHE_SIZE, max_length or CACHE_SIZE))
        """The last appended entries. Changed by `append`, in the event loop."""
        self._out_of_order_at_cache = 0
        """``_out_of_order_count`` when the cache was last changed."""

    def ensure_row(self, db: sqlite3.Connection) -> int:
        """Start a write: insert the log's row if there is none. Returns its id."""
        self._refresh(db)
        if not self._id:
            inserted = db.execute("INSERT INTO log (topic) VALUES (?)", (self.stored_name,))
            self._id = inserted.lastrowid or 0
        return self._id

    @property
    def stored_name(self) -> str:
        """The name of the topic in the file, which is also what log records show."""
        return self.database.stored_name(self.topic.name)

    def _other_logs(self, db: sqlite3.Connection) -> list[int]:
        """Return the ids of the other logs of the scope."""
        return self._other_accounts(db) if self.topic.scope else []

    def _other_accounts(self, db: sqlite3.Connection) -> list[int]:
        """Return the ids of the logs of other accounts of the service."""
        service = self.topic.service
        if not service:
            return []
        query = "SELECT id, topic FROM log WHERE substr(topic, 1, ?) = ? AND id != ?"
        rows = db.execute(query, (len(service) + 1, f"{service} ", self._id))
        return [id for id, topic in rows if " " not in topic[len(service) + 1 :]]

    # -- reading ----------------------------------------------------------------------------------

    async def read(self, after: int, limit: int) -> Sequence[Entry[T]]:
        """Return at most *limit* entries with ids over *after*, ascending."""
        entries = self._cached(after, limit)
        if entries is None:
            entries = await self.database.read(partial(self._select, after, limit))
        return entries

    def _cached(self, after: int, limit: int) -> Sequence[Entry[T]] | None:
        """Return the entries from the cache, or ``None`` if the file must be read."""
        cache = self._cache
        is_complete = self._out_of_order_at_cache == self._out_of_order_count
        if is_complete and cache and cache[0].after <= after < cache[-1].id == self.head:
            start = bisect_right(cache, after, key=attrgetter("id"))
            return [cache[index] for index in range(start, min(start + limit, len(cache)))]
        if after >= self.head and self.is_current():
            return ()
        return None

    def is_current(self) -> bool:
        """Return whether certainly no other process has written since the row was read."""
        return self._version == self.database.version

    async def refresh(self) -> int:
        """Read the log's row again. Returns the head."""
        return await self.database.read(self._refresh)

    def _refresh(self, db: sqlite3.Connection) -> int:
        self._version = data_version(db)  # before the row: a later commit changes it again
        row = db.execute(
            "SELECT id, suspect, head, length, latecomers FROM log WHERE topic = ?",
            (self.stored_name,),
        ).fetchone()
        values = map(integer, row or (0, 0, 0, 0, 0))
        self._id, self._suspect, self.head, self._length, self._out_of_order_count = values
        return self.head

    def _select(self, after: int, limit: int, db: sqlite3.Connection) -> Sequence[Entry[T]]:
        self._refresh(db)
        query = (
            "SELECT id, after, gap, item FROM entry WHERE log = ? AND id > ? ORDER BY id LIMIT ?"
        )
        return self._entries(db.execute(query, (self._id, after, limit)))

    async def tail(self, limit: int) -> LogTail[T]:
        """Return the head, and the last *limit* entries, ascending."""

        def job(db: sqlite3.Connection) -> LogTail[T]:
            self._refresh(db)
            query = "SELECT id, after, gap, item FROM entry WHERE log = ? ORDER BY id DESC LIMIT ?"
            last = self._entries(db.execute(query, (self._id, limit)))
            return LogTail(self.head, last[::-1])

        return await self.database.read(job)

    def _entries(self, rows: Iterable[tuple[int, int, int, str | None]]) -> list[Entry[T]]:
        return [
            Entry(integer(id), integer(link), bool(gap), self._read_item(id, item))
            for id, link, gap, item in rows
        ]

    def _read_item(self, id: int, stored: str | None) -> T | None:
        try:
            item = None if stored is None else self._decode(stored)
        except (ValueError, TypeError, RecursionError):
            about = {"log": self.stored_name, "item": id}
            logger.warning("%s: item %d is damaged in the store", *about.values(), extra=about)
            return None
        if item is not None and id <= self._suspect and self.topic.mark_recovered is not None:
            return self.topic.mark_recovered(item)
        return item

    async def pending_fetches(self) -> Sequence[PendingFetch]:
        """Return all fetch intents of the log."""

        def job(db: sqlite3.Connection) -> Sequence[PendingFetch]:
            self._refresh(db)
            query = "SELECT number, who, until, settled FROM announcement WHERE log = ?"
            return [
                PendingFetch(integer(fetch), text(owner), timestamp(until), integer(completed))
                for fetch, owner, until, completed in db.execute(query, (self._id,))
            ]

        return await self.database.read(job)

    async def copies(self) -> Mapping[str, int]:
        """Return for each identity how many entries were appended."""

        def job(db: sqlite3.Connection) -> Mapping[str, int]:
            self._refresh(db)
            query = "SELECT key, copies FROM seen WHERE log = ?"
            rows = db.execute(query, (self._id,))
            return {text(identity): integer(copies) for identity, copies in rows}

        return await self.database.read(job)

    async def unacknowledged_of_others(self) -> int:
        """Return how many items other accounts of the service have that no reader has had."""

        def job(db: sqlite3.Connection) -> int:
            self._refresh(db)
            return sum(
                db.execute(COUNT_UNACKNOWLEDGED, (log, log)).fetchone()[0]
                for log in self._other_accounts(db)
            )

        return await self.database.read(job)

    # -- appending --------------------------------------------------------------------------------

    async def append(
        self,
        entries: Sequence[NewEntry[T]],
        finish: Callable[[sqlite3.Connection], object] = lambda _: None,
        expected_head: int | None = None,
    ) -> Sequence[NewEntry[T]] | None:
        """Append those of *entries* that are new, and return them.

        *finish* is called in the same transaction. If *expected_head* is given and is not the head,
        nothing happens, and the result is ``None``.
        """
        result = await self.database.write(
            partial(self._append, entries, finish, expected_head),
            brief=len(entries) <= MAX_BRIEF_PAGE,
        )
        if result is None:
            return None
        if result.added:
            cache = self._cache
            out_of_order = result.out_of_order_count != self._out_of_order_at_cache
            is_linked = bool(result.tail and cache) and result.tail[0].after == cache[-1].id
            if out_of_order or not is_linked:
                cache.clear()
            cache.extend(result.tail)
            self._out_of_order_at_cache = result.out_of_order_count
            self.notifier.notify_all()
        return result.added

    def _append(
        self,
        new_entries: Sequence[NewEntry[T]],
        finish: Callable[[sqlite3.Connection], object],
        expected_head: int | None,
        db: sqlite3.Connection,
    ) -> _AppendResult[T] | None:
        log = self.ensure_row(db)
        if expected_head is not None and expected_head != self.head:
            return None
        added: list[NewEntry[T]] = []
        tail: list[Entry[T]] = []
        rows: list[_Row] = []
        for new in new_entries:
            entry = self._entry(new, db)
            if entry is None:
                continue
            if entry.id > self.head:
                rows.append(self._row(entry))  # the file cannot have this id
            else:
                self._insert(rows, db)  # the id may be among them
                if not self._insert_out_of_order(entry, db):
                    continue
            added.append(new)
            # A later page may replace a link with a gap, and it is then replaced in the file only.
            if entry.gap or entry.after < self.head or (tail and tail[-1].id != entry.after):
                tail.clear()
            if not entry.gap and entry.after >= self.head:
                tail.append(entry)
            self.head = max(self.head, entry.id)
        self._insert(rows, db)
        length = self._length + len(added)
        length -= self._trim(length, len(new_entries), db)
        db.execute(
            "UPDATE log SET head = ?, length = ?, latecomers = ? WHERE id = ?",
            (self.head, length, self._out_of_order_count, log),
        )
        finish(db)
        return _AppendResult(added, tail, self._out_of_order_count)

    def _entry(self, new: NewEntry[T], db: sqlite3.Connection) -> Entry[T] | None:
        """Return the entry to insert; ``None`` if it has no id and enough copies were seen."""
        if new.id is not None:
            return Entry(new.id, new.after, new.gap, new.item)
        row = db.execute(
            "SELECT copies, doubtful FROM seen WHERE log = ? AND key = ?",
            (self._id, new.identity),
        ).fetchone()
        decision = assign_id(new, self.head, Copies(*map(integer, row or ())))
        if decision is None:
            return None
        entry, copies = decision
        db.execute(
            "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", (self._id, new.identity, *copies)
        )
        return entry

    def _row(self, entry: Entry[T]) -> _Row:
        text = None
        try:
            if entry.item is not None:
                text = _encode(entry.item).decode()
        except (ValueError, RecursionError):
            about = {"log": self.stored_name, "item": entry.id}
            logger.warning("%s: item %d cannot be encoded", *about.values(), extra=about)
        return (self._id, entry.id, entry.after, int(entry.gap), text)

    def _insert(self, rows: list[_Row], db: sqlite3.Connection) -> None:
        """Insert *rows*, and clear the list."""
        if rows:
            db.executemany(INSERT, rows)
            rows.clear()

    def _insert_out_of_order(self, entry: Entry[T], db: sqlite3.Connection) -> bool:
        """Insert an entry below the head, or improve the link of the stored one.

        Returns whether its id was new.
        """
        row = (*self._row(entry), self.head, self._out_of_order_count)
        if db.execute(INSERT_OUT_OF_ORDER, row).rowcount:
            self._out_of_order_count += 1
            return True
        stored_after, stored_gap = db.execute(
            "SELECT after, gap FROM entry WHERE log = ? AND id = ?", (self._id, entry.id)
        ).fetchone()
        if is_better_link(
            gap=entry.gap,
            after=entry.after,
            than_gap=bool(stored_gap),
            than_after=integer(stored_after),
        ):
            db.execute(
                "UPDATE entry SET after = ?, gap = ? WHERE log = ? AND id = ?",
                (entry.after, int(entry.gap), self._id, entry.id),
            )
        return False

    def _trim(self, length: int, batch: int, db: sqlite3.Connection) -> int:
        """Delete the entries that arrived first, but none of the last *batch*. Returns how many.

        Its cost does not depend on how many are kept: at most `MAX_TRIMMED` are looked at, and none
        that may not be deleted.
        """
        if self._max_length is None:
            return 0
        excess = min(length - max(self._max_length, batch), MAX_TRIMMED + batch)
        if excess <= 0:
            return 0
        last = max_stored(self._id, db) if self.topic.destructive else self.head
        rows = [(self._id, id) for id in self._oldest(excess, last, db)]
        db.executemany("DELETE FROM entry WHERE log = ? AND id = ?", rows)
        return len(rows)

    def _oldest(self, count: int, last: int, db: sqlite3.Connection) -> Iterator[int]:
        """Yield the ids up to *last* of the *count* entries that arrived first, in that order."""
        in_order = db.execute(
            "SELECT id, 0, id FROM entry INDEXED BY in_order"
            " WHERE log = ? AND late IS NULL AND id <= ? ORDER BY id LIMIT ?",
            (self._id, last, count),
        ).fetchall()
        out_of_order = db.execute(
            "SELECT late, 1, id FROM entry INDEXED BY latecomer"
            " WHERE log = ? AND late IS NOT NULL AND late <= ? AND id <= ?"
            " ORDER BY late, latecomer LIMIT ?",
            (self._id, last, last, count),
        ).fetchall()
        arrived = merge(in_order, out_of_order, key=_arrival_order)
        return (row[2] for row in islice(arrived, count))


def _arrival_order(row: tuple[int, int, int]) -> tuple[int, int]:
    """Return the sort key: the head at the arrival; at the same head those in order are first."""
    return row[:2]
