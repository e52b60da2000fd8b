"""The wire format, without I/O: endpoints, queries, requests and responses."""

from __future__ import annotations

from collections.abc import Callable

from ..deprecation import old_names

__getattr__: Callable[[str], object] = old_names(
    __name__,
    {
        "Effect": "pythpeer.wire.endpoints.Effect",
        "Endpoint": "pythpeer.wire.endpoints.Endpoint",
        "FLAG": "pythpeer.wire.query.FLAG",
        "Json": "pythpeer.wire.query.Json",
        "JsonObject": "pythpeer.wire.query.JsonObject",
        "Param": "pythpeer.wire.query.Param",
        "Rate": "pythpeer.pacing.bucket.Rate",
    },
)
