"""Tables and lists of facts, with bars where people would rather look than read."""

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

from ..pythbots import ChatStats, User
from .bars import as_number, bar, comparable, fractions
from .plain import sanitize
from .show import make_console

__all__ = ["known_facts", "print_facts", "print_statistics", "table"]

_AnyMapping = Mapping[object, object]

MIN_WRAP: Final = 10
"""Up to this length, dates for example, words in tables are not broken."""

MAX_BAR: Final = 40
MIN_BAR: Final = 4
"""How many columns a bar has at most, and how many it takes for one to be worth drawing."""


def print_facts(item: User) -> None:
    """Print what is known of one thing: the model's fields, then what else the service sent."""
    table((), list(known_facts(item).items()))


def known_facts(item: User | ChatStats) -> dict[str, Any]:
    """What is known of one thing, by name, without what the service said in other words only."""
    known = {
        name: getattr(item, name)
        for name in item.__struct_fields__
        if name != "raw" and getattr(item, name) is not None
    }
    said = {_plain(name) for name in known}
    others = {name: value for name, value in item.raw.items() if _plain(name) not in said}
    return known | others


def print_statistics(item: ChatStats) -> None:
    """Print statistics: numbers of a kind with bars, and what has numbers in it as charts."""
    found = known_facts(item)
    output = make_console()
    if not output.is_terminal:
        table((), list(found.items()))
        return
    charts = {name: chart for name, value in found.items() if (chart := _series(value))}
    names = [name for name in found if name not in charts]
    near = dict.fromkeys(other for name in names for other in comparable(name, names) or [name])
    single = {name: found[name] for name in near}
    shared = fractions(single)
    table((), _columns(single), bars=[shared.get(name) for name in single])
    for name, chart in charts.items():
        top = max(chart.values())
        output.print(Text(f"\n{sanitize(name)}", "bold"), soft_wrap=True)
        table((), _columns(chart), bars=[amount / top for amount in chart.values()])


def _columns(fields: Mapping[str, object]) -> list[tuple[str, object]]:
    """Names and values, whole numbers with commas and one under the other."""
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
    """Print a table: of columns on a terminal, of lines with tabs in them elsewhere.

    *header* may be empty. *bold* are the numbers of the rows to bring out. *bars* has a share from
    0 to 1 for each row that gets a bar at its end, if there is room and a terminal.
    """
    output = make_console()
    lines = [[_cell(value) for value in row] for row in rows]
    if not output.is_terminal:
        for line in (header, *lines) if header else lines:
            print("\t".join(line), flush=True)
        return
    drawn = _build_table(header, lines, bold, ())
    room = output.width - _size(drawn, output).maximum - 3
    if any(bars) and room >= MIN_BAR:
        drawn = _build_table(header, lines, bold, _bar_column(bars, min(MAX_BAR, room), output))
    if header and _size(drawn, output).minimum > output.width:
        _print_stacked(header, lines, bold, output)
    else:
        output.print(drawn)


def _size(drawn: Table, output: Console) -> Measurement:
    """How many columns a table takes at least and at most, however many there are."""
    return output.measure(drawn, options=output.options.update(width=sys.maxsize))


def _print_stacked(
    header: Sequence[str], lines: Sequence[Sequence[str]], bold: Sequence[int], output: Console
) -> None:
    """Print the rows one under the other, where there is no room for columns side by side."""
    for at, line in enumerate(lines):
        pairs = [pair for pair in zip(header, line, strict=True) if pair[1]]
        output.print(_build_table((), pairs, range(len(pairs)) if at in bold else (), ()))
        output.print()


def _build_table(
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    bold: Sequence[int],
    pictures: Sequence[Text],
) -> Table:
    drawn = Table(box=SIMPLE_HEAD, show_header=bool(header), show_edge=False, pad_edge=False)
    for name, *column in zip_longest(header, *lines, fillvalue=""):
        longest = max(map(len, " ".join([name, *column]).split()), default=1)
        drawn.add_column(Text(name, "bold"), overflow="fold", min_width=min(longest, MIN_WRAP))
    if pictures:
        drawn.add_column("", no_wrap=True)
    for at, line in enumerate(lines):
        cells = (*map(Text, line), *pictures[at : at + 1])
        drawn.add_row(*cells, style="bold" if at in bold else None)
    return drawn


def _bar_column(bars: Sequence[float | None], width: int, output: Console) -> list[Text]:
    ascii_only = output.options.ascii_only
    return [Text(bar(share or 0.0, width, ascii_only=ascii_only), "bar") for share in bars]


def _series(value: object) -> dict[str, int | float]:
    """A mapping or a list of numbers by name, which make a chart; nothing where it is none."""
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
