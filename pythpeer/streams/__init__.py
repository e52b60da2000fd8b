"""Streams: polling, gaps, acknowledgement, destructive reads and merging."""

from __future__ import annotations

from collections.abc import Callable

from ..deprecation import moved

__getattr__: Callable[[str], object] = moved(
    __name__,
    {
        "MergedStream": "pythpeer.streams.merged",
        "OnGap": "pythpeer.streams.stream",
        "Stream": "pythpeer.streams.stream",
        "merge": "pythpeer.streams.merged",
    },
)
