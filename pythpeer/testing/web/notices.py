"""Notices for the developer of a bot: violations of the rules, gaps, and wrong positions."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Final, Literal, TypeAlias
from urllib.parse import parse_qs, urlsplit

import msgspec

from ..chat import MAX_PAGE
from ..fake import FakeServices
from ..requests import RecordedRequest

__all__ = ["Notice", "Notices"]

MAX_NOTICES: Final = 200
"""How many of the latest notices are stored."""

MAX_READERS: Final = 100
"""How many readers of the chat are distinguished."""


Kind: TypeAlias = Literal["violation", "gap", "ahead"]


class Notice(msgspec.Struct, frozen=True):
    """One notice about a request."""

    kind: Kind
    """``"violation"`` of a rule; ``"gap"``, which the response leaves; ``"ahead"``, where the bot
    requests what comes after an id that no message has yet."""

    endpoint: str
    """The endpoint's name."""

    rule: str
    """The rule that was broken, otherwise the same as `kind`."""

    text: str
    """What happened, in words."""

    date: str
    """When, by the date of the services."""


class _Readers:
    """Which requests continue an earlier one: those after the id with which its response ended.

    A first read, or a probe of any other id, misses nothing. Readers are known by their positions
    only, because one key may have several.
    """

    def __init__(self) -> None:
        self._positions: list[tuple[int, int, int]] = []
        """Of each reader the id of its last request, and the lowest and the highest id with which
        the response may have ended: it depends on the key whether private messages are in it. The
        latest is the last. Changed by `advance`."""

    def advance(self, mid: int, newest_public: int, newest: int) -> bool:
        """Record a request after *mid*, 0 for none, and return whether it continues another.

        A request that is repeated, because its response was lost, continues as the first one did.
        """
        found = next(
            (
                reader
                for reader in self._positions
                if mid == reader[0] or reader[1] <= mid <= reader[2]
            ),
            None,
        )
        if found is not None:
            self._positions.remove(found)
        self._positions.append((mid, newest_public, newest))
        del self._positions[:-MAX_READERS]
        return mid > 0 and found is not None


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
        self._readers = _Readers()
        self._ahead_of: int | None = None
        """The position of the latest notice that a bot is ahead; ``None`` when it is not."""
        self.counts: Counter[str] = Counter()
        """How many notices of each kind there were since the start, or since `clear`."""
        self.latest: list[Notice] = []
        """The latest notices, at most `MAX_NOTICES`."""

    def close(self) -> None:
        """Stop collecting. Does nothing the second time."""
        with contextlib.suppress(ValueError):
            self._unsubscribe()

    def clear(self) -> None:
        """Remove all notices."""
        self.latest.clear()
        self.counts.clear()

    def _on_request(self, recorded: RecordedRequest) -> None:
        violations = self._fake.violations
        last = violations[self._checked - 1] if 0 < self._checked <= len(violations) else None
        if last is not self._last:
            self._checked = 0  # the list was cleared
        for violation in violations[self._checked :]:
            self._add("violation", violation.endpoint, violation.rule, violation.detail)
            self._last = violation
        self._checked = len(violations)
        if recorded.endpoint == "peerbet.chat.get" and recorded.fault is None:
            self._check_position(recorded)

    def _check_position(self, recorded: RecordedRequest) -> None:
        query = parse_qs(urlsplit(recorded.target).query)
        mid, last = (query.get(name, [""])[0] for name in ("mid", "last"))
        after = int(mid) if mid.isdecimal() else 0
        messages, newest = self._fake.chat.messages, self._fake.chat.newest_id
        newest_public = next((line.id for line in reversed(messages) if not line.to), 0)
        continues = self._readers.advance(after, newest_public, newest)
        if after < 1:
            return
        missed = self._missed(after, int(last) if last.isdecimal() else MAX_PAGE)
        if missed and continues:
            text = f"{missed} messages did not fit into the response, and were not read"
            self._add("gap", recorded.endpoint, "gap", text)
        ahead_of = after if after > newest else None
        if ahead_of is not None and ahead_of != self._ahead_of:
            text = (
                f"it asks for what comes after {mid}; the newest here is {newest}: it has the "
                "position of another server. It notices that by itself, within a minute by default "
                "(idle_check), and then receives the messages of this one"
            )
            self._add("ahead", recorded.endpoint, "ahead", text)
        self._ahead_of = ahead_of

    def _missed(self, mid: int, last: int) -> int:
        """Return how many public messages follow *mid* but are not in the response."""
        # If the oldest are sent, there is no gap: the next response begins where this one ends.
        if self._fake.quirks.window == "oldest":
            return 0
        lines = self._fake.chat.after(mid)
        return max(0, sum(not line.to for line in lines) - min(last, MAX_PAGE))

    def _add(self, kind: Kind, endpoint: str, rule: str, text: str) -> None:
        notice = Notice(kind, endpoint, rule, text, self._fake.date)
        self.latest.append(notice)
        del self.latest[:-MAX_NOTICES]
        self.counts[kind] += 1
        self._listener(notice)
