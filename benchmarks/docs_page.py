"""The page of the documentation and its pictures, made from the files in ``benchmarks/results``.

``python -m benchmarks.docs_page`` makes both again without measuring anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from . import NAMES
from .figures import summary, write_sentences
from .report import Cell, Report, TableFigures, read, text
from .server import ROOT

__all__ = ["RESULTS", "draw_all", "page_text", "write_page"]

RESULTS: Final = Path(__file__).parent / "results"
DOCS: Final = ROOT / "docs"
IMAGES: Final = DOCS / "benchmarks"

OPENING: Final = """\
# Benchmarks

The last results of `nox -s bench`. Each benchmark compares pythpeer with other libraries in one \
run; `nox -s bench -- pacing` repeats one of them. Everything runs on loopback. A ratio is the \
median of the ratios of alternating rounds, so that a slow phase of the machine affects both \
sides. The figures of single rounds are in `benchmarks/results`.

The table states whether each target was met; the sections below it have all figures, with those \
of the other libraries.
"""


def write_page() -> None:
    """Write ``docs/benchmarks.md`` and draw its pictures, for all benchmarks that have results."""
    reports = [read(path) for name in NAMES if (path := RESULTS / f"{name}.json").exists()]
    IMAGES.mkdir(exist_ok=True)
    for stale in IMAGES.iterdir():
        stale.unlink()
    for report in reports:
        draw_all(report, IMAGES)
    (DOCS / "benchmarks.md").write_text(page_text(reports), encoding="utf-8")
    write_sentences({report.name: report for report in reports})


def page_text(reports: Sequence[Report]) -> str:
    """Return the page: first the table of the targets, then a section for each benchmark."""
    lines = [OPENING, *_summary(reports)]
    return "\n".join([*lines, *(line for report in reports for line in _section(report))])


def _summary(reports: Sequence[Report]) -> Iterator[str]:
    yield _line(["question", "pythpeer", "compared with", "target met"])
    yield _line([":--"] * 4)
    for row in summary({report.name: report for report in reports}):
        yield _line(row)
    yield ""
    yield "**NO** means that a target of the project is not met.\n"


def draw_all(report: Report, folder: Path) -> None:
    """Draw every table of *report* that has a chart, as PNG and as SVG."""
    from .chart import draw  # imported here, so that the page can be made without matplotlib

    for number, table in enumerate(report.tables, 1):
        if table.chart is not None:
            files = [folder / f"{_stem(report, number)}.{kind}" for kind in ("png", "svg")]
            draw(table.chart, table.title, table.rows, table.samples, files)


def _stem(report: Report, number: int) -> str:
    return f"{report.name}-{number}"


def _section(report: Report) -> Iterator[str]:
    yield f"## {report.name}\n"
    yield f"{report.about[0].upper()}{report.about[1:]}.\n"
    for number, table in enumerate(report.tables, 1):
        # Closed at first, because all of them are a page of sixty screens. HTML, which the site and
        # a viewer of the file both understand.
        yield '<details markdown="1">'
        yield f"<summary>{table.title}</summary>\n"
        if table.chart is not None:
            stem = f"benchmarks/{_stem(report, number)}"
            yield f"[![{table.title}]({stem}.svg)]({stem}.png)\n"
        yield from _table(table)
        yield ""
        yield from (f"- {note}" for note in table.notes)
        yield ""
        yield "</details>\n"
    machine = ", ".join(f"{key} {value}" for key, value in report.machine.items())
    warning = f" {report.load_warning}." if report.load_warning else ""
    yield f"*{report.date}, in {report.seconds:.0f} s: {machine}.{warning}*\n"


def _table(table: TableFigures) -> Iterator[str]:
    if not table.rows:
        return
    header = _in_order(table.rows[0])
    columns: list[list[Cell]] = [[row[name] for row in table.rows] for name in header]
    numbers = [any(isinstance(cell, int | float) for cell in column) for column in columns]
    yield _line(header)
    yield _line("--:" if number else ":--" for number in numbers)
    for row in table.rows:
        yield _line(text(row[name]).replace("|", "\\|") for name in header)


def _in_order(row: Mapping[str, Cell]) -> list[str]:
    """The columns: first those that name the row, then the target, so that no screen hides it."""
    names = list(row)
    words = [n for n, cell in enumerate(row.values()) if isinstance(cell, str)]
    first = 1 + max((n for n in words if n < 3 and names[n] != "target"), default=0)
    deciding = [name for name in ("met", "target") if name in row]
    return [*names[:first], *deciding, *(n for n in names[first:] if n not in deciding)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    write_page()
