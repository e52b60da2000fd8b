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

__all__ = ["document", "interpret", "read_date", "retry_after", "same_document"]

T = TypeVar("T")

EXCERPT: Final = 200
"""How many characters of a body an error may show."""


Secrets = Callable[[], Iterable[Secret]]


def interpret(
    endpoint: Endpoint[T], status: int, body: bytes, secrets: Secrets
) -> T | PythpeerError:
    """Read the answer to a call: its value, or the error that the status and the body amount to.

    *secrets* gives the keys that must not show in an error.
    """
    if 200 <= status < 300:
        verdict = endpoint.status_is_verdict
        try:
            if _nests_too_deeply(body):
                raise RecursionError  # noqa: TRY301  # as a decoder does where its stack ends
            answer = endpoint.decode(body)
            if endpoint.sees_refusals or not _may_refuse(answer, body):
                return answer
            if _refusal(msgspec.json.decode(body), status_is_verdict=verdict) is None:
                return answer
        except (ValueError, RecursionError):
            pass  # the lenient way says whether this is a refusal, damage or garbage
        return _interpret_leniently(endpoint, status, body, secrets)
    refusal = None
    if 400 <= status < 500:
        found = document(body)
        refusal = _refusal(found, status_is_verdict=True) or _message(found) or None
    if status == 429:
        text = _clean(refusal, secrets) if refusal else "too many requests"
        return RateLimitedError(text, endpoint=endpoint.name, status=status)
    if refusal is not None or status in (401, 403):
        return _said_no(endpoint.name, status, _clean(refusal or "", secrets))
    return HttpStatusError(f"HTTP status {status}", endpoint=endpoint.name, status=status)


def _interpret_leniently(
    endpoint: Endpoint[T], status: int, body: bytes, secrets: Secrets
) -> T | PythpeerError:
    found = document(body)
    refusal = _refusal(found, status_is_verdict=endpoint.status_is_verdict)
    if refusal is not None:
        return _said_no(endpoint.name, status, _clean(refusal, secrets))
    fault = "the answer is not JSON"
    if found is not NOTHING:
        try:
            return endpoint.convert(found)
        except (ValueError, RecursionError):
            fault = "the answer is not the documented JSON"
    excerpt = _clean(body.decode("utf-8", "replace"), secrets)
    return DecodeError(fault, endpoint=endpoint.name, excerpt=excerpt)


# -- refusals -------------------------------------------------------------------------------------

_SLOW_DOWN = re.compile(
    r"limit (?:is |was |has been )?(?:reached|exceeded)|rate.?limit|slow down"
    r"|too (?:many (?:requests|calls|queries|attempts)|fast|often|quickly)",
    re.IGNORECASE,
)
_NO_ACCESS = re.compile(
    r"\bkeys?\b|personal.?key|api.?key|\baccess\b|permission|credential|\btoken\b"
    r"|unauthori[sz]ed|authenticat|forbidden|denied|not allowed|logged? ?in",
    re.IGNORECASE,
)
_NO: Final = (0, "0", "false", "False", "error", "fail", "failed")
"""How ``status`` and ``success`` say no; 0 stands for False as well."""

_ENVELOPE: Final = frozenset({"status", "success", "message", "error", "code"})


def _may_refuse(answer: object, body: bytes) -> bool:
    """Whether an answer that could be decoded has to be looked at for an error envelope.

    A type whose fields all have defaults takes ``{"error": "no access"}`` without a murmur.
    """
    if body.startswith(b"["):
        return False
    if b'"status"' in body and getattr(answer, "status", None) == 1:
        return b'"error"' in body
    return b'"error"' in body or b'"message"' in body or b'"s' in body  # status, success


def _refusal(found: Json | Nothing, *, status_is_verdict: bool) -> str | None:
    """The service's own words if *found* is its error envelope, else ``None``.

    Peerbet says no with ``status`` 0 and a ``message``, PythBots with an ``error`` string.
    """
    if not isinstance(found, dict):
        return None
    error, status = found.get("error"), found.get("status")
    if status == 1 and not error and "success" not in found:
        return None
    words = _message(found) or "refused without a reason"
    if isinstance(error, str) and error not in ("", "0", "false"):
        return error
    if error and not isinstance(error, str):
        return words
    if status in _NO or found.get("success", True) in _NO:
        return words if status_is_verdict or found.keys() <= _ENVELOPE else None
    # The sign-in call of Peerbet's family says no by a message alone.
    return words if status_is_verdict and found.keys() == {"message"} else None


