"""Requests as they came off the wire: what was asked of which endpoint, and a record without keys.

Parameters are read as PHP reads them: ``+`` is a space, the last of equal names wins, a bare name
is an empty value, and bytes that are not UTF-8 do no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal
from urllib.parse import parse_qsl, quote, unquote

import msgspec

from .faults import Fault

__all__ = ["Arrival", "IncomingRequest", "Service", "redacted"]

Service = Literal["peerbet", "pythbots"]

_PATHS: Final[Mapping[tuple[Service, str], str]] = {
    ("peerbet", "/api/chat/"): "peerbet.chat",
    ("pythbots", "/api/userinfo.php"): "pythbots.userinfo",
    ("pythbots", "/api/crank.php"): "pythbots.crank",
    ("pythbots", "/api/cstats.php"): "pythbots.cstats",
    ("pythbots", "/api/mail.php"): "pythbots.mail",
}

_KEY_NAMES: Final = frozenset({"key", "personalkey", "personal_key", "api_key"})


class Arrival(msgspec.Struct, frozen=True):
    """One request in the record: ``at`` is seconds of the fake's clock.

    ``endpoint`` is the endpoint's name, or the service's where there is no such endpoint.
    ``target`` is path and query as they were received, with ``***`` in place of every key.
    ``fault`` is what went wrong with it on purpose.
    """

    endpoint: str
    at: float
    target: str
    fault: Fault | None = None


class IncomingRequest:
    """One request as it was received. It holds keys: it lives as long as its answer takes."""

    __slots__ = ("api_key", "at", "endpoint", "headers", "method", "params", "query")

    def __init__(
        self, service: Service, method: str, target: str, headers: Mapping[str, str], at: float
    ) -> None:
        path, _, query = target.partition("?")
        self.query: Final[str] = query
        self.method: Final[str] = method
        self.headers: Final[Mapping[str, str]] = headers
        self.at: Final[float] = at
        readable = query.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        self.params: Final[Mapping[str, str]] = dict(parse_qsl(readable, keep_blank_values=True))
        self.endpoint: Final[str] = self._endpoint(service, path)
        self.api_key: Final[str | None] = self._api_key()

    def _endpoint(self, service: Service, path: str) -> str:
        name = _PATHS.get((service, path), service)
        action = self.params.get("action")
        return f"{name}.{action}" if name == "peerbet.chat" and action in ("get", "set") else name

    @property
    def kind(self) -> str:
        """The endpoint's name, and of mail also what is done with it."""
        if self.endpoint != "pythbots.mail":
            return self.endpoint
        flags = (flag for flag in ("readnew", "readall") if flag in self.params)
        return f"pythbots.mail.{next(flags, 'send')}"

    def _api_key(self) -> str | None:
        """The PythBots API key, from any of the places where a GET can carry it."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else None
        return self.headers.get("X-API-Key") or bearer or self.params.get("api_key")


def redacted(target: str, keys: Iterable[str | None]) -> str:
    """Return *target* without the values of key parameters, and without *keys* anywhere else."""
    path, mark, query = target.partition("?")
    target = path + mark + "&".join(map(_masked, query.split("&")))
    for key in filter(None, keys):
        target = target.replace(quote(key, safe=""), "***").replace(key, "***")
    return target


def _masked(piece: str) -> str:
    name, _, value = piece.partition("=")
    return f"{name}=***" if value and unquote(name).lower() in _KEY_NAMES else piece
