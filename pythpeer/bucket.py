"""Token-bucket arithmetic, with the time as an argument.

The interval must hold at the server, and all that is known here is when a request was written and
when it was answered. The server took its token somewhere between the two, and at the latest
``guard`` seconds after the writing: at ``min(t_written + guard, t_answered)``, the request's
*start*. A bucket of ``burst`` tokens lets a request through when, for every ``k >= burst``, the one
``k`` places before it started ``k + 1 - burst`` intervals ago. For the n-th request that is::

    due(n) = max(due(n - 1), start(n - burst)) + interval

and with one token to save, ``min(t_written + guard, t_answered) + interval``.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import islice
from typing import Final, NamedTuple

from .wire import Rate

__all__ = ["Bucket", "BucketState"]

MAX_GUARD: Final = 0.5
"""Seconds to which 429s can widen the guard."""

SUCCESSES_TO_NARROW: Final = 100
"""Answers without a 429 after which a widened guard narrows by a tenth."""


class BucketState(NamedTuple):
    """All that a bucket knows of the requests before: what several processes share of it."""

    burst: int
    stored: int
    due: float
    start_times: list[float]
    first: int
    paused: float

    @property
    def spent(self) -> int:
        """How many tokens were ever taken for a request that was written."""
        return self.first + len(self.start_times) - 1


class Bucket:
    """The tokens of one endpoint.

    A token is reserved, and then either spent (the request was written) or given back (it
    certainly never left). A reserved token nobody else can have.
    """

    __slots__ = (
        "_due",
        "_first_number",
        "_starts",
        "_successes",
        "guard",
        "paused",
        "rate",
        "reserved",
        "stored",
    )

    def __init__(self, rate: Rate) -> None:
        self.rate: Final[Rate] = rate
        self.guard: float = float(rate.guard)
        self.reserved: int = 0
        self.stored: int = rate.burst
        """Tokens that were never spent, or that a long rest has restored: due at any time."""
        self.paused: float = -math.inf
        """Nothing is due before this time; only ever moved later."""
        self._starts: deque[float] = deque()  # of the last requests, at most `burst` of them
        self._first_number = 1  # the number of the request whose start is _starts[0]
        self._due = -math.inf  # when the last request was due
        self._successes = 0

    def available(self, now: float) -> int:
        """Tokens that could be reserved at this moment."""
        if now < self.paused:
            return 0
        due, count = self._due, self.stored
        for start in self._starts:
            due = max(due, start) + self.rate.interval
            if due > now:
                break
            count += 1
        return max(0, count - self.reserved)

    def due(self, now: float) -> float:
        """When the next token can be reserved: *now*, a later time, or infinity.

        Infinity means that every token is reserved, and the time is known only once one of them is
        written.
        """
        rate, ahead = self.rate, self.reserved - self.stored
        due = -math.inf
        if rate.interval and ahead >= 0:
            if ahead >= len(self._starts):
                return math.inf
            due = self._due
            for start in islice(self._starts, ahead + 1):
                due = max(due, start) + rate.interval
        return max(now, due, self.paused)

    def reserve(self) -> None:
        """Put a due token aside for one request."""
        self.reserved += 1

    def release(self) -> None:
        """Undo a reservation: the request certainly never left."""
        self.reserved -= 1

    @property
    def spent(self) -> int:
        """How many tokens were ever taken for a request that was written."""
        return self._first_number + len(self._starts) - 1

    def spend(self, now: float) -> int:
        """Take a reserved token: its request is being written. Returns what `answered` wants."""
        rate, starts = self.rate, self._starts
        self.reserved -= 1
        if not rate.interval:
            return 0
        if starts and self._idle_since(now - rate.interval * rate.burst):
            # A rest long enough for all tokens to be back, however the past is counted.
            self._first_number += len(starts)
            self.stored = rate.burst
            self._due = -math.inf
            starts.clear()
        if self.stored:
            self.stored -= 1
        else:
            self._due = max(self._due, starts.popleft()) + rate.interval
            self._first_number += 1
        starts.append(now + self.guard)
        return self._first_number + len(starts) - 1

    def _idle_since(self, since: float) -> bool:
        """Whether no request was due or can have started after *since*."""
        # The last one first: nearly always that is enough to know. But one before it, of which no
        # answer has come, can have started later.
        return since >= max(self._due, self._starts[-1]) and since >= max(self._starts)

    def answered(self, number: int, now: float) -> bool:
        """The request that was spent as *number* has its answer: it started at the latest now.

        Says whether that was news: not once the guard is over, nor of one that counts no more.
        """
        index = number - self._first_number
        if number <= 0 or not 0 <= index < len(self._starts) or now >= self._starts[index]:
            return False
        self._starts[index] = now
        return True

    def has_unanswered(self, now: float) -> bool:
        """Whether an answer can still bring a token forward."""
        return any(start > now for start in self._starts)

    def pause(self, until: float) -> None:
        """Let nothing through before *until*."""
        self.paused = max(self.paused, until)

    def shifted(self, seconds: float) -> Bucket:
        """The same past by a clock that is *seconds* ahead, with nothing reserved."""
        bucket = Bucket(self.rate)
        bucket.guard, bucket._successes = self.guard, self._successes
        past = self.state()
        bucket.restore(
            past._replace(
                due=past.due + seconds,
                start_times=[start + seconds for start in past.start_times],
                paused=past.paused + seconds,
            )
        )
        return bucket

    def state(self) -> BucketState:
        """What was spent so far, and when."""
        starts = list(self._starts)
        return BucketState(
            self.rate.burst, self.stored, self._due, starts, self._first_number, self.paused
        )

    def restore(self, past: BucketState) -> None:
        """Go on from *past*, though the rate may have been another one then."""
        self._due, self._first_number, self.paused = past.due, past.first, past.paused
        self._starts = deque(past.start_times)
        more = self.rate.burst - past.burst
        if more > 0 and past.start_times:
            # Of those before the first that is remembered nothing is known but that they were
            # before it. Else two rates in turns would make tokens out of nothing.
            self._starts.extendleft(past.start_times[:1] * more)
            self._first_number -= more
            more = 0
        self.stored = past.stored + more
        while self.stored < 0:
            self.stored += 1
            self._due = max(self._due, self._starts.popleft()) + self.rate.interval
            self._first_number += 1

    def on_throttled(self) -> None:
        """The service said 429: it counts more strictly than the guard allowed for."""
        self._successes = 0
        self.guard = max(self.guard, min(MAX_GUARD, max(0.05, 2 * self.guard)))

    def on_success(self) -> None:
        """The service answered without complaint."""
        self._successes += 1
        if self._successes >= SUCCESSES_TO_NARROW:
            self._successes = 0
            self.guard = max(float(self.rate.guard), 0.9 * self.guard)
