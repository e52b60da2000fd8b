"""What may be asked again, and after how long. Pure but for the dice.

Only reads are ever repeated. A write or a consuming read that may have happened ends as
`OutcomeUnknownError`, and it is the user who decides.
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
from .wire import Effect, check_integer, check_seconds

__all__ = ["Retry", "backoff", "classify_failure", "is_transient"]

STREAM_TRANSIENT_STATUSES: Final = frozenset({408, 425, 429})


class Retry(msgspec.Struct, frozen=True):
    """How often, and after how long, a failed read is tried again.

    ``attempts`` counts all of them, the first included. Before the n-th repetition a random time
    from 0 to ``base_delay * 2**(n - 1)`` seconds passes, at most ``max_delay``. ``max_delay`` also
    bounds the back-off inside streams, which never give up on transient failures.

    For another policy derive from it and override `delay`.
    """

    attempts: int = 4
    base_delay: float = 0.5
    max_delay: float = 30.0

    def __post_init__(self) -> None:
        check_integer("attempts", self.attempts, 1)
        check_seconds("base_delay", self.base_delay)
        check_seconds("max_delay", self.max_delay)

    def delay(self, error: PythpeerError, attempt: int) -> float | None:
        """Seconds to wait after the *attempt*-th try of a read failed, or ``None`` to give up.

        Transport failures, 5xx and 429 are worth another try. What a 429 asks for is waited out by
        the endpoint's limiter, on top of this.
        """
        if attempt >= self.attempts:
            return None
        if isinstance(error, HttpStatusError):
            retryable = error.status is not None and (error.status >= 500 or error.status == 429)
        else:
            retryable = isinstance(error, TransportError)
        return backoff(attempt, self.base_delay, self.max_delay) if retryable else None


def backoff(attempt: int, base: float, cap: float) -> float:
    """Full jitter: a random time up to the exponential step, in seconds.

    Spreading over the whole step is what keeps many clients from coming back together.
    """
    return random.uniform(0.0, min(cap, base * 2.0 ** min(attempt - 1, 60)))


def classify_failure(effect: Effect, error: PythpeerError, status: int | None) -> PythpeerError:
    """Tell the truth about a failed request of this *effect*, answered with *status* if at all.

    A read that failed, failed. A write that left, and was answered with anything but the documented
    JSON or a clear no, may have happened.
    """
    if effect is Effect.READ:
        return error
    if isinstance(error, HttpStatusError):
        unknown = status is not None and status >= 500
    elif isinstance(error, TransportError):
        unknown = error.sent
    else:
        unknown = isinstance(error, (DecodeError, ResponseTooLargeError))
    if not unknown:
        return error
    text = str(error.args[0]) if error.args else ""
    return OutcomeUnknownError(
        f"it may or may not have happened ({text})", endpoint=error.endpoint, status=status
    )


def is_transient(error: PythpeerError) -> bool:
    """Whether a stream waits this failure out: it may pass without anybody changing anything."""
    if isinstance(error, AccessDeniedError):
        return False
    if isinstance(error, StoreError):
        return error.transient
    if isinstance(error, RateLimitedError):
        return True
    if isinstance(error, HttpStatusError):
        return error.status is not None and (
            error.status >= 500 or error.status in STREAM_TRANSIENT_STATUSES
        )
    if isinstance(error, TransportError):
        return not error.untrusted
    return isinstance(error, (ApiError, DecodeError, ResponseTooLargeError))
