"""The old place of `pythpeer.Limiter`, for one version."""

from __future__ import annotations

from .deprecation import moved

__getattr__ = moved(
    __name__,
    {
        "Limiter": "pythpeer.pacing.limiter",
    },
)
