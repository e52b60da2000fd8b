"""`SqlitePacing`: pacing shared by all programs on one file, a `SharedBucket` in a row of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
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

RETRY_INTERVAL: Final = 0.5
"""Seconds after which events are recorded again that could not be: until then the tokens of their
requests are not available to other programs."""


class SqlitePacing:
    """The pacing backend of one endpoint and account, identified by *key*.

    Every change of the bucket is a job of the database, and jobs are executed in the order of the
    calls.
    """

    def __init__(self, database: Database, key: str, rate: Rate) -> None:
        self.key: Final = key
        """The name of the bucket, as `Database.stored_name` expects it."""
        self._database = database
        self._rate = rate
        self._owner = OwnerId()
        """The name of this limiter in the bucket's wait queue."""
        self._used = False
        """Whether a token was ever requested. Reset by `reset`."""
        self._tickets: dict[int, int] = {}
        """The outstanding tickets, each with the number that `SharedBucket.answered` needs: 0
        before its request was written. Only jobs use it."""
        self._events: list[Callable[[SharedBucket], object]] = []
        """The events that are not recorded in the file yet. Appended by the event loop, removed by
        jobs. An event may be applied again after a transaction that failed."""
        self._timer: asyncio.TimerHandle | None = None
        """The next try to record events, while there are any."""

    def reset(self) -> None:
        """Start anew, because the file is being opened: perhaps in a process that was forked."""
        self._tickets.clear()
        self._events.clear()
        self._used, self._timer = False, None

    async def acquire(self) -> Grant:
        """Request a token. Until it is granted, the process keeps its position in the queue."""
        now, granted = self._database.now, list[int]()
        events = list(self._events)  # not those that follow, such as a release of this token
        self._used = True

        def job(db: sqlite3.Connection) -> Grant:
            grant = self._update(
                db, lambda bucket: bucket.acquire(self._owner.name, now(), is_alive), events
            )
            granted.clear()
            if not grant.retry_in:
                granted.append(grant.ticket)
            return grant

        try:
            grant = await self._database.write(job, sync="never", brief=True)
        except asyncio.CancelledError:
            # After the job, which is executed although its caller is cancelled.
            self._record(lambda bucket: self._release_all(granted, bucket))
            raise
        if grant.ticket:
            self._tickets[grant.ticket] = 0
        return grant

    def is_held(self, ticket: int) -> bool:
        """Return ``True``: only the time limit ends a token of a living process."""
        return True

    def written(self, ticket: int, guard: float) -> None:
        """Record that the request of *ticket* is being written now."""
        self._record(partial(self._written, ticket, self._database.now(), guard))

    def _written(self, ticket: int, now: float, guard: float, bucket: SharedBucket) -> None:
        self._tickets[ticket] = bucket.written(ticket, now, guard)
        if len(self._tickets) > MAX_UNANSWERED:
            del self._tickets[min(self._tickets)]

    def answered(self, ticket: int) -> None:
        """Record that the request of *ticket* received its response now."""
        now = self._database.now()
        self._record(lambda bucket: bucket.answered(self._tickets.get(ticket, 0), now))

    def release(self, ticket: int) -> None:
        """Return a token: the request of *ticket* was certainly not sent."""
        self._record(lambda bucket: self._release(ticket, bucket))

    def _release(self, ticket: int, bucket: SharedBucket) -> None:
        self._tickets.pop(ticket, None)
        bucket.release(ticket)

    def leave_queue(self) -> None:
        """Leave the queue of processes, because no caller waits here any more."""
        self._record(lambda bucket: bucket.leave_queue(self._owner.name))

    def pause(self, seconds: float) -> None:
        """Grant no token for *seconds* from now, in any process."""
        until = self._database.now() + seconds
        self._record(lambda bucket: bucket.pause(until))

    def close(self, db: sqlite3.Connection) -> None:
        """Release outstanding tokens, and leave the queue, because the store is closing."""
        if self._timer is not None:
            self._timer.cancel()
        if self._used or self._events:
            unwritten = [ticket for ticket, anchor in self._tickets.items() if not anchor]
            release = partial(self._release_all, unwritten)
            self._update(db, release, list(self._events))

    def _release_all(self, tickets: Sequence[int], bucket: SharedBucket) -> None:
        for ticket in tickets:
            self._release(ticket, bucket)
        bucket.leave_queue(self._owner.name)

    def _record(self, event: Callable[[SharedBucket], object]) -> None:
        """Apply *event* to the bucket in the file, now or as soon as the file can be written."""
        self._events.append(event)
        self._submit_events()

    def _submit_events(self) -> None:
        self._timer, events = None, list(self._events)
        self._database.submit(lambda db: self._update(db, _nothing, events))
        if self._events and self._database.is_open:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(RETRY_INTERVAL, self._submit_events)

    def _load(self, state: bytes | None) -> SharedBucket:
        try:
            return SharedBucket(self._rate, state)
        except (msgspec.DecodeError, TypeError):
            # As if all tokens had just been used: that is safe, whatever the state was.
            bucket = SharedBucket(self._rate)
            rate = self._rate
            bucket.pause(self._database.now() + rate.interval * rate.burst + rate.guard)
            return bucket

    def _update(
        self,
        db: sqlite3.Connection,
        change: Callable[[SharedBucket], T],
        events: Sequence[Callable[[SharedBucket], object]],
    ) -> T:
        """Load the bucket, apply those of *events* that are not recorded, and *change*; store it.

        Returns what *change* returns.
        """
        key = self._database.stored_name(self.key)
        row = db.execute("SELECT state FROM pace WHERE key = ?", (key,)).fetchone()
        bucket = self._load(row and row[0])
        new_events = [event for event in events if event in self._events]
        for event in new_events:
            event(bucket)
        self._database.on_commit(lambda: self._recorded(new_events))
        result = change(bucket)
        db.execute("INSERT OR REPLACE INTO pace VALUES (?, ?)", (key, bucket.dump()))
        return result

    def _recorded(self, events: Sequence[Callable[[SharedBucket], object]]) -> None:
        """Remove events that were committed."""
        for event in events:
            self._events.remove(event)


def _nothing(bucket: SharedBucket) -> None:
    """Change nothing: the events are applied in any case."""
