"""The wire format, without I/O: endpoints, queries, requests and responses."""

from __future__ import annotations

from collections.abc import Callable

from ..deprecation import moved

__getattr__: Callable[[str], object] = moved(
    __name__,
    {
        "Effect": "pythpeer.wire.endpoints",
        "Endpoint": "pythpeer.wire.endpoints",
        "FLAG": "pythpeer.wire.query",
        "Json": "pythpeer.wire.query",
        "JsonObject": "pythpeer.wire.query",
        "Param": "pythpeer.wire.query",
        "Rate": "pythpeer.pacing.bucket",
    },
)
