"""Health of a session, its endpoints and its streams, as frozen values that JSON can represent.

They are read from the state that a session has anyway: nothing is measured for them. They hold no
key, and no text of messages or users.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

__all__ = ["EndpointHealth", "OutcomeTracker", "SessionHealth", "StreamHealth", "utc_now"]


class EndpointHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Health of one endpoint, from the requests of this session."""

    last_success: datetime | None
    """When it last gave a documented response (UTC), which can be an API error; ``None`` without
    one."""

    failures: int
    """Number of requests in a row that have failed since: no usable response, an unexpected HTTP
    status, too many requests, or a rejected key."""

    last_error: str | None
    """Class of the last of these failures, such as ``"RequestTimeoutError"``; ``None`` without
    one."""

    waiting: int
    """Number of callers that wait for a token, of all sessions on the same store object."""

    waiting_for_connection: int = 0
    """Number of requests that have a token and wait for a connection: as many as are permitted for
    the endpoint or its host are in use."""

    next_token: float
    """Seconds until the next token, as far as this process knows; 0 if one is available."""

    paused_for: float
    """Seconds until the end of a pause that a service or a caller has set; 0 without one."""

    failing_since: datetime | None = None
    """When the first of these failures happened (UTC); ``None`` without one."""


class StreamHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Health of one stream. Polls are those of the session, for all its streams of one kind."""

    endpoint: str
    """Name of the endpoint that is polled."""

    name: str | None
    """Name of the stream; ``None`` without one."""

    closed: bool
    """Whether the stream is closed."""

    last_success: datetime | None
    """When a poll last succeeded (UTC); ``None`` without one."""

    failures: int
    """Number of polls in a row that have failed since."""

    last_error: str | None
    """Class of the last of these failures; ``None`` without one."""

    recovery_error: str | None = None
    """Class of the error for which the mail of a lost response cannot be recovered at present,
    such as ``"ResponseTooLargeError"``; ``None`` without one. New mail is delivered regardless."""

    polling: bool
    """Whether a poll is under way."""

    next_poll: datetime | None
    """When the next poll can be sent at the earliest (UTC). ``None`` while one is under way, and
    while no consumer waits for an item, because the stream does not poll then."""

    cursor: int | None
    """Id of the item that was delivered last, or the position where the stream starts; ``None``
    until that is known."""

    lag: int
    """Distance, in ids, from the cursor to the newest item that this session knows of."""

    gaps: int
    """Number of gaps so far: see `Stream.gaps`."""

    skipped: int
    """Number of items so far that could not be decoded."""

    failing_since: datetime | None = None
    """When the first of the failures in a row happened (UTC); ``None`` without one."""

    restarts: int = 0
    """How often the service has started its ids anew while the stream followed it."""


class SessionHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Health of a session, with its endpoints and its open streams."""

    at: datetime
    """When the values were read (UTC)."""

    ok: bool
    """Whether the session is open, the last request of each endpoint and the last poll of each
    stream did not fail, and no stream has a ``recovery_error``. A failure of this session is
    forgotten while another one on the same store polls without one. Where there was no request
    yet, or no stream is open any more, there is nothing that failed: it does not show that a task
    of the program has ended."""

    open: bool
    """Whether the session is open."""

    endpoints: Mapping[str, EndpointHealth]
    """Health of each endpoint of the session, by its name, also of those without a request yet."""

    streams: tuple[StreamHealth, ...]
    """Health of each stream that is not closed, oldest first."""


class OutcomeTracker:
    """The last success of an operation, and its failures since.

    Invariant: ``last_error`` and ``failing_since`` are ``None`` exactly where ``failures`` is 0.
    """

    __slots__ = ("_failing_since", "_succeeded", "failures", "last_error")

    def __init__(self) -> None:
        self._succeeded: float | None = None
        """Time of the last success, in seconds since 1970; ``None`` without one."""
        self._failing_since: float | None = None
        """Time of the first failure since, in seconds since 1970; ``None`` without one."""
        self.failures: int = 0
        """Number of failures in a row since the last success."""
        self.last_error: str | None = None
        """Class name of the last failure; ``None`` after a success."""

    def record(self, error: BaseException | None) -> None:
        """Record a success (``None``), or the *error* of a failure."""
        if error is None:
            self._succeeded = time.time()
            self.forget_failures()
        else:
            self.failures += 1
            self.last_error = type(error).__name__
            if self._failing_since is None:
                self._failing_since = time.time()

    def forget_failures(self) -> None:
        """End the series of failures, without a success of this session."""
        self.failures = 0
        self.last_error = self._failing_since = None

    @property
    def last_success(self) -> datetime | None:
        """Time of the last success, in UTC; ``None`` without one."""
        return _utc(self._succeeded)

    @property
    def failing_since(self) -> datetime | None:
        """Time of the first failure since the last success, in UTC; ``None`` without one."""
        return _utc(self._failing_since)


def _utc(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def utc_now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)
