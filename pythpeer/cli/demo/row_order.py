"""Rows in the order of their times, although two streams poll at different moments. Pure."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Final

from ... import ChatMessage, Mail

__all__ = ["HOLD", "RowOrder"]

HOLD: Final = 1.1
"""Seconds for which an item is held: the interval of a poll, in which an older one may arrive."""

Item = ChatMessage | Mail


class RowOrder:
    """Holds each item for `HOLD` seconds, and returns those of earlier times before it.

    Invariant: the held items are in the order of their times, and of their arrival where these are
    equal or unknown.
    """

    def __init__(self) -> None:
        self._held: deque[tuple[float, Item]] = deque()
        """The items with the times of their arrival, in seconds of the caller's clock."""

    @property
    def next_due(self) -> float | None:
        """The time at which the next item is due, ``None`` without one."""
        return self._held[0][0] + HOLD if self._held else None

    def add(self, now: float, item: Item) -> None:
        """Hold *item*, which arrived at *now*."""
        at = len(self._held)
        while at and _is_before(item, self._held[at - 1][1]):
            at -= 1
        # Not held for longer than the item after it.
        self._held.insert(at, (min([now, *(time for time, _ in self._held)]), item))

    def pop_due(self, now: float) -> list[Item]:
        """Return the items that have been held for long enough, in order, and hold them no more."""
        due: list[Item] = []
        while self._held and self._held[0][0] + HOLD <= now:
            due.append(self._held.popleft()[1])
        return due

    def pop_all(self) -> list[Item]:
        """Return every item in order, and hold none."""
        items = [item for _, item in self._held]
        self._held.clear()
        return items


def _is_before(one: Item, other: Item) -> bool:
    first, second = one.sent_at, other.sent_at
    return first is not None and second is not None and first < second
