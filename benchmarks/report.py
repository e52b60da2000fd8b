"""Tables of figures as text and as JSON, and the description of the machine."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import statistics
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import msgspec

from .chart import Chart

__all__ = [
    "Cell",
    "Report",
    "Table",
    "TableFigures",
    "load_warning",
    "machine",
    "ratio",
    "read",
    "text",
    "write",
]

Cell = str | int | float | bool | None

PROJECT: Final = Path(__file__).parent.parent / "pyproject.toml"

MAX_LOAD_PER_CPU: Final = 0.25
"""Load average per CPU above which figures are unreliable; one benchmark process causes under 1."""


@dataclasses.dataclass
class Table:
    """Rows under a header.

    *samples* are the figures of single rounds, for the JSON file only; *chart* describes the
    picture for the documentation.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[Cell, ...]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    samples: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    chart: Chart | None = None

    def __post_init__(self) -> None:
        if len(set(self.header)) < len(self.header):
            raise ValueError(f"two columns have the same name: {', '.join(self.header)}")

    def add(self, *cells: Cell) -> None:
        """Add a row, one cell for each column."""
        if len(cells) != len(self.header):
            raise ValueError(f"{len(cells)} cells for {len(self.header)} columns")
        self.rows.append(cells)

    def render(self) -> str:
        """Return the table as text, with words aligned left and numbers aligned right."""
        texts = [self.header, *(tuple(map(text, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        words = [
            all(cell is None or isinstance(cell, (str, bool)) for cell in column)
            for column in zip(*self.rows, strict=True)
        ] or [True] * len(widths)
        lines = [
            "  ".join(
                cell.ljust(width) if word else cell.rjust(width)
                for cell, width, word in zip(line, widths, words, strict=True)
            ).rstrip()
            for line in texts
        ]
        rule = "  ".join("-" * width for width in widths)
        notes = [f"   {note}" for note in self.notes]
        return "\n".join([self.title, lines[0], rule, *lines[1:], *notes])

    def figures(self) -> TableFigures:
        """Return the table as stored in JSON: each row an object, samples with six digits."""
        rows = [dict(zip(self.header, row, strict=True)) for row in self.rows]
        samples = {
            name: [float(f"{value:.6g}") for value in values]
            for name, values in self.samples.items()
        }
        return TableFigures(self.title, rows, self.notes, samples, self.chart)


class TableFigures(msgspec.Struct, frozen=True):
    """One table in a JSON file."""

    title: str
    rows: list[dict[str, Cell]]
    notes: list[str]
    samples: dict[str, list[float]]
    chart: Chart | None


class Report(msgspec.Struct, frozen=True):
    """One run of one benchmark: a JSON file."""

    name: str
    about: str
    date: str
    machine: dict[str, str]
    quick: bool
    seconds: float
    load_warning: str
    tables: list[TableFigures]


def write(report: Report, folder: Path) -> None:
    """Write a report to *folder*/NAME.json."""
    folder.mkdir(parents=True, exist_ok=True)
    document = msgspec.json.format(msgspec.json.encode(report), indent=1)
    (folder / f"{report.name}.json").write_bytes(document + b"\n")


def read(path: Path) -> Report:
    """Read a report that `write` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Return the median of the ratios of single rounds, because a slow round affects both sides."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def machine() -> dict[str, str]:
    """Return versions, CPU and load of this machine; nothing that identifies it."""
    about = {platform.python_implementation(): platform.python_version()}
    for name in _distributions():
        try:
            about[name] = version(name)
        except PackageNotFoundError:
            about[name] = "absent"
    about["system"] = f"{platform.system()} on {_processor()}"
    about["CPUs"] = str(os.cpu_count() or "unknown")
    load = _load()
    about["load before"] = "unknown" if load is None else f"{load:.2f}"
    return about


def _distributions() -> Iterator[str]:
    """Yield the distributions that the package requires, and those that it is compared with."""
    project = tomllib.loads(PROJECT.read_text("utf-8"))
    groups = project["dependency-groups"]
    for requirement in (
        *project["project"]["dependencies"],
        *groups["bench"],
        *groups["competitors"],
    ):
        if isinstance(requirement, str) and (name := re.match(r"[\w.-]+", requirement)):
            yield name[0]


def _processor() -> str:
    try:
        cpu_info = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.machine()
    model = re.search(r"^model name\s*: (.*)$", cpu_info, re.MULTILINE)
    return model[1] if model else platform.machine()


def load_warning() -> str:
    """Return a warning about the current load; empty if it is low or unknown."""
    load = _load()
    if load is None or load <= MAX_LOAD_PER_CPU * (os.cpu_count() or 1):
        return ""
    return f"load average {load:.2f}: the machine is busy, absolute figures are unreliable"


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def text(cell: Cell) -> str:
    """Return a cell as text: three digits, a dash for a missing figure."""
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "NO"
    if not isinstance(cell, float):
        return f"{cell:,}" if isinstance(cell, int) else cell
    size = abs(cell)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{cell:,.{digits}f}"
