"""The version of the installed package."""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version

__all__ = ["version"]


@functools.cache  # the version is read from the disk, and each session needs it when it opens
def version() -> str:
    """Return the installed version, or ``"0"`` where the package is run without installation."""
    try:
        return _version("pythpeer")
    except PackageNotFoundError:
        return "0"