def _message(found: Json | Nothing) -> str:
    """The words of the object's ``message``, or none."""
    message = found.get("message") if isinstance(found, dict) else None
    return message if isinstance(message, str) else ""


def _said_no(endpoint: str, status: int, words: str) -> PythpeerError:
    if _SLOW_DOWN.search(words):
        return RateLimitedError(words, endpoint=endpoint, status=status)
    denied = status in (401, 403) or _NO_ACCESS.search(words)
    kind = AccessDeniedError if denied else ApiError
    text = words or f"HTTP status {status}"
    return kind(text, endpoint=endpoint, message=words, status=status)


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


class Nothing(enum.Enum):
    """The type of `NOTHING`."""

    NOTHING = "NOTHING"


NOTHING: Final = Nothing.NOTHING
"""What `document` returns where there is no JSON; ``None`` is JSON's null."""

_BLANK: Final = "\ufeff\0 \t\r\n"
_PAGE = re.compile(r"</?(?:!doctype|html|head|body|title|script|\?xml)\b", re.IGNORECASE)
_PHP = r"(?:PHP\s+)?(?:Warning|Notice|Deprecated|Strict Standards|Fatal error|Parse error)"
_DIAGNOSTICS = re.compile(rf"\s*(?:<[^>]*>\s*)*{_PHP}(?:</b>)?\s*:", re.IGNORECASE)
_START = re.compile(r"\bon line (?:<b>)?[0-9]+(?:</b>)?(?:<br ?/?>)?[\ufeff\s]*(?=[\[{])")
_CANDIDATES: Final = 8
_SURROGATE = re.compile("[\ud800-\udfff]")


def document(body: bytes) -> Json | Nothing:
    """Read a body as JSON, leniently; `NOTHING` where there is none.

    Looks past byte-order marks, invalid UTF-8, lone surrogates, raw control characters in strings,
    and PHP's diagnostics before and after. The JSON must reach to the end of the body: otherwise
    the ``[]`` inside a broken document would read as "nothing new".
    """
    text = body.decode("utf-8", "replace").strip(_BLANK)
    if not text or _nests_too_deeply(body):
        return NOTHING
    decoder = json.JSONDecoder(strict=False, parse_constant=_reject_constant)
    if not _DIAGNOSTICS.match(text):
        return _whole(decoder, text, 0)
    for attempt, found in enumerate(_START.finditer(text)):
        if attempt == _CANDIDATES or _PAGE.search(text, 0, found.end()):
            break
        value = _whole(decoder, text, found.end())
        if value is not NOTHING:
            return value
    return NOTHING


def _whole(decoder: json.JSONDecoder, text: str, start: int) -> Json | Nothing:
    """Decode the JSON at *start* if nothing but blanks, markup or diagnostics comes after it."""
    try:
        value, end = decoder.raw_decode(text, start)
        rest = text[end:].strip(_BLANK)
        if rest and not _ends_well(rest):
            return NOTHING
        return _without_surrogates(value)
    except (ValueError, RecursionError):
        return NOTHING


def _ends_well(rest: str) -> bool:
    if _PAGE.search(rest):
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


def _clean(text: str, secrets: Secrets) -> str:
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
    text = _covered(text, forms, 4 * EXCERPT).strip(_BLANK)[:EXCERPT]
    return "".join(character if character.isprintable() else " " for character in text).strip()


def _covered(text: str, forms: Collection[str], limit: int) -> str:
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
        found = pattern.search(text, start, end + longest)
        if found is None or found.start() >= end:
            covered += text[start:end]
            break
        covered += text[start : found.start()] + "***"
        start = found.end()
        # A form that begins within this one may end after it.
        while found := pattern.search(text, found.start() + 1, start + longest):
            if found.start() >= start:
                break
            start = max(start, found.end())
    return covered[:limit]


# -- Retry-After ----------------------------------------------------------------------------------


def retry_after(headers: Mapping[str, str]) -> float | None:
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


def read_date(value: object) -> datetime | None:
    """Read the services' ``yyyy-MM-dd HH:mm:ss``: naive, or ``None`` for anything else.

    PHP writes ``0000-00-00 00:00:00`` where there is no date.
    """
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def same_document(found: object) -> bytes:
    """One spelling for equal documents: the basis for telling them apart."""
    return msgspec.json.encode(found, order="deterministic")
