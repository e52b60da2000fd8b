"""Pacing that all programs on one file share: a `SharedBucket` in a row of the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from ...limiter import Turn, clock
from ...wire import Rate
from ..shared import SharedBucket
from .database import Database
from .owner import Owner, lives

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SqliteGate"]

T = TypeVar("T")

UNANSWERED: Final = 64
"""Of how many requests without an answer it is still remembered when they were written."""


class SqliteGate:
    """The `Gate` of one endpoint and account, which *key* tells from others."""

    def __init__(self, database: Database, key: str, rate: Rate) -> None:
        self._database = database
        self._key = key
        self._rate = rate
        self._owner = Owner()
        self._used = False
        # Of the tickets in hand, with what `answered` wants; 0 before the writing. Only the
        # database's thread looks at them.
        self._tickets: dict[int, int] = {}

    async def take(self) -> Turn:
        """Ask for a token, and keep a place in the line of processes until it is had."""
        now = clock(asyncio.get_running_loop())
        self._used = True

        def job(db: sqlite3.Connection) -> Turn:
            turn = self._change(db, lambda bucket: bucket.take(self._owner.name, now(), lives))
            if not turn.wait:
                self._tickets[turn.ticket] = 0
            return turn

        try:
            return await self._database.write(job)
        except asyncio.CancelledError:
            self._database.submit(self._undo)  # behind the job, which is done all the same
            raise

    def written(self, ticket: int, guard: float) -> None:
        """The request on *ticket* is being written now."""
        now = _now()

        def job(db: sqlite3.Connection) -> None:
            anchor = self._change(db, lambda bucket: bucket.written(ticket, now, guard))
            self._tickets[ticket] = anchor
            if len(self._tickets) > UNANSWERED:
                del self._tickets[min(self._tickets)]

        self._database.submit(job)

    def answered(self, ticket: int) -> None:
        """The request on *ticket* has its answer now."""
        now = _now()

        def job(db: sqlite3.Connection) -> None:
            anchor = self._tickets.pop(ticket, 0)
            self._change(db, lambda bucket: bucket.answered(anchor, now))

        self._database.submit(job)

    def give_back(self, ticket: int) -> None:
        """The request on *ticket* certainly never left."""

        def job(db: sqlite3.Connection) -> None:
            self._tickets.pop(ticket, None)
            self._change(db, lambda bucket: bucket.give_back(ticket))

        self._database.submit(job)

    def leave(self) -> None:
        """Nobody here waits any more: give the place in the line up."""
        self._database.submit(
            lambda db: self._change(db, lambda bucket: bucket.leave(self._owner.name))
        )

    def pause(self, seconds: float) -> None:
        """Let nothing through for *seconds* from now, in any process."""
        until = _now() + seconds
        self._database.submit(lambda db: self._change(db, lambda bucket: bucket.pause(until)))

    def withdraw(self, db: sqlite3.Connection) -> None:
        """The store is closing: what is in hand goes back, and the place in the line."""
        if self._used:
            self._undo(db)

    def _undo(self, db: sqlite3.Connection) -> None:
        self._change(db, self._let_go)

    def _let_go(self, bucket: SharedBucket) -> None:
        for ticket in [ticket for ticket, anchor in self._tickets.items() if not anchor]:
            del self._tickets[ticket]
            bucket.give_back(ticket)
        bucket.leave(self._owner.name)

    def _change(self, db: sqlite3.Connection, change: Callable[[SharedBucket], T]) -> T:
        row = db.execute("SELECT state FROM pace WHERE key = ?", (self._key,)).fetchone()
        bucket = SharedBucket(self._rate, row and row[0])
        result = change(bucket)
        db.execute("INSERT OR REPLACE INTO pace VALUES (?, ?)", (self._key, bucket.dump()))
        return result


def _now() -> float:
    return clock(asyncio.get_running_loop())()
