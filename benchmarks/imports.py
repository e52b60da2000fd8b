"""The time of imports, of the first session, and of a command's help, in fresh interpreters."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
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

OPEN_IMPORTS: Final = """
import asyncio, collections, sys, pythpeer
async def main():
    session = pythpeer.Session()
    before = {*sys.modules}
    await session.open()
    new = collections.Counter(name.partition(".")[0] for name in {*sys.modules} - before)
    print(sum(new.values()), *[name for name, _ in new.most_common(5)])
    await session.aclose()
asyncio.run(main())
"""

_COMMAND: Final = """
import contextlib, io, sys
sys.argv = {argv}
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    from {module} import main
    main()
"""
COMMANDS: Final = {
    " ".join([program, *arguments]): _COMMAND.format(argv=[program, *arguments], module=module)
    for program, module, *arguments in (
        ("pythpeer", "pythpeer.cli", "--version"),
        ("pythpeer", "pythpeer.cli", "--help"),
        ("pythpeer", "pythpeer.cli", "user", "--help"),
        ("httpx", "httpx", "--help"),
    )
}
"""The script that runs each command. httpx has no option for its version."""


def run(*, quick: bool) -> list[Table]:
    """Measure the time over a bare interpreter, and that of commands."""
    rounds = 3 if quick else 11
    return [_measure_imports(rounds), _measure_commands(rounds)]


def _measure_commands(rounds: int) -> Table:
    scripts = {BARE: "", **COMMANDS}
    times = _measure(scripts, rounds)
    table = Table(
        "Time of a command that only prints",
        ("command", "wall ms", "CPU ms", "ratio", "CPU ratio"),
        notes=[
            f"Medians of {rounds} alternating runs of fresh interpreters, included in the time.",
            "ratio, CPU ratio: compared with a bare interpreter.",
        ],
        chart=Bars("command", ("wall ms", "CPU ms")),
    )
    for name, measured in times.items():
        table.add(
            name,
            statistics.median(measured.wall) * 1e3,
            statistics.median(measured.cpu) * 1e3,
            ratio(measured.wall, times[BARE].wall),
            ratio(measured.cpu, times[BARE].cpu),
        )
        table.samples[f"{name} s"] = measured.wall
    return table


def _measure(scripts: Mapping[str, str], rounds: int) -> dict[str, Times]:
    """Run each script in *rounds* new interpreters, in alternation."""
    times = {name: Times() for name in scripts}
    for script in scripts.values():  # does not count: writes bytecode, and caches files
        _interpret(script)
    for name in alternate(rounds, list(scripts)):
        start = time.perf_counter()
        times[name].cpu.append(_interpret(f"{scripts[name]}\n{PRINT_CPU}"))
        times[name].wall.append(time.perf_counter() - start)
    return times


def _measure_imports(rounds: int) -> Table:
    times = _measure(SCRIPTS, rounds)
    opens = [float(_output(OPEN_ONLY)) for _ in range(rounds)]
    count, *packages = _output(OPEN_IMPORTS).split()
    bare, median_open = times[BARE], statistics.median(opens)
    table = Table(
        "Time to import and to open a session, over a bare interpreter",
        ("script", "wall ms", "CPU ms", "ratio", "CPU ratio", "target", "met"),
        notes=[
            f"Medians of {rounds} alternating runs of fresh interpreters.",
            (
                f"A bare interpreter takes {statistics.median(bare.wall) * 1e3:.1f} ms, the first "
                f"Session.open() {median_open * 1e3:.0f} ms: it imports {count} modules, most of "
                f"them of {', '.join(packages)}."
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
    return table


def _interpret(script: str) -> float:
    """Run *script* in a new interpreter; return the number that it prints, or 0."""
    return float(_output(script) or 0.0)


def _output(script: str) -> str:
    """Run *script* in a new interpreter; return what it prints."""
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return process.stdout
