"""What goes onto the wire: endpoints, and the request target that a call of one makes.

Pure: no I/O, no clock, no state. Keys pass through here as `Secret` and are not revealed.

Query strings follow RFC 3986, as both services document: everything outside ``A-Za-z0-9-._~`` is
percent-encoded as UTF-8, a space is ``%20`` and never ``+``.
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


class Flag(enum.Enum):
    """The type of `FLAG`."""

    FLAG = "FLAG"


FLAG: Final = Flag.FLAG
"""A parameter value that puts the bare name into the query: ``&readnew``, without ``=``."""

if TYPE_CHECKING:
    Json = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
    """A decoded JSON document."""
else:
    Json = Any  # msgspec, which reads annotations at run time, cannot follow an alias into itself

JsonObject = dict[str, Json]
"""A decoded JSON object."""

Param = str | int | float | bool | Secret | Flag | None
"""What a parameter may be. ``None`` leaves it out; ``True`` and ``False`` go out as 1 and 0."""


class Effect(enum.Enum):
    """What asking an endpoint does to the service, and so whether it may be asked again."""

    READ = "read"
    """Changes nothing; may be repeated."""

    CONSUME = "consume"
    """A read that changes the server, such as one that marks what it returns as read."""

    WRITE = "write"
    """Must not be repeated."""


class Rate(msgspec.Struct, frozen=True):
    """How fast one endpoint may be asked: one token every ``interval`` seconds.

    At most ``burst`` tokens are saved up. ``guard`` is the number of seconds allowed for uneven
    network delay: the next request leaves ``interval + guard`` after the last was written, or
    ``interval`` after it was answered, whichever is first. An ``interval`` of 0 means no pacing.
    """

    interval: float
    burst: int = 1
    guard: float = 0.05

    def __post_init__(self) -> None:
        check_seconds("interval", self.interval)
        check_seconds("guard", self.guard)
        check_integer("burst", self.burst, 1, INT32_MAX)


def check_integer(
    name: str, value: object, low: int, high: int = INT32_MAX, endpoint: str | None = None
) -> int:
    """Return *value* if it is an integer (no boolean) from *low* to *high*.

    Both services document their ids as Int32, which is the default upper bound.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        kind = type(value).__name__
        raise InvalidRequestError(f"{name} must be an integer, not {kind}", endpoint=endpoint)
    if not low <= value <= high:
        raise InvalidRequestError(f"{name} must be from {low} to {high}", endpoint=endpoint)
    return value


def check_seconds(name: str, value: object) -> float:
    """Return *value* if it is a finite number of seconds, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidRequestError(f"{name} must be a number of seconds")
    if not 0 <= value <= sys.float_info.max:
        raise InvalidRequestError(f"{name} must be a finite number of seconds, 0 or more")
    return value


def check_text(
    name: str, value: object, max_length: int | None = None, endpoint: str | None = None
) -> str:
    """Return *value* if it is text that can be sent: not empty, encodable, at most *most* long."""
    problem = None
    if not isinstance(value, str):
        problem = f"must be text, not {type(value).__name__}"
    elif not value:
        problem = "must not be empty"
    elif max_length is not None and len(value) > max_length:
        problem = f"has {len(value)} characters; at most {max_length} are allowed"
    else:
        _encode(name, value, endpoint)
        return value
    raise InvalidRequestError(f"{name} {problem}", endpoint=endpoint)


# Stricter than any URL parser, so that what is checked here is what is dialled later: ASCII only,
# no user information, no query, no fragment.
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
    # Newer Pythons call ::ffff:127.0.0.1 loopback, older ones do not: here nobody does.
    return address is not None and address.is_loopback and "ffff" not in host.lower()


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def check_url(name: str, url: object) -> str:
    """Return *url* if keys may travel to it: https, or plain http to this machine only."""
    match = _URL.fullmatch(url) if isinstance(url, str) else None
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        raise InvalidRequestError(
            f"{name} must be a plain https URL without user name, query and fragment"
        )
    host = match["host"]
    if host.startswith("[") and not isinstance(_address(host.strip("[]")), IPv6Address):
        raise InvalidRequestError(f"{name} must have an IPv6 address in its brackets")
    if any(segment in (".", "..") for segment in match["path"].split("/")):
        raise InvalidRequestError(f"{name} must not have '.' or '..' in its path")
    if match["scheme"].lower() != "https" and not _is_loopback(host):
        raise InvalidRequestError(f"{name} must be https: plain http goes to loopback only")
    return match[0]


class Endpoint(Generic[T_co]):
    """One thing a service can be asked, and how: the argument of `Session.call`.

    ``name`` labels errors and logs, and endpoints of one name share one token bucket. ``url`` is
    a full URL: https, or http to loopback. ``query`` is the fixed part of the query, before the
    parameters of a call. ``answer`` is any type that msgspec decodes; numbers sent as strings are
    taken as numbers. Raises `InvalidRequestError` where one of them is wrong.
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
    """Whether `decode` itself refuses an error envelope."""

    status_means_success: bool
    """Whether a ``status`` of 0 alone means "no". On PythBots it can be data (somebody's online
    status), so there it counts only where nothing else is in the object."""

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
        self.name: Final[str] = check_text("an endpoint's name", name)
        self.url: Final[str] = check_url("an endpoint's URL", url)
        if not isinstance(effect, Effect):
            raise InvalidRequestError("an endpoint's effect is one of Effect")
        if not isinstance(rate, Rate):
            raise InvalidRequestError("an endpoint's rate is a Rate")
        self.effect: Final[Effect] = effect
        self.rate: Final[Rate] = rate
        if not isinstance(query, Mapping):
            raise InvalidRequestError("an endpoint's query maps names to values")
        self.query: Final[Mapping[str, Param]] = dict(query)
        self.segments: Final[Sequence[str | Secret]] = encode_query(self.query, name)
        self.answer: Final[type[T_co]] = answer
        self.status_means_success = True
        self.decode_rejects_errors = False
        try:
            decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(answer, strict=False)
        except (TypeError, NameError, AttributeError, ValueError) as error:
            problem = str(error)
        else:
            self._decoder: msgspec.json.Decoder[T_co] = decoder
            return
        raise InvalidRequestError(f"an endpoint's answer must be a type msgspec decodes: {problem}")

    def __repr__(self) -> str:
        return f"<Endpoint {getattr(self, 'name', '(unfinished)')}>"

    def decode(self, body: bytes) -> T_co:
        """Decode a body that is plain JSON. Raises ``ValueError`` or ``RecursionError``."""
        return self._decoder.decode(body)

    def convert(self, document: Json) -> T_co:
        """Turn a document decoded elsewhere into the answer. Raises ``ValueError``."""
        return msgspec.convert(document, self.answer, strict=False)


