"""What comes off the wire: status and bytes become an answer, or the error that says why not.

Pure. Errors come back as values: they are raised by a frame that holds neither body nor keys.

The services are PHP: their JSON comes as ``text/html``, after a byte-order mark, between PHP's own
warnings, with control characters in its strings. Plain JSON takes the fast path; what that refuses
is read leniently, but always to the end of the body, and an HTML page is never mined for JSON.
"""

from __future__ import annotations

import enum
import html
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar
from urllib.parse import quote, quote_plus

import msgspec

from .errors import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    HttpStatusError,
    PythpeerError,
    RateLimitedError,
)
from .secret import Secret
from .wire import Endpoint, Json

__all__ = ["canonical_json", "parse_date", "parse_json", "try_parse_response", "parse_retry_after"]

T = TypeVar("T")

MAX_EXCERPT: Final = 200
"""How many characters of a body an error may show."""


GetSecrets = Callable[[], Iterable[Secret]]


def try_parse_response(
    endpoint: Endpoint[T], status: int, body: bytes, secrets: GetSecrets
) -> T | PythpeerError:
    """Read the answer to a call: its value, or the error that the status and the body amount to.

    *secrets* gives the keys that must not show in an error.
    """
    if 200 <= status < 300:
        status_means_success = endpoint.status_means_success
        try:
            if _nests_too_deeply(body):
                raise RecursionError  # noqa: TRY301  # as a decoder does where its stack ends
            answer = endpoint.decode(body)
            if endpoint.decode_rejects_errors or not _may_be_error(answer, body):
                return answer
            if (
                _error_text(msgspec.json.decode(body), status_means_success=status_means_success)
                is None
            ):
                return answer
        except (ValueError, RecursionError):
            pass  # the lenient way says whether this is a refusal, damage or garbage
        return _try_parse_leniently(endpoint, status, body, secrets)
    refusal = None
    if 400 <= status < 500:
        value = parse_json(body)
        refusal = _error_text(value, status_means_success=True) or _message_field(value) or None
    if status == 429:
        text = _redacted_excerpt(refusal, secrets) if refusal else "too many requests"
        return RateLimitedError(text, endpoint=endpoint.name, status=status)
    if refusal is not None or status in (401, 403):
        return _api_error(endpoint.name, status, _redacted_excerpt(refusal or "", secrets))
    return HttpStatusError(f"HTTP status {status}", endpoint=endpoint.name, status=status)


def _try_parse_leniently(
    endpoint: Endpoint[T], status: int, body: bytes, secrets: GetSecrets
) -> T | PythpeerError:
    value = parse_json(body)
    refusal = _error_text(value, status_means_success=endpoint.status_means_success)
    if refusal is not None:
        return _api_error(endpoint.name, status, _redacted_excerpt(refusal, secrets))
    fault = "the answer is not JSON"
    if value is not NO_JSON:
        try:
            return endpoint.convert(value)
        except (ValueError, RecursionError):
            fault = "the answer is not the documented JSON"
    excerpt = _redacted_excerpt(body.decode("utf-8", "replace"), secrets)
    return DecodeError(fault, endpoint=endpoint.name, excerpt=excerpt)


# -- refusals -------------------------------------------------------------------------------------

_RATE_LIMIT_WORDS = re.compile(
    r"limit (?:is |was |has been )?(?:reached|exceeded)|rate.?limit|slow down"
    r"|too (?:many (?:requests|calls|queries|attempts)|fast|often|quickly)",
    re.IGNORECASE,
)
_ACCESS_WORDS = re.compile(
    r"\bkeys?\b|personal.?key|api.?key|\baccess\b|permission|credential|\btoken\b"
    r"|unauthori[sz]ed|authenticat|forbidden|denied|not allowed|logged? ?in",
    re.IGNORECASE,
)
_FALSE_VALUES: Final = (0, "0", "false", "False", "error", "fail", "failed")
"""How ``status`` and ``success`` say no; 0 stands for False as well."""

_ENVELOPE_FIELDS: Final = frozenset({"status", "success", "message", "error", "code"})


