"""Parsing of responses: status and body become a result or an error. Pure.

Errors are returned as values, and raised by a frame that holds neither body nor keys.

The services are written in PHP. Their JSON can be sent as ``text/html``, after a byte-order mark,
between PHP's warnings, and with control characters in its strings. Plain JSON takes the fast path.
Other bodies are parsed leniently, but always to their end, and no JSON is extracted from an HTML
page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

import msgspec

from ..errors import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    HttpStatusError,
    PythpeerError,
    RateLimitedError,
    Result,
)
from ..sanitize import printable
from .echoes import GetSecrets, GetTexts, mask_keys, without_texts
from .endpoints import AnswerTypeError, Effect, Endpoint
from .fields import as_list, to_int
from .lenient_json import (
    NO_JSON,
    WHITESPACE,
    NoJson,
    nests_too_deeply,
    parse_json,
    parse_shallow_json,
)
from .query import Json

__all__ = [
    "LONG_BODY",
    "MAX_EXCERPT",
    "GetSecrets",
    "decode_documented",
    "is_long",
    "parse_retry_after",
    "parse_undocumented",
    "try_parse_response",
]

T = TypeVar("T")

MAX_EXCERPT: Final = 200
"""Maximum number of characters of a body in an error."""

MAX_RETRY_AFTER: Final = 1e9
"""Seconds of a ``Retry-After`` at most; a longer one is read as this."""

MAX_CHECKED: Final = 1000
"""How many characters of an error message are checked to classify it."""

LONG_BODY: Final = 512 * 1024
"""Bytes of a body that `is_long`, whatever it has: they are searched in some milliseconds."""

MANY_VALUES: Final = 5000
"""How many values make a body long: on a slow machine they are parsed in some 50 milliseconds. A
documented page of 300 messages has about 2700."""

LONG_REQUEST_LINE: Final = 8000
"""Bytes of a request line from which an error names its length."""

WRONG_URL_STATUSES: Final = (404, 405, 410)
"""The statuses of servers that have nothing at a URL."""

LENGTH_STATUSES: Final = (400, 413, 414)
"""The statuses of servers that reject a request as too long."""


def _no_texts() -> Iterable[str]:
    return ()


def _no_size() -> int:
    return 0


def decode_documented(endpoint: Endpoint[T], status: int, body: bytes) -> T | None:
    """Return the result of a success in the documented form, where that is decoded quickly.

    ``None`` for all other responses, which `parse_undocumented` takes.
    """
    if not endpoint.decode_rejects_errors or not 200 <= status < 300:
        return None
    try:
        return endpoint.decode(body)
    except (ValueError, RecursionError):
        return None


def is_long(body: bytes) -> bool:
    """Return whether parsing *body* may take so long that the event loop should not wait for it."""
    if len(body) <= 2 * MANY_VALUES:  # each value has one byte, and a comma or a bracket
        return False
    return len(body) > LONG_BODY or sum(map(body.count, b",[{")) > MANY_VALUES


def try_parse_response(
    endpoint: Endpoint[T],
    status: int,
    body: bytes,
    secrets: GetSecrets,
    texts: GetTexts = _no_texts,
    size: Callable[[], int] = _no_size,
) -> Result[T]:
    """Return the result of a response, or the error that its status and its body mean.

    *secrets* returns the keys that an error must not show, *texts* the texts of the request: an
    error message that repeats them is understood without them. *size* returns the bytes of the
    request line.
    """
    documented = decode_documented(endpoint, status, body)
    if documented is not None:
        return documented
    return parse_undocumented(endpoint, status, body, secrets, texts, size)


def parse_undocumented(
    endpoint: Endpoint[T],
    status: int,
    body: bytes,
    secrets: GetSecrets,
    texts: GetTexts,
    size: Callable[[], int],
) -> Result[T]:
    """Do the same as `try_parse_response`, where `decode_documented` has returned ``None``."""
    if 200 <= status < 300:
        # Not before: `decode_documented` keeps no nested value, so what it skips may nest deeply.
        if nests_too_deeply(body):
            return _decode_error("the response is not JSON", endpoint, body, secrets)
        if not endpoint.decode_rejects_errors:
            try:
                result = endpoint.decode(body)
                if not _is_error(endpoint, result, body):
                    return result
            except (ValueError, RecursionError):
                pass  # the lenient parser distinguishes an error message from damage
        return _try_parse_leniently(endpoint, status, body, secrets, texts)
    message = None
    if 400 <= status < 500:
        value = parse_json(body)
        message = _error_text(value, status_means_success=True) or _message_field(value) or None
    if status == 429:
        text = _redacted_excerpt(message, secrets) if message else "too many requests"
        return RateLimitedError(text, endpoint=endpoint.name, status=status)
    if message is not None or status in (401, 403):
        return _api_error(endpoint, status, message or "", secrets, texts)
    text = f"HTTP status {status}{_status_advice(status, size)}"
    return HttpStatusError(text, endpoint=endpoint.name, status=status)


def _status_advice(status: int, size: Callable[[], int]) -> str:
    if status in LENGTH_STATUSES and (length := size()) > LONG_REQUEST_LINE:
        return f": the request line has {length} bytes, many servers take 8190; shorten the text"
    if 300 <= status < 400:
        return ": redirects are not followed, check the URL of the service"
    return ": check the URL of the service" if status in WRONG_URL_STATUSES else ""


def _try_parse_leniently(
    endpoint: Endpoint[T], status: int, body: bytes, secrets: GetSecrets, texts: GetTexts
) -> Result[T]:
    value = parse_shallow_json(body)
    message = _error_text(value, status_means_success=endpoint.status_means_success)
    if message is None and endpoint.any_status_is_error and not _is_success(value):
        message = _message_field(value) or None
    if message is not None and not (endpoint.effect is Effect.CONSUME and _has_items(value)):
        return _api_error(endpoint, status, message, secrets, texts)
    problem = "the response is not JSON"
    if value is not NO_JSON:
        try:
            return endpoint.convert(value)
        except AnswerTypeError as error:
            problem = str(error)
        except (ValueError, RecursionError):
            problem = "the response is not the documented JSON"
    return _decode_error(problem, endpoint, body, secrets)


def _decode_error(
    problem: str, endpoint: Endpoint[object], body: bytes, secrets: GetSecrets
) -> DecodeError:
    excerpt = _redacted_excerpt(body.decode("utf-8", "replace"), secrets)
    return DecodeError(problem, endpoint=endpoint.name, excerpt=excerpt)


# -- API errors -----------------------------------------------------------------------------------

_RATE_LIMIT_WORDS = re.compile(
    r"limit (?:is |was |has been )?(?:reached|exceeded)|rate.?limit|slow down"
    r"|too (?:many (?:requests|calls|queries|attempts)|fast|often|quickly)",
    re.IGNORECASE,
)
_ACCESS_WORDS = re.compile(
    r"\bkeys?\b|personal.?key|api.?key|\baccess\b|permission|credential|\btoken\b"
    r"|unauthori[sz]ed|authenticat|forbidden|denied|not allowed"
    r"|log(?:ged)?[ -]?in\b|sign(?:ed)?[ -]?in\b",
    re.IGNORECASE,
)
_FALSE_VALUES: Final = (0, "0", "false", "False", "error", "fail", "failed")
"""Values of ``status`` and ``success`` that mean an error; 0 is equal to ``False``."""

_ENVELOPE_FIELDS: Final = frozenset({"status", "success", "message", "error", "code"})
"""Fields of an error envelope; an object with any other field holds data."""


def _is_error(endpoint: Endpoint[object], result: object, body: bytes) -> bool:
    """Return whether a response that was decoded is an error envelope."""
    if not _may_be_error(result, body):
        return False
    document = msgspec.json.decode(body)
    return _error_text(document, status_means_success=endpoint.status_means_success) is not None


def _may_be_error(result: object, body: bytes) -> bool:
    """Return whether a decoded response must be checked for an error envelope.

    A type whose fields all have defaults accepts ``{"error": "no access"}`` silently.
    """
    if body.startswith(b"["):
        return False
    if b'"status"' in body and _has_status_1(result):
        return b'"error"' in body
    return b'"error"' in body or b'"message"' in body or b'"s' in body  # status, success


def _has_status_1(result: object) -> bool:
    try:
        return bool(getattr(result, "status", None) == 1)
    except Exception:  # noqa: BLE001  # a property can have code of the user
        return False


def _error_text(value: Json | NoJson, *, status_means_success: bool) -> str | None:
    """Return the error message if *value* is an error envelope, else ``None``.

    Peerbet's envelope has ``status`` 0 and a ``message``, that of PythBots an ``error`` string.
    """
    if not isinstance(value, dict):
        return None
    error, status = value.get("error"), value.get("status")
    if status == 1 and not error and "success" not in value:
        return None
    message = _message_field(value) or "rejected without an error message"
    if isinstance(error, str) and error not in ("", "0", "false"):
        return error
    if error and not isinstance(error, str):
        return message
    if status in _FALSE_VALUES or value.get("success", True) in _FALSE_VALUES:
        return message if status_means_success or value.keys() <= _ENVELOPE_FIELDS else None
    # The sign-in call of Peerbet's family rejects with a ``message`` and no other field.
    return message if status_means_success and value.keys() == {"message"} else None


def _has_items(value: Json | NoJson) -> bool:
    """Return whether an error envelope has a list of objects as well as the error message.

    A destructive read will not return them again.
    """
    if not isinstance(value, dict):
        return False
    lists = (as_list(value[field]) or () for field in value.keys() - _ENVELOPE_FIELDS)
    return any(isinstance(item, dict) for items in lists for item in items)


def _is_success(value: Json | NoJson) -> bool:
    return isinstance(value, dict) and to_int(value.get("status")) == 1


def _message_field(value: Json | NoJson) -> str:
    """Return the object's ``message`` if it is text, else an empty string."""
    message = value.get("message") if isinstance(value, dict) else None
    return message if isinstance(message, str) else ""


