"""The screen of ``pythpeer top``: logs, endpoints and the latest items of a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import ConsoleDimensions, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from ...peerbet import ChatMessage
from ...pythbots import Mail
from ...sanitize import sanitize
from ...stores.snapshot import LogSnapshot, StoreSnapshot
from ..output.bars import bar
from ..output.colours import sender_style
from .rates import Rates, items, parse_key

__all__ = ["TopScreen"]

MAX_ROWS: Final = 10
"""How many of the latest items are shown on a screen without a height."""

WIDE: Final = 72
"""Columns of a terminal from which everything is shown."""

BAR_WIDTH: Final = 12
"""Columns of the bar for the lag of a reader."""

FULL_LAG: Final = 300
"""The lag at which that bar is full: the messages that the chat service stores."""


class Column(NamedTuple):
    """A column of a table; a narrow screen omits *optional* ones."""

    title: str
    """The heading."""
    justify: JustifyMethod = "right"
    """The alignment of the cells."""
    optional: bool = False
    """Whether a narrow screen omits the column."""


LOGS: Final = (
    Column("log", "left"),
    Column("last id"),
    Column("new/min", optional=True),
    Column("name", "left"),
    Column("position", optional=True),
    Column("lag", "left"),
)
ENDPOINTS: Final = (
    Column("endpoint", "left"),
    Column("requests"),
    Column("per min"),
    Column("outstanding", optional=True),
    Column("waiting", optional=True),
    Column("paused", optional=True),
)


LEGEND: Final = (
    "lag: messages or mails after the position of the name",
    "outstanding: requests that are about to be sent; waiting: those in the queue",
    "paused: seconds until the service accepts requests again",
)
"""The meaning of titles, for a wide terminal; a narrow one shows the first line."""

LEGEND_HEIGHT: Final = 20
"""Lines of a terminal from which the legend is shown."""


class TopScreen:
    """Receives snapshots of a store, and renders the latest of them with rates."""

    def __init__(self, store_name: str) -> None:
        self._store_name = store_name
        self._other_prefixes: Sequence[str] = ()
        self._rates = Rates()
        self._snapshot = StoreSnapshot((), ())

    def add(self, now: float, snapshot: StoreSnapshot, other_prefixes: Sequence[str] = ()) -> None:
        """Add the snapshot of *now*, in seconds of any steady clock.

        *other_prefixes* are shown if the store is empty: the server has stores with them.
        """
        self._rates.add(now, snapshot)
        self._snapshot, self._other_prefixes = snapshot, other_prefixes

    def render(self, size: ConsoleDimensions | None) -> RenderableType:
        """Return the screen, of that size, or of unlimited size."""
        wide = size is None or size.width >= WIDE
        snapshot = self._snapshot
        parts: list[RenderableType] = [self._title(size)]
        if not snapshot.logs and not snapshot.endpoints:
            parts.append(Text("\nThis store is empty: no bot has used it yet.", "dim"))
            if self._other_prefixes:
                others = sanitize(", ".join(self._other_prefixes))
                advice = f"?prefix=NAME in the URL selects another prefix of the server: {others}"
                parts.append(Text(advice, "dim"))
        if snapshot.logs:
            parts += [Text(), self._logs(wide=wide)]
        if snapshot.endpoints:
            parts += [Text(), self._endpoints(wide=wide)]
        names = sum(len(log.readers) or 1 for log in snapshot.logs)
        used = 2 + len(snapshot.endpoints) + 3
        if snapshot.logs:
            used += names + 3
        legend = self._legend(size, wide=wide)
        rows = MAX_ROWS if size is None else max(0, size.height - used - 1 - len(legend))
        latest = list(self._latest(rows, wide=wide))
        return Group(*parts, *legend, Text(), *latest)

    def _legend(self, size: ConsoleDimensions | None, *, wide: bool) -> Sequence[Text]:
        if size is None or size.height < LEGEND_HEIGHT or not self._snapshot.logs:
            return ()
        lines = [Text(line, "dim") for line in LEGEND[: None if wide else 1]]
        for line in lines:
            line.truncate(size.width, overflow="ellipsis")
        return (Text(), *lines)

    def _title(self, size: ConsoleDimensions | None) -> Text:
        text = Text("pythpeer top", "bold")
        end = f" · {datetime.now():%H:%M:%S}"
        if size is None:
            return text.append(f" · {self._store_name}{end}", "dim")
        end += " · Ctrl-C stops"
        store = _end_of(self._store_name, size.width - len(text) - len(" · ") - len(end))
        text.append(f" · {store}{end}", "dim")
        text.truncate(size.width, overflow="ellipsis")
        text.no_wrap = True
        return text

    def _logs(self, *, wide: bool) -> Table:
        table = _table(LOGS, wide=wide)
        for log in self._snapshot.logs:
            title = _title_of(log.topic, wide=wide)
            if log.pending_fetches:
                title.append(f" fetches pending: {log.pending_fetches}", "gap")
            if not log.has_leader:
                title.append(f" {_idle_time(log.idle_for)}", "dim")
            first = (title, f"{log.head:,}", _rate(self._rates.per_minute(log.topic)))
            names: list[tuple[RenderableType, ...]] = [
                (sanitize(reader.name), f"{reader.position:,}", _lag(reader.lag, wide=wide))
                for reader in log.readers
            ]
            for at, name in enumerate(names or [(Text("no name yet", "dim"), "", "")]):
                row = (*(first if at == 0 else ("", "", "")), *name)
                table.add_row(*_cells(row, LOGS, wide=wide))
        return table

    def _endpoints(self, *, wide: bool) -> Table:
        table = _table(ENDPOINTS, wide=wide)
        for endpoint in self._snapshot.endpoints:
            row = (
                _title_of(endpoint.key, wide=wide),
                f"{endpoint.requests:,}",
                _rate(self._rates.per_minute(endpoint.key)),
                str(endpoint.outstanding),
                str(endpoint.waiting),
                Text(f"{endpoint.paused_for:.0f} s", "gap" if endpoint.paused_for else ""),
            )
            table.add_row(*_cells(row, ENDPOINTS, wide=wide))
        return table

    def _latest(self, rows: int, *, wide: bool) -> Iterator[RenderableType]:
        """Yield the latest items of all logs, with equal shares of the rows."""
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
    label = parse_key(name)
    if not wide:
        return Text(label.name.partition(".")[2] or label.name, "bold")
    title = Text(label.name, "bold")
    return title.append(f" {label.host} {label.account}", "dim")


def _end_of(path: str, columns: int) -> str:
    """Return *path*, or its end, which distinguishes it, if it does not fit."""
    return path if len(path) <= columns else f"…{path[len(path) - max(0, columns - 1) :]}"


def _idle_time(seconds: float | None) -> str:
    """Return for how long no session has polled a log that has no leader at this moment."""
    if seconds is None:
        return "not polled"
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"no poller for {seconds / size:.0f} {unit}"
    return f"no poller for {seconds:.0f} s"


def _rate(per_minute: float | None) -> str:
    return "" if per_minute is None else f"{per_minute:.1f}"


def _lag(lag: int, *, wide: bool) -> Text:
    text = Text(f"{lag:,}", "gap" if lag >= FULL_LAG else "")
    if wide and lag:
        text.append(f" {bar(min(1.0, lag / FULL_LAG), BAR_WIDTH)}", "bar")
    return text


def _line(log: LogSnapshot, id: int, item: ChatMessage | Mail | None, *, wide: bool) -> Text:
    if item is None:
        return Text(f"{parse_key(log.topic).name} {id:,}: undecodable", "dim")
    line = Text(no_wrap=True, overflow="ellipsis")
    sent = f"{item.sent_at:%H:%M:%S}" if item.sent_at else "--:--:--"
    line.append(f"{sent} " if wide else "", "dim")
    if isinstance(item, Mail):
        line.append("mail ", "mail")
    line.append(sanitize(item.sender or "?"), sender_style(item.sender or ""))
    line.append(": ", "dim")
    line.append(" ".join(sanitize(item.text or "").split()))
    return line
