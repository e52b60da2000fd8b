"""The old place of `pythpeer.Gap`, for one version."""

from __future__ import annotations

from .deprecation import moved

__getattr__ = moved(
    __name__,
    {
        "Gap": "pythpeer.streams.gaps",
    },
)
