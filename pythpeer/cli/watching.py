"""What ``pythpeer top`` makes of surveys: rates, and names that people can read. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from ..peerbet import ChatMessage
from ..pythbots import Mail
from ..stores.survey import LatestItem, LogSnapshot, StoreSnapshot

__all__ = ["Label", "Rates", "items", "parse_key"]

WINDOW = 60.0
"""Seconds over which rates are taken, as soon as that much has been watched."""

ITEM_TYPES: Mapping[str, type[ChatMessage | Mail]] = {
    "peerbet.chat": ChatMessage,
    "pythbots.mail": Mail,
}


class Label(NamedTuple):
    """What a topic or a key is about, in the words of the screen."""

    name: str
    host: str
    account: str


def parse_key(text: str) -> Label:
    """Take the name of a topic or an endpoint apart: what it is, where, and for whom."""
    what, _, rest = text.partition(" ")
    where, _, account = rest.rpartition(" ")
    return Label(what, urlsplit(where).netloc, account[:4] if account else "nobody")


class Rates:
    """The counts of the last minute: ``add`` each survey as it comes, and ask for rates."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, Mapping[str, int]]] = deque()

    def add(self, now: float, survey: StoreSnapshot) -> None:
        """Take account of what there was at *now*, in seconds."""
        counts = {log.topic: log.head for log in survey.logs}
        counts |= {endpoint.key: endpoint.requests for endpoint in survey.endpoints}
        self._counts.append((now, counts))
        while len(self._counts) > 2 and self._counts[1][0] <= now - WINDOW:
            self._counts.popleft()

    def per_minute(self, name: str) -> float | None:
        """By how much a log's head or an endpoint's requests go up; ``None`` before that is known.

        What was counted anew meanwhile, in a store that was emptied, is not known either.
        """
        known = [(at, counts[name]) for at, counts in self._counts if name in counts]
        if len(known) < 2 or known[-1][0] <= known[0][0]:
            return None
        (since, before), (now, after) = known[0], known[-1]
        return (after - before) / (now - since) * 60.0 if after >= before else None


def items(log: LogSnapshot) -> Sequence[tuple[int, ChatMessage | Mail | None]]:
    """The last items of a log with their ids; ``None`` for those that cannot be read."""
    kind = ITEM_TYPES.get(parse_key(log.topic).name)
    return [(one.id, _item(one, kind)) for one in log.latest]


def _item(one: LatestItem, kind: type[ChatMessage | Mail] | None) -> ChatMessage | Mail | None:
    if one.item is None or kind is None:
        return None
    try:
        return msgspec.json.decode(one.item, type=kind)
    except (ValueError, RecursionError):
        return None
