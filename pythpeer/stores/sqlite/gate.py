"""Pacing that all programs on one file share: a `SharedBucket` in a row of the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from ...limiter import Grant
from ...wire import Rate
from ..shared import SharedBucket
from .database import Database
from .owner import OwnerId, is_alive

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SqlitePacing"]

T = TypeVar("T")

MAX_UNANSWERED: Final = 64
"""Of how many requests without an answer it is still remembered when they were written."""


class SqlitePacing:
    """The `Gate` of one endpoint and account, which *key* tells from others."""

    def __init__(self, database: Database, key: str, rate: Rate) -> None:
        self._database = database
        self._key = key
        self._rate = rate
        self._owner = OwnerId()
        self._used = False
        # Of the tickets in hand, with what `answered` wants; 0 before the writing. Only the
        # database's thread looks at them.
        self._tickets: dict[int, int] = {}

    async def acquire(self) -> Grant:
        """Ask for a token, and keep a place in the line of processes until it is had."""
        now, taken = self._database.now, list[int]()
        self._used = True

        def job(db: sqlite3.Connection) -> Grant:
            turn = self._update(
                db, lambda bucket: bucket.acquire(self._owner.name, now(), is_alive)
            )
            if not turn.retry_in:
                self._tickets[turn.ticket] = 0
                taken.append(turn.ticket)
            return turn

        try:
            return await self._database.write(job)
        except asyncio.CancelledError:
            # Behind the job, which is done all the same.
            self._database.submit(lambda db: self._release_all(db, taken))
            raise

    def written(self, ticket: int, guard: float) -> None:
        """The request on *ticket* is being written now."""
        now = self._database.now()

        def job(db: sqlite3.Connection) -> None:
            anchor = self._update(db, lambda bucket: bucket.written(ticket, now, guard))
            self._tickets[ticket] = anchor
            if len(self._tickets) > MAX_UNANSWERED:
                del self._tickets[min(self._tickets)]

        self._database.submit(job)

    def answered(self, ticket: int) -> None:
        """The request on *ticket* has its answer now."""
        now = self._database.now()

        def job(db: sqlite3.Connection) -> None:
            anchor = self._tickets.pop(ticket, 0)
            self._update(db, lambda bucket: bucket.answered(anchor, now))

        self._database.submit(job)

    def release(self, ticket: int) -> None:
        """The request on *ticket* certainly never left."""

        def job(db: sqlite3.Connection) -> None:
            self._tickets.pop(ticket, None)
            self._update(db, lambda bucket: bucket.release(ticket))

        self._database.submit(job)

    def leave_queue(self) -> None:
        """Nobody here waits any more: give the place in the line up."""
        self._database.submit(
            lambda db: self._update(db, lambda bucket: bucket.leave_queue(self._owner.name))
        )

    def pause(self, seconds: float) -> None:
        """Let nothing through for *seconds* from now, in any process."""
        until = self._database.now() + seconds
        self._database.submit(lambda db: self._update(db, lambda bucket: bucket.pause(until)))

    def close(self, db: sqlite3.Connection) -> None:
        """The store is closing: what is in hand goes back, and the place in the line."""
        if self._used:
            self._release_all(
                db, [ticket for ticket, anchor in self._tickets.items() if not anchor]
            )

    def _release_all(self, db: sqlite3.Connection, tickets: Sequence[int]) -> None:
        def change(bucket: SharedBucket) -> None:
            for ticket in tickets:
                self._tickets.pop(ticket, None)
                bucket.release(ticket)
            bucket.leave_queue(self._owner.name)

        self._update(db, change)

    def _load(self, state: bytes | None) -> SharedBucket:
        try:
            return SharedBucket(self._rate, state)
        except msgspec.DecodeError:
            # As if all tokens had just been spent: that does no harm, whatever was in there.
            bucket = SharedBucket(self._rate)
            rate = self._rate
            bucket.pause(self._database.now() + rate.interval * rate.burst + rate.guard)
            return bucket

    def _update(self, db: sqlite3.Connection, change: Callable[[SharedBucket], T]) -> T:
        row = db.execute("SELECT state FROM pace WHERE key = ?", (self._key,)).fetchone()
        bucket = self._load(row and row[0])
        result = change(bucket)
        db.execute("INSERT OR REPLACE INTO pace VALUES (?, ?)", (self._key, bucket.dump()))
        return result
