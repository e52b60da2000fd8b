"""What the commands print: rows for chat and mail, facts, tables; each also as JSON.

Three forms of the same. On a terminal: columns and colours, wrapped to its width. Elsewhere: plain
lines, one for each row. With ``--json``: one JSON object on each line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any, Final

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..peerbet import ChatMessage
from ..pythbots import ChatStats, Mail, StaffMember, User
from .plain import clean, json_line

__all__ = ["Rows", "facts", "screen", "table", "write_json"]

COLOURS: Final = tuple(f"color({number})" for number in (37, 166, 99, 35, 168, 32, 136, 133))
"""Neither too dark for a dark terminal nor too light for a light one."""

WIDE: Final = 64
"""From this many columns on, names stand in a column of their own."""

NAMES: Final = 12
"""How many columns that is."""

UNBROKEN: Final = 10
"""Up to this length, dates for example, words in tables are not broken."""

REMEMBERED: Final = 1000
"""How many names keep their colour."""


class _Screen(Console):
    """A rich console that interprets nothing it is given, and leaves broken pipes to us."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def screen() -> Console:
    """The terminal, if stdout is one; without it, or with ``NO_COLOR``, there are no escapes."""
    return _Screen(
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        force_terminal=sys.stdout.isatty(),
        no_color=False,
        markup=False,
        emoji=False,
        highlight=False,
    )


def write_json(kind: str, fields: Mapping[str, object]) -> None:
    """Print one row of NDJSON, in UTF-8 whatever the terminal's encoding is."""
    sys.stdout.buffer.write(json_line({"kind": kind, **fields}))
    sys.stdout.buffer.flush()


def as_json(item: ChatMessage | Mail | User | StaffMember | ChatStats) -> dict[str, Any]:
    """The public fields of a model."""
    if not isinstance(item, ChatMessage):
        fields: dict[str, Any] = msgspec.to_builtins(item)
        return fields
    return {
        "id": item.id,
        "sender": item.sender,
        "recipient": item.recipient,
        "text": item.text,
        "sent_at": item.sent_at and item.sent_at.isoformat(),
        "is_bot": item.is_bot,
        "is_mine": item.is_mine,
        "is_private": item.is_private,
    }


# -- rows -----------------------------------------------------------------------------------------


class Rows:
    """Prints chat messages and mails as they come, each at once: ``rows.show(item)``."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.screen: Final[Console] = screen()
        self._colours: dict[str, str] = {}
        self._day = datetime.now().date()

    def show(self, item: ChatMessage | Mail) -> None:
        """Print one row and flush it."""
        if self.json:
            write_json("mail" if isinstance(item, Mail) else "chat", as_json(item))
        elif self.screen.is_terminal:
            self._draw(item)
        else:
            sent = f"{item.sent_at:%Y-%m-%d %H:%M:%S}" if item.sent_at else "-"
            print(f"{sent} {_who(item)}{_marked(item)}: {clean(item.text or '')}", flush=True)

    def _draw(self, item: ChatMessage | Mail) -> None:
        if item.sent_at and item.sent_at.date() != self._day:
            self._day = item.sent_at.date()
            self.screen.print(Text(f"{self._day:%A %Y-%m-%d}", "dim"))
        sent = Text(f"{item.sent_at:%H:%M:%S}" if item.sent_at else "--:--:--", "dim")
        who = Text(_who(item), f"bold {self._colour(item.sender or '')}")
        style = "italic" if isinstance(item, Mail) else ""
        text = Text(clean(item.text or ""), style)
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=8)
        if self.screen.width < WIDE:
            grid.add_column(ratio=1)
            grid.add_row(sent, who + Text(f"{_marked(item)}: ", "dim") + text)
        else:
            bar = "|" if self.screen.options.ascii_only else "│"
            grid.add_column(width=7)
            grid.add_column(width=NAMES, justify="right", no_wrap=True, overflow="ellipsis")
            grid.add_column(width=1)
            grid.add_column(ratio=1)
            grid.add_row(sent, Text(_mark(item), _tint(item)), who, Text(bar, _tint(item)), text)
        self.screen.print(grid)

    def _colour(self, name: str) -> str:
        if len(self._colours) == REMEMBERED:
            self._colours.clear()
        return self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])


def _who(item: ChatMessage | Mail) -> str:
    if isinstance(item, ChatMessage) and item.is_private and item.is_mine and item.recipient:
        return f"to {clean(item.recipient)}"
    if isinstance(item, Mail) and item.sender is None and item.sender_id is not None:
        return str(item.sender_id)
    return clean(item.sender or "") or "?"


def _mark(item: ChatMessage | Mail) -> str:
    """What kind of message it is, in a word or two; nothing for ordinary chat."""
    if isinstance(item, Mail):
        return "mail again" if item.recovered else "mail"
    return " ".join(["private"] * item.is_private + ["bot"] * item.is_bot)


def _marked(item: ChatMessage | Mail) -> str:
    mark = _mark(item)
    return f" ({mark})" if mark else ""


def _tint(item: ChatMessage | Mail) -> str:
    if isinstance(item, Mail):
        return "bold yellow"
    return "bold magenta" if item.is_private else "cyan" if item.is_bot else "dim"


# -- facts and tables -----------------------------------------------------------------------------


def facts(item: User | ChatStats) -> None:
    """Print what is known of one thing: the model's fields, then what else the service sent."""
    known = {
        name: getattr(item, name)
        for name in item.__struct_fields__
        if name != "raw" and getattr(item, name) is not None
    }
    said = {_plain(name) for name in known}
    others = {name: value for name, value in item.raw.items() if _plain(name) not in said}
    table((), list((known | others).items()))


def table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, bold: Sequence[int] = ()
) -> None:
    """Print a table: of columns on a terminal, of lines with tabs in them elsewhere.

    *header* may be empty. *bold* are the numbers of the rows to bring out.
    """
    output = screen()
    lines = [[_cell(value) for value in row] for row in rows]
    if not output.is_terminal:
        for line in (header, *lines) if header else lines:
            print("\t".join(line), flush=True)
        return
    drawn = Table(box=SIMPLE_HEAD, show_header=bool(header), show_edge=False, pad_edge=False)
    for name, *column in zip_longest(header, *lines, fillvalue=""):
        longest = max(map(len, " ".join([name, *column]).split()), default=1)
        drawn.add_column(Text(name, "bold"), overflow="fold", min_width=min(longest, UNBROKEN))
    for number, line in enumerate(lines):
        drawn.add_row(*map(Text, line), style="bold" if number in bold else None)
    output.print(drawn)


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case list() | tuple() if all(isinstance(part, (str, int)) for part in value):  # pyright: ignore[reportUnknownVariableType]
            return clean(", ".join(map(str, value)))  # pyright: ignore[reportUnknownArgumentType]
        case list() | tuple() | dict():
            return clean(msgspec.json.encode(value).decode())
        case _:
            return clean(str(value))
