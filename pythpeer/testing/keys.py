"""The API keys of PythBots: which endpoints each may request, and how often.

Documented: a key is sent as ``X-API-Key``, as ``Authorization: Bearer`` or as ``api_key``; it has
permissions per endpoint and limits per hour, day, week or month; the error texts for both. Not
documented, and decided here: a limit counts the requests of the last hour, day and so on, and a
month has 30 days.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from typing import Final

from ..errors import InvalidRequestError
from ..validation import check_integer
from .endpoints import ENDPOINTS
from .responses import RejectedError

__all__ = ["ApiKeys"]

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY
MONTH: Final = 30 * DAY

PYTHBOTS_ENDPOINTS: Final = frozenset(
    endpoint.name for endpoint in ENDPOINTS if endpoint.service == "pythbots"
)


class ApiKeys:
    """All API keys. As soon as there is one, PythBots requires a key with every request."""

    def __init__(self) -> None:
        self._keys: dict[str, _ApiKey] = {}

    def add(
        self,
        key: str,
        *,
        endpoints: Iterable[str] | None = None,
        per_hour: int | None = None,
        per_day: int | None = None,
        per_week: int | None = None,
        per_month: int | None = None,
    ) -> None:
        """Add a key, or replace the rights of an existing one.

        Args:
            key: The key.
            endpoints: Names of the endpoints that it may request; by default all of PythBots.
            per_hour: How many requests it may make in any hour; by default without limit.
            per_day: The same for any 24 hours.
            per_week: The same for any 7 days.
            per_month: The same for any 30 days.

        Raises:
            InvalidRequestError: An endpoint is unknown, or a limit is not an integer of at least 0.
        """
        allowed = PYTHBOTS_ENDPOINTS if endpoints is None else frozenset(endpoints)
        if not allowed <= PYTHBOTS_ENDPOINTS:
            unknown = ", ".join(sorted(allowed - PYTHBOTS_ENDPOINTS))
            raise InvalidRequestError(f"unknown endpoint of PythBots: {unknown}")
        limits = {HOUR: per_hour, DAY: per_day, WEEK: per_week, MONTH: per_month}
        self._keys[key] = _ApiKey(
            allowed,
            [
                _Limit(span, check_integer("limit", max_requests, 0))
                for span, max_requests in limits.items()
                if max_requests is not None
            ],
        )

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def keys(self) -> Collection[str]:
        """All keys."""
        return self._keys.keys()

    def reset(self) -> None:
        """Forget all requests, because their times are of another clock."""
        for key in self._keys.values():
            for limit in key.limits:
                limit.times.clear()

    def check(self, key: str | None, endpoint: str, now: float) -> None:
        """Count a request that is received at *now*. Raises `RejectedError` if it has no right."""
        if not self._keys:
            return
        if key is None:
            raise _rejected("Missing API key")
        api_key = self._keys.get(key)
        if api_key is None:
            raise _rejected("Invalid API key")
        if endpoint not in api_key.endpoints:
            raise _rejected("no access")
        if any(limit.is_reached(now) for limit in api_key.limits):
            raise _rejected("Request limit reached")
        for limit in api_key.limits:
            limit.record(now)


class _ApiKey:
    __slots__ = ("endpoints", "limits")

    def __init__(self, endpoints: frozenset[str], limits: list[_Limit]) -> None:
        self.endpoints = endpoints
        self.limits = limits


class _Limit:
    """At most *max_requests* requests in any *span* seconds."""

    __slots__ = ("_max_requests", "_span", "times")

    def __init__(self, span: float, max_requests: int) -> None:
        self._span = span
        self._max_requests = max_requests
        self.times: deque[float] = deque(maxlen=max_requests)
        """When the latest requests were received, in seconds of the fake's clock."""

    def is_reached(self, now: float) -> bool:
        if len(self.times) < self._max_requests:
            return False
        return not self.times or now - self.times[0] < self._span

    def record(self, now: float) -> None:
        self.times.append(now)


def _rejected(message: str) -> RejectedError:
    return RejectedError({"error": message})
