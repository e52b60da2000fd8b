"""The time to import pythpeer and to open the first session, in fresh interpreters."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Final

from .chart import Bars
from .measure import Times, alternate
from .report import Table, ratio
from .server import ROOT

__all__ = ["run"]

BARE: Final = "bare interpreter"
OURS: Final = "from pythpeer import *"
DEPENDENCIES: Final = "import aiohttp, msgspec, anyio"
OPEN: Final = "import pythpeer, open a Session"
OPEN_CLIENT: Final = "import the three, make a ClientSession"

# Each script ends by printing the CPU time of its process.
PRINT_CPU: Final = "import time; print(time.process_time())"

OPEN_OURS: Final = """
import asyncio, pythpeer
async def main():
    async with pythpeer.Session():
        pass
asyncio.run(main())
"""
OPEN_DEPENDENCIES: Final = """
import asyncio, aiohttp, msgspec, anyio
async def main():
    async with aiohttp.ClientSession():
        pass
asyncio.run(main())
"""

SCRIPTS: Final = {
    BARE: "",
    OURS: OURS,
    DEPENDENCIES: DEPENDENCIES,
    OPEN: OPEN_OURS,
    OPEN_CLIENT: OPEN_DEPENDENCIES,
}

OPEN_ONLY: Final = """
import asyncio, time, pythpeer
async def main():
    session = pythpeer.Session()
    start = time.perf_counter()
    await session.open()
    print(time.perf_counter() - start)
    await session.aclose()
asyncio.run(main())
"""


def run(*, quick: bool) -> list[Table]:
    """Measure the time over a bare interpreter."""
    rounds = 3 if quick else 11
    times = {name: Times() for name in SCRIPTS}
    for name in SCRIPTS:  # does not count: writes bytecode, and caches files
        _interpret(SCRIPTS[name])
    opens: list[float] = []
    for name in alternate(rounds, list(SCRIPTS)):
        start = time.perf_counter()
        cpu = _interpret(f"{SCRIPTS[name]}\n{PRINT_CPU}")
        times[name].wall.append(time.perf_counter() - start)
        times[name].cpu.append(cpu)
        if name == OPEN:
            opens.append(_interpret(OPEN_ONLY))
    bare, median_open = times[BARE], statistics.median(opens)
    table = Table(
        "Time to import and to open a session, over a bare interpreter",
        ("script", "wall ms", "CPU ms", "ratio", "CPU ratio", "target", "met"),
        notes=[
            f"Medians of {rounds} alternating runs of fresh interpreters.",
            (
                f"A bare interpreter takes {statistics.median(bare.wall) * 1e3:.1f} ms, "
                f"the first Session.open(), which imports aiohttp, {median_open * 1e3:.0f} "
                "ms."
            ),
        ],
        chart=Bars("script", ("wall ms", "CPU ms")),
    )
    for name, against in ((OURS, DEPENDENCIES), (OPEN, OPEN_CLIENT)):
        figures: dict[str, Times] = {}
        for script in (name, against):
            figures[script] = over = Times()
            over.wall = [a - b for a, b in zip(times[script].wall, bare.wall, strict=True)]
            over.cpu = [a - b for a, b in zip(times[script].cpu, bare.cpu, strict=True)]
            table.samples[f"{script} s"] = over.wall
        share = ratio(figures[name].wall, figures[against].wall)
        target = "<= 1.1" if name == OURS else None
        table.add(
            name,
            statistics.median(figures[name].wall) * 1e3,
            statistics.median(figures[name].cpu) * 1e3,
            share,
            ratio(figures[name].cpu, figures[against].cpu),
            target,
            share <= 1.1 if target else None,
        )
        table.add(
            against,
            statistics.median(figures[against].wall) * 1e3,
            statistics.median(figures[against].cpu) * 1e3,
            *(None, None, None, None),
        )
    table.samples["Session.open() s"] = opens
    return [table]


def _interpret(script: str) -> float:
    """Run *script* in a new interpreter; return the number that it prints, or 0."""
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return float(process.stdout or 0.0)
