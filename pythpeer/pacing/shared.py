"""Shared bucket: one token bucket for several processes, with their wait queue and their tokens.

Pure: the time is an argument, and the state is a value that a store keeps where every process can
read it. The arithmetic is that of `Bucket`, so that what holds within one process holds between
several. This module adds the queue in which the processes wait, and a time limit for each
outstanding token, after which it counts as spent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec

from .backend import Grant
from .bucket import Bucket, BucketState, Rate, SharedTime

__all__ = ["RECHECK_INTERVAL", "TOKEN_TTL", "TURN_GRACE", "SharedBucket"]

TOKEN_TTL: Final = 30.0
"""Seconds within which the owner of a token must write its request. It is longer than the default
time limit of an attempt, nearly all of which can pass until there is a connection.

When a process is killed in between, and the store cannot know that it is dead, the other processes
wait that long, once.
"""

TURN_GRACE: Final = 0.5
"""Seconds by which a process may be late to ask again before it loses its position in the queue."""

RECHECK_INTERVAL: Final = 0.02
"""Seconds after which a process asks again where all tokens are outstanding."""


class _State(msgspec.Struct, array_like=True):
    """What is stored. Times are seconds of the clock that the processes share."""

    bucket: BucketState
    """The spent tokens."""

    outstanding: dict[int, tuple[str, SharedTime]]
    """By ticket, the owner of each token whose request is not written yet, and the time at which
    the token counts as spent."""

    queue: list[tuple[str, SharedTime]]
    """The processes that wait, first in, first out: owner, and the time until which it must ask
    again."""

    last_ticket: int = 0
    """The ticket that was issued last; they count from 1."""


class SharedBucket:
    """The tokens of one endpoint and account, for all processes that load the same *state*.

    It is loaded, used for one operation, and dumped again within one transaction of the store.

    Invariants: ``_bucket.reserved == len(_state.outstanding)``; an owner is in the queue once at
    most; each ticket is issued once.
    """

    def __init__(self, rate: Rate, state: bytes | None = None) -> None:
        self._bucket = Bucket(rate)
        """The arithmetic: restored from the state, and written back by `dump`."""

        self._state = (
            _State(self._bucket.state(), {}, [])
            if state is None
            else msgspec.msgpack.decode(state, type=_State)
        )
        """The stored state; its field ``bucket`` is current only after `dump`."""

        self._bucket.restore(self._state.bucket)
        self._bucket.reserved = len(self._state.outstanding)

    def dump(self) -> bytes:
        """Return the state, to be stored and passed to the next `SharedBucket`."""
        self._state.bucket = self._bucket.state()
        return msgspec.msgpack.encode(self._state)

    def acquire(self, owner: str, now: float, is_alive: Callable[[str], bool] = bool) -> Grant:
        """Grant *owner* a token, or a position in the queue and the time to ask again.

        First in, first out. An owner that does not ask again in time goes to the end of the queue.
        *is_alive* returns ``False`` only for an owner that certainly does not ask again.
        """
        self._expire_dead_owners(now, is_alive)
        bucket, state = self._bucket, self._state
        position = self._queue_position(owner)
        paused_for = max(0.0, bucket.paused - now)
        if bucket.due(now) <= now and position < max(1, bucket.available(now)):
            self.leave_queue(owner)
            bucket.reserve()
            state.last_ticket += 1
            state.outstanding[state.last_ticket] = (owner, now + TOKEN_TTL)
            return Grant(0.0, state.last_ticket, paused_for)
        due = bucket.due(now)
        ready = now + RECHECK_INTERVAL if due == math.inf else due
        if bucket.has_unanswered(now):
            # A response that arrives now, in any process, makes a token due at this time or later.
            ready = min(
                ready, max(bucket.paused, now + max(bucket.rate.interval, RECHECK_INTERVAL))
            )
        # Each owner before this one takes a token first.
        shortest = RECHECK_INTERVAL if position else 1e-4
        retry_in = max(shortest, ready + position * bucket.rate.interval - now)
        state.queue[position : position + 1] = [(owner, now + retry_in + TURN_GRACE)]
        return Grant(retry_in, 0, paused_for)

    def _queue_position(self, owner: str) -> int:
        for position, (queued_owner, _) in enumerate(self._state.queue):
            if queued_owner == owner:
                return position
        return len(self._state.queue)

    def written(self, ticket: int, now: float, guard: float) -> int:
        """Spend the token of *ticket*, whose request was written at *now*, with a guard in seconds.

        Returns the argument of `answered`.
        """
        if self._state.outstanding.pop(ticket, None) is None:
            self._bucket.reserve()  # its time limit has passed, but the request was sent
        self._bucket.guard = guard
        return self._bucket.spend(now)

    def answered(self, spend_number: int, now: float) -> None:
        """Record that the request with this number of `written` was answered at *now*."""
        self._bucket.answered(spend_number, now)

    def release(self, ticket: int) -> None:
        """Release the token of *ticket*, because its request certainly never left."""
        if self._state.outstanding.pop(ticket, None) is not None:
            self._bucket.release()

    def leave_queue(self, owner: str) -> None:
        """Remove *owner* from the queue."""
        self._state.queue = [entry for entry in self._state.queue if entry[0] != owner]

    def pause(self, until: float) -> None:
        """Make no token due before *until*. The end of a pause is only ever moved later."""
        self._bucket.pause(until)

    def _expire_dead_owners(self, now: float, is_alive: Callable[[str], bool]) -> None:
        for ticket, (owner, until) in list(self._state.outstanding.items()):
            if until <= now or not is_alive(owner):
                # The request may have been written at the last moment: the token counts as spent.
                self.written(ticket, min(now, until), self._bucket.guard)
        self._state.queue = [
            (owner, until) for owner, until in self._state.queue if until > now and is_alive(owner)
        ]