def _api_error(
    endpoint: Endpoint[object], status: int, message: str, secrets: GetSecrets, texts: GetTexts
) -> PythpeerError:
    shown = _redacted_excerpt(message, secrets)
    words = message[:MAX_CHECKED]
    if _RATE_LIMIT_WORDS.search(words) or _ACCESS_WORDS.search(words):
        # Otherwise the name of a user could decide which error it is: "no user 'slow down'".
        words = without_texts(words, texts())
    if _RATE_LIMIT_WORDS.search(words):
        return RateLimitedError(shown, endpoint=endpoint.name, status=status)
    text = shown or f"HTTP status {status}"
    if shown and status in WRONG_URL_STATUSES:
        # Another program at that address may respond with JSON as well.
        text = f"{shown} (HTTP status {status}: unless the service means that, check its URL)"
    if not (status in (401, 403) or _ACCESS_WORDS.search(words)):
        return ApiError(text, endpoint=endpoint.name, message=shown, status=status)
    if endpoint.denied_hint:
        text = f"{text} ({endpoint.denied_hint})"
    return AccessDeniedError(text, endpoint=endpoint.name, message=shown, status=status)


# -- excerpts for errors --------------------------------------------------------------------------


def _redacted_excerpt(text: str, secrets: GetSecrets) -> str:
    """Return the printable beginning of *text*, with every key replaced."""
    masked = mask_keys(text.lstrip(WHITESPACE), secrets, MAX_EXCERPT)
    return printable(masked.strip(WHITESPACE)).strip()


# -- Retry-After ----------------------------------------------------------------------------------


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a ``Retry-After`` header, or ``None`` without a valid one.

    The value can be seconds, with or without a fraction, or an HTTP date. A date is compared with
    the ``Date`` of the response, so that the clocks need not agree. (RFC 9110, section 10.2.3)
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", value):
        return min(float(value), MAX_RETRY_AFTER)
    due = _http_date(value)
    if due is None:
        return None
    now = _http_date(headers.get("Date", "")) or datetime.now(UTC)
    return min(max(0.0, (due - now).total_seconds()), MAX_RETRY_AFTER)


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
