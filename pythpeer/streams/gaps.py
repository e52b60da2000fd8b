"""Order and gaps of numbered messages: turns a page of them into linked entries. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from ..stores.base import NewEntry

__all__ = ["Gap", "link_entries"]

T = TypeVar("T")


class Gap(msgspec.Struct, frozen=True):
    """Messages may be missing: those with ids over ``after`` and under ``before``."""

    after: int
    """The id of the last message before the gap, or the position where the stream started."""

    before: int
    """The id of the first message after the gap."""


def link_entries(after: int, page: Mapping[int, T | None], *, full: bool) -> list[NewEntry[T]]:
    """Link the messages that the service returned for ids over *after*, ascending by id.

    *page* maps ids to messages in any order, ``None`` standing for an undecodable one; ids up to
    *after* are dropped. *full* means that the service may have had more messages than fit.

    Which end of a full page is cut off is undocumented. So a full page alone is no sign of a gap:
    a service that returns the oldest messages first fills every page of a backlog. Only a full page
    whose lowest id is not the next one after *after* may have a gap in front of it.
    """
    entries: list[NewEntry[T]] = []
    previous = after
    gap = full and min(page, default=0) > after + 1
    for id in sorted(id for id in page if id > after):
        entries.append(NewEntry(page[id], id=id, after=previous, gap=gap))
        previous, gap = id, False
    return entries
