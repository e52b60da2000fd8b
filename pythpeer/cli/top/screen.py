"""The screen of ``pythpeer top``: logs, endpoints and the latest items of a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from rich.console import ConsoleDimensions, Group, RenderableType
from rich.text import Text

from ...peerbet import ChatMessage
from ...pythbots import Mail
from ...sanitize import sanitize
from ...stores.snapshot import LogSnapshot, StoreSnapshot
from ..output.bars import bar
from ..output.colours import sender_style
from .fitting import Barred, Column, FittedTable, Row, Title, fit_table
from .rates import Rates, items, parse_key

__all__ = ["TopScreen"]

MAX_ROWS: Final = 10
"""How many of the latest items are shown on a screen without a height."""

WIDE: Final = 72
"""Columns of a terminal from which the latest items are shown with their times."""

BAR_WIDTH: Final = 12
"""Columns of the bar for the lag of a reader."""

FULL_LAG: Final = 300
"""The lag at which that bar is full: the messages that the chat service stores."""

MAX_IDLE: Final = 3600.0
"""Seconds without a poll after which a log is not shown if others are polled."""

LOGS: Final = (
    Column("log", "left", is_text=True),
    Column("last id", omitted=3),
    Column("new/min", omitted=1),
    Column("polled", "left", omitted=4),
    Column("name", "left", is_text=True),
    Column("position", omitted=2),
    Column("lag", "left"),
)
ENDPOINTS: Final = (
    Column("endpoint", "left", is_text=True),
    Column("requests", omitted=4),
    Column("per min"),
    Column("outstanding", omitted=1),
    Column("waiting", omitted=2),
    Column("paused", omitted=3),
)

LEGEND: Final = {
    "polled": "polled: when a program last polled for new messages or mail",
    "lag": "lag: messages or mails after the position of the name",
    "outstanding": "outstanding: requests that may be sent now",
    "waiting": "waiting: requests that are queued, because of the pace",
    "paused": "paused: seconds until the service accepts requests again",
}
"""The meaning of titles."""

KEY_LEGEND: Final = "key 9d7d: the key whose fingerprint begins with 9d7d"
"""The meaning of an account."""

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
        snapshot, hidden = _without_idle(self._snapshot)
        width = None if size is None else size.width
        tables = [
            fit_table(columns, rows, width)
            for columns, rows in (
                (LOGS, self._log_rows(snapshot)),
                (ENDPOINTS, self._endpoint_rows(snapshot)),
            )
            if rows
        ]
        parts: list[RenderableType] = [self._title(size)]
        if not tables:
            parts += list(self._empty())
        for table in tables:
            parts += [Text(), table.content]
        if hidden:
            parts.append(_line_of(f"not shown: {hidden} not polled for an hour", size))
        parts += self._legend(size, tables)
        used = sum(part.height for part in tables) + len(parts) - len(tables)
        rows = MAX_ROWS if size is None else max(0, size.height - used - 2)
        wide = width is None or width >= WIDE
        return Group(*parts, Text(), *_latest(snapshot, rows, wide=wide))

    def _empty(self) -> Iterator[Text]:
        yield Text("\nThis store is empty: no bot has used it yet.", "dim")
        if self._other_prefixes:
            others = sanitize(", ".join(self._other_prefixes))
            advice = f"?prefix=NAME in the URL selects another prefix of the server: {others}"
            yield Text(advice, "dim")

    def _legend(
        self, size: ConsoleDimensions | None, tables: Sequence[FittedTable]
    ) -> Iterator[Text]:
        """Yield the meaning of what the tables show, if there is space."""
        if size is None or size.height < LEGEND_HEIGHT or not tables:
            return
        titles = [title for table in tables for title in table.titles]
        lines = [LEGEND[title] for title in titles if title in LEGEND]
        if any(table.shows_keys for table in tables):
            lines.append(KEY_LEGEND)
        yield from (Text(), *(_line_of(line, size) for line in lines))

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

    def _log_rows(self, snapshot: StoreSnapshot) -> list[Row]:
        rows: list[Row] = []
        for log in snapshot.logs:
            rate = _rate(self._rates.per_minute(log.topic))
            first: Row = (f"{log.head:,}", rate, _polled(log))
            note = f" fetches pending: {log.pending_fetches}" if log.pending_fetches else ""
            names: list[Row] = [
                (sanitize(reader.name), f"{reader.position:,}", _lag(reader.lag))
                for reader in log.readers
            ]
            for at, name in enumerate(names or [(Text("no name yet", "dim"), "", "")]):
                label = Title(parse_key(log.topic), note) if at == 0 else None
                rows.append((label, *(first if at == 0 else ("", "", "")), *name))
        return rows

    def _endpoint_rows(self, snapshot: StoreSnapshot) -> list[Row]:
        return [
            (
                Title(parse_key(endpoint.key)),
                f"{endpoint.requests:,}",
                _rate(self._rates.per_minute(endpoint.key)),
                str(endpoint.outstanding),
                str(endpoint.waiting),
                Text(f"{endpoint.paused_for:.0f} s", "gap" if endpoint.paused_for else ""),
            )
            for endpoint in snapshot.endpoints
        ]


def _without_idle(snapshot: StoreSnapshot) -> tuple[StoreSnapshot, str]:
    """Leave out logs that are not polled any more, and their endpoints, if others are polled.

    A key or an address that was wrong once has a log and endpoints, too.
    """
    idle = [log for log in snapshot.logs if _is_idle(log)]
    shown = [log for log in snapshot.logs if not _is_idle(log)]
    if not idle or not any(log.has_leader or log.idle_for is not None for log in shown):
        return snapshot, ""
    accounts = {parse_key(log.topic)[1:] for log in idle}
    accounts -= {parse_key(log.topic)[1:] for log in shown}
    endpoints = [
        endpoint
        for endpoint in snapshot.endpoints
        if parse_key(endpoint.key)[1:] not in accounts or endpoint.outstanding or endpoint.waiting
    ]
    hidden = f"{len(idle)} log{'s' * (len(idle) > 1)}"
    return StoreSnapshot(tuple(shown), tuple(endpoints)), hidden


def _is_idle(log: LogSnapshot) -> bool:
    """Return whether a log was not polled for long, or never received anything."""
    if log.has_leader or log.pending_fetches:
        return False
    return not log.head if log.idle_for is None else log.idle_for >= MAX_IDLE


def _latest(snapshot: StoreSnapshot, rows: int, *, wide: bool) -> Iterator[RenderableType]:
    """Yield the latest items, with equal shares of the rows for all logs, by time."""
    if not rows:
        return
    share = max(1, rows // max(1, len(snapshot.logs)))
    found: list[tuple[datetime, Text]] = []
    for log in snapshot.logs:
        at = datetime.min  # without a time, an item follows the one before it
        for id, item in items(log)[-share:]:
            at = max(at, (item.sent_at if item else None) or at)
            found.append((at, _line(log, id, item, wide=wide)))
    yield from (line for _, line in sorted(found, key=lambda pair: pair[0]))


def _line_of(text: str, size: ConsoleDimensions | None) -> Text:
    line = Text(text, "dim", no_wrap=True)
    if size is not None:
        line.truncate(size.width, overflow="ellipsis")
    return line


def _end_of(path: str, columns: int) -> str:
    """Return *path*, or its end, which distinguishes it, if it does not fit."""
    return path if len(path) <= columns else f"…{path[len(path) - max(0, columns - 1) :]}"


def _polled(log: LogSnapshot) -> str:
    """Return when a session last polled a log."""
    if log.has_leader:
        return "now"
    if log.idle_for is None:
        return "not now"
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if log.idle_for >= 2 * size:
            return f"{log.idle_for / size:.0f} {unit} ago"
    return f"{log.idle_for:.0f} s ago"


def _rate(per_minute: float | None) -> str:
    return "" if per_minute is None else f"{per_minute:.1f}"


def _lag(lag: int) -> Barred:
    text = Text(f"{lag:,}", "gap" if lag >= FULL_LAG else "")
    shown = f" {bar(min(1.0, lag / FULL_LAG), BAR_WIDTH)}" if lag else ""
    return Barred(text, Text.assemble(text, (shown, "bar")))


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
