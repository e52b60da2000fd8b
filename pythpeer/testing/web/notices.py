"""Notices for the developer of a bot: broken rules, and messages that the bot cannot have read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final, Literal
from urllib.parse import parse_qs, urlsplit

import msgspec

from ..chat import MAX_PAGE
from ..fake import FakeServices
from ..requests import RecordedRequest

__all__ = ["Notice", "Notices"]

MAX_NOTICES: Final = 200
"""How many of the latest notices are stored."""


class Notice(msgspec.Struct, frozen=True):
    """One notice about a request."""

    kind: Literal["violation", "gap"]
    """Whether the request broke a rule, or its response leaves a gap."""

    endpoint: str
    """The endpoint's name."""

    rule: str
    """The rule that was broken, or ``"gap"``."""

    text: str
    """What happened, in words."""

    date: str
    """When, by the date of the services."""


class Notices:
    """Collects notices from *fake* until it is closed, and calls *listener* with each."""

    def __init__(self, fake: FakeServices, listener: Callable[[Notice], object]) -> None:
        self._fake = fake
        self._listener = listener
        self._checked = len(fake.violations)
        """How many of the fake's violations were looked at."""
        self._last = fake.violations[-1] if fake.violations else None
        """The last of those; another one in its position shows that the list was cleared."""
        self._unsubscribe = fake.subscribe(self._on_request)
        self.latest: list[Notice] = []
        """The latest notices, at most `MAX_NOTICES`."""
        self.total: int = 0
        """How many notices there were since the start, or since `clear`."""

    def close(self) -> None:
        """Stop collecting. Does nothing the second time."""
        with contextlib.suppress(ValueError):
            self._unsubscribe()

    def clear(self) -> None:
        """Remove all notices."""
        self.latest.clear()
        self.total = 0

    def _on_request(self, recorded: RecordedRequest) -> None:
        violations = self._fake.violations
        last = violations[self._checked - 1] if 0 < self._checked <= len(violations) else None
        if last is not self._last:
            self._checked = 0  # the list was cleared
        for violation in violations[self._checked :]:
            self._add("violation", violation.endpoint, violation.rule, violation.detail)
            self._last = violation
        self._checked = len(violations)
        missed = self._missed(recorded)
        if missed:
            text = f"{missed} messages did not fit into the response, and were not read"
            self._add("gap", recorded.endpoint, "gap", text)

    def _missed(self, recorded: RecordedRequest) -> int:
        """Return how many public messages follow ``mid`` but are not in the response."""
        if recorded.endpoint != "peerbet.chat.get" or recorded.fault is not None:
            return 0
        query = parse_qs(urlsplit(recorded.target).query)
        mid, last = (query.get(name, [""])[0] for name in ("mid", "last"))
        # If the oldest are sent, there is no gap: the next response begins where this one ends.
        if not mid.isdecimal() or int(mid) < 1 or self._fake.quirks.window == "oldest":
            return 0
        lines = self._fake.chat.after(int(mid))
        size = min(int(last) if last.isdecimal() else MAX_PAGE, MAX_PAGE)
        return max(0, sum(not line.to for line in lines) - size)

    def _add(self, kind: Literal["violation", "gap"], endpoint: str, rule: str, text: str) -> None:
        notice = Notice(kind, endpoint, rule, text, self._fake.date)
        self.latest.append(notice)
        del self.latest[:-MAX_NOTICES]
        self.total += 1
        self._listener(notice)
