"""How a session is doing, as values: frozen, and fit for JSON.

Nothing is measured for it that is not known anyway. It holds no key and nothing anybody wrote.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

__all__ = ["EndpointHealth", "OutcomeTracker", "SessionHealth", "StreamHealth", "utc_now"]


class EndpointHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint, as this session has seen it."""

    last_success: datetime | None
    """When it last answered as documented (UTC), be it with a no; ``None`` before it did."""

    failures: int
    """How many requests in a row have failed since: no usable answer, an HTTP status that is none,
    too many requests, a key refused."""

    last_error: str | None
    """The class of the last of them, such as ``"RequestTimeoutError"``."""

    waiting: int
    """How many callers wait for a token, of all sessions on the same store object."""

    next_token: float
    """Seconds until the next token, as far as is known here."""

    paused_for: float
    """Seconds until the end of a pause that a service or a caller has set."""


class StreamHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One stream. Its polls are those that this session makes, for all its streams of one kind."""

    endpoint: str
    name: str | None
    closed: bool

    last_success: datetime | None
    """When a poll last succeeded (UTC); ``None`` before one did."""

    failures: int
    """How many polls in a row have failed since."""

    last_error: str | None
    """The class of the last of them."""

    polling: bool
    """Whether a request is under way."""

    next_poll: datetime | None
    """When the next poll can leave at the earliest (UTC). ``None`` while one is under way, and
    while nobody waits for an item: nothing is polled then."""

    cursor: int | None
    """The id of the item handed out last, or where the stream starts; ``None`` until that is
    known."""

    lag: int
    """How far, in ids, the cursor is behind the newest item that this session knows of."""

    gaps: int
    skipped: int


class SessionHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A session, its endpoints by name, and its streams that are not closed, oldest first."""

    at: datetime
    """When this was so (UTC)."""

    ok: bool
    """Whether it is open, and what each endpoint and each stream did last did not fail."""

    open: bool
    endpoints: Mapping[str, EndpointHealth]
    streams: tuple[StreamHealth, ...]


class OutcomeTracker:
    """What is remembered of how something went."""

    __slots__ = ("_succeeded", "failures", "last_error")

    def __init__(self) -> None:
        self._succeeded: float | None = None
        self.failures: int = 0
        self.last_error: str | None = None

    def record(self, error: BaseException | None) -> None:
        """It went well, or failed."""
        if error is None:
            self._succeeded = time.time()
            self.failures = 0
            self.last_error = None
        else:
            self.failures += 1
            self.last_error = type(error).__name__

    @property
    def last_success(self) -> datetime | None:
        """When it last went well, in UTC."""
        return None if self._succeeded is None else datetime.fromtimestamp(self._succeeded, UTC)


def utc_now() -> datetime:
    """This one, in UTC."""
    return datetime.now(UTC)
