"""What is said of a message that an interruption caught on its way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator

from . import ending

__all__ = ["warn_if_interrupted"]


@contextlib.contextmanager
def warn_if_interrupted() -> Generator[None]:
    """Tell the truth about a message that an interruption caught on its way."""
    try:
        yield
    except asyncio.CancelledError:
        ending.print_error("interrupted: the message may or may not have been sent")
        raise
