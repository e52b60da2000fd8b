"""The command ``pythpeer top``: a store, watched."""

from __future__ import annotations

from .command import top

__all__ = ["top"]
