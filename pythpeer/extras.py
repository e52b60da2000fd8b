"""The optional dependencies, and how to install them: for the errors of programs without them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["EXTRAS", "install_advice"]

EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "cli": ("cyclopts>=4.4", "rich>=13.6"),
    "otel": ("opentelemetry-api>=1.30",),
    "redis": ("redis>=5.2",),
}
"""What each extra installs: the same as in pyproject.toml, which is not part of the package."""


def install_advice(extra: str) -> str:
    """Return a command that installs what *extra* needs, whether pythpeer is on an index or not."""
    # Double quotes, which every shell understands, also cmd of Windows.
    packages = " ".join(f'"{package}"' for package in EXTRAS[extra])
    return f"run: python -m pip install {packages} (the extra {extra!r})"
