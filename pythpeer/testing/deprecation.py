"""Warnings about names of the test kit that have another name now, and work for one version."""

from __future__ import annotations

import warnings

__all__ = ["warn_renamed"]


def warn_renamed(old: str, new: str, *, stacklevel: int = 3) -> None:
    """Warn that *old* is called *new* now, by default at the caller of the calling function."""
    text = f"{old} is deprecated and will be removed in the next version; use {new}"
    warnings.warn(text, DeprecationWarning, stacklevel=stacklevel)
