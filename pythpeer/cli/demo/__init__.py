"""The command ``pythpeer demo``."""

from __future__ import annotations

from .command import demo

__all__ = ["demo"]
