"""Which pythpeer this is."""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version

__all__ = ["version"]


@functools.cache  # it is read from the disk, and each session asks as it opens
def version() -> str:
    """The installed version, or ``"0"`` where the package is run without having been installed."""
    try:
        return _version("pythpeer")
    except PackageNotFoundError:
        return "0"
