"""Tables that fit a terminal: columns are omitted and labels shortened before a number is cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from rich.box import SIMPLE_HEAD
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from .rates import Label

__all__ = ["Barred", "Column", "FittedTable", "Row", "Title", "fit_table"]

SEPARATOR: Final = 3
"""The columns of a terminal between two columns of a table."""

HEADING: Final = 2
"""The lines of a table before its rows."""


class Column(NamedTuple):
    """A column of a table."""

    title: str
    """The heading."""
    justify: JustifyMethod = "right"
    """The alignment of the cells."""
    omitted: int = 0
    """Its number in the order in which a narrow screen omits columns; 0 is never omitted."""
    is_text: bool = False
    """Whether its cells are texts, which can be cut, and not numbers."""


class Title(NamedTuple):
    """The cell of a log or an endpoint, which has several lengths."""

    label: Label
    """What it is, and of which service and key."""
    note: str = ""
    """What needs attention."""


class Barred(NamedTuple):
    """A cell with a number, and a bar if there is space."""

    number: Text
    """The number alone."""
    whole: Text
    """The number and its bar."""


Row: TypeAlias = Sequence[str | Text | Barred | Title | None]
"""The cells of all columns; ``None`` is an empty title."""


class FittedTable(NamedTuple):
    """A table of the size of a terminal."""

    content: Table
    """What is printed."""
    titles: Sequence[str]
    """The headings of the columns that are shown."""
    shows_keys: bool
    """Whether a label distinguishes keys."""
    height: int
    """The number of its lines."""


class _Layout(NamedTuple):
    """One way to show a table; a later one needs less space."""

    forms: Sequence[Callable[[Label], str]]
    """The forms of labels. Each row has the first one that distinguishes it."""
    bars: bool
    """Whether numbers have bars."""
    omitted: int = 0
    """How many columns are omitted."""


def _whole(label: Label) -> str:
    return f"{label.name} {label.host} {label.account}"


def _without_host(label: Label) -> str:
    return f"{label.name} {label.account}"


def _short(label: Label) -> str:
    return label.name.partition(".")[2] or label.name


def _short_with_account(label: Label) -> str:
    return f"{_short(label)} {label.account}"


def _short_with_host(label: Label) -> str:
    return f"{_short_with_account(label)} {label.host}"


MEDIUM: Final = (_without_host, _whole)
SHORT: Final = (_short, _short_with_account, _short_with_host)


def _layouts(columns: Sequence[Column]) -> Iterator[_Layout]:
    yield _Layout((_whole,), bars=True)
    yield _Layout(MEDIUM, bars=True)
    yield _Layout(MEDIUM, bars=False)
    for omitted in range(max(column.omitted for column in columns) + 1):
        yield _Layout(SHORT, bars=False, omitted=omitted)


def fit_table(columns: Sequence[Column], rows: Sequence[Row], width: int | None) -> FittedTable:
    """Return a table of *rows* in the first layout that fits into *width*, if there is a limit.

    If none fits, labels and names are cut.
    """
    layouts = list(_layouts(columns))
    fitting = (
        layout for layout in layouts if width is None or _width(columns, rows, layout) <= width
    )
    layout = next(fitting, layouts[-1])
    shown = _shown(columns, layout)
    lines = _lines(columns, rows, layout)
    shows_keys = any(" key " in f"{line[0].plain} " for line in lines)
    titles = [column.title for column in shown]
    return FittedTable(_built(shown, lines), titles, shows_keys, HEADING + len(lines))


def _shown(columns: Sequence[Column], layout: _Layout) -> list[Column]:
    return [column for column in columns if not 0 < column.omitted <= layout.omitted]


def _width(columns: Sequence[Column], rows: Sequence[Row], layout: _Layout) -> int:
    """Return how many columns of a terminal a table needs."""
    shown = [Text(column.title) for column in _shown(columns, layout)]
    cells = zip(shown, *_lines(columns, rows, layout), strict=True)
    widths: list[int] = [max(cell.cell_len for cell in column) for column in cells]
    return sum(widths) + SEPARATOR * (len(widths) - 1)


def _lines(columns: Sequence[Column], rows: Sequence[Row], layout: _Layout) -> list[list[Text]]:
    """Return the cells that a layout shows."""
    labels = [cell.label for row in rows for cell in row if isinstance(cell, Title)]
    counts = [Counter(map(form, dict.fromkeys(labels))) for form in layout.forms]

    def shown(label: Label) -> str:
        texts = [form(label) for form in layout.forms]
        pairs = zip(texts, counts, strict=True)
        return next((text for text, count in pairs if count[text] == 1), texts[-1])

    return [
        [
            _text(cell, shown, bars=layout.bars)
            for cell, column in zip(row, columns, strict=True)
            if not 0 < column.omitted <= layout.omitted
        ]
        for row in rows
    ]


def _text(
    cell: str | Text | Barred | Title | None, shown: Callable[[Label], str], *, bars: bool
) -> Text:
    line = Text()
    if isinstance(cell, Barred):
        line.append(cell.whole if bars else cell.number)
    elif isinstance(cell, Title):
        name, _, rest = shown(cell.label).partition(" ")
        line.append(name, "bold").append(f" {rest}" if rest else "", "dim").append(cell.note, "gap")
    elif cell is not None:
        line.append(cell)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _built(columns: Sequence[Column], lines: Sequence[Sequence[Text]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for column in columns:
        # rich takes the columns that are missing from those that could be wrapped.
        title = Text(column.title, no_wrap=True, overflow="ellipsis")
        table.add_column(title, justify=column.justify, no_wrap=not column.is_text)
    for line in lines:
        table.add_row(*line)
    return table
