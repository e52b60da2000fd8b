"""A line at the bottom of a terminal, while an operation takes longer than `SHOW_AFTER`.

It is written to stderr, and only if that is a terminal, so it is never in a pipe or a file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Self

from rich.live import Live
from rich.text import Text

from ...pacing.limiter import Limiter
from ...splitting import split_text
from .bars import bar
from .console import is_interactive, make_console

__all__ = ["Progress"]

SHOW_AFTER: Final = 0.4
"""Seconds after which the line appears."""

FRAME_INTERVAL: Final = 0.1
"""Seconds between two updates."""

BAR_WIDTH: Final = 20
"""Columns of the bar for the parts that are done."""

SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Progress:
    """Shows what is *doing*, how many parts are done, and what it waits for.

    It is used as ``with Progress(...)``; *limiter* is that of the endpoint that is requested.
    """

    def __init__(self, limiter: Limiter, doing: str) -> None:
        self._limiter = limiter
        self._doing = doing
        self._screen = make_console(stderr=True)
        self._parts = 1
        """How many parts there are; `count` sets it."""
        self._done = 0
        """How many parts are done."""
        self._frame = 0
        """The number of the update, which selects the character of the spinner."""
        self._live: Live | None = None
        """The line, once it has appeared."""
        self._timer: asyncio.TimerHandle | None = None
        """The next update; ``None`` without an interactive terminal."""

    def __enter__(self) -> Self:
        if is_interactive(self._screen):
            self._timer = asyncio.get_running_loop().call_later(SHOW_AFTER, self._refresh)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._live is not None:
            self._live.stop()

    def count(self, text: str) -> None:
        """Set the number of parts to those of *text*."""
        self._parts = len(split_text(text))

    def on_part(self, posted: list[int]) -> Callable[[int], None]:
        """Return a function that appends the id of each part to *posted*, and counts the part."""

        def record(id: int) -> None:
            posted.append(id)
            self._done += 1

        return record

    def _refresh(self) -> None:
        if self._live is None:
            self._live = Live(
                console=self._screen,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._frame += 1
        self._live.update(self.line(self._screen.width), refresh=True)
        self._timer = asyncio.get_running_loop().call_later(FRAME_INTERVAL, self._refresh)

    def line(self, width: int) -> Text:
        """Return the line in its present state, for a terminal of *width* columns."""
        ascii_only = self._screen.options.ascii_only
        spinner = "|/-\\" if ascii_only else SPINNER
        text = Text(f"{spinner[self._frame % len(spinner)]} {self._doing}", no_wrap=True)
        if self._parts > 1:
            filled = bar(self._done / self._parts, BAR_WIDTH, ascii_only=ascii_only)
            text.append(f" {self._done} of {self._parts} ")
            text.append(filled.ljust(BAR_WIDTH, "." if ascii_only else "─"), "bar")
        text.append(f", {self._waiting_for()}", "dim")
        text.truncate(width - 1, overflow="ellipsis")
        return text

    def _waiting_for(self) -> str:
        limiter = self._limiter
        if limiter.paused_for:
            return f"throttled by the service for {limiter.paused_for:.0f} s"
        if limiter.waiting:
            return f"waiting for a token: one every {limiter.rate.interval:g} s"
        return "waiting for the response"
