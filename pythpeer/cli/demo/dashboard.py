"""The dashboard of the demonstration: when each endpoint was requested, and its limiter's state.

It shows the requests that the fake services received, not those that the session counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, Self

from rich.console import Console, Group
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment
from rich.table import Table
from rich.text import Text

from ...pacing.limiter import Limiter
from ...session import Session
from ...testing import FakeServices
from ..output.console import is_interactive

__all__ = ["WIDE", "Dashboard", "gauge", "timeline"]

TITLES: Final = {"peerbet.chat.get": "chat", "pythbots.mail": "mail", "peerbet.chat.set": "post"}

FRAME_INTERVAL: Final = 0.2
"""Seconds between two updates."""

SECONDS_PER_COLUMN: Final = 0.25
"""Seconds that one column of a timeline represents."""

MAX_COLUMNS: Final = 80
"""The most columns of a timeline."""

MIN_HEIGHT: Final = 14
"""Lines of a terminal from which more than the last line of the dashboard is shown."""

MARGIN: Final = 42
NARROW_MARGIN: Final = 16
"""Columns for everything except the timeline; a narrow terminal shows less."""

WIDE: Final = 64
"""Columns of a terminal from which everything is shown."""

GAUGE_WIDTH: Final = 5
"""Columns of a gauge."""


class Dashboard:
    """A display at the bottom of a terminal, removed at the end: ``with Dashboard(...)``.

    *counts* returns the text of the last line. Without an interactive
    terminal, or if it is not *visible*, nothing is shown.
    """

    def __init__(
        self,
        console: Console,
        session: Session,
        fake: FakeServices,
        counts: Callable[[], str],
        *,
        visible: bool = True,
    ) -> None:
        self._visible = visible and is_interactive(console)
        self._console = console
        self._session = session
        self._fake = fake
        self._counts = counts
        # Rendered for each row that is printed above it, too.
        self._live = Live(self, console=console, auto_refresh=False, transient=True)
        self._timer: asyncio.TimerHandle | None = None
        """The next update; ``None`` as long as nothing is shown."""
        self._width = 0
        """The columns of the terminal at the last update."""
        self._line_widths: Sequence[int] = ()
        """The columns of each line at the last update."""

    def __enter__(self) -> Self:
        if self._visible:
            self._live.start()
            self._refresh()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._live.stop()

    def __rich__(self) -> Group:
        return self.render()

    def _refresh(self) -> None:
        self.adapt()
        self._live.refresh()
        lines = self._console.render_lines(self.render(), pad=False)
        self._line_widths = [Segment.get_line_length(line) for line in lines]
        self._timer = asyncio.get_running_loop().call_later(FRAME_INTERVAL, self._refresh)

    def adapt(self) -> None:
        """Erase the lines by which the dashboard grew if the terminal became narrower.

        Must be called before a row is printed. The terminal has wrapped the dashboard's lines, and
        rich erases as many lines as it has printed.
        """
        before, self._width = self._width, self._console.width
        if self._width < before:
            self._erase_wrapped(self._width)

    def _erase_wrapped(self, width: int) -> None:
        grown = sum(max(0, columns - 1) // width for columns in self._line_widths)
        erase_line = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
        self._console.control(Control(ControlType.CARRIAGE_RETURN, *erase_line * grown))

    def render(self) -> Group:
        """Return the dashboard in its present state."""
        width = self._console.width
        status = Text(f" Ctrl-C stops · {self._counts()} ", "reverse", no_wrap=True)
        status.truncate(width - 4, overflow="ellipsis")  # leaves room for a ^C
        if self._console.height < MIN_HEIGHT:
            return Group(status)
        return Group(Text(), self._pacing(width), status)

    def _pacing(self, width: int) -> Table:
        wide = width >= WIDE
        columns = min(MAX_COLUMNS, width - (MARGIN if wide else NARROW_MARGIN))
        grid = Table.grid(padding=(0, 1, 0, 0))
        for style in ("bold", "", "bar", "", "dim"):
            grid.add_column(style=style, no_wrap=True)
        titles = (
            "",
            f"requests, the last {columns * SECONDS_PER_COLUMN:.0f} s",
            "interval",
            "state",
            "shortest",
        )
        rows = [self._row(name, columns) for name in TITLES]
        for cells in (tuple(Text(title, "dim") for title in titles), *rows):
            grid.add_row(*cells[: 5 if wide else 3])
        return grid

    def _row(self, name: str, columns: int) -> tuple[Text | str, ...]:
        """Return the cells of one endpoint: requests, share of the interval, state, shortest."""
        ascii_only = self._console.options.ascii_only
        times = [request.at for request in self._fake.requests if request.endpoint == name]
        now, limiter = self._fake.clock(), self._session.limiters[name]
        line = Text(timeline(times, now, columns, ascii_only=ascii_only), "dim")
        line.highlight_regex(r"[●*]", "bold not dim")
        closest = min((after - before for before, after in pairwise(times)), default=None)
        return (
            TITLES[name],
            line,
            gauge(_level(limiter, times, now), ascii_only=ascii_only),
            _state(limiter),
            "" if closest is None else f"{closest:.3f} s",
        )


def timeline(times: Sequence[float], now: float, columns: int, *, ascii_only: bool = False) -> str:
    """Return the time until *now*, which is at the right, with a mark for each request."""
    empty, mark = ".*" if ascii_only else "·●"
    cells = [empty] * columns
    for at in times:
        column = columns - 1 - int((now - at) / SECONDS_PER_COLUMN)
        if 0 <= column < columns:
            cells[column] = mark
    return "".join(cells)


def gauge(level: float, *, ascii_only: bool = False) -> str:
    """Return a gauge that is filled to *level*, from 0 to 1."""
    full, empty = "#." if ascii_only else "▰▱"
    filled = int(max(0.0, min(1.0, level)) * GAUGE_WIDTH)
    return full * filled + empty * (GAUGE_WIDTH - filled)


def _level(limiter: Limiter, times: Sequence[float], now: float) -> float:
    """Return the share of the interval that has passed since the last request."""
    if limiter.paused_for:
        return 0.0
    if limiter.available or not times:
        return 1.0
    return (now - times[-1]) / limiter.rate.interval


def _state(limiter: Limiter) -> str:
    if limiter.paused_for:
        return f"paused {limiter.paused_for:.0f} s"
    if limiter.waiting:
        return "waiting"
    return "ready" if limiter.available else "requesting"
