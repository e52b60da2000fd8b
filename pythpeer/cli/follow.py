"""Follows a stream until there are enough rows, the output is closed, or Ctrl-C."""

from __future__ import annotations

import sys

from .. import ChatMessage, GapError, Mail, Stream
from . import runner, runtime
from .output.rows import Rows

__all__ = ["follow"]


async def follow(
    stream: Stream[ChatMessage | Mail],
    rows: Rows,
    messages: int | None,
    subject: str,
    conflict: str,
) -> None:
    """Print each item when it is received, and acknowledge it after it was printed.

    *conflict* is what happens to other programs with the same key; it is printed at a terminal,
    as the first line, with the *subject*.
    """
    if sys.stderr.isatty():
        runtime.print_error(f"following {subject}; Ctrl-C stops")
        runtime.print_error(conflict)
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
