"""Order and gaps of numbered items: turns a page of them into linked entries of a log. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, TypeVar

import msgspec

from ..stores.base import Entry, NewEntry
from ..stores.ids import first_position, generation, next_generation, service_id

__all__ = [
    "KNOWN_IDS",
    "LATE_IDS",
    "LATE_SECONDS",
    "Gap",
    "KnownTail",
    "assign_positions",
    "link_entries",
]

T = TypeVar("T")

LATE_SECONDS: Final = 10.0
"""Seconds for which an id that was left out may still arrive late: a database may assign ids before
it commits the rows."""

LATE_IDS: Final = 50
"""How far below the newest id an item may arrive late."""

KNOWN_IDS: Final = 600
"""Of how many last entries a source knows the ids: two full pages."""


class Gap(msgspec.Struct, frozen=True):
    """Messages may be missing: those with ids over ``after`` and under ``before``."""

    after: int
    """The id of the last message before the gap, or the position where the stream started; 0 where
    the service has started its ids anew."""

    before: int
    """The id of the first message after the gap."""


class _MissingIds(NamedTuple):
    """Ids that the service has left out so far."""

    first: int
    last: int
    until: float
    """The time until which an item may arrive there."""


class KnownTail:
    """The end of a log: the ids of its last entries, and the ids that the service left out.

    Invariants: `ids` has only entries of the numbering of `head`, and at most `KNOWN_IDS`. The
    missing ids are in the same numbering.
    """

    def __init__(self) -> None:
        self.head: int = 0
        """The highest id of the log."""
        self.ids: dict[int, int] = {}
        """The ids in the log of the last entries, by the service's id."""
        self._missing: list[_MissingIds] = []
        """What the service left out lately."""

    @property
    def newest(self) -> int:
        """The highest id of the service in the numbering of `head`, 0 without any."""
        return max(self.ids, default=service_id(self.head))

    def load(self, head: int, entries: Iterable[Entry[T]], now: float) -> None:
        """Replace what is known by the last *entries* of the log, ascending, and its *head*."""
        previous = self.head
        if head < previous or first_position(head) > first_position(previous):
            previous, self.head = 0, 0
            self._missing.clear()
        self.ids.clear()
        for entry in entries:
            if first_position(entry.id) < first_position(head):
                continue
            self._add(entry.id, entry.after, is_gap=entry.gap or entry.id <= previous, now=now)
        self.head = head

    def extend(self, added: Iterable[NewEntry[T]], now: float) -> None:
        """Add what was appended to the log."""
        for new in added:
            if new.id is not None:
                self._add(new.id, new.after, is_gap=new.gap, now=now)

    def _add(self, id: int, after: int, *, is_gap: bool, now: float) -> None:
        if first_position(id) > first_position(self.head):
            self.ids.clear()
            self._missing.clear()
        newest, number = service_id(id), service_id(after)
        self.ids[newest] = id
        while len(self.ids) > KNOWN_IDS:
            del self.ids[next(iter(self.ids))]
        self.head = max(self.head, id)
        first = max(number + 1, newest - LATE_IDS)
        left_out = any(missing not in self.ids for missing in range(first, newest))
        if left_out and not is_gap and after >= first_position(id):
            self._missing.append(_MissingIds(first, newest - 1, now + LATE_SECONDS))

    def is_late(self, number: int, now: float) -> bool:
        """Return whether the service left this id out until lately."""
        if number in self.ids:
            return False
        if not any(ids.first <= number <= ids.last and now < ids.until for ids in self._missing):
            return False
        return number > self.newest - LATE_IDS

    def request_after(self, after: int, now: float) -> int:
        """Return the service's id after which to ask, for items after the position *after*.

        It is lower than the position while an item below the position may still arrive late.
        """
        number = service_id(after)
        oldest = self.newest - LATE_IDS
        self._missing = [ids for ids in self._missing if now < ids.until and ids.last > oldest]
        if first_position(after) != first_position(self.head):
            return number
        lowest = min((ids.first - 1 for ids in self._missing), default=number)
        return min(number, max(lowest, oldest))

    def position_after(self, base: int, number: int) -> int:
        """Return the position after which the items with ids over *number* are.

        *base* is the first position of the present numbering.
        """
        if first_position(self.head) != base or number < min(self.ids, default=0):
            return base | number
        if number in self.ids:
            return self.ids[number]
        following = min((id for known, id in self.ids.items() if known > number), default=self.head)
        return generation(following) | number


def link_entries(after: int, page: Mapping[int, T | None], *, full: bool) -> list[NewEntry[T]]:
    """Link the items that the service returned for ids over *after*, ascending by id.

    *page* maps ids to items in any order, ``None`` standing for an undecodable one; ids up to
    *after* are dropped. *full* means that the service may have had more items than fit.

    Which end of a full page is cut off is undocumented. So a full page alone is no sign of a gap:
    a service that returns the oldest items first fills every page of a backlog. Only a full page
    whose lowest id is not the next one after *after* may have a gap in front of it.
    """
    entries: list[NewEntry[T]] = []
    previous = after
    gap = full and min(page, default=0) > after + 1
    for id in sorted(id for id in page if id > after):
        entries.append(NewEntry(page[id], id=id, after=previous, gap=gap))
        previous, gap = id, False
    return entries


def assign_positions(
    tail: KnownTail, after: int, page: Mapping[int, T | None], *, full: bool, now: float
) -> list[NewEntry[T]]:
    """Return linked entries, with their ids in the log, for a page that *page* maps as above.

    It was requested for the position *after*. New items, and those that arrive late, get ids at the
    end of the log. What the log lacks below its end, because it was trimmed or never fetched, gets
    ids at its place. Other items up to the position are dropped.
    """
    is_current = first_position(tail.head) == first_position(after)
    known = tail.ids if is_current else {}
    late = {id for id in page if is_current and tail.is_late(id, now)}
    newest = max(service_id(after), tail.newest) if is_current else service_id(after)
    end = max(after, tail.head)
    end_generation = next_generation(end) if late else generation(end)

    def position_of(id: int) -> int:
        if id in known:
            return known[id]
        is_at_end = id in late or id > newest
        return (end_generation if is_at_end else generation(after)) | id

    entries = link_entries(after, {position_of(id): item for id, item in page.items()}, full=full)
    if entries and not service_id(after) and tail.head < after:
        # A new numbering begins directly after the end of the one before.
        entries[0] = msgspec.structs.replace(entries[0], after=tail.head)
    return entries
