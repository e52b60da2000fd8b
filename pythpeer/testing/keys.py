"""The API keys of PythBots: what each may ask, and how often.

Documented: a key comes as ``X-API-Key``, as ``Authorization: Bearer`` or as ``api_key``; it has
permissions per endpoint and limits per hour, day, week or month; the words of a refusal for either.
Not documented, and so decided here: a limit counts back from now, and a month has 30 days.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from typing import Final

from ..errors import InvalidRequestError
from ..wire import check_integer
from .judge import DEFAULT_RATES
from .replies import RefusedError

__all__ = ["ApiKeys"]

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY
MONTH: Final = 30 * DAY

ENDPOINTS: Final = frozenset(name for name in DEFAULT_RATES if name.startswith("pythbots."))


class ApiKeys:
    """All API keys. As soon as there is one, PythBots asks for one."""

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
        """Add a key, or give one other rights: for *endpoints*, by default all, within the limits.

        Raises `InvalidRequestError`.
        """
        allowed = ENDPOINTS if endpoints is None else frozenset(endpoints)
        if not allowed <= ENDPOINTS:
            unknown = ", ".join(sorted(allowed - ENDPOINTS))
            raise InvalidRequestError(f"no such endpoint of PythBots: {unknown}")
        limits = {HOUR: per_hour, DAY: per_day, WEEK: per_week, MONTH: per_month}
        self._keys[key] = _ApiKey(
            allowed,
            [
                _Limit(span, check_integer("a limit", many, 0))
                for span, many in limits.items()
                if many is not None
            ],
        )

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def keys(self) -> Collection[str]:
        """All keys."""
        return self._keys.keys()

    def reset(self) -> None:
        """Forget what was asked: the clock is another one now."""
        for key in self._keys.values():
            for limit in key.limits:
                limit.times.clear()

    def check(self, key: str | None, endpoint: str, now: float) -> None:
        """Let a request pass that comes at *now*, and count it. Raises `RefusedError`."""
        if not self._keys:
            return
        if key is None:
            raise _refusal("Missing API key")
        found = self._keys.get(key)
        if found is None:
            raise _refusal("Invalid API key")
        if endpoint not in found.endpoints:
            raise _refusal("no access")
        if any(limit.is_reached(now) for limit in found.limits):
            raise _refusal("Request limit reached")
        for limit in found.limits:
            limit.record(now)


class _ApiKey:
    __slots__ = ("endpoints", "limits")

    def __init__(self, endpoints: frozenset[str], limits: list[_Limit]) -> None:
        self.endpoints = endpoints
        self.limits = limits


class _Limit:
    """At most *many* requests in any *span* seconds."""

    __slots__ = ("_many", "_span", "times")

    def __init__(self, span: float, many: int) -> None:
        self._span = span
        self._many = many
        self.times: deque[float] = deque(maxlen=many)

    def is_reached(self, now: float) -> bool:
        if len(self.times) < self._many:
            return False
        return not self.times or now - self.times[0] < self._span

    def record(self, now: float) -> None:
        self.times.append(now)


def _refusal(words: str) -> RefusedError:
    return RefusedError({"error": words})
