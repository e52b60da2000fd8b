"""Endpoints and their parameters, which check and encode arguments; and the URL of a request.

Pure: no I/O, no clock, no state. Keys stay in `Secret` here; only `render_query` reveals them.

Query strings follow RFC 3986, as both services document: every character outside ``A-Za-z0-9-._~``
is percent-encoded as UTF-8, and a space is ``%20``, never ``+``.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, Self, TypeVar, cast, overload

import msgspec

from ..errors import InvalidRequestError
from ..pacing.bucket import Rate
from ..secret import Secret
from ..validation import check_name, check_time_limit, check_url
from .query import Json, Param, encode_query

__all__ = ["AnswerTypeError", "Effect", "Endpoint", "ParsedEndpoint"]

T_co = TypeVar("T_co", covariant=True)


class Effect(enum.Enum):
    """The effect of a request on the service, which decides whether it may be repeated."""

    READ = "read"
    """The request changes nothing, and may be repeated."""

    CONSUME = "consume"
    """A destructive read: it changes the server, such as by marking what it returns as read. It
    must not be repeated."""

    WRITE = "write"
    """The request changes the service, and must not be repeated."""


class Endpoint(Generic[T_co]):
    """One endpoint of a service: an argument of `Session.call`.

    Args:
        name: Name in errors and logs. Endpoints of the same name share one token bucket, and must
            have the same rate, also as a built-in endpoint. One of another name has a bucket
            of its own, even at the same server.
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
        "any_status_is_error",
        "decode_rejects_errors",
        "denied_hint",
        "effect",
        "min_timeout",
        "name",
        "query",
        "rate",
        "segments",
        "status_means_success",
        "timeout",
        "unknown_outcome",
        "url",
    )

    any_status_is_error: bool
    """Whether every ``status`` but 1 means an API error if there is a ``message`` next to it."""

    decode_rejects_errors: bool
    """Whether `decode` raises ``ValueError`` for an error envelope."""

    denied_hint: str
    """What a user can do if the service rejects the key, for the text of the error; or empty."""

    min_timeout: float
    """Least time limit of an attempt, in seconds, for an endpoint that responds late on purpose."""

    status_means_success: bool
    """Whether a ``status`` of 0 always means an API error. On PythBots it can be data (the online
    status of a user), so there it counts only in an object without other fields."""

    unknown_outcome: str
    """The text of an error where a write or a destructive read may or may not have happened."""

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
        self.name: Final[str] = check_name(name)
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
        self.any_status_is_error = False
        self.denied_hint = ""
        self.min_timeout = 0.0
        request = "the write" if effect is Effect.WRITE else "the destructive read"
        self.unknown_outcome = f"{request} may or may not have happened"
        self.timeout: float | None = None
        """Time limit of one attempt, in seconds, ``None`` for that of the session. Set by
        `with_timeout`."""
        try:
            decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(answer, strict=False)
        except Exception as error:  # noqa: BLE001  # its annotations can have code
            problem = str(error) or type(error).__name__
        else:
            self._decoder: msgspec.json.Decoder[T_co] = decoder
            return
        raise InvalidRequestError(f"answer must be a type that msgspec decodes: {problem}")

    def __repr__(self) -> str:
        return f"<Endpoint {getattr(self, 'name', '(unfinished)')}>"

    def with_timeout(self, timeout: float | None) -> Self:
        """Return this endpoint with a time limit of its own, in place of that of the session.

        It shares the token bucket of this one.

        Args:
            timeout: Seconds of one attempt at most, more than 0, or ``math.inf`` for no limit.
                ``None`` changes nothing.

        Raises:
            InvalidRequestError: If *timeout* is not valid.
        """
        if timeout is None:
            return self
        check_time_limit(timeout, self.name)
        if timeout < self.min_timeout:
            raise InvalidRequestError(
                f"timeout must be {self.min_timeout:g} seconds or more here,"
                " because the service sends some responses late",
                endpoint=self.name,
            )
        endpoint = copy.copy(self)
        endpoint.timeout = timeout
        return endpoint

    def decode(self, body: bytes) -> T_co:
        """Decode a body that is plain JSON. Raises ``ValueError`` or ``RecursionError``."""
        try:
            return self._decoder.decode(body)
        except Exception as error:  # noqa: BLE001  # the type can have code, such as __post_init__
            raise _as_decoding_error(error) from None

    def convert(self, document: Json) -> T_co:
        """Convert a decoded document into the result. Raises ``ValueError``, as `decode` does."""
        try:
            return msgspec.convert(document, self.answer, strict=False)
        except Exception as error:  # noqa: BLE001
            raise _as_decoding_error(error) from None


class AnswerTypeError(ValueError):
    """The code of an endpoint's ``answer`` type raised an exception, whose class the text names.

    Its text is left out, because it can repeat a key of the response.
    """


def _as_decoding_error(error: Exception) -> ValueError | RecursionError:
    if isinstance(error, (ValueError, RecursionError)):
        return error
    return AnswerTypeError(f"the type of the result raised {type(error).__name__}")


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
        any_status_is_error: bool = False,
        denied_hint: str = "",
        min_timeout: float = 0.0,
        unknown_outcome: str | None = None,
    ) -> None:
        # `answer` is not used, because `decode` and `convert` are both overridden.
        answer = cast("type[T_co]", object)
        super().__init__(name, url, query=query, effect=effect, rate=rate, answer=answer)
        self._parse = parse
        self._parse_fast = parse_fast
        self.decode_rejects_errors: bool = parse_fast is not None
        self.status_means_success = status_means_success
        self.any_status_is_error = any_status_is_error
        self.denied_hint = denied_hint
        self.min_timeout = min_timeout
        if unknown_outcome is not None:
            self.unknown_outcome = unknown_outcome

    def decode(self, body: bytes) -> T_co:
        """Parse a body that is plain JSON. Raises ``ValueError`` or ``RecursionError``."""
        if self._parse_fast is not None:
            return self._parse_fast(body)
        return self._parse(msgspec.json.decode(body))

    def convert(self, document: Json) -> T_co:
        """Parse a decoded document. Raises ``ValueError``."""
        return self._parse(document)
