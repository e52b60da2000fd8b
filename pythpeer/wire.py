"""Endpoints, parameters, and the URL of a request; and the checks of arguments.

Pure: no I/O, no clock, no state. Keys stay in `Secret` here; only `render_query` reveals them.

Query strings follow RFC 3986, as both services document: every character outside ``A-Za-z0-9-._~``
is percent-encoded as UTF-8, and a space is ``%20``, never ``+``.
"""

from __future__ import annotations

import enum
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, overload
from urllib.parse import quote

import msgspec

from .errors import InvalidRequestError
from .secret import Secret

__all__ = [
    "FLAG",
    "Effect",
    "Endpoint",
    "Json",
    "JsonObject",
    "Param",
    "ParsedEndpoint",
    "Rate",
    "Request",
    "check_integer",
    "check_seconds",
    "check_text",
    "check_url",
]

T_co = TypeVar("T_co", covariant=True)

INT32_MAX: Final = 2**31 - 1
"""Largest id of both services, which document their ids as Int32."""


class Flag(enum.Enum):
    """The type of `FLAG`."""

    FLAG = "FLAG"
    """The only value."""


FLAG: Final = Flag.FLAG
"""A parameter value that adds the bare name to the query: ``&readnew``, without ``=``."""

if TYPE_CHECKING:
    Json = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
    """A decoded JSON document."""
else:
    Json = Any  # msgspec reads annotations at run time, and does not support a recursive alias

JsonObject = dict[str, Json]
"""A decoded JSON object."""

Param = str | int | float | bool | Secret | Flag | None
"""Value of a parameter. ``None`` omits it; ``True`` and ``False`` are sent as 1 and 0."""


class Effect(enum.Enum):
    """The effect of a request on the service, which decides whether it may be repeated."""

    READ = "read"
    """The request changes nothing, and may be repeated."""

    CONSUME = "consume"
    """A destructive read: it changes the server, such as by marking what it returns as read. It
    must not be repeated."""

    WRITE = "write"
    """The request changes the service, and must not be repeated."""


class Rate(msgspec.Struct, frozen=True):
    """Rate of one endpoint: one token every ``interval`` seconds, and at most ``burst`` tokens.

    A request is sent ``interval + guard`` seconds after the one before it was written, or
    ``interval`` seconds after that one was answered, whichever is earlier.

    Args:
        interval: Seconds per token, 0 or more; 0 means no pacing.
        burst: Maximum number of stored tokens, 1 or more; 1 by default.
        guard: Seconds allowed for varying network delay, 0 or more; 0.05 by default.

    Raises:
        InvalidRequestError: A value has the wrong type or is out of range.
    """

    interval: float
    """Seconds per token; 0 means no pacing."""

    burst: int = 1
    """Maximum number of stored tokens: so many requests can leave without waiting."""

    guard: float = 0.05
    """Seconds allowed for varying network delay."""

    def __post_init__(self) -> None:
        check_seconds("interval", self.interval)
        check_seconds("guard", self.guard)
        check_integer("burst", self.burst, 1, INT32_MAX)


def check_integer(
    name: str, value: object, low: int, high: int = INT32_MAX, endpoint: str | None = None
) -> int:
    """Return *value* if it is an integer (no boolean) from *low* to *high*.

    The default upper bound is that of the ids of both services. Raises `InvalidRequestError`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        type_name = type(value).__name__
        raise InvalidRequestError(f"{name} must be an integer, not {type_name}", endpoint=endpoint)
    if not low <= value <= high:
        raise InvalidRequestError(f"{name} must be from {low} to {high}", endpoint=endpoint)
    return value


def check_seconds(name: str, value: object) -> float:
    """Return *value* if it is a finite number of seconds, 0 or more.

    Raises `InvalidRequestError`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        type_name = type(value).__name__
        raise InvalidRequestError(f"{name} must be a number of seconds, not {type_name}")
    if not 0 <= value <= sys.float_info.max:
        raise InvalidRequestError(f"{name} must be a finite number of seconds, 0 or more")
    return value


