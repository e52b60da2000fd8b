"""`ServerClock`: compares the clock of the server with that of this machine."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, NamedTuple

from ...pacing.limiter import loop_clock

__all__ = ["ServerClock"]

logger: Final = logging.getLogger(__name__)

TOLERANCE: Final = 0.25
"""Seconds that a script may be under way before it counts as executed too late."""

REPORTED_STEP: Final = 1.0
"""Seconds by which the clocks must have moved apart to be reported."""


class _Reading(NamedTuple):
    """One response with the time of the server."""

    sent: float
    """The time of the loop before the script was sent."""

    received: float
    """The time of the loop after its response."""

    time: int
    """The time of the store, in microseconds."""

    raw: int
    """The time of the server's clock, in microseconds."""

    steps: int
    """How often the clock was found to be set forward."""


class ServerClock:
    """What this process knows of the time of the store at *address*.

    The clocks of both machines run equally fast, unless one of them is set or stands still. A
    script that is executed later than is possible finds that the server's clock was set forward.
    """

    def __init__(self, address: object) -> None:
        self._address = address
        self._last: _Reading | None = None
        """The latest response; ``None`` before the first in an event loop."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the readings."""

    def now(self) -> float:
        """Return the time of the running loop, in seconds."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._last = loop, None
        return loop_clock(loop)()

    def limit(self) -> tuple[int, int]:
        """Return the latest possible time of the store, and the number of steps it belongs to.

        Both are 0 where this is not known.
        """
        now, last = self.now(), self._last
        if last is None:
            return 0, 0
        return last.time + int((1.001 * (now - last.sent) + TOLERANCE) * 1e6), last.steps

    def observe(self, sent: float, time: int, offset: int, steps: int) -> None:
        """Take over a response to a script that was *sent* at this time of the loop."""
        last, new = self._last, _Reading(sent, self.now(), time, time - offset, steps)
        self._last = new
        if last is not None:
            elapsed = (new.raw - last.raw) / 1e6
            ahead = elapsed - (new.received - last.sent)
            behind = elapsed - (new.sent - last.received)
            if ahead > REPORTED_STEP or behind < -REPORTED_STEP:
                logger.warning(
                    "the clock of the store at %s was set %s by %.1f s, or the clock of this"
                    " machine stood still",
                    self._address,
                    "forward" if ahead > 0 else "back",
                    max(ahead, -behind),
                )
