"""Run benchmarks: ``python -m benchmarks [NAME...] [--quick] [--json FILE]``; all without a name.

Everything happens on loopback and ends by itself. Figures that are compared come from one run, in
rounds that take turns, so that a machine which slows down slows both sides down.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from pathlib import Path
from typing import Any, Final, Protocol, cast

from .report import Table, load_warning, machine

NAMES: Final = {
    "calls": "one call, small and large, against bare aiohttp",
    "limiter": "a token: its time, a waiter's memory, a long queue",
    "pacing": "the interval as the server sees it, in six scenarios (about 3 minutes)",
    "imports": "what importing and opening cost",
    "streams": "one poll for many streams",
    "redis": "a store for many machines, against the same server used bare",
    "durable": "what it costs to lose nothing",
    "soak": "a million polls on virtual time, memory flat (about 2 minutes)",
}


class Benchmark(Protocol):
    """What each of the modules has under the name ``run``."""

    def __call__(self, *, quick: bool) -> list[Table]: ...


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=_description())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help="by default all of them")
    parser.add_argument("--quick", action="store_true", help="few rounds: a trial, no figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in NAMES:
            parser.error(f"no benchmark {name!r}; there are {', '.join(NAMES)}")

    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    results: dict[str, Any] = {}
    # Without repeats, in the order given.
    for name in dict.fromkeys(arguments.names or NAMES):
        warning = load_warning()
        print(f"\n== {name}: {NAMES[name]}", flush=True)
        if warning:
            print(f"   {warning}", flush=True)
        # Late: one benchmark needs no other's imports.
        module = importlib.import_module(f"{__package__}.{name}")
        run = cast("Benchmark", module.run)
        start = time.monotonic()
        tables = run(quick=arguments.quick)
        for table in tables:
            print(f"\n{table.render()}", flush=True)
        seconds = time.monotonic() - start
        print(f"\n   {name} took {seconds:.0f} s", flush=True)
        results[name] = {
            "seconds": round(seconds, 1),
            "load_warning": warning,
            "tables": [table.as_json() for table in tables],
        }
    if arguments.json is not None:
        document = {"machine": about, "quick": arguments.quick, "benchmarks": results}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _description() -> str:
    lines = [f"  {name:<9} {what}" for name, what in NAMES.items()]
    return "\n".join(["Measure pythpeer beside its peers, on loopback.", "", *lines])


if __name__ == "__main__":
    main()
