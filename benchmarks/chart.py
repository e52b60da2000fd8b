"""Charts of the tables: their descriptions, and the drawing of one picture for each table.

A chart is a description without figures; it is stored in the JSON next to the figures of its table.
Drawing requires matplotlib, which no other module here imports.
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
OTHERS: Final = "#9aa5b1"
COLOURS: Final = (OURS, "#c44536", "#33658a", "#e09f3e", "#7b4b94", "#6c757d")
INK: Final = "#1f2933"


class Bars(msgspec.Struct, frozen=True, tag="bars"):
    """A bar for each row, with a panel for each column of figures.

    A panel on which every figure would be zero or missing is not drawn.
    """

    label: str
    """The column that names the bars."""

    values: tuple[str, ...]
    """The columns of figures, a panel for each."""

    by: str = ""
    """A column; there is a row of panels for each of its values."""

    log: bool = False
    """Whether the scale is logarithmic."""

    captions: tuple[str, ...] = ()
    """The titles of the panels, in the order of `values`; by default the names of the columns."""


class Lines(msgspec.Struct, frozen=True, tag="lines"):
    """A line for each of the columns *values*, over the column *across*, on logarithmic scales."""

    across: str
    values: tuple[str, ...]
    unit: str = ""


class Curves(msgspec.Struct, frozen=True, tag="curves"):
    """For each of the named *samples*, the share of its figures that is at or under a value."""

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
    # The same figures give the same file, and text in it stays text.
    mpl.rcParams.update({"svg.hashsalt": "pythpeer", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt

    if isinstance(chart, Bars):
        figure = _draw_panels(plt, chart, rows)
    else:
        figure, panel = plt.subplots(figsize=(8.0, 4.4))
        if isinstance(chart, Lines):
            _lines(panel, chart, rows)
        else:
            _curves(panel, chart, samples)
    figure.suptitle(title, fontsize=11, color=INK)
    figure.set_layout_engine("constrained")  # leaves space for the title
    for path in files:
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=110, metadata=metadata)
    plt.close(figure)


def _draw_panels(plt: Any, chart: Bars, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Draw a row of panels for each group, or a single row; return the figure."""
    groups = _group(chart, rows)
    columns = [value for value in chart.values if _has_figures(rows, value)] or chart.values[:1]
    captions = dict(zip(chart.values, chart.captions or chart.values, strict=True))
    max_rows = max(len(group_rows) for group_rows in groups.values())
    size = (4.6 * len(columns) + 1.6, (0.26 * max_rows + 0.7) * len(groups) + 0.9)
    figure, grid = plt.subplots(len(groups), len(columns), figsize=size, squeeze=False)
    for panels, (group, group_rows) in zip(grid, groups.items(), strict=True):
        named = True
        for panel, value in zip(panels, columns, strict=True):
            name = f"{group}: {captions[value]}" if group else captions[value]
            if _has_figures(group_rows, value):
                _bars(panel, chart, group_rows, value, name, named=named)
                named = False
            else:
                panel.set_axis_off()
                panel.set_title(f"{name}: none", fontsize=9, color=INK, loc="left")
    return figure


def _group(chart: Bars, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows of each group, in order; without groups, all rows under an empty name."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row[chart.by]) if chart.by else "", []).append(row)
    return groups


def _has_figures(rows: Sequence[Mapping[str, Any]], value: str) -> bool:
    """Whether a column has a figure that is not zero."""
    return any(row[value] for row in rows)


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

    # From the top down, as in the table; a row without this figure has a label, but no bar.
    labels = [str(row[chart.label]) for row in rows]
    sizes = [float("nan") if row[value] is None else float(row[value]) for row in rows]
    positions = range(len(rows), 0, -1)
    colours = [OURS if label.startswith("pythpeer") else OTHERS for label in labels]
    bars = panel.barh(list(positions), sizes, color=colours, height=0.72)
    texts = ["" if row[value] is None else f" {_short(row[value])}" for row in rows]
    panel.bar_label(bars, texts, fontsize=8, color=INK)
    panel.set_yticks(list(positions), labels if named else [""] * len(labels), fontsize=8)
    panel.set_title(name, fontsize=9, color=INK, loc="left")
    if chart.log and any(size > 0 for size in sizes):
        panel.set_xscale("log")
    panel.margins(x=0.18)
    panel.set_ylim(0.4, len(rows) + 0.6)  # the same as in the other panels of the row
    if any(size >= 1e5 for size in sizes):
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
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
    panel.set(xlabel=chart.unit, ylabel="share at or under this value")
    panel.legend(fontsize=8, frameon=False, loc="lower right")
    _plain(panel, "both")


def _plain(panel: Axes, axis: Any) -> None:
    panel.grid(axis=axis, color="#e4e7eb", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)
