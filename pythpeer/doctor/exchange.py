"""`Exchange`: one request and its response; and the checks that apply to every response. Pure.

Texts of a response are shown only as far as `redact` allows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from ..errors import (
    AccessDeniedError,
    ApiError,
    HttpStatusError,
    PythpeerError,
    RateLimitedError,
    RequestTimeoutError,
    ResponseTooLargeError,
    TransportError,
)
from ..misuse import tolerant_repr
from ..wire.lenient_json import NO_JSON, NoJson
from ..wire.query import Json
from .redact import NOTHING_HIDDEN, Hidden, describe_types, redact_words, type_name
from .report import Finding, Status

__all__ = ["Exchange", "common_findings", "failure_finding"]

SLOW_AFTER: Final = 5.0
"""Seconds from which a response counts as slow."""

MAX_CLOCK_SKEW: Final = 30.0
"""Seconds by which the clocks may differ without an effect on certificates and dates."""

HTML: Final = re.compile(rb"<(?:!doctype|html|head|body|script)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Exchange:
    """One request and its response, or the failure of it."""

    name: str
    """What was requested, in a word or two; also the name of its sample."""

    endpoint: str
    """The name of the endpoint."""

    result: object
    """The decoded result, or the error."""

    status: int | None = None
    """The HTTP status; ``None`` without a response."""

    headers: Mapping[str, str] | None = None
    """The headers of the response."""

    body: bytes = b""
    """The body as received."""

    document: Json | NoJson = NO_JSON
    """The body as JSON, parsed leniently."""

    seconds: float = 0.0
    """Seconds from the token to the last byte."""

    at: datetime | None = None
    """When the response was complete, by this machine's clock."""

    hidden: Hidden = NOTHING_HIDDEN
    """What must not be shown of the response."""

    # The generated one would show headers and body.
    @tolerant_repr
    def __repr__(self) -> str:
        return f"<Exchange {self.name}>"

    @property
    def error(self) -> PythpeerError | None:
        """The error, ``None`` if it succeeded."""
        return self.result if isinstance(self.result, PythpeerError) else None

    @property
    def is_api_error(self) -> bool:
        """Whether the response is an API error of the service, not a web page."""
        return isinstance(self.result, ApiError) and not self.is_html

    @property
    def is_html(self) -> bool:
        """Whether the response is a web page instead of JSON."""
        return self.document is NO_JSON and HTML.search(self.body[:4096]) is not None

    @property
    def error_text(self) -> str:
        """The text of an API error as far as it can be shown, and the HTTP status."""
        message = self.result.message if isinstance(self.result, ApiError) else ""
        shown = redact_words(message, self.hidden)
        return f' ("{shown}", HTTP status {self.status})' if shown else f" (status {self.status})"


# -- failures -------------------------------------------------------------------------------------


def failure_finding(check: str, seen: Exchange) -> Finding:
    """Return why there is no readable response, and what to do about it."""
    error = seen.error
    if isinstance(error, RateLimitedError):
        return _throttled(check, error)
    if seen.is_html:
        return _html_page(check, seen)
    text, advice = _explain(seen, error)
    # An API error without a relation to a key, such as a chat that is not opted in, is a warning.
    status = Status.WARNING if type(error) is ApiError else Status.PROBLEM
    return Finding(check, status, f"{seen.name}: {text}", advice)


def _throttled(check: str, error: RateLimitedError) -> Finding:
    duration = "" if error.retry_after is None else f" for {error.retry_after:.0f} s"
    reason = "the limiter has no token" if error.status is None else "throttled by the service"
    return Finding(
        check,
        Status.WARNING,
        f"{reason}{duration}: not checked further",
        "run this again later; other programs with the same key count as well",
    )


def _html_page(check: str, seen: Exchange) -> Finding:
    return Finding(
        check,
        Status.PROBLEM,
        f"{seen.name}: a web page (HTTP status {seen.status}) instead of JSON",
        "something intercepts requests: a network that requires a login (captive portal), or the "
        "service's protection against bots; open its address in a browser to find out",
    )


def _explain(seen: Exchange, error: PythpeerError | None) -> tuple[str, str]:
    match error:
        case RequestTimeoutError():
            return (
                "no complete response within the time limit",
                "try again; the service may be busy",
            )
        case TransportError():
            # One of the transport's own texts, which contains nothing of the error that caused it.
            return str(error.args[0]), "try again; if it persists, the network is the cause"
        case ResponseTooLargeError():
            return f"the response has more than {error.limit} bytes", "raise max_body"
        case AccessDeniedError():
            return f"access denied{seen.error_text}", "check the key, and its permissions"
        case ApiError():
            return f"API error{seen.error_text}", "its text may name the reason"
        case HttpStatusError(status=status) if status is not None and 300 <= status < 400:
            return _redirect(seen, status)
        case HttpStatusError(status=status) if status is not None and status >= 500:
            return f"HTTP status {status}: the service has a failure", "try again later"
        case HttpStatusError(status=status):
            return f"HTTP status {status}", "check the service's address in the settings"
        case _ if seen.document is NO_JSON:
            text = "no JSON, or damaged JSON" if seen.body.strip() else "an empty response"
            return text, "try again; if it persists, please report it"
        case _:
            is_empty = seen.document in (None, [], {})
            types = (
                type_name(seen.document) if is_empty else describe_types(seen.document, seen.hidden)
            )
            return (
                f"JSON of an unexpected shape: {types}",
                "please report it, with a sample (--capture)",
            )


