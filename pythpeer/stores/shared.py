"""One token bucket for several processes: whose turn it is, and what has become of each token.

Pure: the time is an argument, and the state is a value that a store keeps where all can reach it.
The arithmetic of tokens is the `Bucket`'s, so that what holds within one process holds between
several. To it come a line in which the processes wait, and a term for each token in hand, after
which it is taken for spent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec

from ..bucket import Bucket, BucketState
from ..limiter import Grant
from ..wire import Rate
from .survey import EndpointSnapshot

__all__ = ["TOKEN_TTL", "SharedBucket", "survey"]

TOKEN_TTL: Final = 30.0
"""Seconds within which the holder of a token writes its request, or never: more than the time limit
of an attempt, by default, of which all but the end can go by until there is a connection.

A process that is killed in between, and of which nobody can tell that it was, costs the others that
long, once.
"""

TURN_GRACE: Final = 0.5
"""Seconds by which a process may be late for its turn before it loses its place in the line."""

RECHECK_INTERVAL: Final = 0.02
"""Seconds after which to look again for a token in hand to be written."""


class _State(msgspec.Struct, array_like=True):
    past: BucketState
    outstanding: dict[
        int, tuple[str, float]
    ]  # who has each token in hand, and until when it counts
    queue: list[tuple[str, float]]  # who waits, and until when they are expected
    last_ticket: int = 0


class SharedBucket:
    """The tokens of one endpoint and account, for all processes that load the same *state*."""

    def __init__(self, rate: Rate, state: bytes | None = None) -> None:
        self._bucket = Bucket(rate)
        self._state = (
            _State(self._bucket.state(), {}, [])
            if state is None
            else msgspec.msgpack.decode(state, type=_State)
        )
        self._bucket.restore(self._state.past)
        self._bucket.reserved = len(self._state.outstanding)

    def dump(self) -> bytes:
        """The state, to be kept until somebody loads it."""
        self._state.past = self._bucket.state()
        return msgspec.msgpack.encode(self._state)

    def acquire(self, owner: str, now: float, is_alive: Callable[[str], bool] = bool) -> Grant:
        """Give *who* a token, or a place in the line and the time when it makes sense to ask again.

        First come, first served. Whoever does not come back in time goes to the end. *lives* tells
        of whom it is certain that they will not come back.
        """
        self._expire_dead_owners(now, is_alive)
        bucket, state = self._bucket, self._state
        place = next(
            (n for n, (name, _) in enumerate(state.queue) if name == owner), len(state.queue)
        )
        paused = max(0.0, bucket.paused - now)
        if bucket.due(now) <= now and place < max(1, bucket.available(now)):
            self.leave_queue(owner)
            bucket.reserve()
            state.last_ticket += 1
            state.outstanding[state.last_ticket] = (owner, now + TOKEN_TTL)
            return Grant(0.0, state.last_ticket, paused)
        due = bucket.due(now)
        ready = now + RECHECK_INTERVAL if due == math.inf else due
        if bucket.has_unanswered(now):
            # One that comes right now, to whichever process, makes it no sooner than this.
            ready = min(
                ready, max(bucket.paused, now + max(bucket.rate.interval, RECHECK_INTERVAL))
            )
        # Those before us each take a token of their own first.
        wait = max(RECHECK_INTERVAL if place else 1e-4, ready + place * bucket.rate.interval - now)
        state.queue[place : place + 1] = [(owner, now + wait + TURN_GRACE)]
        return Grant(wait, 0, paused)

    def written(self, ticket: int, now: float, guard: float) -> int:
        """The request on *ticket* was written at *now*. Returns what `answered` wants."""
        if self._state.outstanding.pop(ticket, None) is None:
            self._bucket.reserve()  # its term is over, but it left all the same
        self._bucket.guard = guard
        return self._bucket.spend(now)

    def answered(self, anchor: int, now: float) -> None:
        """The request that `written` called *anchor* was answered at *now*."""
        self._bucket.answered(anchor, now)

    def release(self, ticket: int) -> None:
        """The request on *ticket* certainly never left."""
        if self._state.outstanding.pop(ticket, None) is not None:
            self._bucket.release()

    def leave_queue(self, owner: str) -> None:
        """Take *who* out of the line."""
        self._state.queue = [entry for entry in self._state.queue if entry[0] != owner]

    def pause(self, until: float) -> None:
        """Let nothing through before *until*. A deadline is only ever moved later."""
        self._bucket.pause(until)

    def _expire_dead_owners(self, now: float, is_alive: Callable[[str], bool]) -> None:
        for ticket, (owner, until) in list(self._state.outstanding.items()):
            if until <= now or not is_alive(owner):
                # It may have been, at the last moment.
                self.written(ticket, min(now, until), self._bucket.guard)
        self._state.queue = [
            (who, until) for who, until in self._state.queue if until > now and is_alive(who)
        ]


def survey(
    key: str, state: bytes, now: float, is_alive: Callable[[str], bool] = bool
) -> EndpointSnapshot:
    """What a *state* tells whoever does not know the rate, and must not change it."""
    try:
        known = msgspec.msgpack.decode(state, type=_State)
    except msgspec.DecodeError:
        return EndpointSnapshot(key, 0, 0, 0, 0.0)  # of which nothing is known, as in a new one
    past = known.past
    return EndpointSnapshot(
        key=key,
        requests=past.spent,
        outstanding=sum(
            until > now and is_alive(owner) for owner, until in known.outstanding.values()
        ),
        waiting=sum(until > now and is_alive(who) for who, until in known.queue),
        paused_for=max(0.0, past.paused - now),
    )
