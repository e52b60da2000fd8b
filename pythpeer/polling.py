"""The old module of `pythpeer.Gap`, for one version."""

from __future__ import annotations

from collections.abc import Callable

from .deprecation import moved

__getattr__: Callable[[str], object] = moved(
    __name__,
    {
        "Gap": "pythpeer.streams.gaps",
    },
)
