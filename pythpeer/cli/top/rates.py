"""Rates from snapshots, and readable names, for ``pythpeer top``. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from ...peerbet import ChatMessage
from ...pythbots import Mail
from ...sanitize import sanitize
from ...secret import account_of
from ...stores.snapshot import LatestItem, LogSnapshot, StoreSnapshot

__all__ = ["Label", "Rates", "items", "parse_key"]

WINDOW = 60.0
"""Seconds over which rates are computed, once that much time has passed."""

ITEM_TYPES: Mapping[str, type[ChatMessage | Mail]] = {
    "peerbet.chat": ChatMessage,
    "pythbots.mail": Mail,
}


class Label(NamedTuple):
    """The parts of a topic or of a key, as the screen shows them."""

    name: str
    """What it is, such as ``"peerbet.chat"``."""

    host: str
    """The host of the service, with its port."""

    account: str
    """The beginning of the digest of the key, as ``"key 9d7d"``, or ``"no key"``."""


def parse_key(text: str) -> Label:
    """Return the parts of the name of a topic or an endpoint: name, host and account."""
    name, _, rest = sanitize(text).partition(" ")
    url, _, account = rest.rpartition(" ")
    # Not `urlsplit`, which raises for some texts: anything can stand in a store.
    host = url.partition("://")[2].partition("/")[0]
    return Label(name, host, _account(account))


def _account(account: str) -> str:
    return "no key" if account in ("", account_of(None)) else f"key {account[:4]}"


class Rates:
    """The counts of the last minute: `add` snapshots, then ask for rates.

    Snapshots must be added in the order of their times.
    """

    def __init__(self) -> None:
        self._counts: deque[tuple[float, Mapping[str, int]]] = deque()
        """The time in seconds and the counts by name of each snapshot, the oldest first."""

    def add(self, now: float, snapshot: StoreSnapshot) -> None:
        """Add the snapshot of *now*, in seconds of any steady clock."""
        counts = {log.topic: log.head for log in snapshot.logs}
        counts |= {endpoint.key: endpoint.requests for endpoint in snapshot.endpoints}
        self._counts.append((now, counts))
        while len(self._counts) > 2 and self._counts[1][0] <= now - WINDOW:
            self._counts.popleft()

    def per_minute(self, name: str) -> float | None:
        """Return the increase per minute of a log's head, or of an endpoint's requests.

        Returns ``None`` if it is unknown: with fewer than two snapshots, or if the count decreased
        because the store was emptied.
        """
        counted = [(at, counts[name]) for at, counts in self._counts if name in counts]
        if len(counted) < 2 or counted[-1][0] <= counted[0][0]:
            return None
        (since, before), (now, after) = counted[0], counted[-1]
        return (after - before) / (now - since) * 60.0 if after >= before else None


def items(log: LogSnapshot) -> Sequence[tuple[int, ChatMessage | Mail | None]]:
    """Return the latest items of a log with their ids; ``None`` for undecodable ones."""
    kind = ITEM_TYPES.get(parse_key(log.topic).name)
    return [(entry.id, _item(entry, kind)) for entry in log.latest]


def _item(entry: LatestItem, kind: type[ChatMessage | Mail] | None) -> ChatMessage | Mail | None:
    if entry.item is None or kind is None:
        return None
    try:
        return msgspec.json.decode(entry.item, type=kind)
    except (ValueError, RecursionError):
        return None