def _may_be_error(answer: object, body: bytes) -> bool:
    """Whether an answer that could be decoded has to be looked at for an error envelope.

    A type whose fields all have defaults takes ``{"error": "no access"}`` without a murmur.
    """
    if body.startswith(b"["):
        return False
    if b'"status"' in body and getattr(answer, "status", None) == 1:
        return b'"error"' in body
    return b'"error"' in body or b'"message"' in body or b'"s' in body  # status, success


def _error_text(value: Json | NoJson, *, status_means_success: bool) -> str | None:
    """The service's own words if *found* is its error envelope, else ``None``.

    Peerbet says no with ``status`` 0 and a ``message``, PythBots with an ``error`` string.
    """
    if not isinstance(value, dict):
        return None
    error, status = value.get("error"), value.get("status")
    if status == 1 and not error and "success" not in value:
        return None
    message = _message_field(value) or "refused without a reason"
    if isinstance(error, str) and error not in ("", "0", "false"):
        return error
    if error and not isinstance(error, str):
        return message
    if status in _FALSE_VALUES or value.get("success", True) in _FALSE_VALUES:
        return message if status_means_success or value.keys() <= _ENVELOPE_FIELDS else None
    # The sign-in call of Peerbet's family says no by a message alone.
    return message if status_means_success and value.keys() == {"message"} else None


def _message_field(value: Json | NoJson) -> str:
    """The words of the object's ``message``, or none."""
    message = value.get("message") if isinstance(value, dict) else None
    return message if isinstance(message, str) else ""


def _api_error(endpoint: str, status: int, message: str) -> PythpeerError:
    if _RATE_LIMIT_WORDS.search(message):
        return RateLimitedError(message, endpoint=endpoint, status=status)
    denied = status in (401, 403) or _ACCESS_WORDS.search(message)
    kind = AccessDeniedError if denied else ApiError
    text = message or f"HTTP status {status}"
    return kind(text, endpoint=endpoint, message=message, status=status)


# -- lenient JSON ---------------------------------------------------------------------------------


MAX_NESTING: Final = 500
"""How many arrays and objects may be open at once in a response; documented ones have three.

Without a limit here it would be where the decoder's stack ends. That differs between Pythons, and
3.14 decodes values so deep that comparing or printing them takes seconds.
"""

_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{\]}]', re.DOTALL)


def _nests_too_deeply(body: bytes) -> bool:
    if body.count(b"[") + body.count(b"{") <= MAX_NESTING:
        return False
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(body):
        token = match.group()
        if token in b"[{":
            depth += 1
            if depth > MAX_NESTING:
                return True
        elif token in b"]}":
            depth -= 1
    return False


class NoJson(enum.Enum):
    """The type of `NOTHING`."""

    NOTHING = "NOTHING"


NO_JSON: Final = NoJson.NOTHING
"""What `document` returns where there is no JSON; ``None`` is JSON's null."""

_WHITESPACE: Final = "\ufeff\0 \t\r\n"
_HTML_TAG = re.compile(r"</?(?:!doctype|html|head|body|title|script|\?xml)\b", re.IGNORECASE)
_PHP = r"(?:PHP\s+)?(?:Warning|Notice|Deprecated|Strict Standards|Fatal error|Parse error)"
_DIAGNOSTICS = re.compile(rf"\s*(?:<[^>]*>\s*)*{_PHP}(?:</b>)?\s*:", re.IGNORECASE)
_JSON_START = re.compile(r"\bon line (?:<b>)?[0-9]+(?:</b>)?(?:<br ?/?>)?[\ufeff\s]*(?=[\[{])")
_MAX_STARTS: Final = 8
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(body: bytes) -> Json | NoJson:
    """Read a body as JSON, leniently; `NOTHING` where there is none.

    Looks past byte-order marks, invalid UTF-8, lone surrogates, raw control characters in strings,
    and PHP's diagnostics before and after. The JSON must reach to the end of the body: otherwise
    the ``[]`` inside a broken document would read as "nothing new".
    """
    text = body.decode("utf-8", "replace").strip(_WHITESPACE)
    if not text or _nests_too_deeply(body):
        return NO_JSON
    decoder = json.JSONDecoder(strict=False, parse_constant=_reject_constant)
    if not _DIAGNOSTICS.match(text):
        return _decode_whole(decoder, text, 0)
    for attempt, found in enumerate(_JSON_START.finditer(text)):
        if attempt == _MAX_STARTS or _HTML_TAG.search(text, 0, found.end()):
            break
        value = _decode_whole(decoder, text, found.end())
        if value is not NO_JSON:
            return value
    return NO_JSON


