"""One answer as it came, and what can be said of any answer whatever was asked. Pure.

An answer's own words get no further than `redact` lets them.
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

from ..answers import NO_JSON, NoJson
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
from ..wire import Json
from .redact import describe_types, redact_words, type_name
from .report import Finding, Status

__all__ = ["Exchange", "common_findings", "failure_finding"]

SLOW_AFTER: Final = 5.0
"""Seconds from which on an answer is slow: bots feel it."""

MAX_CLOCK_SKEW: Final = 30.0
"""Seconds by which clocks may differ before certificates and dates suffer."""

HTML: Final = re.compile(rb"<(?:!doctype|html|head|body|script)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Exchange:
    """What came of one request."""

    name: str
    """What was asked, in a word or two; also what its sample is called."""

    endpoint: str
    result: object
    """What the models make of it: a value, or the error."""

    status: int | None = None
    """The HTTP status; ``None`` without an answer."""

    headers: Mapping[str, str] | None = None
    body: bytes = b""
    document: Json | NoJson = NO_JSON
    """The body as JSON, read leniently."""

    seconds: float = 0.0
    """How long it took, from the token to the last byte."""

    at: datetime | None = None
    """When it was here, by our clock."""

    # Not the generated one: it would show headers and body.
    def __repr__(self) -> str:
        return f"<Seen {self.name}>"

    @property
    def error(self) -> PythpeerError | None:
        """What it failed with."""
        return self.result if isinstance(self.result, PythpeerError) else None

    @property
    def is_api_error(self) -> bool:
        """Whether the service said no in its own words, and not a page in front of it."""
        return isinstance(self.result, ApiError) and not self.is_html

    @property
    def is_html(self) -> bool:
        """Whether it is a page for people in the place of an answer."""
        return self.document is NO_JSON and HTML.search(self.body[:4096]) is not None

    @property
    def error_text(self) -> str:
        """A refusal's words, as far as they can be shown."""
        said = self.result.message if isinstance(self.result, ApiError) else ""
        shown = redact_words(said)
        return f' ("{shown}", HTTP status {self.status})' if shown else f" (status {self.status})"


# -- failures -------------------------------------------------------------------------------------


def failure_finding(check: str, seen: Exchange) -> Finding:
    """Why there is no answer that the models could read, and what to do about it."""
    error = seen.error
    if isinstance(error, RateLimitedError):
        return _throttled(check, error)
    if seen.is_html:
        return _html_page(check, seen)
    text, advice = _explain(seen, error)
    # A refusal that is not about a key: a chat that is not opted in, for one.
    status = Status.WARNING if type(error) is ApiError else Status.PROBLEM
    return Finding(check, status, f"{seen.name}: {text}", advice)


def _throttled(check: str, error: RateLimitedError) -> Finding:
    when = "" if error.retry_after is None else f" for {error.retry_after:.0f} s"
    who = "the limiter lets nothing through" if error.status is None else "asked too often"
    return Finding(
        check,
        Status.WARNING,
        f"{who}{when}: not looked at any further",
        "run this again later; other programs with the same key count as well",
    )


def _html_page(check: str, seen: Exchange) -> Finding:
    return Finding(
        check,
        Status.PROBLEM,
        f"{seen.name}: a web page (HTTP status {seen.status}) in the place of JSON",
        "something stands between: log in to the network (a captive portal), or the service's own "
        "guard wants a browser; open its address in one to see which",
    )


def _explain(seen: Exchange, error: PythpeerError | None) -> tuple[str, str]:
    match error:
        case RequestTimeoutError():
            return "no whole answer within the time limit", "try again; the service may be busy"
        case TransportError():
            # One of the transport's own few sentences, without a word from the error behind it.
            return str(error.args[0]), "try again; if it stays so, something between is at fault"
        case ResponseTooLargeError():
            return f"the answer is over {error.limit} bytes", "raise max_body"
        case AccessDeniedError():
            return f"refused, over a key{seen.error_text}", "check the key, and what it may do"
        case ApiError():
            return f"refused{seen.error_text}", "see whether the words name the reason"
        case HttpStatusError(status=status) if status is not None and 300 <= status < 400:
            return _redirect(seen, status)
        case HttpStatusError(status=status) if status is not None and status >= 500:
            return f"HTTP status {status}: the service is in trouble", "try again later"
        case HttpStatusError(status=status):
            return f"HTTP status {status}", "check the service's address in the settings"
        case _ if seen.document is NO_JSON:
            empty = "an empty answer" if not seen.body.strip() else "no JSON, or damaged JSON"
            return empty, "try again; if it stays so, please report it"
        case _:
            found = seen.document
            what = type_name(found) if found in (None, [], {}) else describe_types(found)
            return (
                f"JSON of another shape than the models expect: {what}",
                "please report it, with a sample (--capture)",
            )