class ParsedEndpoint(Endpoint[T_co]):
    """An endpoint whose answers are made sense of by functions instead of a type.

    *shape* takes any JSON document, *fast* (where there is a short cut) the bytes of an answer that
    is just as documented and a success. Both raise ``ValueError`` for what they cannot take.
    """

    __slots__ = ("_parse_fast", "_parse")

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
        # The type of the base's answer is not used: `decode` and `convert` are both replaced.
        answer = cast("type[T_co]", object)
        super().__init__(name, url, query=query, effect=effect, rate=rate, answer=answer)
        self._parse = parse
        self._parse_fast = parse_fast
        self.decode_rejects_errors: bool = parse_fast is not None
        self.status_means_success = status_means_success

    def decode(self, body: bytes) -> T_co:
        """Make sense of a body by the short cut, if there is one."""
        return self._parse_fast(body) if self._parse_fast else self._parse(msgspec.json.decode(body))

    def convert(self, document: Json) -> T_co:
        """Make sense of a document."""
        return self._parse(document)


class Request(Generic[T_co]):
    """One call of an endpoint, checked and encoded, with its keys still under cover."""

    __slots__ = ("_params", "endpoint", "headers", "segments")

    def __init__(
        self,
        endpoint: Endpoint[T_co],
        params: Mapping[str, Param],
        headers: Mapping[str, Secret] | None = None,
    ) -> None:
        self.endpoint: Final[Endpoint[T_co]] = endpoint
        self.headers: Final[Mapping[str, Secret] | None] = headers
        # At once, for an error below may show this object in its traceback.
        self.segments: Sequence[str | Secret] = endpoint.segments
        self._params = params
        if not endpoint.query.keys().isdisjoint(params):
            raise InvalidRequestError(
                "a parameter is a fixed part of this endpoint's query", endpoint=endpoint.name
            )
        self.segments = [*endpoint.segments, *encode_query(params, endpoint.name)]

    def __repr__(self) -> str:
        return f"<Request {self.endpoint.name} {''.join(map(str, self.segments))[1:]}>"

    def redacted(self) -> str:
        """The URL without keys and without anything that somebody wrote.

        The endpoint's fixed query, numbers and bare names stand as sent, the rest as ``***``.
        """
        query = "".join(map(str, self.endpoint.segments)) + "".join(_redacted_query(self._params))
        return f"{self.endpoint.url}?{query[1:]}" if query else self.endpoint.url

    def secrets(self) -> list[Secret]:
        """Every key that this request carries, in the URL or in a header."""
        return [
            *(piece for piece in self.segments if isinstance(piece, Secret)),
            *(self.headers or {}).values(),
        ]


def encode_query(params: Mapping[str, Param], endpoint: str) -> list[str | Secret]:
    """Encode a query, all but its keys: pieces to be joined once those are revealed."""
    segments: list[str | Secret] = []
    for name, value in params.items():
        if not isinstance(name, str):
            raise InvalidRequestError("a parameter's name must be text", endpoint=endpoint)
        if value is None:
            continue
        # An ASCII identifier has nothing in it to encode, nor has an integer.
        encoded_name = (
            name if name.isidentifier() and name.isascii() else _encode("a name", name, endpoint)
        )
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
        f"{name} must be text, a boolean, a finite number that fits 64 bits, a Secret or FLAG",
        endpoint=endpoint,
    )


def _redacted_query(params: Mapping[str, Param]) -> Iterator[str]:
    for name, value in params.items():
        encoded_name = quote(name, safe="")
        if value is FLAG:
            yield f"&{encoded_name}"
        elif isinstance(value, int | float):
            yield f"&{encoded_name}={int(value) if isinstance(value, bool) else value}"
        elif value is not None:
            yield f"&{encoded_name}=***"


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def _encode(name: str, text: str, endpoint: str | None = None) -> str:
    if "\0" in text:
        raise InvalidRequestError(f"{name} must not have a NUL in it", endpoint=endpoint)
    if not text.isascii() and _LONE_SURROGATE.search(text):
        raise InvalidRequestError(f"{name} must not have a lone surrogate", endpoint=endpoint)
    return quote(text, safe="")


def render_query(segments: Iterable[str | Secret]) -> str:
    """Join a query with its keys in the open. For the one frame that writes it to the wire."""
    query = "".join([piece if isinstance(piece, str) else piece.encoded() for piece in segments])
    return query[1:]  # without the first "&"
