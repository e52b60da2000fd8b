"""Tables of limiters in which less is better; the target: no limiter is better than pythpeer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from .chart import Bars
from .competitors.installed import OURS
from .report import Cell, Table

__all__ = ["better_than_ours", "ranking"]


def better_than_ours(
    figures: Mapping[str, Cell], others: Collection[str], slack: float
) -> list[str]:
    """Return the *others* with less than pythpeer by more than *slack*; ``None`` is infinite."""

    def size(name: str) -> float:
        figure = figures.get(name)
        return float(figure) if isinstance(figure, int | float) else float("inf")

    return [name for name in others if size(name) < size(OURS) - slack]


def ranking(
    title: str,
    columns: Sequence[str],
    rows: Mapping[str, Sequence[Cell]],
    *,
    others: Collection[str],
    targets: Mapping[str, float],
    why: Mapping[str, str] = {},
    notes: Sequence[str] = (),
) -> Table:
    """Return the table of *rows*, by name, with a cell for each of *columns*.

    In the columns of *targets*, which maps them to a slack, pythpeer is compared with the *others*;
    further rows are for information. A note lists the better ones, and the reason in *why*.
    """
    header = ("limiter", *columns, "target", "met")
    table = Table(title, header, notes=list(notes), chart=Bars("limiter", tuple(targets)))
    is_met = True
    for column, slack in targets.items():
        index = columns.index(column)
        better = better_than_ours(
            {name: cells[index] for name, cells in rows.items()}, others, slack
        )
        if better:
            is_met = False
            reason = f" {why[column]}" if column in why else ""
            table.notes.append(f"Better than {OURS} in {column!r}: {', '.join(better)}.{reason}")
    for name, cells in rows.items():
        table.add(name, *cells, *(("none better", is_met) if name == OURS else (None, None)))
    return table