def check_text(
    name: str, value: object, max_length: int | None = None, endpoint: str | None = None
) -> str:
    """Return *value* if it is text that can be sent: not empty, and encodable as UTF-8.

    *max_length* is its maximum number of characters. Raises `InvalidRequestError`.
    """
    problem = None
    if not isinstance(value, str):
        problem = f"must be text, not {type(value).__name__}"
    elif not value:
        problem = "must not be empty"
    elif max_length is not None and len(value) > max_length:
        problem = f"must have at most {max_length} characters, not {len(value)}"
    else:
        _encode(name, value, endpoint)
        return value
    raise InvalidRequestError(f"{name} {problem}", endpoint=endpoint)


# Stricter than any URL parser, so that the host that is checked is the one that aiohttp connects
# to: ASCII only, no user information, no query, no fragment.
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?\.?|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[a-z0-9\-._~%!$&'()*+,;=:@]*)*)",
    re.IGNORECASE | re.ASCII,
)


def _is_loopback(host: str) -> bool:
    if host.rstrip(".").lower() == "localhost":
        return True
    address = _address(host.strip("[]"))
    # ::ffff:127.0.0.1 is a loopback address for newer versions of Python only: never for this one.
    return address is not None and address.is_loopback and "ffff" not in host.lower()


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def check_url(name: str, url: object) -> str:
    """Return *url* if keys may be sent to it: https, or plain http to this machine only.

    Raises `InvalidRequestError`.
    """
    match = _URL.fullmatch(url) if isinstance(url, str) else None
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        raise InvalidRequestError(
            f"{name} must be an https URL without user name, query and fragment"
        )
    host = match["host"]
    if host.startswith("[") and not isinstance(_address(host.strip("[]")), IPv6Address):
        raise InvalidRequestError(f"{name} must have an IPv6 address in its brackets")
    if any(segment in (".", "..") for segment in match["path"].split("/")):
        raise InvalidRequestError(f"{name} must not have '.' or '..' in its path")
    if match["scheme"].lower() != "https" and not _is_loopback(host):
        raise InvalidRequestError(f"{name} must be https, because http is for loopback only")
    return match[0]


