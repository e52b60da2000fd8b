"""Retry policy: what is repeated, after how long, and the outcome of a failed request."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythpeer import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    Effect,
    Endpoint,
    GapError,
    HttpStatusError,
    InvalidRequestError,
    OutcomeUnknownError,
    PythpeerError,
    RateLimitedError,
    RequestTimeoutError,
    ResponseTooLargeError,
    Retry,
    SessionClosedError,
    StoreError,
    TransportError,
)
from pythpeer.retry import backoff, classify_failure, is_transient
from pythpeer.wire.responses import try_parse_response

NAME = "pythbots.mail"


def errors() -> dict[str, PythpeerError]:
    """One error of each kind that a request can fail with, and those that it cannot."""
    return {
        "never left": TransportError("x", endpoint=NAME, sent=False),
        "untrusted": TransportError("x", endpoint=NAME, sent=False, untrusted=True),
        "dropped": TransportError("x", endpoint=NAME, sent=True),
        "timed out before": RequestTimeoutError("x", endpoint=NAME, sent=False),
        "timed out": RequestTimeoutError("x", endpoint=NAME, sent=True),
        "500": HttpStatusError("x", endpoint=NAME, status=500),
        "503": HttpStatusError("x", endpoint=NAME, status=503),
        "599": HttpStatusError("x", endpoint=NAME, status=599),
        "302": HttpStatusError("x", endpoint=NAME, status=302),
        "404": HttpStatusError("x", endpoint=NAME, status=404),
        "408": HttpStatusError("x", endpoint=NAME, status=408),
        "425": HttpStatusError("x", endpoint=NAME, status=425),
        "499": HttpStatusError("x", endpoint=NAME, status=499),
        "429": RateLimitedError("x", endpoint=NAME, status=429, retry_after=1.0),
        "limit in words": RateLimitedError("x", endpoint=NAME, status=200),
        "no token in time": RateLimitedError("x", endpoint=NAME, retry_after=99.0),
        "garbage": DecodeError("x", endpoint=NAME, excerpt="<html>"),
        "too large": ResponseTooLargeError("x", endpoint=NAME, limit=1),
        "refused": ApiError("x", endpoint=NAME, message="x", status=200),
        "no access": AccessDeniedError("x", endpoint=NAME, message="x", status=200),
        "403": AccessDeniedError("x", endpoint=NAME, status=403),
        "invalid": InvalidRequestError("x", endpoint=NAME),
        "gap": GapError("x", endpoint=NAME, after=1, before=9),
        "closed": SessionClosedError("x", endpoint=NAME),
        "store": StoreError("x", endpoint=NAME),
        "unknown": OutcomeUnknownError("x", endpoint=NAME),
    }


def outcome_of(effect: Effect, error: PythpeerError) -> PythpeerError:
    """Return the outcome of a request that failed so, with the status of the response, if any."""
    endpoint: Endpoint[dict[str, object]] = Endpoint(NAME, "https://example.com", effect=effect)
    if isinstance(error, DecodeError):
        return classify_failure(endpoint, error, 200)
    return classify_failure(endpoint, error, getattr(error, "status", None))


# -- the policy -----------------------------------------------------------------------------------


def test_the_defaults() -> None:
    """Four attempts in all, delays from half a second, up to half a minute."""
    assert Retry() == Retry(attempts=4, base_delay=0.5, max_delay=30.0)


@pytest.mark.parametrize(
    "value", [-1, -0.5, math.nan, math.inf, 10**400, True, "1", None], ids=lambda v: str(v)[:8]
)
@pytest.mark.parametrize("field", ["base_delay", "max_delay"])
def test_delays_are_numbers_of_seconds(field: str, value: Any) -> None:
    """Finite, not negative, and not a boolean."""
    wrong: dict[str, Any] = {field: value}
    with pytest.raises(InvalidRequestError, match=f"^{field} must be "):
        Retry(**wrong)


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "4", None])
def test_attempts_are_a_whole_number(value: Any) -> None:
    """The first attempt counts, so there is at least one."""
    with pytest.raises(InvalidRequestError, match=r"^attempts must be "):
        Retry(attempts=value)


def test_a_policy_is_a_value() -> None:
    """It can be compared, and cannot be changed."""
    policy = Retry(attempts=1, base_delay=0, max_delay=0)
    assert policy == Retry(1, 0, 0)
    with pytest.raises(AttributeError):
        policy.attempts = 9  # type: ignore[misc]


RETRIED = {
    "never left", "untrusted", "dropped", "timed out before", "timed out",
    "500", "503", "599", "429",
}  # fmt: skip
NEVER_ASKED = {"unknown", "limit in words"}
"""A read has no unknown outcome; for an error message about a limit, the contract says nothing."""


@pytest.mark.parametrize("case", sorted(errors().keys() - NEVER_ASKED))
def test_what_is_repeated(case: str) -> None:
    """Transport errors, 5xx and 429, and no error that would only occur again."""
    delay = Retry().delay(errors()[case], 1)
    assert (delay is not None) is (case in RETRIED)


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_attempts_count_the_first(attempts: int) -> None:
    """``attempts=1`` means no repetition."""
    policy = Retry(attempts=attempts)
    error = errors()["503"]
    delays = [policy.delay(error, attempt) for attempt in range(1, attempts + 2)]
    assert [delay is not None for delay in delays] == [True] * (attempts - 1) + [False, False]


@given(
    st.integers(1, 10_000),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)
def test_a_delay_is_within_its_step(attempt: int, base: float, cap: float) -> None:
    """From 0 to ``base_delay * 2**(n - 1)``, at most ``max_delay``, however many attempts."""
    delay = Retry(20_000, base, cap).delay(errors()["503"], attempt)
    assert delay is not None
    step = math.ldexp(base, attempt - 1) if attempt < 900 else math.inf if base else 0.0
    assert 0.0 <= delay <= min(cap, step)


@pytest.mark.parametrize(("attempt", "step"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (9, 30.0)])
def test_jitter_is_full(attempt: int, step: float) -> None:
    """Delays are spread evenly over the whole step, so that many clients do not return together."""
    random.seed(1)
    delays = [backoff(attempt, 0.5, 30.0) for _ in range(2000)]
    assert 0.0 <= min(delays) < 0.01 * step
    assert 0.99 * step < max(delays) <= step
    assert sum(delays) / len(delays) == pytest.approx(step / 2, rel=0.05)


def test_another_policy_is_a_subclass() -> None:
    """`Retry.delay` can be overridden."""

    class AlwaysRetry(Retry, frozen=True):
        def delay(self, error: PythpeerError, attempt: int) -> float | None:
            return 1.0

    assert AlwaysRetry().delay(errors()["404"], 99) == 1.0
    with pytest.raises(InvalidRequestError):
        AlwaysRetry(attempts=0)


# -- outcomes -------------------------------------------------------------------------------------

UNKNOWN: dict[str, int | None] = {
    "dropped": None,
    "timed out": None,
    "500": 500,
    "503": 503,
    "599": 599,
}
"""Errors after which the outcome of a write is unknown, with the status."""

UNKNOWN_TOO = {"garbage", "too large"}
"""A response, but not the documented one."""


@pytest.mark.parametrize("case", errors())
def test_a_failed_read_is_a_failure(case: str) -> None:
    """It changed nothing, so its outcome is known."""
    error = errors()[case]
    assert outcome_of(Effect.READ, error) is error


@pytest.mark.parametrize("effect", [Effect.WRITE, Effect.CONSUME])
@pytest.mark.parametrize("case", sorted(errors().keys() - {"unknown"}))
def test_what_may_have_happened_is_unknown(case: str, effect: Effect) -> None:
    """Connection broken, time-out, 5xx, no JSON: such a request may have happened."""
    error = errors()[case]
    seen = outcome_of(effect, error)
    if case not in UNKNOWN.keys() | UNKNOWN_TOO:
        assert seen is error
        return
    assert type(seen) is OutcomeUnknownError
    assert seen.endpoint == NAME
    assert seen.sent is True
    assert "x" in str(seen)
    if case in UNKNOWN:
        assert seen.status == UNKNOWN[case]


@pytest.mark.parametrize("status", [200, 202, 206])
def test_an_unknown_outcome_keeps_the_status(status: int) -> None:
    """``.status`` is the status of the response that was not the documented JSON."""
    endpoint: Endpoint[dict[str, object]] = Endpoint(
        "mine", "https://example.com", effect=Effect.WRITE
    )
    error = try_parse_response(endpoint, status, b"<html>", list)
    assert isinstance(error, DecodeError)
    seen = classify_failure(endpoint, error, status)
    assert isinstance(seen, OutcomeUnknownError)
    assert seen.status == status


def test_an_unknown_outcome_names_the_request() -> None:
    """Reading and sending mail are one endpoint, and the log shows which one it was."""
    dropped = errors()["dropped"]
    assert "the write may or may not have happened (x)" in str(outcome_of(Effect.WRITE, dropped))
    assert "the destructive read may or" in str(outcome_of(Effect.CONSUME, dropped))


def test_an_unknown_outcome_hides_its_cause() -> None:
    """It is made from scalars: no cause, no context, no excerpt."""
    error = outcome_of(Effect.WRITE, errors()["garbage"])
    assert set(vars(error)) == {"endpoint", "sent", "status", "untrusted"}
    assert error.__cause__ is None
    assert error.__context__ is None


# -- what streams wait out ------------------------------------------------------------------------

WAITED_OUT = {
    "never left": True,
    "dropped": True,
    "timed out before": True,
    "timed out": True,
    "500": True,
    "503": True,
    "599": True,
    "408": True,
    "425": True,
    "429": True,
    "limit in words": True,
    "no token in time": True,
    "garbage": True,
    "too large": True,
    "refused": True,
    "unknown": True,
    "untrusted": False,
    "no access": False,
    "403": False,
    "302": False,
    "404": False,
    "499": False,
    "invalid": False,
    "gap": False,
    "closed": False,
    "store": False,
}


@pytest.mark.parametrize("case", errors())
def test_what_streams_wait_out(case: str) -> None:
    """Failures that may pass without any change; not a rejected key or certificate."""
    assert is_transient(errors()[case]) is WAITED_OUT[case]
