"""Which rivals are here to be measured, and who is measured beside them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["OURS", "installed"]

OURS: Final = "pythpeer"
"""Its name in every table."""


def installed(modules: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """The `ARMS` of these modules of this package by name, and a note for each that is absent."""
    candidates: dict[str, Any] = {}
    missing: list[str] = []
    for name in modules:
        try:
            module = importlib.import_module(f"{__package__}.{name}")
        except ImportError as error:
            missing.append(
                f"Left out: {name}, for {error.name or 'what it needs'} is not installed."
            )
        else:
            candidates |= {candidate.name: candidate for candidate in module.CANDIDATES}
    return candidates, missing
