"""`RequestChecker`: checks each request for what the services document: rate, encoding, parameters.

The real services may check less. The arithmetic of the rates is repeated here on purpose: a checker
that shared it with the limiter would share its mistakes. The ``guard`` of a `Rate` is a precaution
of the client, so it is not checked. The text of a violation contains no parameter's value, so it
contains no key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

import msgspec

from ..errors import InvalidRequestError
from ..pacing.bucket import Rate
from .endpoints import DEFAULT_RATES, PERSONAL_KEY, Service, required_params
from .requests import IncomingRequest

__all__ = ["RequestChecker", "Rule", "Violation"]

TOLERANCE: Final = 0.001
"""Seconds by which a request may be early and still be allowed: timers are not exact."""

Rule = Literal[
    "action",
    "agent",
    "encoding",
    "flag",
    "key",
    "key-in-url",
    "method",
    "pace",
    "parameter",
    "path",
]
"""The rules that a request can break.

``pace``: it was received before the rate allows it. ``encoding``: its query is not RFC 3986 with
UTF-8. ``flag``: a bare flag has a value. ``key-in-url``: the API key is in the URL. ``agent``: it
has aiohttp's own User-Agent. ``key``, ``parameter``: a required one is missing. ``action``,
``path``: there is no such endpoint. ``method``: it is not a GET.
"""

Detail = tuple[Rule, str]
"""A broken rule, and in what way it was broken."""


class Violation(msgspec.Struct, frozen=True):
    """One rule that one request broke."""

    endpoint: str
    """The endpoint's name, or that of the service if it has no such endpoint."""

    rule: Rule
    """The rule that was broken."""

    detail: str
    """In what way, in words, without the values of parameters."""

    def __str__(self) -> str:
        return f"{self.endpoint}: {self.detail} [{self.rule}]"


class RequestChecker:
    """Checks every request, and records the rules that it breaks.

    Args:
        rates: The rate of each endpoint by its name; `DEFAULT_RATES` for those not in it.
        personal_key: Returns the name of the parameter that carries the personal key.
        api_key: Returns whether PythBots requires an API key.

    Raises:
        InvalidRequestError: *rates* contains an unknown endpoint.
    """

    def __init__(
        self,
        rates: Mapping[str, Rate] | None,
        *,
        personal_key: Callable[[], str],
        api_key: Callable[[], bool],
    ) -> None:
        unknown = sorted((rates or {}).keys() - DEFAULT_RATES.keys())
        if unknown:
            raise InvalidRequestError(f"unknown endpoint: {', '.join(unknown)}")
        self.violations: list[Violation] = []
        """All violations so far, in the order of their requests; its user may clear it."""
        self._rates = {**DEFAULT_RATES, **(rates or {})}
        self._personal_key = personal_key
        self._api_key = api_key
        self._buckets: dict[tuple[str, int], _Bucket] = {}
        """The tokens by endpoint and hashed key, so that no key is kept after its request."""

    def reset(self) -> None:
        """Forget when requests were received, because those times are of another clock."""
        self._buckets.clear()

    def check(self, call: IncomingRequest) -> None:
        """Check one request. Must be called once for each, in the order in which they came."""
        for details in (self._check_rate(call), check_encoding(call), self._check_presence(call)):
            self.violations += (Violation(call.endpoint, *detail) for detail in details)

    def report_malformed(self, service: Service) -> None:
        """Record a request that could not be parsed."""
        detail = "not a well-formed HTTP request: a space or other forbidden byte in its target?"
        self.violations.append(Violation(service, "encoding", detail))

    def _check_rate(self, call: IncomingRequest) -> Iterator[Detail]:
        rate = self._rates.get(call.endpoint)
        if rate is None or not rate.interval:
            return
        identity = (call.endpoint, hash(self._key(call)))
        bucket = self._buckets.setdefault(identity, _Bucket(rate, call.at))
        early = bucket.seconds_early(call.at)
        if early > TOLERANCE:
            allowed = f"1 every {rate.interval:g} s, bursts of {rate.burst}"
            yield "pace", f"{early:.3f} s too early ({allowed})"

    def _key(self, call: IncomingRequest) -> str | None:
        if call.endpoint.startswith("peerbet."):
            return call.params.get("key")
        if call.endpoint == "pythbots.mail":
            return call.params.get(self._personal_key())
        return call.api_key

    def _check_presence(self, call: IncomingRequest) -> Iterator[Detail]:
        if call.endpoint == "peerbet.chat":
            yield "action", "action must be get or set"
        elif call.endpoint == "peerbet.dice":
            yield "action", "action must be roll"
        elif call.endpoint not in self._rates:
            yield "path", "unknown path"
            return
        if call.method != "GET":
            yield "method", f"{call.method} instead of GET"
        if self._api_key() and call.endpoint.startswith("pythbots.") and not call.api_key:
            yield "key", "the API key is missing"
        yield from self._missing_params(call)
        if call.endpoint == "peerbet.dice.roll":
            yield from check_amounts(call)

    def _missing_params(self, call: IncomingRequest) -> Iterator[Detail]:
        for names in required_params(call.endpoint, call.params):
            rule: Rule = "key" if names in (("key",), (PERSONAL_KEY,)) else "parameter"
            spelled = [self._personal_key() if name == PERSONAL_KEY else name for name in names]
            if not any(call.params.get(name) for name in spelled):
                yield rule, f"{' or '.join(spelled)} is missing"


