"""Tables of figures, for people and as JSON, and the line about the machine they come from."""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

__all__ = ["Cell", "Table", "load_warning", "machine", "ratio"]

Cell = str | int | float | bool | None

DISTRIBUTIONS: Final = ("aiohttp", "msgspec", "anyio", "uvloop", "aiolimiter", "redis")

BUSY: Final = 0.25
"""Load average for each CPU above which figures are doubtful: one process of ours is under 1."""


@dataclasses.dataclass
class Table:
    """Rows under a header; *samples* are the figures of single rounds, for the JSON file only."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[Cell, ...]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    samples: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def add(self, *cells: Cell) -> None:
        """Add a row, one cell for each column."""
        if len(cells) != len(self.header):
            raise ValueError(f"{len(cells)} cells for {len(self.header)} columns")
        self.rows.append(cells)

    def render(self) -> str:
        """The table as text: words to the left, numbers to the right."""
        texts = [self.header, *(tuple(map(_text, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        words = [
            all(cell is None or isinstance(cell, (str, bool)) for cell in column)
            for column in zip(*self.rows, strict=True)
        ] or [True] * len(widths)
        lines = [
            "  ".join(
                text.ljust(width) if word else text.rjust(width)
                for text, width, word in zip(line, widths, words, strict=True)
            ).rstrip()
            for line in texts
        ]
        rule = "  ".join("-" * width for width in widths)
        notes = [f"   {note}" for note in self.notes]
        return "\n".join([self.title, lines[0], rule, *lines[1:], *notes])

    def as_json(self) -> dict[str, object]:
        """The table with each row as an object."""
        return {
            "title": self.title,
            "rows": [dict(zip(self.header, row, strict=True)) for row in self.rows],
            "notes": self.notes,
            "samples": self.samples,
        }


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios of single rounds: what slowed a round down slowed both sides."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def machine() -> dict[str, str]:
    """What the figures come from; says nothing about where or whose it is."""
    about = {platform.python_implementation(): platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            about[name] = version(name)
        except PackageNotFoundError:
            about[name] = "absent"
    about["CPUs"] = str(os.cpu_count() or "unknown")
    load = _load()
    about["load before"] = "unknown" if load is None else f"{load:.2f}"
    return about


def load_warning() -> str:
    """What to say about the load right now; empty where it is low or unknown."""
    load = _load()
    if load is None or load <= BUSY * (os.cpu_count() or 1):
        return ""
    return f"load average {load:.2f}: the machine is busy, absolute figures are doubtful"


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "NO"
    if not isinstance(cell, float):
        return f"{cell:,}" if isinstance(cell, int) else cell
    size = abs(cell)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{cell:,.{digits}f}"
