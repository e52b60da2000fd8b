"""A warning about a message during whose request the command was interrupted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator

from . import runtime

__all__ = ["warn_if_interrupted"]


@contextlib.contextmanager
def warn_if_interrupted() -> Generator[None]:
    """Print that the outcome is unknown if the command is cancelled within the context."""
    try:
        yield
    except asyncio.CancelledError:
        runtime.print_error("interrupted: the message may or may not have been sent")
        raise
