"""What is seen of a running bot: the screen of ``pythpeer top``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import ConsoleDimensions, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from ..peerbet import ChatMessage
from ..pythbots import Mail
from ..stores.survey import LogSnapshot, StoreSnapshot
from .bars import bar
from .colours import sender_style
from .plain import sanitize
from .watching import Rates, items, parse_key

__all__ = ["TopScreen"]

MAX_ROWS: Final = 10
"""How many of the last messages are shown where there is no end to the screen."""

WIDE: Final = 72
"""From this many columns on, everything is shown."""

BAR_WIDTH: Final = 12
"""Columns of the bar for what a name has not read yet."""

FULL_LAG: Final = 300
"""Items behind at which that bar is full: what the chat service keeps."""


class Column(NamedTuple):
    """A column of a table; a narrow screen does without those to *spare*."""

    title: str
    justify: JustifyMethod = "right"
    optional: bool = False


LOGS: Final = (
    Column("log", "left"),
    Column("last id"),
    Column("new/min", optional=True),
    Column("name", "left"),
    Column("at", optional=True),
    Column("behind", "left"),
)
ENDPOINTS: Final = (
    Column("endpoint", "left"),
    Column("requests"),
    Column("per min"),
    Column("in hand", optional=True),
    Column("waiting", optional=True),
    Column("paused", optional=True),
)


class TopScreen:
    """Takes surveys, and draws what has become of them."""

    def __init__(self, what: str) -> None:
        self._store_name = what
        self._rates = Rates()
        self._snapshot = StoreSnapshot((), ())

    def add(self, now: float, survey: StoreSnapshot) -> None:
        """Take account of what there was at *now*, in seconds."""
        self._rates.add(now, survey)
        self._snapshot = survey

    def render(self, size: ConsoleDimensions | None) -> RenderableType:
        """The screen, of that size or as long as it gets."""
        wide = size is None or size.width >= WIDE
        survey = self._snapshot
        parts: list[RenderableType] = [self._title(size)]
        if not survey.logs and not survey.endpoints:
            parts.append(Text("\nNothing is in this store yet.", "dim"))
        if survey.logs:
            parts += [Text(), self._logs(wide=wide)]
        if survey.endpoints:
            parts += [Text(), self._endpoints(wide=wide)]
        names = sum(len(log.readers) or 1 for log in survey.logs)
        taken = 2 + (names + 3) * bool(survey.logs) + (len(survey.endpoints) + 3)
        rows = MAX_ROWS if size is None else max(0, size.height - taken - 1)
        latest = list(self._latest(rows, wide=wide))
        return Group(*parts, Text(), *latest)

    def _title(self, size: ConsoleDimensions | None) -> Text:
        text = Text("pythpeer top", "bold")
        text.append(f" · {self._store_name} · {datetime.now():%H:%M:%S}", "dim")
        if size is not None:
            text.append(" · Ctrl-C stops", "dim")
            text.truncate(size.width, overflow="ellipsis")
        text.no_wrap = size is not None
        return text

    def _logs(self, *, wide: bool) -> Table:
        table = _table(LOGS, wide=wide)
        for log in self._snapshot.logs:
            what = _title_of(log.topic, wide=wide)
            if log.pending_fetches:
                what.append(f" {log.pending_fetches} in doubt", "gap")
            if not log.has_leader:
                what.append(" not polled", "dim")
            first = (what, f"{log.head:,}", _rate(self._rates.per_minute(log.topic)))
            names: list[tuple[RenderableType, ...]] = [
                (sanitize(one.name), f"{one.position:,}", _lag(one.lag, wide=wide))
                for one in log.readers
            ]
            for at, name in enumerate(names or [(Text("no name yet", "dim"), "", "")]):
                row = (*(first if at == 0 else ("", "", "")), *name)
                table.add_row(*_cells(row, LOGS, wide=wide))
        return table

    def _endpoints(self, *, wide: bool) -> Table:
        table = _table(ENDPOINTS, wide=wide)
        for one in self._snapshot.endpoints:
            row = (
                _title_of(one.key, wide=wide),
                f"{one.requests:,}",
                _rate(self._rates.per_minute(one.key)),
                str(one.outstanding or ""),
                str(one.waiting or ""),
                Text(f"{one.paused_for:.0f} s" if one.paused_for else "", "gap"),
            )
            table.add_row(*_cells(row, ENDPOINTS, wide=wide))
        return table

    def _latest(self, rows: int, *, wide: bool) -> Iterator[RenderableType]:
        """The last items of all logs, most room for those of which there are most."""
        if not rows:
            return
        share = max(1, rows // max(1, len(self._snapshot.logs)))
        for log in self._snapshot.logs:
            for id, item in items(log)[-share:]:
                yield _line(log, id, item, wide=wide)


def _table(columns: Sequence[Column], *, wide: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for column in columns:
        if wide or not column.optional:
            table.add_column(
                column.title, justify=column.justify, no_wrap=True, overflow="ellipsis"
            )
    return table


def _cells(
    row: Sequence[RenderableType], columns: Sequence[Column], *, wide: bool
) -> list[RenderableType]:
    pairs = zip(row, columns, strict=True)
    return [cell for cell, column in pairs if wide or not column.optional]


def _title_of(name: str, *, wide: bool) -> Text:
    told = parse_key(name)
    if not wide:
        return Text(told.name.partition(".")[2] or told.name, "bold")
    what = Text(told.name, "bold")
    return what.append(f" {told.host} {told.account}", "dim")


def _rate(per_minute: float | None) -> str:
    return "" if per_minute is None else f"{per_minute:.1f}"


def _lag(lag: int, *, wide: bool) -> Text:
    text = Text(f"{lag:,}", "gap" if lag >= FULL_LAG else "")
    if wide and lag:
        text.append(f" {bar(min(1.0, lag / FULL_LAG), BAR_WIDTH)}", "bar")
    return text


def _line(log: LogSnapshot, id: int, item: ChatMessage | Mail | None, *, wide: bool) -> Text:
    if item is None:
        return Text(f"{parse_key(log.topic).name} {id:,}: could not be read", "dim")
    line = Text(no_wrap=True, overflow="ellipsis")
    sent = f"{item.sent_at:%H:%M:%S}" if item.sent_at else "--:--:--"
    line.append(f"{sent} " if wide else "", "dim")
    if isinstance(item, Mail):
        line.append("mail ", "mail")
    who = sanitize(item.sender or "?")
    line.append(who, sender_style(item.sender or ""))
    line.append(": ", "dim")
    line.append(" ".join(sanitize(item.text or "").split()))
    return line
