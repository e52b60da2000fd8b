"""What the page shows, and its changes as they happen: a few sections, each sent whole.

The chat is the exception: of it only what is new is sent. A reader that is slow misses states in
between and nothing else, so there is no queue that could grow.
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

from ..chat import MAX_TEXT
from ..fake import FakeServices
from ..incoming import Arrival
from .notices import Notice, Notices
from .trouble import KINDS, TARGETS, FaultPanel

__all__ = ["EventFeed", "EventReader"]

LINES: Final = 300
"""How many of the latest messages a page begins with."""

LETTERS: Final = 100
"""How many of the latest mails it shows."""

PEOPLE: Final = 200
"""How many of the users it shows."""

ARRIVALS: Final = 12
"""How many of the latest requests it shows."""


class Event(NamedTuple):
    """One thing to tell the page: the section's name, and its content as JSON."""

    name: str
    data: bytes


class EventFeed:
    """Watches *fake* until it is closed. *on_notice* is called with whatever should be noticed."""

    def __init__(
        self, fake: FakeServices, trouble: FaultPanel, on_notice: Callable[[Notice], object]
    ) -> None:
        self._fake = fake
        self._trouble = trouble
        self._life = secrets.token_hex(8)
        self._asked: Counter[str] = Counter()
        self._arrivals: deque[dict[str, object]] = deque(maxlen=ARRIVALS)
        self.notices: Final = Notices(fake, on_notice)
        self.closed: bool = False
        self._changed = asyncio.Event()
        self._unlisten = [
            fake.listen(self._arrived),
            fake.chat.subscribe(lambda _: self.wake()),
            fake.mail.listen(lambda _, __: self.wake()),
        ]

    def close(self) -> None:
        """Watch no more, and let every reader come to its end."""
        self.closed = True
        self.notices.close()
        while self._unlisten:
            self._unlisten.pop()()
        self.wake()

    def wake(self) -> None:
        """Have every reader look for changes."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _arrived(self, arrival: Arrival) -> None:
        self._asked[arrival.endpoint] += 1
        self._arrivals.appendleft(
            {
                "at": arrival.at,
                "date": self._fake.date,
                "endpoint": arrival.endpoint,
                "target": arrival.target,
                "fault": arrival.fault is not None,
            }
        )
        self.wake()

    # -- sections ---------------------------------------------------------------------------------

    def static_state(self) -> Mapping[str, object]:
        """What does not change while the page's server lives, and the time."""
        return {
            "life": self._life,
            "now": self._fake.clock(),
            "bot": self._fake.username,
            "longest": MAX_TEXT,
            "environment": self._fake.environment,
            "kinds": KINDS,
            "targets": TARGETS,
        }

    def sections(self) -> Mapping[str, object]:
        """Everything else but the chat."""
        fake = self._fake
        return {
            "mail": {
                "box": fake.mail.box[-LETTERS:],
                "unread": sum(not letter.read for letter in fake.mail.box),
                "sent": fake.mail.sent[-LETTERS:],
            },
            "users": list(itertools.islice(fake.users, PEOPLE)),
            "trouble": self._trouble.now,
            "notices": {"total": self.notices.total, "latest": self.notices.latest},
            "requests": {"asked": self._asked, "latest": list(self._arrivals)},
        }


class EventReader:
    """One page that is told the news: everything at first, then what has changed."""

    def __init__(self, news: EventFeed) -> None:
        self._news = news
        self._sent: dict[str, bytes] = {}
        self._last = 0
        self._changed: asyncio.Event | None = None

    async def next(self) -> list[Event]:
        """Wait until there is something to tell. Nothing is told when the news are closed."""
        while not self._news.closed:
            if self._changed is not None:
                await self._changed.wait()
            self._changed = self._news._changed
            if events := self._look():
                return events
        return []

    def _look(self) -> list[Event]:
        events: list[Event] = []
        sections = dict(self._news.sections())
        if not self._sent:
            sections = {"hello": self._news.static_state(), **sections}
        for name, content in sections.items():
            data = _encoded(content)
            if self._sent.get(name) != data:
                self._sent[name] = data
                events.append(Event(name, data))
        lines = self._news._fake.chat.after(self._last)[-LINES:]
        if lines:
            self._last = lines[-1].id
            events.append(Event("chat", _encoded(lines)))
        return events


def _encoded(content: object) -> bytes:
    # In ASCII, for half of a surrogate pair has no UTF-8, and should not end the news.
    return json.dumps(msgspec.to_builtins(content)).encode()
