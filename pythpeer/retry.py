"""Retry policy: which failures are repeated, and after how long. Pure, apart from random jitter.

Only reads are ever repeated. A write or a destructive read that may have happened raises
`OutcomeUnknownError`, and the program that uses the library decides.
"""

from __future__ import annotations

import random
from typing import Final

import msgspec

from .errors import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    HttpStatusError,
    OutcomeUnknownError,
    PythpeerError,
    RateLimitedError,
    ResponseTooLargeError,
    StoreError,
    TransportError,
)
from .validation import check_integer, check_seconds
from .wire.endpoints import Effect, Endpoint

__all__ = ["Retry", "backoff", "classify_failure", "is_transient"]

SERVER_ERRORS: Final = 500
"""Lowest status of a server failure: every failure of a server may pass, for calls and streams."""

CALL_RETRY_STATUSES: Final = frozenset({429})
"""Statuses below `SERVER_ERRORS` after which a call is repeated.

A call has a caller that waits, and can handle the error. Of these statuses it therefore repeats
only 429, which says that a later request is accepted, and for which the limiter keeps the pause.
"""

STREAM_TRANSIENT_STATUSES: Final = frozenset({408, 425, 429})
"""Statuses below `SERVER_ERRORS` that a stream waits out.

A stream must not end because of a failure that passes, so it also keeps polling after 408 (Request
Timeout) and 425 (Too Early), with which a proxy in front of a service can respond.
"""


class Retry(msgspec.Struct, frozen=True):
    """Policy for failed reads: how often, and after how long, a call is repeated.

    The delay before the n-th repetition is random: from 0 to ``base_delay * 2**(n - 1)`` seconds,
    and never longer than ``max_delay``. Writes and destructive reads are never repeated.

    For another policy, derive a class and override `delay`.

    Args:
        attempts: Number of attempts of a call, the first included; 1 or more, 4 by default.
        base_delay: Upper bound, in seconds, of the delay before the first repetition; 0.5 by
            default.
        max_delay: Upper bound, in seconds, of every delay, and of the back-off of streams; 30 by
            default.

    Raises:
        InvalidRequestError: A value has the wrong type or is out of range.
    """

    attempts: int = 4
    """Number of attempts of a call, the first included."""

    base_delay: float = 0.5
    """Upper bound, in seconds, of the delay before the first repetition; it doubles each time."""

    max_delay: float = 30.0
    """Upper bound, in seconds, of every delay. It also bounds the back-off of streams, which repeat
    a poll after a transient failure without a limit of attempts."""

    def __post_init__(self) -> None:
        check_integer("attempts", self.attempts, 1)
        check_seconds("base_delay", self.base_delay)
        check_seconds("max_delay", self.max_delay)

    def delay(self, error: PythpeerError, attempt: int) -> float | None:
        """Return the seconds to wait before the next attempt of a read, or ``None`` to give up.

        *error* is the failure of attempt number *attempt*, which counts from 1. Transport errors
        are repeated, and statuses 5xx and 429. The pause that a 429 asks for is kept by the
        endpoint's limiter, in addition to this delay.
        """
        if attempt >= self.attempts:
            return None
        if isinstance(error, HttpStatusError):
            retryable = _has_status(error, CALL_RETRY_STATUSES)
        else:
            retryable = isinstance(error, TransportError)
        return backoff(attempt, self.base_delay, self.max_delay) if retryable else None


def _has_status(error: HttpStatusError, statuses: frozenset[int]) -> bool:
    """Return whether the status of *error* is a server error, or one of *statuses*."""
    return error.status is not None and (error.status >= SERVER_ERRORS or error.status in statuses)


def backoff(attempt: int, base: float, cap: float) -> float:
    """Return the seconds of a back-off with full jitter: from 0 to the exponential step.

    The step is ``base * 2**(attempt - 1)`` seconds, at most *cap*. The delay is random over the
    whole step, because many clients would otherwise repeat their requests at the same time.
    """
    return random.uniform(0.0, min(cap, base * 2.0 ** min(attempt - 1, 60)))


def classify_failure(
    endpoint: Endpoint[object], error: PythpeerError, status: int | None
) -> PythpeerError:
    """Return the error to raise for a request to *endpoint* that failed with *error*.

    *status* is the HTTP status, ``None`` without a response. A failed read has no effect. A write
    that left, and whose response is neither the documented JSON nor an error message, may have
    happened: the result is an `OutcomeUnknownError`.
    """
    if endpoint.effect is Effect.READ:
        return error
    if isinstance(error, HttpStatusError):
        unknown = status is not None and status >= SERVER_ERRORS
    elif isinstance(error, TransportError):
        unknown = error.sent
    else:
        unknown = isinstance(error, (DecodeError, ResponseTooLargeError))
    if not unknown:
        return error
    text = str(error.args[0]) if error.args else ""
    return OutcomeUnknownError(
        f"{endpoint.unknown_outcome} ({text})", endpoint=error.endpoint, status=status
    )


def is_transient(error: PythpeerError) -> bool:
    """Return whether a stream waits this failure out, because it may pass without any change."""
    if isinstance(error, AccessDeniedError):
        return False
    if isinstance(error, StoreError):
        return error.transient
    if isinstance(error, RateLimitedError):
        return True
    if isinstance(error, HttpStatusError):
        return _has_status(error, STREAM_TRANSIENT_STATUSES)
    if isinstance(error, TransportError):
        return not error.untrusted
    return isinstance(error, (ApiError, DecodeError, ResponseTooLargeError))
