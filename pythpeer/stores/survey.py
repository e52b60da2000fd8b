"""What is in a store at one moment, for whoever watches a running bot: plain values.

A survey changes nothing, and no key is in it: accounts are told apart by a digest.
"""

from __future__ import annotations

import msgspec

__all__ = ["EndpointSnapshot", "LatestItem", "LogSnapshot", "ReaderSnapshot", "StoreSnapshot"]


class ReaderSnapshot(msgspec.Struct, frozen=True):
    """How far the streams of one name have got in a log."""

    name: str
    position: int
    """The id of the last acknowledged item."""

    lag: int
    """How many items of the log are after that."""


class LatestItem(msgspec.Struct, frozen=True):
    """One of the last items of a log."""

    id: int
    item: str | None
    """The item as JSON, or ``None`` where it could not be decoded."""


class LogSnapshot(msgspec.Struct, frozen=True):
    """One log, and who reads it."""

    topic: str
    """The topic's name: service and kind, address, and account."""

    head: int
    """The highest id."""

    length: int
    """How many items are kept."""

    has_leader: bool
    """Whether somebody polls for it now."""

    pending_fetches: int
    """How many consuming reads were announced, and are not settled yet."""

    readers: tuple[ReaderSnapshot, ...]
    """By name. Streams without a name leave no place behind."""

    latest: tuple[LatestItem, ...]
    """The last items, ascending by id."""


class EndpointSnapshot(msgspec.Struct, frozen=True):
    """How one endpoint is paced for one account."""

    key: str
    """The endpoint's name, its address and the account, with a space between them."""

    requests: int
    """How many requests were let through since the store has known the endpoint."""

    outstanding: int
    """Tokens that were given out, and whose requests are not written yet."""

    waiting: int
    """Who waits: callers, or, where the store paces several programs, those that stand in line."""

    paused_for: float
    """Seconds for which the service asked for silence; 0 without that."""


class StoreSnapshot(msgspec.Struct, frozen=True):
    """What is in a store at one moment."""

    logs: tuple[LogSnapshot, ...]
    """By topic."""

    endpoints: tuple[EndpointSnapshot, ...]
    """By key."""
