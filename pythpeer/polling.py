"""The old module of `pythpeer.Gap`, for one version."""

from __future__ import annotations

from collections.abc import Callable

from .deprecation import old_names

__getattr__: Callable[[str], object] = old_names(
    __name__,
    {
        "Gap": "pythpeer.streams.gaps.Gap",
    },
)
