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
    Returns ``None`` if it has seen ``max_copies`` already, so that nothing is appended.
    """
    if new.max_copies and copies.seen >= new.max_copies:
        return None
    item, possible_duplicates = new.item, copies.possible_duplicates
    if new.from_history:
        possible_duplicates += 1
    elif possible_duplicates and not new.max_copies:
        possible_duplicates -= 1
        item = new.as_duplicate
    entry = Entry(head + 1, head, gap=False, item=item)
    return entry, Copies(copies.seen + 1, possible_duplicates)


def is_better_link(*, gap: bool, after: int, than_gap: bool, than_after: int) -> bool:
    """Return whether a link of an entry tells more than the stored one.

    No gap is better than a gap, and of two alike the smaller ``after`` is better.
    """
    return (gap, after) < (than_gap, than_after)