def _redirect(seen: Exchange, status: int) -> tuple[str, str]:
    """Redirects are never followed: the key would go where it leads."""
    try:
        host = urlsplit((seen.headers or {}).get("Location", "")).hostname
    except ValueError:
        host = None
    where = "to another host" if host else "elsewhere"
    advice = (
        "log in to the network if it asks for that; else put the service's new address in the "
        "settings (PYTHPEER_PEERBET_URL, PYTHPEER_PYTHBOTS_URL)"
    )
    return f"HTTP status {status}: sent on {where}, which is never followed", advice


# -- what is around the answers of one service ----------------------------------------------------


def common_findings(service: str, answers: Sequence[Exchange]) -> Iterator[Finding]:
    """Speed, clock, content type, and what is printed around the JSON."""
    heard = [seen for seen in answers if seen.status is not None]
    if not heard:
        return
    yield _check_speed(service, heard)
    yield _check_clock(service, heard)
    read = [seen for seen in heard if seen.document is not NO_JSON]
    if read:
        yield _check_content_type(service, read)
        yield _check_extra_output(service, read)


def _check_speed(service: str, heard: Sequence[Exchange]) -> Finding:
    slowest = max(heard, key=lambda seen: seen.seconds)
    text = f"the slowest answer of {len(heard)} took {slowest.seconds:.2f} s ({slowest.name})"
    if slowest.seconds < SLOW_AFTER:
        return Finding(f"{service}.speed", Status.OK, text)
    return Finding(
        f"{service}.speed",
        Status.WARNING,
        f"slow: {text}",
        "nothing is lost by it; if it stays so, give Session a longer timeout",
    )


def _check_clock(service: str, heard: Sequence[Exchange]) -> Finding:
    check = f"{service}.clock"
    offsets = [
        offset
        for seen in heard
        if (offset := _offset((seen.headers or {}).get("Date", ""), seen.at)) is not None
    ]
    if not offsets:
        return Finding(check, Status.NOTE, "the answers carry no date to compare clocks by")
    offset = min(offsets, key=abs)
    if abs(offset) <= MAX_CLOCK_SKEW:
        return Finding(check, Status.OK, f"within {MAX_CLOCK_SKEW:.0f} s of the service's")
    which = "ahead of" if offset > 0 else "behind"
    return Finding(
        check,
        Status.WARNING,
        f"this machine's clock is {abs(offset):.0f} s {which} the service's",
        "have the clock set by the network (NTP): certificates are judged by it",
    )


def _offset(date: str, at: datetime | None) -> float | None:
    """Seconds by which our clock is ahead of *date*."""
    try:
        theirs = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return None
    if at is None:
        return None
    theirs = theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)
    return (at - theirs).total_seconds()


def _check_content_type(service: str, read: Sequence[Exchange]) -> Finding:
    check = f"{service}.content-type"
    types = {
        (seen.headers or {}).get("Content-Type", "").partition(";")[0].strip().lower()
        for seen in read
    }
    if types == {"application/json"}:
        return Finding(check, Status.OK, "application/json")
    known = sorted(found for found in types if found in _TYPES)
    text = " and ".join([*known, *(["another"] if types - _TYPES else [])])
    return Finding(check, Status.NOTE, f"the JSON says that it is {text}: read all the same")


_TYPES: Final = frozenset({"application/json", "text/html", "text/plain", "text/json"})


def _check_extra_output(service: str, read: Sequence[Exchange]) -> Finding:
    check = f"{service}.around"
    marked = [seen for seen in read if seen.body.startswith(b"\xef\xbb\xbf")]
    printed = [
        seen for seen in read if not _is_plain(seen.body.removeprefix(b"\xef\xbb\xbf").strip())
    ]
    if printed:
        return Finding(
            check,
            Status.WARNING,
            f"{_bom_prefix(marked)}something is printed around or in the JSON that is no JSON "
            f"(PHP's warnings, or control characters), in {len(printed)} of {len(read)} answers",
            "it is looked past; whoever runs the service may want to know",
        )
    if marked:
        return Finding(check, Status.NOTE, "a byte-order mark before the JSON: looked past")
    return Finding(check, Status.OK, "the JSON is plain")


def _bom_prefix(marked: Sequence[Exchange]) -> str:
    return "a byte-order mark, and " if marked else ""


def _is_plain(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True