def _redirect(seen: Exchange, status: int) -> tuple[str, str]:
    """Explain a redirect, which is never followed because its target would receive the key."""
    try:
        host = urlsplit((seen.headers or {}).get("Location", "")).hostname
    except ValueError:
        host = None
    target = "another host" if host else "another address"
    advice = (
        "log in to the network if it requires that; otherwise set the service's new address in the "
        "settings (PYTHPEER_PEERBET_URL, PYTHPEER_PYTHBOTS_URL)"
    )
    return f"HTTP status {status}: redirect to {target}, not followed", advice


# -- all responses of one service ----------------------------------------------------


def common_findings(service: str, exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """Check speed, clock, content type, and output around the JSON."""
    answered = [seen for seen in exchanges if seen.status is not None]
    if not answered:
        return
    yield _check_speed(service, answered)
    yield _check_clock(service, answered)
    read = [seen for seen in answered if seen.document is not NO_JSON]
    if read:
        yield _check_content_type(service, read)
        yield _check_extra_output(service, read)


def _check_speed(service: str, answered: Sequence[Exchange]) -> Finding:
    slowest = max(answered, key=lambda seen: seen.seconds)
    text = f"the slowest response of {len(answered)} took {slowest.seconds:.2f} s ({slowest.name})"
    if slowest.seconds < SLOW_AFTER:
        return Finding(f"{service}.speed", Status.OK, text)
    return Finding(
        f"{service}.speed",
        Status.WARNING,
        f"slow: {text}",
        "nothing is lost by that; if it persists, give Session a longer timeout",
    )


def _check_clock(service: str, answered: Sequence[Exchange]) -> Finding:
    check = f"{service}.clock"
    dates = [((seen.headers or {}).get("Date", ""), seen.at) for seen in answered]
    offsets = [offset for date, at in dates for offset in _offset(date, at)]
    if not offsets:
        return Finding(check, Status.NOTE, "the responses have no date to compare clocks with")
    offset = min(offsets, key=abs)
    if abs(offset) <= MAX_CLOCK_SKEW:
        return Finding(
            check, Status.OK, f"differs from the service's by less than {MAX_CLOCK_SKEW:.0f} s"
        )
    relation = "ahead of" if offset > 0 else "behind"
    return Finding(
        check,
        Status.WARNING,
        f"this machine's clock is {abs(offset):.0f} s {relation} the service's",
        "set the clock by the network (NTP), because certificates depend on it",
    )


def _offset(date: str, at: datetime | None) -> Sequence[float]:
    """Return the seconds by which *at* is ahead of *date*; empty if either is unknown."""
    try:
        sent = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return ()
    if at is None:
        return ()
    sent = sent if sent.tzinfo else sent.replace(tzinfo=UTC)
    return ((at - sent).total_seconds(),)


def _check_content_type(service: str, read: Sequence[Exchange]) -> Finding:
    check = f"{service}.content-type"
    types = {
        (seen.headers or {}).get("Content-Type", "").partition(";")[0].strip().lower()
        for seen in read
    }
    if types == {"application/json"}:
        return Finding(check, Status.OK, "Content-Type is application/json")
    names = sorted(types & _TYPES)
    if types - _TYPES:
        names.append("another type")
    return Finding(check, Status.NOTE, f"Content-Type is {' and '.join(names)}: accepted")


_TYPES: Final = frozenset({"application/json", "text/html", "text/plain", "text/json"})
"""The types that are shown by name."""


def _check_extra_output(service: str, read: Sequence[Exchange]) -> Finding:
    check = f"{service}.around"
    with_bom = [seen for seen in read if seen.body.startswith(b"\xef\xbb\xbf")]
    with_output = [
        seen for seen in read if not _is_plain(seen.body.removeprefix(b"\xef\xbb\xbf").strip())
    ]
    if with_output:
        return Finding(
            check,
            Status.WARNING,
            f"{_bom_prefix(with_bom)}output that is not JSON around or in it (PHP's warnings, or "
            f"control characters), in {len(with_output)} of {len(read)} responses",
            "it is ignored; report it to the operator of the service",
        )
    if with_bom:
        return Finding(check, Status.NOTE, "a byte-order mark before the JSON: ignored")
    return Finding(check, Status.OK, "the responses contain nothing but JSON")


def _bom_prefix(with_bom: Sequence[Exchange]) -> str:
    return "a byte-order mark, and " if with_bom else ""


def _is_plain(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True