class Endpoint(Generic[T_co]):
    """One endpoint of a service: an argument of `Session.call`.

    Args:
        name: Name in errors and logs. Endpoints of the same name share one token bucket.
        url: Complete URL without a query: https, or http to loopback.
        query: The fixed part of the query, before the parameters of a call; empty by default.
        effect: Effect of a request on the service; `Effect.READ` by default.
        rate: Rate of the requests; one per second by default.
        answer: Type of the result: any type that msgspec decodes, ``dict`` by default. A number
            that the service sends as a string is converted.

    Raises:
        InvalidRequestError: An argument has the wrong type or is not valid.
    """

    __slots__ = (
        "_decoder",
        "answer",
        "decode_rejects_errors",
        "effect",
        "name",
        "query",
        "rate",
        "segments",
        "status_means_success",
        "url",
    )

    decode_rejects_errors: bool
    """Whether `decode` raises ``ValueError`` for an error envelope."""

    status_means_success: bool
    """Whether a ``status`` of 0 always means an API error. On PythBots it can be data (the online
    status of a user), so there it counts only in an object without other fields."""

    @overload
    def __init__(
        self: Endpoint[dict[str, object]],
        name: str,
        url: str,
        *,
        query: Mapping[str, Param] = ...,
        effect: Effect = ...,
        rate: Rate = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        name: str,
        url: str,
        *,
        query: Mapping[str, Param] = ...,
        effect: Effect = ...,
        rate: Rate = ...,
        answer: type[T_co],
    ) -> None: ...

    def __init__(
        self,
        name: str,
        url: str,
        *,
        query: Mapping[str, Param] = {},
        effect: Effect = Effect.READ,
        rate: Rate = Rate(1.0),
        answer: type[Any] = dict,
    ) -> None:
        self.name: Final[str] = check_text("name", name)
        """Name in errors and logs, and of the token bucket."""
        self.url: Final[str] = check_url("url", url)
        """Complete URL without a query."""
        if not isinstance(effect, Effect):
            raise InvalidRequestError(f"effect must be an Effect, not {type(effect).__name__}")
        if not isinstance(rate, Rate):
            raise InvalidRequestError(f"rate must be a Rate, not {type(rate).__name__}")
        self.effect: Final[Effect] = effect
        """Effect of a request on the service."""
        self.rate: Final[Rate] = rate
        """Rate of the requests."""
        if not isinstance(query, Mapping):
            raise InvalidRequestError(f"query must be a mapping, not {type(query).__name__}")
        self.query: Final[Mapping[str, Param]] = dict(query)
        """The fixed part of the query."""
        self.segments: Final[Sequence[str | Secret]] = encode_query(self.query, name)
        """The fixed part of the query, encoded, with the keys still in `Secret`."""
        self.answer: Final[type[T_co]] = answer
        """Type of the result."""
        self.status_means_success = True
        self.decode_rejects_errors = False
        try:
            decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(answer, strict=False)
        except (TypeError, NameError, AttributeError, ValueError) as error:
            problem = str(error)
        else:
            self._decoder: msgspec.json.Decoder[T_co] = decoder
            return
        raise InvalidRequestError(f"answer must be a type that msgspec decodes: {problem}")

    def __repr__(self) -> str:
        return f"<Endpoint {getattr(self, 'name', '(unfinished)')}>"

    def decode(self, body: bytes) -> T_co:
        """Decode a body that is plain JSON. Raises ``ValueError`` or ``RecursionError``."""
        return self._decoder.decode(body)

    def convert(self, document: Json) -> T_co:
        """Convert a decoded document into the result. Raises ``ValueError``."""
        return msgspec.convert(document, self.answer, strict=False)


class ParsedEndpoint(Endpoint[T_co]):
    """An endpoint whose responses are parsed by functions instead of decoded into a type.

    *parse* takes any JSON document. *parse_fast*, where there is one, takes the body of a response
    that is a success in the documented form. Both raise ``ValueError`` for any other input.
    """

    __slots__ = ("_parse", "_parse_fast")

    def __init__(
        self,
        name: str,
        url: str,
        *,
        parse: Callable[[Json], T_co],
        parse_fast: Callable[[bytes], T_co] | None = None,
        query: Mapping[str, Param] = {},
        effect: Effect = Effect.READ,
        rate: Rate = Rate(1.0),
        status_means_success: bool = True,
    ) -> None:
        # `answer` is not used, because `decode` and `convert` are both overridden.
        answer = cast("type[T_co]", object)
        super().__init__(name, url, query=query, effect=effect, rate=rate, answer=answer)
        self._parse = parse
        self._parse_fast = parse_fast
        self.decode_rejects_errors: bool = parse_fast is not None
        self.status_means_success = status_means_success

    def decode(self, body: bytes) -> T_co:
        """Parse a body that is plain JSON. Raises ``ValueError`` or ``RecursionError``."""
        if self._parse_fast is not None:
            return self._parse_fast(body)
        return self._parse(msgspec.json.decode(body))

    def convert(self, document: Json) -> T_co:
        """Parse a decoded document. Raises ``ValueError``."""
        return self._parse(document)


