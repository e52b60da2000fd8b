"""Incoming requests: what is requested of which endpoint; and a record of them without keys.

Parameters are read as PHP reads them: ``+`` is a space, the last of equal names wins, a bare name
is an empty value, and bytes that are not UTF-8 are replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

import msgspec

from .endpoints import Service, endpoint_at, operation_of
from .faults import Fault

__all__ = ["IncomingRequest", "RecordedRequest", "redacted"]

_KEY_NAMES: Final = frozenset({"key", "personalkey", "personal_key", "api_key"})


class RecordedRequest(msgspec.Struct, frozen=True):
    """One request that the fake services received."""

    endpoint: str
    """The endpoint's name, or that of the service if it has no such endpoint."""

    at: float
    """When it was received, in seconds of the fake's clock."""

    target: str
    """The raw path and query, with ``***`` in place of every key."""

    fault: Fault | None = None
    """The fault that was scripted for it."""


class IncomingRequest:
    """One incoming request.

    It holds keys, so no reference to it may be kept after it was answered.
    """

    __slots__ = ("api_key", "at", "endpoint", "headers", "method", "params", "query")

    def __init__(
        self, service: Service, method: str, target: str, headers: Mapping[str, str], at: float
    ) -> None:
        path, _, query = target.partition("?")
        self.query: Final[str] = query
        """The raw query string."""
        self.method: Final[str] = method
        """The HTTP method."""
        self.headers: Final[Mapping[str, str]] = headers
        """The headers."""
        self.at: Final[float] = at
        """The time of arrival, in seconds."""
        readable = query.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        self.params: Final[Mapping[str, str]] = dict(parse_qsl(readable, keep_blank_values=True))
        """The decoded parameters."""
        self.endpoint: Final[str] = endpoint_at(service, path, self.params.get("action"))
        """The name of the endpoint."""
        self.api_key: Final[str | None] = self._api_key()
        """The API key, ``None`` without one."""

    @property
    def kind(self) -> str:
        """The name of what is requested: the endpoint, or of mail the operation."""
        return operation_of(self.endpoint, self.params)

    def _api_key(self) -> str | None:
        """Return the PythBots API key, from any of the three positions that a GET has for it."""
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
