"""Follows a stream until there are enough rows, the output is closed, or Ctrl-C."""

from __future__ import annotations

import sys

from .. import ChatMessage, GapError, Mail, Stream
from . import runner, runtime
from .output.rows import Rows

__all__ = ["follow"]


async def follow(
    stream: Stream[ChatMessage | Mail], rows: Rows, messages: int | None, subject: str
) -> None:
    """Print each item when it is received, and acknowledge it after it was printed."""
    if rows.screen.is_terminal and not rows.json and sys.stderr.isatty():
        runtime.print_error(f"following {subject}; Ctrl-C stops")
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
