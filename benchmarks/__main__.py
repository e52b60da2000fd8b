"""Run benchmarks: ``python -m benchmarks [NAME...] [--quick] [--out FOLDER]``; all without a name.

What a run prints it also writes down, as JSON into ``benchmarks/results``, from which the pictures
and the page of the documentation are made anew; with ``--out`` all of it goes there instead, and
with ``--quick`` alone nothing is written.

Everything happens on loopback and ends by itself. Figures that are compared come from one run, in
rounds that take turns, so that a machine which slows down slows both sides down.
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
    """What each of the modules has under the name ``run``."""

    def __call__(self, *, quick: bool) -> list[Table]: ...


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=_description())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help="by default all of them")
    parser.add_argument("--quick", action="store_true", help="few rounds: a trial, no figures")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write figures and plots there")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in NAMES:
            parser.error(f"no benchmark {name!r}; there are {', '.join(NAMES)}")

    about, warning = machine(), load_warning()  # before anything here makes a load of its own
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    if warning:
        print(warning, flush=True)
    folder = arguments.out or (None if arguments.quick else RESULTS)
    # Without repeats, in the order given.
    for name in dict.fromkeys(arguments.names or NAMES):
        print(f"\n== {name}: {NAMES[name]}", flush=True)
        # Late: one benchmark needs no other's imports.
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
    lines = [f"  {name:<9} {what}" for name, what in NAMES.items()]
    return "\n".join(["Measure pythpeer beside its peers, on loopback.", "", *lines])


if __name__ == "__main__":
    main()
