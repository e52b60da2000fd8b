"""What is in a store at one moment, for whoever watches a running bot: plain values.

A survey changes nothing, and no key is in it: accounts are told apart by a digest.
"""

from __future__ import annotations

import msgspec

__all__ = ["EndpointSurvey", "Latest", "LogSurvey", "NameSurvey", "Survey"]


class NameSurvey(msgspec.Struct, frozen=True):
    """How far the streams of one name have got in a log."""

    name: str
    place: int
    """The id of the last acknowledged item."""

    lag: int
    """How many items of the log are after that."""


class Latest(msgspec.Struct, frozen=True):
    """One of the last items of a log."""

    id: int
    item: str | None
    """The item as JSON, or ``None`` where it could not be decoded."""


class LogSurvey(msgspec.Struct, frozen=True):
    """One log, and who reads it."""

    topic: str
    """The topic's name: service and kind, address, and account."""

    head: int
    """The highest id."""

    length: int
    """How many items are kept."""

    led: bool
    """Whether somebody polls for it now."""

    announced: int
    """How many consuming reads were announced, and are not settled yet."""

    names: tuple[NameSurvey, ...]
    """By name. Streams without a name leave no place behind."""

    latest: tuple[Latest, ...]
    """The last items, ascending by id."""


class EndpointSurvey(msgspec.Struct, frozen=True):
    """How one endpoint is paced for one account."""

    key: str
    """The endpoint's name, its address and the account, with a space between them."""

    requests: int
    """How many requests were let through since the store has known the endpoint."""

    in_hand: int
    """Tokens that were given out, and whose requests are not written yet."""

    waiting: int
    """Who waits: callers, or, where the store paces several programs, those that stand in line."""

    paused_for: float
    """Seconds for which the service asked for silence; 0 without that."""


class Survey(msgspec.Struct, frozen=True):
    """What is in a store at one moment."""

    logs: tuple[LogSurvey, ...]
    """By topic."""

    endpoints: tuple[EndpointSurvey, ...]
    """By key."""