class Request(Generic[T_co]):
    """One request to an endpoint, checked and encoded, with its keys still in `Secret`."""

    __slots__ = ("_params", "endpoint", "headers", "segments")

    def __init__(
        self,
        endpoint: Endpoint[T_co],
        params: Mapping[str, Param],
        headers: Mapping[str, Secret] | None = None,
    ) -> None:
        self.endpoint: Final[Endpoint[T_co]] = endpoint
        """The endpoint."""
        self.headers: Final[Mapping[str, Secret] | None] = headers
        """The headers that hold keys."""
        # Set before any check, because the traceback of an error below may show this object.
        self.segments: Sequence[str | Secret] = endpoint.segments
        """The encoded query: text, and keys still in `Secret`. A parameter begins with ``&``."""
        self._params = params
        if not endpoint.query.keys().isdisjoint(params):
            raise InvalidRequestError(
                "params must not contain a name of the endpoint's query", endpoint=endpoint.name
            )
        self.segments = [*endpoint.segments, *encode_query(params, endpoint.name)]

    def __repr__(self) -> str:
        return f"<Request {self.endpoint.name} {''.join(map(str, self.segments))[1:]}>"

    def redacted(self) -> str:
        """Return the URL without keys and without text of messages or users.

        The endpoint's fixed query, numbers and bare names are shown as sent, other values as
        ``***``.
        """
        query = "".join(map(str, self.endpoint.segments)) + "".join(_redacted_query(self._params))
        return f"{self.endpoint.url}?{query[1:]}" if query else self.endpoint.url

    def secrets(self) -> list[Secret]:
        """Return every key of this request, in the URL and in the headers."""
        return [
            *(segment for segment in self.segments if isinstance(segment, Secret)),
            *(self.headers or {}).values(),
        ]


def encode_query(params: Mapping[str, Param], endpoint: str) -> list[str | Secret]:
    """Return a query as segments: encoded text, and keys still in `Secret`.

    Raises `InvalidRequestError` where a value cannot be sent.
    """
    segments: list[str | Secret] = []
    for name, value in params.items():
        if not isinstance(name, str):
            type_name = type(name).__name__
            raise InvalidRequestError(
                f"a parameter's name must be text, not {type_name}", endpoint=endpoint
            )
        if value is None:
            continue
        # An ASCII identifier needs no encoding, and neither does an integer.
        if name.isidentifier() and name.isascii():
            encoded_name = name
        else:
            encoded_name = _encode("a parameter's name", name, endpoint)
        if type(value) is int and -(2**63) < value < 2**63:
            segments.append(f"&{encoded_name}={value}")
        elif value is FLAG:
            segments.append("&" + encoded_name)
        elif isinstance(value, Secret):
            segments += ("&" + encoded_name + "=", value)
        else:
            segments.append(f"&{encoded_name}={_encode_value(name, value, endpoint)}")
    return segments


def _encode_value(name: str, value: object, endpoint: str) -> str:
    if isinstance(value, str):
        return _encode(name, value, endpoint)
    if isinstance(value, int) and abs(value) < 2**63:
        return str(int(value))
    if isinstance(value, float) and math.isfinite(value):
        return quote(repr(value), safe="")
    raise InvalidRequestError(
        f"{name} must be text, a bool, a finite number of 64 bits, a Secret or FLAG",
        endpoint=endpoint,
    )


def _redacted_query(params: Mapping[str, Param]) -> Iterator[str]:
    for name, value in params.items():
        encoded_name = quote(name, safe="")
        if value is FLAG:
            yield f"&{encoded_name}"
        elif isinstance(value, bool):
            yield f"&{encoded_name}={int(value)}"
        elif isinstance(value, int | float):
            yield f"&{encoded_name}={value}"
        elif value is not None:
            yield f"&{encoded_name}=***"


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def _encode(name: str, text: str, endpoint: str | None = None) -> str:
    if "\0" in text:
        raise InvalidRequestError(f"{name} must not contain a NUL", endpoint=endpoint)
    if not text.isascii() and _LONE_SURROGATE.search(text):
        raise InvalidRequestError(f"{name} must not contain a lone surrogate", endpoint=endpoint)
    return quote(text, safe="")


def render_query(segments: Iterable[str | Secret]) -> str:
    """Return the query with its keys in clear, for the frame that sends the request only."""
    query = "".join(
        [segment if isinstance(segment, str) else segment.encoded() for segment in segments]
    )
    return query[1:]  # without the first "&"
