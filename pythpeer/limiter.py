"""The old module of `pythpeer.Limiter`, for one version."""

from __future__ import annotations

from collections.abc import Callable

from .deprecation import old_names

__getattr__: Callable[[str], object] = old_names(
    __name__,
    {
        "Limiter": "pythpeer.pacing.limiter.Limiter",
    },
)