class _Bucket:
    """The tokens of one endpoint and one key, as the service counts them.

    A request that is too early leaves no tokens, and never fewer than none.
    """

    __slots__ = ("_at", "_burst", "_interval", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._interval = rate.interval
        self._burst = rate.burst
        self._tokens = float(rate.burst)
        self._at = now

    def seconds_early(self, now: float) -> float:
        """Use one token at *now*; return by how many seconds the request was too early."""
        tokens = min(self._burst, self._tokens + (now - self._at) / self._interval)
        self._at = now
        self._tokens = max(0.0, tokens - 1)
        return max(0.0, (1 - tokens) * self._interval)


def check_amounts(call: IncomingRequest) -> Iterator[Detail]:
    """Yield which amounts of a roll are not in fixed point with the documented decimals."""
    for name, decimals in (("bet", 8), ("target", 4)):
        if not re.fullmatch(rf"[0-9]+\.[0-9]{{{decimals}}}", call.params.get(name, ""), re.ASCII):
            yield "parameter", f"{name} is not in fixed point with {decimals} decimals"


_FORBIDDEN = re.compile(r"[^A-Za-z0-9\-._~%=&]")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def check_encoding(call: IncomingRequest) -> Iterator[Detail]:
    """Yield what is wrong with the bytes of a request, for every endpoint alike."""
    if _FORBIDDEN.search(call.query):
        forbidden = " ".join(sorted(map(ascii, set(_FORBIDDEN.findall(call.query)))))
        yield "encoding", f"not percent-encoded in the query: {forbidden}"
    if _BROKEN_ESCAPE.search(call.query):
        yield "encoding", "a % without two hexadecimal digits after it in the query"
    pieces = call.query.split("&")
    if not all(_is_utf8(piece) for piece in pieces):
        yield "encoding", "percent-encoded bytes that are not UTF-8 in the query"
    for flag in ("readnew", "readall"):
        if any(piece.startswith(f"{flag}=") for piece in pieces):
            yield "flag", f"{flag} must be a bare flag, without = and a value"
    if "api_key" in call.params:
        yield "key-in-url", "the API key must be in the X-API-Key header"
    if "aiohttp/" in call.headers.get("User-Agent", ""):
        yield "agent", "User-Agent is aiohttp's own"


def _is_utf8(piece: str) -> bool:
    try:
        unquote_to_bytes(piece.encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError:
        return False
    return True
