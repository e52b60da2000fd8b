"""The contents of the page as server-sent events: some sections, each sent whole if it changed.

The chat is the exception: only new messages are sent. A slow reader misses intermediate states and
nothing else, so there is no queue that could grow.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from ..chat import MAX_TEXT, ChatLine
from ..dice import DiceBet
from ..fake import FakeServices
from ..requests import RecordedRequest
from .fault_panel import KINDS, TARGETS, FaultPanel
from .notices import Notice, Notices

__all__ = ["EventFeed", "EventReader"]

MAX_MESSAGES: Final = 300
"""How many messages a page receives at a time: the latest; the number of the others is sent."""

MAX_MAILS: Final = 100
"""How many of the latest mails a page shows."""

MAX_ROLLS: Final = 50
"""How many of the latest rolls a page shows."""

MAX_USERS: Final = 200
"""How many of the users a page shows."""

MAX_REQUESTS: Final = 12
"""How many of the latest requests a page shows."""


class Event(NamedTuple):
    """One event for the page: the section's name, and its content as JSON."""

    name: str
    """The section of the page."""
    data: bytes
    """The content of the section, as JSON."""


class EventFeed:
    """Collects what the page shows of *fake*, until it is closed, and wakes readers on a change.

    *on_notice* is called with each new notice.
    """

    def __init__(
        self, fake: FakeServices, trouble: FaultPanel, on_notice: Callable[[Notice], object]
    ) -> None:
        self._fake = fake
        """The services that the page shows."""
        self._fault_panel = trouble
        self._instance_id = secrets.token_hex(8)
        """Changes with each server, so that a page that reconnects discards the old contents."""
        self._request_counts: Counter[str] = Counter()
        """Requests so far, by endpoint."""
        self._left_at: float | None = None
        """When bots closed their last kept connection, by the clock of the services."""
        self._latest_requests: deque[dict[str, object]] = deque(maxlen=MAX_REQUESTS)
        """The latest requests as the page shows them, the newest first."""
        self.notices: Final = Notices(fake, on_notice)
        """Violations and gaps, the newest of which the page shows."""
        self.closed: bool = False
        """Whether `close` was called: readers end then."""
        self.changed: asyncio.Event = asyncio.Event()
        """Set at the next change, and then replaced by a new one."""
        self._unsubscribe = [
            fake.subscribe(self._on_request),
            fake.subscribe_disconnects(self._on_left),
            fake.chat.subscribe(lambda _: self.wake()),
            fake.mail.subscribe(lambda _, __: self.wake()),
        ]
        """Each function ends one subscription; `close` calls them."""

    def close(self) -> None:
        """Stop collecting, and end every reader."""
        self.closed = True
        self.notices.close()
        while self._unsubscribe:
            self._unsubscribe.pop()()
        self.wake()

    def wake(self) -> None:
        """Wake every reader, so that it looks for changes."""
        changed = self.changed
        self.changed = asyncio.Event()
        changed.set()

    def _on_request(self, recorded: RecordedRequest) -> None:
        self._request_counts[recorded.endpoint] += 1
        self._latest_requests.appendleft(
            {
                "at": recorded.at,
                "date": self._fake.date,
                "endpoint": recorded.endpoint,
                "target": recorded.target,
                "fault": recorded.fault is not None,
            }
        )
        self.wake()

    def _on_left(self) -> None:
        self._left_at = self._fake.clock()
        self.wake()

    def messages_after(self, id: int) -> list[ChatLine]:
        """Return the messages after the one with this id, in order."""
        return self._fake.chat.after(id)

    # -- sections ---------------------------------------------------------------------------------

    def static_state(self) -> Mapping[str, object]:
        """Return what does not change while the page's server runs, and the time."""
        return {
            "instance_id": self._instance_id,
            "now": self._fake.clock(),
            "bot": self._fake.username,
            "max_text": MAX_TEXT,
            "environment": self._fake.environment,
            "kinds": KINDS,
            "targets": TARGETS,
        }

    def sections(self) -> Mapping[str, object]:
        """Return the content of every section that can change, except for the chat."""
        fake = self._fake
        return {
            "mail": {
                "inbox": fake.mail.inbox[-MAX_MAILS:],
                "unread": sum(not mail.read for mail in fake.mail.inbox),
                "sent": fake.mail.sent[-MAX_MAILS:],
            },
            "dice": {
                "balance": f"{fake.dice.balance(fake.username):.8f}",
                "rolls": [_as_shown(roll) for roll in fake.dice.rolls[-MAX_ROLLS:]],
            },
            "users": list(itertools.islice(fake.users, MAX_USERS)),
            "faults": self._fault_panel.now,
            "notices": {"counts": self.notices.counts, "latest": self.notices.latest},
            "presence": {"left_at": self._left_at},
            "requests": {"counts": self._request_counts, "latest": list(self._latest_requests)},
        }


class EventReader:
    """One connected page: its first events are everything, the later ones what has changed.

    Its state is what the page has received: `_sent` and `_last`.
    """

    def __init__(self, feed: EventFeed) -> None:
        self._feed = feed
        """Collects what the page shows."""
        self._sent: dict[str, bytes] = {}
        """The content of each section that was sent last, as JSON."""
        self._last = 0
        """The id of the last message that was sent."""
        self._changed: asyncio.Event | None = None
        """Set when something has changed since `_collect`; ``None`` before the first call."""

    async def next(self) -> list[Event]:
        """Wait for changes and return their events; returns none once the feed is closed."""
        while not self._feed.closed:
            if self._changed is not None:
                await self._changed.wait()
            self._changed = self._feed.changed
            if events := self._collect():
                return events
        return []

    def _collect(self) -> list[Event]:
        events: list[Event] = []
        sections = dict(self._feed.sections())
        if not self._sent:
            sections = {"hello": self._feed.static_state(), **sections}
        for name, content in sections.items():
            data = _encoded(content)
            if self._sent.get(name) != data:
                self._sent[name] = data
                events.append(Event(name, data))
        lines = self._feed.messages_after(self._last)
        if lines:
            self._last = lines[-1].id
            left_out, lines = len(lines[:-MAX_MESSAGES]), lines[-MAX_MESSAGES:]
            if left_out:
                events.append(Event("left_out", _encoded(left_out)))
            events.append(Event("chat", _encoded(lines)))
        return events


def _as_shown(roll: DiceBet) -> dict[str, object]:
    """Return a roll as the page shows it, with its numbers as text."""
    return {
        "user": roll.user,
        "bet": f"{roll.bet:.8f}",
        "target": f"{'<' if roll.side == 'low' else '>'} {roll.target:.4f}",
        "roll": f"{roll.roll:.4f}",
        "payout": f"{roll.payout:.8f}",
        "won": roll.payout > 0,
        "currency": roll.currency,
        "date": roll.date,
    }


def _encoded(content: object) -> bytes:
    # In ASCII, because half of a surrogate pair has no UTF-8, and must not end the events.
    return json.dumps(msgspec.to_builtins(content)).encode()
