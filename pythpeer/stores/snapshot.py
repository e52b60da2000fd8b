"""Snapshots: the content of a store at one moment, as plain values, for tools that watch a bot.

Taking a snapshot changes nothing. It contains no key: an account is identified by a digest.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..pacing.shared import _State
from .deprecated import (
    DeprecatedEndpointSnapshotNames,
    DeprecatedLogSnapshotNames,
    DeprecatedReaderSnapshotNames,
)

__all__ = [
    "EndpointSnapshot",
    "LatestItem",
    "LogSnapshot",
    "ReaderSnapshot",
    "StoreSnapshot",
    "endpoint_snapshot",
]


class ReaderSnapshot(DeprecatedReaderSnapshotNames, msgspec.Struct, frozen=True):
    """The position of the streams of one name in a log."""

    name: str
    """The name of the streams."""

    position: int
    """The id of the last acknowledged item."""

    lag: int
    """The number of items in the log with greater ids."""


class LatestItem(msgspec.Struct, frozen=True):
    """One of the last items of a log."""

    id: int
    """The id of the entry."""

    item: str | None
    """The item as JSON, or ``None`` if it is undecodable."""


class LogSnapshot(DeprecatedLogSnapshotNames, msgspec.Struct, frozen=True):
    """One log and its readers."""

    topic: str
    """The name of the topic: service and kind, address, and account."""

    head: int
    """The highest id."""

    length: int
    """The number of items in the log."""

    has_leader: bool
    """Whether a session holds the lease, and polls for all others."""

    pending_fetches: int
    """The number of fetch intents that are neither completed nor cancelled."""

    readers: tuple[ReaderSnapshot, ...]
    """The readers with a name, sorted by it. Streams without a name store no position."""

    latest: tuple[LatestItem, ...]
    """The last items, ascending by id."""

    idle_for: float | None = None
    """The seconds since the last lease has expired, 0 while a session holds it. A poller that waits
    for a token acquires it again for its next poll. ``None`` if no session ever had one."""


class EndpointSnapshot(DeprecatedEndpointSnapshotNames, msgspec.Struct, frozen=True):
    """The pacing of one endpoint for one account."""

    key: str
    """The name of the endpoint, its address and the account, separated by blanks."""

    requests: int
    """The number of requests since the store has the endpoint."""

    outstanding: int
    """The number of tokens whose requests were not written yet."""

    waiting: int
    """The length of the wait queue: callers, or processes where several share the pacing."""

    paused_for: float
    """The seconds for which the endpoint is still paused by the service; 0 if it is not."""


class StoreSnapshot(msgspec.Struct, frozen=True):
    """The content of a store at one moment."""

    logs: tuple[LogSnapshot, ...]
    """The logs, sorted by topic."""

    endpoints: tuple[EndpointSnapshot, ...]
    """The endpoints, sorted by key."""


def endpoint_snapshot(
    key: str, state: bytes, now: float, is_alive: Callable[[str], bool] = bool
) -> EndpointSnapshot:
    """Return the snapshot of a stored *state*, without knowing its rate and without changing it."""
    try:
        stored = msgspec.msgpack.decode(state, type=_State)
    except msgspec.DecodeError:
        return EndpointSnapshot(key, 0, 0, 0, 0.0)  # unreadable: counts as a new one
    return EndpointSnapshot(
        key=key,
        requests=stored.bucket.spent,
        outstanding=sum(
            until > now and is_alive(owner) for owner, until in stored.outstanding.values()
        ),
        waiting=sum(until > now and is_alive(owner) for owner, until in stored.queue),
        paused_for=max(0.0, stored.bucket.paused - now),
    )
