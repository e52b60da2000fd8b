"""What of a table is drawn, and the drawing: one picture for each table, for the documentation.

A chart is a description without figures, which travels in the JSON beside the figures it is about.
Drawing takes matplotlib, which nothing else here imports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Bars", "Chart", "Curves", "Lines", "draw"]

OURS: Final = "#0b6e4f"
THEIRS: Final = "#9aa5b1"
COLOURS: Final = (OURS, "#c44536", "#33658a", "#e09f3e", "#7b4b94", "#6c757d")
INK: Final = "#1f2933"


class Bars(msgspec.Struct, frozen=True, tag="bars"):
    """A bar for each row, named by the column *label*: a panel for each of the columns *values*.

    With *by*, a column, a row of panels for each thing that it names.
    """

    label: str
    values: tuple[str, ...]
    by: str = ""
    log: bool = False


class Lines(msgspec.Struct, frozen=True, tag="lines"):
    """A line for each of the columns *values*, over the column *across*; both scales are logs."""

    across: str
    values: tuple[str, ...]
    unit: str = ""


class Curves(msgspec.Struct, frozen=True, tag="curves"):
    """For each of *samples*, by their names, what share of them is at or under a value."""

    samples: tuple[str, ...]
    unit: str
    log: bool = False


Chart = Bars | Lines | Curves


def draw(
    chart: Chart,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    samples: Mapping[str, Sequence[float]],
    files: Sequence[Path],
) -> None:
    """Draw *chart* of a table's *rows* and *samples* into each of the files *to*."""
    import matplotlib as mpl

    mpl.use("agg")
    # So that the same figures give the same file, and text in it is text.
    mpl.rcParams.update({"svg.hashsalt": "pythpeer", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt

    if isinstance(chart, Bars):
        groups = list(dict.fromkeys(str(row[chart.by]) for row in rows)) if chart.by else [""]
        max_rows = max(
            sum(not chart.by or str(row[chart.by]) == group for row in rows) for group in groups
        )
        size = (4.6 * len(chart.values) + 1.6, (0.26 * max_rows + 0.7) * len(groups) + 0.9)
        figure, axes = plt.subplots(len(groups), len(chart.values), figsize=size, squeeze=False)
        for panels, group in zip(axes, groups, strict=True):
            group_rows = [row for row in rows if not chart.by or str(row[chart.by]) == group]
            for column, (panel, value) in enumerate(zip(panels, chart.values, strict=True)):
                name = f"{group}: {value}" if group else value
                _bars(panel, chart, group_rows, value, name, named=column == 0)
    else:
        figure, panel = plt.subplots(figsize=(8.0, 4.4))
        if isinstance(chart, Lines):
            _lines(panel, chart, rows)
        else:
            _curves(panel, chart, samples)
    figure.suptitle(title, fontsize=11, color=INK)
    figure.set_layout_engine("constrained")  # which leaves room for the title, however tall
    for path in files:
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=110, metadata=metadata)
    plt.close(figure)


def _bars(
    panel: Axes,
    chart: Bars,
    rows: Sequence[Mapping[str, Any]],
    value: str,
    name: str,
    *,
    named: bool,
) -> None:
    from matplotlib.ticker import EngFormatter

    # From the top down as in the table; a row without this figure has a place, and no bar.
    labels = [str(row[chart.label]) for row in rows]
    sizes = [float("nan") if row[value] is None else float(row[value]) for row in rows]
    positions = range(len(rows), 0, -1)
    colours = [OURS if label.startswith("pythpeer") else THEIRS for label in labels]
    bars = panel.barh(list(positions), sizes, color=colours, height=0.72)
    texts = ["" if row[value] is None else f" {_short(row[value])}" for row in rows]
    panel.bar_label(bars, texts, fontsize=8, color=INK)
    panel.set_yticks(list(positions), labels if named else [""] * len(labels), fontsize=8)
    panel.set_title(name, fontsize=9, color=INK, loc="left")
    if chart.log and any(size > 0 for size in sizes):
        panel.set_xscale("log")
    panel.margins(x=0.18)
    panel.set_ylim(0.4, len(rows) + 0.6)  # the same beside it, be there bars or not
    if any(size >= 1e5 for size in sizes):
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    if not any(sizes):
        panel.set_xlim(0, 1)  # else nothing at all lies in the middle of a scale
    _plain(panel, "x")


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 1000 else f"{figure:.3g}"


def _lines(panel: Axes, chart: Lines, rows: Sequence[Mapping[str, Any]]) -> None:
    for colour, value in zip(COLOURS, chart.values, strict=False):
        with_value = [row for row in rows if row[value] is not None]
        across = [float(row[chart.across]) for row in with_value]
        panel.plot(across, [row[value] for row in with_value], "o-", color=colour, label=value)
    panel.set(xscale="log", yscale="log", xlabel=chart.across, ylabel=chart.unit)
    panel.legend(fontsize=8, frameon=False)
    _plain(panel, "both")


def _curves(panel: Axes, chart: Curves, samples: Mapping[str, Sequence[float]]) -> None:
    for colour, name in zip(COLOURS, chart.samples, strict=False):
        panel.ecdf(samples[name], color=colour, label=name)
    if chart.log:
        panel.set_xscale("log")
    panel.set(xlabel=chart.unit, ylabel="share at or under it")
    panel.legend(fontsize=8, frameon=False, loc="lower right")
    _plain(panel, "both")


def _plain(panel: Axes, axis: Any) -> None:
    panel.grid(axis=axis, color="#e4e7eb", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)
