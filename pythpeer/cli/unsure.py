"""A warning about a message or a roll during whose request the command was interrupted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator

from . import runtime

__all__ = ["warn_if_interrupted"]


@contextlib.contextmanager
def warn_if_interrupted(subject: str = "the message", done: str = "sent") -> Generator[None]:
    """Print that the outcome is unknown if the command is cancelled within the context."""
    try:
        yield
    except asyncio.CancelledError:
        runtime.print_error(f"interrupted: {subject} may or may not have been {done}")
        raise
