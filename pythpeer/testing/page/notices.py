"""What a bot's developer should notice: broken rules, and messages that a bot can not have seen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final, Literal
from urllib.parse import parse_qs, urlsplit

import msgspec

from ..chat import MAX_PAGE
from ..fake import FakeServices
from ..incoming import Arrival

__all__ = ["Notice", "Notices"]

KEPT: Final = 200
"""How many of the latest notices are kept."""


class Notice(msgspec.Struct, frozen=True):
    """One thing to notice about a request to ``endpoint``; ``rule`` is ``gap`` or a broken one.

    ``date`` is the services' own.
    """

    kind: Literal["violation", "gap"]
    endpoint: str
    rule: str
    text: str
    date: str


class Notices:
    """Collects notices from *fake* until it is closed: ``latest`` are kept, ``total`` counts all.

    *listener* is called with each.
    """

    def __init__(self, fake: FakeServices, listener: Callable[[Notice], object]) -> None:
        self._fake = fake
        self._listener = listener
        self._judged = len(fake.violations)
        self._last = fake.violations[-1] if fake.violations else None
        self._unlisten = fake.listen(self._look)
        self.latest: list[Notice] = []
        self.total: int = 0

    def close(self) -> None:
        """Collect no more. Does nothing the second time."""
        with contextlib.suppress(ValueError):
            self._unlisten()

    def clear(self) -> None:
        """Forget all there were."""
        self.latest.clear()
        self.total = 0

    def _look(self, arrival: Arrival) -> None:
        violations = self._fake.violations
        known = violations[self._judged - 1] if 0 < self._judged <= len(violations) else None
        if known is not self._last:
            self._judged = 0  # their owner has cleared them
        for violation in violations[self._judged :]:
            self._add("violation", violation.endpoint, violation.rule, violation.detail)
            self._last = violation
        self._judged = len(violations)
        missed = self._missed(arrival)
        if missed:
            text = f"{missed} messages did not fit into the answer, and were not seen"
            self._add("gap", arrival.endpoint, "gap", text)

    def _missed(self, arrival: Arrival) -> int:
        """How many messages for everyone came after the last one seen, but not into the answer."""
        if arrival.endpoint != "peerbet.chat.get" or arrival.fault is not None:
            return 0
        query = parse_qs(urlsplit(arrival.target).query)
        mid, last = (query.get(name, [""])[0] for name in ("mid", "last"))
        # The oldest that are left leave no gap: the next answer begins where this one ends.
        if not mid.isdecimal() or int(mid) < 1 or self._fake.quirks.window == "oldest":
            return 0
        lines = self._fake.chat.after(int(mid))
        size = min(int(last) if last.isdecimal() else MAX_PAGE, MAX_PAGE)
        return max(0, sum(not line.to for line in lines) - size)

    def _add(self, kind: Literal["violation", "gap"], endpoint: str, rule: str, text: str) -> None:
        notice = Notice(kind, endpoint, rule, text, self._fake.date)
        self.latest.append(notice)
        del self.latest[:-KEPT]
        self.total += 1
        self._listener(notice)
