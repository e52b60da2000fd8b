"""Rows in the order of their times, although two streams poll at different moments. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from ... import ChatMessage, Mail

__all__ = ["HOLD_INTERVAL", "RowOrder"]

HOLD_INTERVAL: Final = 1.1
"""Seconds for which an item is held: the interval of a poll, in which an older one may arrive."""

Item = ChatMessage | Mail


class RowOrder:
    """Holds each item for `HOLD_INTERVAL` seconds, and returns those of earlier times before it.

    Invariant: the held items are in the order of their times, and of their arrival where these are
    equal or unknown.
    """

    def __init__(self) -> None:
        self._held: deque[tuple[float, Item]] = deque()
        """The items, each with the time from which it is held, in seconds of the caller's clock:
        that of its arrival, or of the item after it if that is earlier. Ascending."""

    @property
    def next_due(self) -> float | None:
        """The time at which the next item is due, ``None`` without one."""
        return self._held[0][0] + HOLD_INTERVAL if self._held else None

    def add(self, now: float, item: Item) -> None:
        """Hold *item*, which arrived at *now*."""
        at = len(self._held)
        while at and _is_before(item, self._held[at - 1][1]):
            at -= 1
        arrival = self._held[at][0] if at < len(self._held) else now
        self._held.insert(at, (arrival, item))

    def pop_due(self, now: float) -> list[Item]:
        """Return the items that have been held for long enough, in order, and hold them no more."""
        due: list[Item] = []
        while self._held and self._held[0][0] + HOLD_INTERVAL <= now:
            due.append(self._held.popleft()[1])
        return due


def _is_before(one: Item, other: Item) -> bool:
    first, second = one.sent_at, other.sent_at
    return first is not None and second is not None and first < second
