"""`SqlitePacing`: pacing shared by all programs on one file, a `SharedBucket` in a row of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from ...pacing.backend import Grant
from ...pacing.bucket import Rate
from ...pacing.shared import SharedBucket
from .database import Database
from .owner import OwnerId, is_alive

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SqlitePacing"]

T = TypeVar("T")

MAX_UNANSWERED: Final = 64
"""The number of requests without a response whose time of writing is remembered."""


class SqlitePacing:
    """The pacing backend of one endpoint and account, identified by *key*.

    Every change of the bucket is a job of the database's thread, and jobs are executed in the order
    of the calls.
    """

    def __init__(self, database: Database, key: str, rate: Rate) -> None:
        self._database = database
        self._key = key
        self._rate = rate
        self._owner = OwnerId()
        """The name of this limiter in the bucket's wait queue."""
        self._used = False
        """Whether a token was ever requested."""
        self._tickets: dict[int, int] = {}
        """The outstanding tickets, each with the number that `SharedBucket.answered` needs: 0
        before its request was written. Only the thread of the database uses it."""

    async def acquire(self) -> Grant:
        """Request a token. Until it is granted, the process keeps its position in the queue."""
        now, granted = self._database.now, list[int]()
        self._used = True

        def job(db: sqlite3.Connection) -> Grant:
            grant = self._update(
                db, lambda bucket: bucket.acquire(self._owner.name, now(), is_alive)
            )
            if not grant.retry_in:
                self._tickets[grant.ticket] = 0
                granted.append(grant.ticket)
            return grant

        try:
            return await self._database.write(job)
        except asyncio.CancelledError:
            # After the job, which is executed although its caller is cancelled.
            self._database.submit(lambda db: self._release_all(db, granted))
            raise

    def is_held(self, ticket: int) -> bool:
        """Return ``True``: only the time limit ends a token of a living process."""
        return True

    def written(self, ticket: int, guard: float) -> None:
        """Record that the request of *ticket* is being written now."""
        now = self._database.now()

        def job(db: sqlite3.Connection) -> None:
            anchor = self._update(db, lambda bucket: bucket.written(ticket, now, guard))
            self._tickets[ticket] = anchor
            if len(self._tickets) > MAX_UNANSWERED:
                del self._tickets[min(self._tickets)]

        self._database.submit(job)

    def answered(self, ticket: int) -> None:
        """Record that the request of *ticket* received its response now."""
        now = self._database.now()

        def job(db: sqlite3.Connection) -> None:
            anchor = self._tickets.pop(ticket, 0)
            self._update(db, lambda bucket: bucket.answered(anchor, now))

        self._database.submit(job)

    def release(self, ticket: int) -> None:
        """Return a token: the request of *ticket* was certainly not sent."""

        def job(db: sqlite3.Connection) -> None:
            self._tickets.pop(ticket, None)
            self._update(db, lambda bucket: bucket.release(ticket))

        self._database.submit(job)

    def leave_queue(self) -> None:
        """Leave the queue of processes, because no caller waits here any more."""
        self._database.submit(
            lambda db: self._update(db, lambda bucket: bucket.leave_queue(self._owner.name))
        )

    def pause(self, seconds: float) -> None:
        """Grant no token for *seconds* from now, in any process."""
        until = self._database.now() + seconds
        self._database.submit(lambda db: self._update(db, lambda bucket: bucket.pause(until)))

    def close(self, db: sqlite3.Connection) -> None:
        """Release outstanding tokens, and leave the queue, because the store is closing."""
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
            # As if all tokens had just been used: that is safe, whatever the state was.
            bucket = SharedBucket(self._rate)
            rate = self._rate
            bucket.pause(self._database.now() + rate.interval * rate.burst + rate.guard)
            return bucket

    def _update(self, db: sqlite3.Connection, change: Callable[[SharedBucket], T]) -> T:
        """Load the bucket, apply *change*, and store it. Returns what *change* returns."""
        row = db.execute("SELECT state FROM pace WHERE key = ?", (self._key,)).fetchone()
        bucket = self._load(row and row[0])
        result = change(bucket)
        db.execute("INSERT OR REPLACE INTO pace VALUES (?, ?)", (self._key, bucket.dump()))
        return result
