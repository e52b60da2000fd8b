"""What real services may not check, and this kit does: pace, encoding, completeness.

The law of pacing is written out here once more on purpose: a judge that shared its arithmetic with
the limiter would share its mistakes. A `Rate`'s ``guard`` is the client's own caution, no part of
the law. No detail of a violation shows a parameter's value, so none can show a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

import msgspec

from ..errors import InvalidRequestError
from ..wire import Rate
from .incoming import IncomingRequest, Service

__all__ = ["DEFAULT_RATES", "RequestChecker", "Rule", "Violation"]

DEFAULT_RATES: Final[Mapping[str, Rate]] = {
    "peerbet.chat.get": Rate(1.0),
    "peerbet.chat.set": Rate(1.0),
    "pythbots.userinfo": Rate(1.0, burst=3),
    "pythbots.crank": Rate(1.0, burst=3),
    "pythbots.cstats": Rate(1.0, burst=3),
    "pythbots.mail": Rate(1.0),
}
"""How fast each endpoint may be asked with one key, where `FakeServices` is not told otherwise.

Peerbet documents its intervals; PythBots only asks not to send "too many requests too fast".
"""

TOLERANCE: Final = 0.001
"""The number of seconds by which a request may be early: timers are not exact."""

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
"""What a request can be guilty of.

``pace``: it came too early. ``encoding``: its query is not RFC 3986 with UTF-8. ``flag``: a bare
flag was given a value. ``key-in-url``: the API key travelled in the URL. ``agent``: it went out
under aiohttp's own name. ``key``, ``parameter``: one that it needs is missing. ``action``,
``path``: there is no such thing to ask. ``method``: it is no GET.
"""

Fault = tuple[Rule, str]


class Violation(msgspec.Struct, frozen=True):
    """One thing that was wrong with one request to ``endpoint``: the ``rule``, and in what way."""

    endpoint: str
    rule: Rule
    detail: str

    def __str__(self) -> str:
        return f"{self.endpoint}: {self.detail} [{self.rule}]"


class RequestChecker:
    """Looks at every request and writes down what is wrong with it.

    ``personal_key`` says how the parameter is called that carries the personal key, and ``api_key``
    whether PythBots is to be asked with an API key.
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
            raise InvalidRequestError(f"no such endpoint: {', '.join(unknown)}")
        self.violations: list[Violation] = []
        self._rates = {**DEFAULT_RATES, **(rates or {})}
        self._personal_key = personal_key
        self._api_key = api_key
        self._buckets: dict[tuple[str, int], _Bucket] = {}

    def reset(self) -> None:
        """Forget when requests came: the clock is another one now."""
        self._buckets.clear()

    def check(self, call: IncomingRequest) -> None:
        """Judge one request. To be called once for each, in the order in which they came."""
        for faults in (self._pace(call), check_encoding(call), self._check_presence(call)):
            self.violations += (Violation(call.endpoint, *fault) for fault in faults)

    def report_malformed(self, service: Service) -> None:
        """Take down a request that was refused before it could be read."""
        detail = "no well-formed HTTP request: a space or other forbidden byte in its target?"
        self.violations.append(Violation(service, "encoding", detail))

    def _pace(self, call: IncomingRequest) -> Iterator[Fault]:
        rate = self._rates.get(call.endpoint)
        if rate is None or not rate.interval:
            return
        # Hashed, so that no key outlives its request here.
        identity = (call.endpoint, hash(self._key(call)))
        bucket = self._buckets.setdefault(identity, _Bucket(rate, call.at))
        early = bucket.take(call.at)
        if early > TOLERANCE:
            allowed = f"1 every {rate.interval:g} s, {rate.burst} at once"
            yield "pace", f"came {early:.3f} s too early ({allowed})"

    def _key(self, call: IncomingRequest) -> str | None:
        if call.endpoint.startswith("peerbet."):
            return call.params.get("key")
        if call.endpoint == "pythbots.mail":
            return call.params.get(self._personal_key())
        return call.api_key

    def _check_presence(self, call: IncomingRequest) -> Iterator[Fault]:
        if call.endpoint == "peerbet.chat":
            yield "action", "an action that is neither get nor set"
        elif call.endpoint not in self._rates:
            yield "path", "no such path"
            return
        if call.method != "GET":
            yield "method", f"a {call.method} where everything is a GET"
        if self._api_key() and call.endpoint.startswith("pythbots.") and not call.api_key:
            yield "key", "the API key is missing"
        for name in self._required_params(call):
            if not any(call.params.get(choice) for choice in name.split(" or ")):
                rule: Rule = "key" if name in ("key", self._personal_key()) else "parameter"
                yield rule, f"{name} is missing"

    def _required_params(self, call: IncomingRequest) -> tuple[str, ...]:
        """The parameters that this call must have, by its endpoint."""
        match call.endpoint:
            case "peerbet.chat.set":
                return ("key", "msg")
            case "pythbots.userinfo":
                return ("user",)
            case "pythbots.crank" | "pythbots.cstats":
                return ("chatid",)
            case "pythbots.mail":
                reads = call.params.keys() & {"readnew", "readall"}
                return (self._personal_key(), *(() if reads else ("user or id", "message")))
            case _:
                return ()


class _Bucket:
    """The tokens of one endpoint and one key, as the service counts them.

    A request that comes too early empties the bucket; it does not run up a debt.
    """

    __slots__ = ("_at", "_burst", "_interval", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._interval = rate.interval
        self._burst = rate.burst
        self._tokens = float(rate.burst)
        self._at = now

    def take(self, now: float) -> float:
        """Take a token at *now*, and return by how many seconds that was too early."""
        tokens = min(self._burst, self._tokens + (now - self._at) / self._interval)
        self._at = now
        self._tokens = max(0.0, tokens - 1)
        return max(0.0, (1 - tokens) * self._interval)


_STRAY = re.compile(r"[^A-Za-z0-9\-._~%=&]")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def check_encoding(call: IncomingRequest) -> Iterator[Fault]:
    """Find what is wrong with the bytes of a request, whatever they ask for."""
    if _STRAY.search(call.query):
        stray = " ".join(sorted(map(ascii, set(_STRAY.findall(call.query)))))
        yield "encoding", f"raw in the query: {stray}"
    if _BROKEN_ESCAPE.search(call.query):
        yield "encoding", "a % in the query without two hexadecimal digits after it"
    pieces = call.query.split("&")
    if not all(_is_utf8(piece) for piece in pieces):
        yield "encoding", "percent-encoded bytes in the query that are not UTF-8"
    for flag in ("readnew", "readall"):
        if any(piece.startswith(f"{flag}=") for piece in pieces):
            yield "flag", f"{flag} is a bare flag, without a = and a value"
    if "api_key" in call.params:
        yield "key-in-url", "the API key belongs in the X-API-Key header"
    if "aiohttp/" in call.headers.get("User-Agent", ""):
        yield "agent", "aiohttp's own User-Agent"


def _is_utf8(piece: str) -> bool:
    try:
        unquote_to_bytes(piece.encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError:
        return False
    return True
