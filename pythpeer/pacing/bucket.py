"""Token bucket: the arithmetic of pacing, with the time as an argument. Pure.

The interval must hold at the server. The client knows only when a request was written and when it
was answered. The server counted the request between these two times, and at the latest ``guard``
seconds after it was written: at ``min(t_written + guard, t_answered)``, the request's *start time*.
A bucket of ``burst`` tokens permits a request when, for every ``k >= burst``, the request ``k``
positions before it started at least ``k + 1 - burst`` intervals ago. For the n-th request::

    due(n) = max(due(n - 1), start(n - burst)) + interval

With a ``burst`` of 1 that is ``min(t_written + guard, t_answered) + interval``.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import islice
from typing import Annotated, Final, NamedTuple

import msgspec

from ..validation import INT32_MAX, MAX_STORED_TIME, check_integer, check_seconds

__all__ = ["Bucket", "BucketState", "Rate", "SharedTime"]

MAX_GUARD: Final = 0.5
"""Upper bound, in seconds, for a guard that was widened after 429 responses."""

SUCCESSES_TO_NARROW: Final = 100
"""Responses in a row without a 429 after which a widened guard is reduced by a tenth."""

SharedTime = Annotated[float, msgspec.Meta(le=MAX_STORED_TIME)]
"""A time in the state of a bucket; minus infinity if there was none."""


class BucketState(NamedTuple):
    """Snapshot of a bucket: everything about earlier requests that processes share.

    Times are seconds of the clock whose readings were passed to the bucket.
    """

    burst: int
    """``Rate.burst`` when the snapshot was made."""

    stored: int
    """Tokens that depend on no earlier request: available at any time."""

    due: SharedTime
    """When the last token that was not stored was due; minus infinity if there was none."""

    start_times: list[SharedTime]
    """Start times of the last requests, oldest first."""

    first_number: int
    """Number of the request that ``start_times[0]`` belongs to."""

    paused: SharedTime
    """No token is due before this time."""

    @property
    def spent(self) -> int:
        """How many tokens have been spent, that is, how many requests were written."""
        return self.first_number + len(self.start_times) - 1


class Bucket:
    """The tokens of one endpoint.

    A token is reserved, and then either spent (its request was written) or released (its request
    certainly never left). A reserved token is not available to other callers.

    Invariants: ``stored + len(_start_times) == rate.burst``; ``reserved >= 0``; the numbers of the
    requests in ``_start_times`` are consecutive; ``guard >= rate.guard``.
    """

    __slots__ = (
        "_due",
        "_first_number",
        "_start_times",
        "_successes",
        "guard",
        "paused",
        "rate",
        "reserved",
        "stored",
    )

    def __init__(self, rate: Rate) -> None:
        self.rate: Final[Rate] = rate
        """Interval in seconds, burst in tokens, and the configured guard in seconds."""

        self.guard: float = float(rate.guard)
        """Current guard in seconds: widened by `on_throttled`, narrowed by `on_success`."""

        self.reserved: int = 0
        """Tokens reserved and neither spent nor released: changed by `reserve`, `release`,
        `spend`."""

        self.stored: int = rate.burst
        """Tokens that were never spent, or that `spend` restored after an idle time: available at
        any time."""

        self.paused: float = -math.inf
        """No token is due before this time; `pause` moves it later, never earlier."""

        self._start_times: deque[float] = deque()
        """Start times of the last requests, oldest first, at most ``burst`` of them. `spend`
        appends the latest possible time, `answered` replaces it by an earlier one."""

        self._first_number = 1
        """Number of the request that ``_start_times[0]`` belongs to; requests count from 1."""

        self._due = -math.inf
        """When the last token that was not stored was due, minus infinity if there was none: set
        by `spend`."""

        self._successes = 0
        """Responses in a row without a 429: counted by `on_success`."""

    def available(self, now: float) -> int:
        """Return the number of tokens that can be reserved at this moment."""
        if now < self.paused:
            return 0
        due, count = self._due, self.stored
        for start in self._start_times:
            due = max(due, start) + self.rate.interval
            if due > now:
                break
            count += 1
        return max(0, count - self.reserved)

    def due(self, now: float) -> float:
        """Return when the next token can be reserved: *now*, a later time, or infinity.

        Infinity means that every token is reserved: the time is known only when one of their
        requests has been written.
        """
        rate, ahead = self.rate, self.reserved - self.stored
        due = -math.inf
        if rate.interval and ahead >= 0:
            if ahead >= len(self._start_times):
                return math.inf
            due = self._due
            for start in islice(self._start_times, ahead + 1):
                due = max(due, start) + rate.interval
        return max(now, due, self.paused)

    def reserve(self) -> None:
        """Reserve a due token for one request."""
        self.reserved += 1

    def release(self) -> None:
        """Cancel a reservation: the request certainly never left."""
        self.reserved -= 1

    @property
    def spent(self) -> int:
        """How many tokens have been spent, that is, how many requests were written."""
        return self._first_number + len(self._start_times) - 1

    def spend(self, now: float) -> int:
        """Spend a reserved token, because its request is being written.

        Returns the request's number, which is the argument of `answered`; 0 where the interval is 0
        and nothing is counted.
        """
        rate, starts = self.rate, self._start_times
        self.reserved -= 1
        if not rate.interval:
            return 0
        if starts and self._idle_since(now - rate.interval * rate.burst):
            # The idle time was long enough for every token to be stored again.
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
        """Return whether no request was due, and none can have started, after *since*."""
        # The last request is compared first, because that nearly always decides. An earlier request
        # without a response can still have a later start time.
        return since >= max(self._due, self._start_times[-1]) and since >= max(self._start_times)

    def answered(self, number: int, now: float) -> bool:
        """Record that request *number* was answered, so that it started at *now* or earlier.

        Returns whether its start time changed: ``False`` when the guard is over, and when the
        request does not count any more.
        """
        index = number - self._first_number
        if (
            number <= 0
            or not 0 <= index < len(self._start_times)
            or now >= self._start_times[index]
        ):
            return False
        self._start_times[index] = now
        return True

    def postpone(self, number: int, now: float, within: float = math.inf) -> float | None:
        """Return the seconds after which request *number*, unanswered, may be written once more.

        The service may have counted the first one, and will count the second: that is written when
        the next token would be due, and the next token depends on it. Returns ``None``, and changes
        nothing, where the next token can be reserved already, and where *within* seconds are too
        few.
        """
        if not number:
            return 0.0
        index = number - self._first_number
        if index < 0:
            return None
        due = self._start_times[index] + self.rate.interval
        if now >= due or due - now >= within:
            return None
        self._start_times[index] = due + self.guard
        delay = due - now
        while now + delay < due:  # the difference was rounded down
            delay = math.nextafter(delay, math.inf)
        return delay

    def has_unanswered(self, now: float) -> bool:
        """Return whether a response can still make a token available earlier."""
        return any(start > now for start in self._start_times)

    def pause(self, until: float) -> None:
        """Make no token due before *until*. The end of a pause is only ever moved later."""
        self.paused = max(self.paused, until)

    def shifted(self, seconds: float) -> Bucket:
        """Return a copy for a clock that is *seconds* ahead, with no token reserved."""
        bucket = Bucket(self.rate)
        bucket.guard, bucket._successes = self.guard, self._successes
        state = self.state()
        bucket.restore(
            state._replace(
                due=state.due + seconds,
                start_times=[start + seconds for start in state.start_times],
                paused=state.paused + seconds,
            )
        )
        return bucket

    def state(self) -> BucketState:
        """Return a snapshot of what was spent so far, and when."""
        starts = list(self._start_times)
        return BucketState(
            self.rate.burst, self.stored, self._due, starts, self._first_number, self.paused
        )

    def restore(self, state: BucketState) -> None:
        """Continue from *state*, which may have been made with a different rate."""
        self._due, self._first_number, self.paused = state.due, state.first_number, state.paused
        self._start_times = deque(state.start_times)
        extra_tokens = self.rate.burst - state.burst
        if extra_tokens > 0 and state.start_times:
            # The requests before the first recorded one are known only to be earlier, so each is
            # treated as if it started with it. Otherwise alternating between two rates would create
            # extra tokens.
            self._start_times.extendleft(state.start_times[:1] * extra_tokens)
            self._first_number -= extra_tokens
            extra_tokens = 0
        self.stored = state.stored + extra_tokens
        while self.stored < 0:
            self.stored += 1
            self._due = max(self._due, self._start_times.popleft()) + self.rate.interval
            self._first_number += 1

    def on_throttled(self) -> None:
        """Widen the guard after a 429: the service counts more strictly than the guard allows."""
        self._successes = 0
        self.guard = max(self.guard, min(MAX_GUARD, max(0.05, 2 * self.guard)))

    def on_success(self) -> None:
        """Count a response that was not a 429; after enough of them the guard narrows."""
        self._successes += 1
        if self._successes >= SUCCESSES_TO_NARROW:
            self._successes = 0
            self.guard = max(float(self.rate.guard), 0.9 * self.guard)


class Rate(msgspec.Struct, frozen=True):
    """Rate of one endpoint: one token every ``interval`` seconds, and at most ``burst`` tokens.

    A request is sent ``interval + guard`` seconds after the one before it was written, or
    ``interval`` seconds after that one was answered, whichever is earlier.

    Args:
        interval: Seconds per token, 0 or more; 0 means no pacing.
        burst: Maximum number of stored tokens, 1 or more; 1 by default.
        guard: Seconds allowed for varying network delay, 0 or more; 0.05 by default.

    Raises:
        InvalidRequestError: A value has the wrong type or is out of range.
    """

    interval: float
    """Seconds per token; 0 means no pacing."""

    burst: int = 1
    """Maximum number of stored tokens: so many requests can leave without waiting."""

    guard: float = 0.05
    """Seconds allowed for varying network delay."""

    def __post_init__(self) -> None:
        check_seconds("interval", self.interval)
        check_seconds("guard", self.guard)
        check_integer("burst", self.burst, 1, INT32_MAX)
