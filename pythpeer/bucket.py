"""Token-bucket arithmetic, with the time as an argument.

The bucket is pessimistic about the network, because the interval must hold at the server and all
that is known here is when a request was written and when it was answered. The server took its
token somewhere between the two, and at the latest ``guard`` seconds after the writing. So a full
bucket starts to refill at ``min(t_written + guard, t_answered)``, and with one token to save the
next request is due ``interval`` after that.
"""

from __future__ import annotations

import math
from typing import Final

from .wire import Rate

__all__ = ["Bucket"]

GUARD_CAP: Final = 0.5
"""Seconds to which 429s can widen the guard."""

CLEAN_RUN: Final = 100
"""Answers without a 429 after which a widened guard narrows by a tenth."""


class Bucket:
    """The tokens of one endpoint.

    A token is reserved, and then either spent (the request was written) or given back (it
    certainly never left). A reserved token is not counted as spent before it is written, but
    nobody else can have it.
    """

    __slots__ = ("_anchor", "_clean", "_since", "guard", "paused", "rate", "reserved", "tokens")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.guard = float(rate.guard)
        self.reserved = 0
        self.paused = -math.inf
        """Nothing is due before this time; only ever moved later."""
        self.tokens = rate.burst
        """Whole tokens as of ``_since``: never more than there are now."""
        self._since = -math.inf
        self._anchor = 0  # counts the changes of _since: an answer may correct only the last
        self._clean = 0

    def available(self, now: float) -> int:
        """Tokens that could be reserved at this moment."""
        return 0 if now < self.paused else max(0, self._at(now) - self.reserved)

    def _at(self, now: float) -> int:
        """Whole tokens in the bucket at *now*, reserved ones included."""
        rate = self.rate
        if self.tokens >= rate.burst or rate.interval == 0 or self._since == -math.inf:
            return rate.burst
        if now < self._since + rate.interval:
            return self.tokens
        earned = max(1, math.floor((now - self._since) / rate.interval))
        return min(rate.burst, self.tokens + earned)

    def due(self, now: float) -> float:
        """When the next token can be reserved: *now*, a later time, or infinity.

        Infinity means that a token is reserved and not written yet: the time is known only then.
        """
        rate = self.rate
        if self._at(now) > self.reserved:
            return max(now, self.paused)
        if self.reserved:
            return math.inf
        return max(self.paused, self._since + rate.interval)

    def reserve(self) -> None:
        """Put a due token aside for one request."""
        self.reserved += 1

    def give_back(self) -> None:
        """Undo a reservation: the request certainly never left."""
        self.reserved -= 1

    def spend(self, now: float) -> int:
        """Take a reserved token: its request is being written. Returns what `answered` wants."""
        rate = self.rate
        self.reserved -= 1
        tokens = self._at(now)
        anchor = 0
        if tokens >= rate.burst:
            self._since = now + self.guard
            self._anchor += 1
            anchor = self._anchor
        elif tokens > self.tokens:
            self._since += rate.interval * (tokens - self.tokens)
            self._anchor += 1
        self.tokens = tokens - 1
        return anchor

    def answered(self, anchor: int, now: float) -> None:
        """The request spent as *anchor* was answered: the refill began at the latest now."""
        if anchor == self._anchor and now < self._since:
            self._since = now

    def pause(self, until: float) -> None:
        """Let nothing through before *until*."""
        self.paused = max(self.paused, until)

    def move(self, seconds: float) -> None:
        """Go on by a clock that is *seconds* ahead, in a loop where nothing is under way yet."""
        self._since += seconds
        self.paused += seconds
        self.reserved = 0

    def punish(self) -> None:
        """The service said 429: it counts more strictly than the guard allowed for."""
        self._clean = 0
        self.guard = max(self.guard, min(GUARD_CAP, max(0.05, 2 * self.guard)))

    def praise(self) -> None:
        """The service answered without complaint."""
        self._clean += 1
        if self._clean >= CLEAN_RUN:
            self._clean = 0
            self.guard = max(float(self.rate.guard), 0.9 * self.guard)
