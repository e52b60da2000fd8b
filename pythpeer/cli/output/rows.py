"""Rows: chat messages, mails and the gaps between them, in their order of arrival."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...peerbet import ChatMessage
from ...pythbots import Mail
from ...sanitize import sanitize
from .colours import sender_style
from .console import as_json, make_console, print_line, write_json

__all__ = ["Rows"]

WIDE: Final = 64
"""Columns of a terminal from which names have a column of their own."""

NAME_WIDTH: Final = 12
"""The width of that column."""


class Rows:
    """Prints each chat message and mail immediately: ``rows.show(item)``."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        """Whether rows are JSON objects instead of text."""
        self.screen: Final[Console] = make_console()
        """The console for rows of text."""
        self._day = datetime.now().date()
        """The date of the last row; a new one is printed before the next row."""

    def show(self, item: ChatMessage | Mail) -> None:
        """Print one row, and flush it."""
        if self.json:
            write_json("mail" if isinstance(item, Mail) else "chat", as_json(item))
        elif self.screen.is_terminal:
            self._draw(item)
        else:
            sent = f"{item.sent_at:%Y-%m-%d %H:%M:%S}" if item.sent_at else "-"
            print_line(f"{sent} {_sender(item)}{_label_suffix(item)}: {item.text or ''}")

    def show_gap(self, after: int | None, before: int | None) -> None:
        """Print that messages may be missing between two ids, and flush that."""
        if self.json:
            write_json("gap", {"after": after, "before": before})
            return
        missing = (before or 0) - (after or 0) - 1
        text = f"… up to {missing:,} message{'' if missing == 1 else 's'} may be missing"
        if self.screen.is_terminal:
            self._draw_row("", Text(), Text(), "gap", Text(text, "gap"), Text())
        else:
            print_line(f"- {text}")

    def _draw(self, item: ChatMessage | Mail) -> None:
        if item.sent_at and item.sent_at.date() != self._day:
            self._day = item.sent_at.date()
            self.screen.print(Text(f"{self._day:%A %Y-%m-%d}", "dim"))
        sender = Text(_sender(item), sender_style(item.sender or ""))
        style = "italic" if isinstance(item, Mail) else ""
        text = Text(sanitize(item.text or ""), style)
        sent = f"{item.sent_at:%H:%M:%S}" if item.sent_at else "--:--:--"
        label_style = _style(item)
        self._draw_row(
            sent,
            Text(_label(item), label_style),
            sender,
            label_style,
            text,
            Text(_label_suffix(item), label_style),
        )

    def _draw_row(
        self, sent: str, label: Text, sender: Text, style: str, text: Text, suffix: Text
    ) -> None:
        """Print columns, or on a narrow terminal one paragraph after the time."""
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=8)
        if self.screen.width < WIDE:
            grid.add_column(ratio=1)
            colon = Text(": " if sender else "", "dim")
            # Not `+`: the style of the first text would apply to all of it.
            grid.add_row(Text(sent, "dim"), Text.assemble(sender, suffix, colon, text))
        else:
            bar = "|" if self.screen.options.ascii_only else "│"
            grid.add_column(width=7)
            grid.add_column(width=NAME_WIDTH, justify="right", no_wrap=True, overflow="ellipsis")
            grid.add_column(width=1)
            grid.add_column(ratio=1)
            grid.add_row(Text(sent, "dim"), label, sender, Text(bar, style), text)
        self.screen.print(grid)


def _sender(item: ChatMessage | Mail) -> str:
    if isinstance(item, ChatMessage) and item.is_private and item.is_mine and item.recipient:
        return f"to {sanitize(item.recipient)}"
    if isinstance(item, Mail) and item.sender is None and item.sender_id is not None:
        return str(item.sender_id)
    return sanitize(item.sender or "") or "?"


def _label(item: ChatMessage | Mail) -> str:
    """Return the kind of message in a word or two, empty for ordinary chat."""
    if isinstance(item, Mail):
        return "mail again" if item.recovered else "mail"
    kinds = (("private", item.is_private), ("bot", item.is_bot))
    return " ".join(kind for kind, applies in kinds if applies)


def _label_suffix(item: ChatMessage | Mail) -> str:
    label = _label(item)
    return f" ({label})" if label else ""


def _style(item: ChatMessage | Mail) -> str:
    if isinstance(item, Mail):
        return "mail"
    if item.is_private:
        return "private"
    return "bot" if item.is_bot else "dim"
