"""Follows a stream until there are enough rows, the output is closed, or Ctrl-C."""

from __future__ import annotations

import sys

from .. import ChatMessage, GapError, Mail, Stream
from . import runner, runtime
from .connect import store_name
from .output.rows import Rows

__all__ = ["conflict", "follow"]


def conflict(store: str | None, text: str) -> str | None:
    """Return *text*, about programs with two stores, if the command has no store to share."""
    return text if store_name(store) == "memory" else None


async def follow(
    stream: Stream[ChatMessage | Mail],
    rows: Rows,
    messages: int | None,
    subject: str,
    warning: str | None,
) -> None:
    """Print each item when it is received, and acknowledge it after it was printed.

    At a terminal the first lines are the *subject*, and the *warning* if there is one: what happens
    to other programs with the same key.
    """
    if sys.stderr.isatty():
        runtime.print_error(f"following {subject}; Ctrl-C stops")
        if warning is not None:
            runtime.print_error(warning)
    shown = 0
    async with stream:
        with runner.stop_when_pipe_closes():
            while shown != messages:
                try:
                    item = await anext(stream)
                except GapError as gap:
                    rows.show_gap(gap.after, gap.before)
                else:
                    rows.show(item)
                    await stream.ack()
                    shown += 1
