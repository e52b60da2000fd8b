"""The competitors that are installed, and the name of pythpeer in tables."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["OURS", "installed"]

OURS: Final = "pythpeer"
"""The name of pythpeer in tables."""


def installed(modules: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the `CANDIDATES` of these modules by name, and a note for each missing library."""
    candidates: dict[str, Any] = {}
    missing: list[str] = []
    for name in modules:
        try:
            module = importlib.import_module(f"{__package__}.{name}")
        except ImportError as error:
            missing.append(
                f"Left out: {name}, because {error.name or 'a library'} is not installed."
            )
        else:
            candidates |= {candidate.name: candidate for candidate in module.CANDIDATES}
    return candidates, missing
