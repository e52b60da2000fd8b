"""Run benchmarks: ``python -m benchmarks [NAME...] [--quick] [--out FOLDER]``; all without a name.

A run prints its tables and writes them as JSON to ``benchmarks/results``; the pictures and the page
of the documentation are then made again from these files. With ``--out`` the files are written to
another folder, and with ``--quick`` alone nothing is written.

Everything runs on loopback. Compared figures come from one run with alternating rounds, so that a
slow phase of the machine affects both sides.
"""

from __future__ import annotations

import argparse
import importlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, cast

from . import NAMES
from .docs_page import RESULTS, draw_all, write_page
from .report import Report, Table, load_warning, machine, write


class Benchmark(Protocol):
    """The function ``run`` of each module."""

    def __call__(self, *, quick: bool) -> list[Table]: ...


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=_description())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help="by default all of them")
    parser.add_argument("--quick", action="store_true", help="few rounds, for a trial")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write figures and plots there")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in NAMES:
            parser.error(f"unknown benchmark {name!r}; use {', '.join(NAMES)}")

    about, warning = machine(), load_warning()  # before the benchmarks cause any load
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    if warning:
        print(warning, flush=True)
    folder = arguments.out or (None if arguments.quick else RESULTS)
    # Without repeats, in the order given.
    for name in dict.fromkeys(arguments.names or NAMES):
        print(f"\n== {name}: {NAMES[name]}", flush=True)
        # Imported late, because a benchmark does not need the imports of the others.
        module = importlib.import_module(f"{__package__}.{name}")
        run = cast("Benchmark", module.run)
        start = time.monotonic()
        tables = run(quick=arguments.quick)
        for table in tables:
            print(f"\n{table.render()}", flush=True)
        seconds = time.monotonic() - start
        print(f"\n   {name} took {seconds:.0f} s", flush=True)
        if folder is not None:
            report = Report(
                name,
                NAMES[name],
                f"{datetime.now(UTC):%Y-%m-%d}",
                about,
                arguments.quick,
                round(seconds, 1),
                warning,
                [table.figures() for table in tables],
            )
            write(report, folder)
            if arguments.out is not None:
                draw_all(report, folder)
    if folder == RESULTS:
        write_page()


def _description() -> str:
    lines = [f"  {name:<9} {about}" for name, about in NAMES.items()]
    return "\n".join(["Compare pythpeer with other libraries, on loopback.", "", *lines])


if __name__ == "__main__":
    main()
