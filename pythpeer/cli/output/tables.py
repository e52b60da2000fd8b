"""Tables and lists of facts, with bars next to comparable numbers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any, Final, cast

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ...pythbots import ChatStats, User
from ...sanitize import sanitize
from .bars import as_number, bar, comparable, fractions
from .console import make_console, print_line

__all__ = ["known_facts", "print_facts", "print_statistics", "table"]

_AnyMapping = Mapping[object, object]

MIN_WRAP: Final = 10
"""The longest word that is not broken in a table, such as a date."""

MAX_BAR: Final = 40
MIN_BAR: Final = 4
"""The most and the fewest columns of a bar; it is omitted if there are fewer."""


def print_facts(item: User) -> None:
    """Print a user: the model's fields, then the other fields that the service sent."""
    table((), list(known_facts(item).items()))


def known_facts(item: User | ChatStats) -> dict[str, Any]:
    """Return fields by name: the model's, then the raw ones that have another name."""
    fields = {
        name: getattr(item, name)
        for name in item.__struct_fields__
        if name != "raw" and getattr(item, name) is not None
    }
    names = {_plain(name) for name in fields}
    others = {name: value for name, value in item.raw.items() if _plain(name) not in names}
    return fields | others


def print_statistics(item: ChatStats) -> None:
    """Print statistics: comparable numbers with bars, and series of numbers as charts."""
    facts = known_facts(item)
    output = make_console()
    if not output.is_terminal:
        table((), list(facts.items()))
        return
    series = {name: _series(value) for name, value in facts.items()}
    charts = {name: chart for name, chart in series.items() if chart}
    names = [name for name in facts if name not in charts]
    # Comparable numbers one under the other.
    groups = [comparable(name, names) or [name] for name in names]
    grouped = dict.fromkeys(name for group in groups for name in group)
    single = {name: facts[name] for name in grouped}
    shares = fractions(single)
    table((), _columns(single), bars=[shares.get(name) for name in single])
    for name, chart in charts.items():
        top = max(chart.values())
        output.print(Text(f"\n{sanitize(name)}", "bold"), soft_wrap=True)
        table((), _columns(chart), bars=[amount / top for amount in chart.values()])


def _columns(fields: Mapping[str, object]) -> list[tuple[str, object]]:
    """Return names and values, numbers with commas and aligned to the right."""
    numbers = {name: f"{value:,}" for name, value in fields.items() if as_number(value) is not None}
    width = max(map(len, numbers.values()), default=0)
    return [
        (name, numbers[name].rjust(width) if name in numbers else value)
        for name, value in fields.items()
    ]


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    bold: Sequence[int] = (),
    bars: Sequence[float | None] = (),
) -> None:
    """Print a table: columns on a terminal, else lines with tabs.

    Args:
        header: The titles of the columns; may be empty.
        rows: The rows.
        bold: The indices of rows that are emphasized.
        bars: For each row a share from 0 to 1, drawn as a bar if there is space on a terminal;
            ``None`` for a row without a bar.
    """
    output = make_console()
    lines = [[_cell(value) for value in row] for row in rows]
    if not output.is_terminal:
        for line in (header, *lines) if header else lines:
            print_line(*line)
        return
    built = _build_table(header, lines, bold, ())
    space = output.width - _size(built, output).maximum - 3
    if any(bars) and space >= MIN_BAR:
        built = _build_table(header, lines, bold, _bar_column(bars, min(MAX_BAR, space), output))
    if header and _size(built, output).minimum > output.width:
        _print_stacked(header, lines, bold, output)
    else:
        output.print(built)


def _size(built: Table, output: Console) -> Measurement:
    """Return how many columns a table needs at least and at most, on a terminal of any width."""
    return output.measure(built, options=output.options.update(width=sys.maxsize))


def _print_stacked(
    header: Sequence[str], lines: Sequence[Sequence[str]], bold: Sequence[int], output: Console
) -> None:
    """Print the rows as lists of facts, if the terminal is too narrow for columns."""
    for at, line in enumerate(lines):
        pairs = [pair for pair in zip(header, line, strict=True) if pair[1]]
        output.print(_build_table((), pairs, range(len(pairs)) if at in bold else (), ()))
        output.print()


def _build_table(
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    bold: Sequence[int],
    bar_column: Sequence[Text],
) -> Table:
    built = Table(box=SIMPLE_HEAD, show_header=bool(header), show_edge=False, pad_edge=False)
    for name, *column in zip_longest(header, *lines, fillvalue=""):
        longest = max(map(len, " ".join([name, *column]).split()), default=1)
        built.add_column(Text(name, "bold"), overflow="fold", min_width=min(longest, MIN_WRAP))
    if bar_column:
        built.add_column("", no_wrap=True)
    for at, line in enumerate(lines):
        cells = (*map(Text, line), *bar_column[at : at + 1])
        built.add_row(*cells, style="bold" if at in bold else None)
    return built


def _bar_column(bars: Sequence[float | None], width: int, output: Console) -> list[Text]:
    ascii_only = output.options.ascii_only
    return [Text(bar(share or 0.0, width, ascii_only=ascii_only), "bar") for share in bars]


def _series(value: object) -> dict[str, int | float]:
    """Return a mapping or a list of numbers as a chart, by name; empty if it is not one."""
    if isinstance(value, Mapping):
        named = [(str(name), amount) for name, amount in cast("_AnyMapping", value).items()]
    elif isinstance(value, list):
        named = [(str(at), amount) for at, amount in enumerate(cast("list[object]", value))]
    else:
        return {}
    pairs = [(name, as_number(amount)) for name, amount in named]
    chart = {name: amount for name, amount in pairs if amount is not None}
    return chart if len(chart) == len(pairs) > 1 and any(chart.values()) else {}


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
            return sanitize(", ".join(map(str, value)))  # pyright: ignore[reportUnknownArgumentType]
        case list() | tuple() | dict():
            return sanitize(msgspec.json.encode(value).decode())
        case _:
            return sanitize(str(value))
