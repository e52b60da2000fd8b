"""Streams: polling, gaps, acknowledgement, destructive reads and merging."""

from __future__ import annotations

from collections.abc import Callable

from ..deprecation import old_names

__getattr__: Callable[[str], object] = old_names(
    __name__,
    {
        "MergedStream": "pythpeer.streams.merged.MergedStream",
        "OnGap": "pythpeer.streams.stream.OnGap",
        "Stream": "pythpeer.streams.stream.Stream",
        "merge": "pythpeer.streams.merged.merge",
    },
)
