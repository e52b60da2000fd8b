"""Ids of a log whose items the service numbers: how they stay ascending. Pure.

The id of an entry is the service's id, preceded by two counters:

    how often the numbering began anew | late arrivals in this numbering | service's id
                              12 bits  | 10 bits                         | 31 bits

The *numbering* counts how often the service has started its ids anew. Within a numbering, the
second counter is increased when an item arrives after one with a higher id. Ids of the log
therefore are in the order in which streams return the items, and no id or position of a stored log
ever has to change. Both counters together are the *generation*. After 1024 late arrivals it
overflows into the next numbering, which does no harm: readers continue.

Ids have at most 53 bits, which Lua's numbers represent exactly. Logs whose ids the store assigns
(mail) stay in generation 0.
"""

from __future__ import annotations

from typing import Final

__all__ = ["first_position", "generation", "next_generation", "next_numbering", "service_id"]

SERVICE_BITS: Final = 31
"""The bits of a service's id, which is an Int32 and not negative."""

LATE_BITS: Final = 10
"""The bits of the counter of late arrivals."""

_SERVICE_MASK: Final = (1 << SERVICE_BITS) - 1
_NUMBERING_BITS: Final = SERVICE_BITS + LATE_BITS


def service_id(id: int) -> int:
    """Return the service's id of an entry or position."""
    return id & _SERVICE_MASK


def generation(id: int) -> int:
    """Return the same generation with the service's id 0."""
    return id & ~_SERVICE_MASK


def first_position(id: int) -> int:
    """Return the position before the first item of the numbering to which *id* belongs."""
    return id >> _NUMBERING_BITS << _NUMBERING_BITS


def next_generation(id: int) -> int:
    """Return the generation after that of *id*: one more late arrival."""
    return generation(id) + _SERVICE_MASK + 1


def next_numbering(id: int) -> int:
    """Return the first position of the numbering after that of *id*."""
    return first_position(id) + (1 << _NUMBERING_BITS)