def _decode_whole(decoder: json.JSONDecoder, text: str, start: int) -> Json | NoJson:
    """Decode the JSON at *start* if nothing but blanks, markup or diagnostics comes after it."""
    try:
        value, end = decoder.raw_decode(text, start)
        rest = text[end:].strip(_WHITESPACE)
        if rest and not _is_ignorable(rest):
            return NO_JSON
        return _without_surrogates(value)
    except (ValueError, RecursionError):
        return NO_JSON


def _is_ignorable(rest: str) -> bool:
    if _HTML_TAG.search(rest):
        return False
    return rest.startswith("<") or _DIAGNOSTICS.match(rest) is not None


def _reject_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _without_surrogates(value: Json) -> Json:
    # Of the thousands of values in a page nearly all need no more than one of these first looks.
    if isinstance(value, str):
        return value if value.isascii() else _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        if not all(map(str.isascii, value)):
            value = {_SURROGATE.sub("\ufffd", key): item for key, item in value.items()}
        for key, item in value.items():
            if type(item) is not int:
                value[key] = _without_surrogates(item)
    elif isinstance(value, list):
        value[:] = map(_without_surrogates, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number out of range")
    return value


# -- what errors may show -------------------------------------------------------------------------


def _redacted_excerpt(text: str, secrets: GetSecrets) -> str:
    """Take every form of every key out of *text*, and return its printable beginning.

    A service can echo a key as it was, percent-encoded once or twice in either case, or escaped for
    JSON or HTML.
    """
    forms: set[str] = set()
    for secret in secrets():
        key = secret.reveal()
        once = quote(key, safe="")
        escaped = json.dumps(key)[1:-1]
        bare = json.dumps(key, ensure_ascii=False)[1:-1]
        forms |= {key, escaped, bare, once, quote(once, safe=""), quote(key), quote_plus(key)}
        forms |= {form.replace("/", "\\/") for form in (key, escaped, bare)}
        forms |= {html.escape(key), html.escape(key, quote=False)}
    text = _masked(text, forms, 4 * MAX_EXCERPT).strip(_WHITESPACE)[:MAX_EXCERPT]
    return "".join(character if character.isprintable() else " " for character in text).strip()


def _masked(text: str, forms: Collection[str], limit: int) -> str:
    """Return the first *limit* characters that *text* has once every form in it is replaced.

    Cutting comes after replacing, because half a key would not be found any more. No more of *text*
    is searched than the result takes: a body can have millions of characters.
    """
    if not forms:
        return text[:limit]
    longest_first = sorted(forms, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)
    longest = len(longest_first[0])
    covered, start = "", 0
    while start < len(text) and len(covered) < limit:
        end = start + limit - len(covered)
        value = pattern.search(text, start, end + longest)
        if value is None or value.start() >= end:
            covered += text[start:end]
            break
        covered += text[start : value.start()] + "***"
        start = value.end()
        # A form that begins within this one may end after it.
        while value := pattern.search(text, value.start() + 1, start + longest):
            if value.start() >= start:
                break
            start = max(start, value.end())
    return covered[:limit]


# -- Retry-After ----------------------------------------------------------------------------------


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a ``Retry-After`` header asks to wait, or ``None`` without a sensible one.

    Takes seconds, fractions of them, and HTTP dates, which are held against the answer's own
    ``Date`` so that the clocks need not agree. (RFC 9110, section 10.2.3)
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", value):
        return float(value)
    due = _http_date(value)
    if due is None:
        return None
    now = _http_date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (due - now).total_seconds())


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


# With the hour, because Python 3.14 reads 24:00:00 as the next midnight and older ones refuse it.
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} (?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}")


def parse_date(value: object) -> datetime | None:
    """Read the services' ``yyyy-MM-dd HH:mm:ss``: naive, or ``None`` for anything else.

    PHP writes ``0000-00-00 00:00:00`` where there is no date.
    """
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def canonical_json(value: object) -> bytes:
    """One spelling for equal documents: the basis for telling them apart."""
    return msgspec.json.encode(value, order="deterministic")
