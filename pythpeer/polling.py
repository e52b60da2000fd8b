"""The law of cursor, order and gaps, for pages of numbered messages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from .stores.base import NewEntry

__all__ = ["Gap", "link_entries"]

T = TypeVar("T")


class Gap(msgspec.Struct, frozen=True):
    """Messages with ids over ``after`` and under ``before`` may have been missed."""

    after: int
    before: int


def link_entries(after: int, page: Mapping[int, T | None], *, full: bool) -> list[NewEntry[T]]:
    """Link the messages that the service showed when asked for those after *after*.

    *page* maps ids to messages in any order, *full* says that there may have been more of them
    than fit. Then whether something is missing depends on which end was cut off, and that is
    undocumented: only where the lowest id is not the next one may there be a gap. "Full" alone is
    no sign of one, for a service that shows the oldest first fills every page of a backlog.
    """
    drafts: list[NewEntry[T]] = []
    previous = after
    gap = full and min(page, default=0) > after + 1
    for id in sorted(id for id in page if id > after):
        drafts.append(NewEntry(page[id], id=id, after=previous, gap=gap))
        previous, gap = id, False
    return drafts
