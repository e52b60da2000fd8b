"""Errors: their base classes and their attributes."""

from __future__ import annotations

from typing import assert_type

from pythpeer import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    GapError,
    HttpStatusError,
    InvalidRequestError,
    MissingKeyError,
    OutcomeUnknownError,
    PythpeerError,
    RateLimitedError,
    RequestTimeoutError,
    ResponseTooLargeError,
    Session,
    SessionClosedError,
    StoreError,
    TransportError,
)
from pythpeer.testing import FakeServices, Fault


async def catch_all_errors(session: Session, fake: FakeServices) -> None:
    fake.faults.always("peerbet.chat.set", Fault.drop())
    try:
        await session.peerbet.post("hello")
    except OutcomeUnknownError as error:
        assert_type(error.status, int | None)
        assert_type(error.sent, bool)
    except AccessDeniedError as error:
        assert_type(error.message, str)
    except ApiError as error:
        assert_type(error.message, str)
        assert_type(error.status, int | None)
    except RateLimitedError as error:
        assert_type(error.retry_after, float | None)
    except PythpeerError as error:
        assert_type(error.endpoint, str | None)


async def match_errors() -> None:
    def transport(error: TransportError | RequestTimeoutError | OutcomeUnknownError) -> None:
        assert_type(error.sent, bool)
        assert_type(error.untrusted, bool)

    def status(error: HttpStatusError | RateLimitedError | ApiError) -> None:
        assert_type(error.status, int | None)

    value: ValueError = InvalidRequestError("a bad argument")
    missing: InvalidRequestError = MissingKeyError("posting needs a key")
    late: TimeoutError = RequestTimeoutError("too late", sent=False)
    base: list[PythpeerError] = [
        TransportError("no connection", endpoint="mine", sent=False),
        OutcomeUnknownError("it may have happened", sent=True, status=502),
        HttpStatusError("HTTP status 404", status=404),
        RateLimitedError("too many requests", status=429, retry_after=3.0),
        ApiError("no", message="no", status=200),
        AccessDeniedError("no access", message="no access", status=403),
        SessionClosedError("closed"),
        missing,
        StoreError("the disk is full"),
    ]
    assert_type(DecodeError("not JSON", excerpt="<html>").excerpt, str)
    assert_type(ResponseTooLargeError("too large", limit=1024).limit, int | None)
    assert_type(GapError("a gap", after=1, before=3).after, int)
    assert_type(GapError("a gap", after=1, before=3).before, int)
    transport(RequestTimeoutError("too late"))
    status(ApiError("no"))
    assert all(map(str, [value, late, *base]))
