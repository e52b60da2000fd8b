"""Pure: decides what is new in a log, for the memory store and for the SQLite store.

The script ``append.lua`` of the Redis store decides the same on the server.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from .base import Entry, NewEntry

__all__ = ["Copies", "assign_id", "is_better_link"]

T = TypeVar("T")


class Copies(NamedTuple):
    """What a log has seen of one ``identity``."""

    seen: int = 0
    """How many entries were appended with it."""

    possible_duplicates: int = 0
    """How many of them were from the history, and may be returned by the service once more."""


def assign_id(new: NewEntry[T], head: int, copies: Copies) -> tuple[Entry[T], Copies] | None:
    """Return the entry for an item without an id, and the counts afterwards.

    *head* is the highest id of the log, and *copies* what it has seen of the item's identity.
    Returns ``None`` if nothing is to be appended: it has seen ``max_copies`` already, or the item
    may be a duplicate and there is no ``as_duplicate``.
    """
    seen, possible_duplicates = copies
    if new.max_copies and seen >= new.max_copies:
        return None
    if possible_duplicates and not (new.max_copies or new.from_history):
        if new.as_duplicate is None:
            return None
        # Not counted, because the history would otherwise seem to lack one.
        return _entry_after(head, new.as_duplicate), Copies(seen, possible_duplicates - 1)
    if new.from_history:
        possible_duplicates += 1
    return _entry_after(head, new.item), Copies(seen + 1, possible_duplicates)


def _entry_after(head: int, item: T | None) -> Entry[T]:
    return Entry(head + 1, head, gap=False, item=item)


def is_better_link(*, gap: bool, after: int, than_gap: bool, than_after: int) -> bool:
    """Return whether a link of an entry tells more than the stored one.

    No gap is better than a gap, and of two alike the smaller ``after`` is better.
    """
    return (gap, after) < (than_gap, than_after)
