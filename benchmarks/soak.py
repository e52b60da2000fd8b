"""A million polls: memory and CPU time of a stream that runs for days of virtual time.

Each run is a separate process, which samples its memory after a tenth, a half and all of the polls.
All bounded structures are full at the first sample, so growth from there is a leak. Tracing the
allocations of Python code takes several times as long, so it is done in shorter, separate runs,
whose time does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .chart import Bars
from .report import Cell, Table
from .soak_process import PARTS, Plan, Result, RunSpec
from .subprocesses import run_all

__all__ = ["run"]

SETUPS: Final = {
    "scripted polls, MemoryStore": Plan("scripted", "memory", 1_000_000, traced=12_000),
    "scripted polls, SqliteStore": Plan("scripted", "sqlite", 25_000, traced=12_000),
    "a session, MemoryStore": Plan("session", "memory", 25_000, traced=6_000),
    "a session, SqliteStore": Plan("session", "sqlite", 12_500, traced=6_000),
}

MAX_RESIDENT_GROWTH: Final = 2 * 2**20
"""Bytes by which a process may grow between the first sample and the last."""

MAX_TRACED_GROWTH: Final = 64 * 2**10
"""Bytes by which traced allocations may grow: less than an object for every fourth poll."""


def run(*, quick: bool) -> list[Table]:
    """Run each setup: one after the other to measure time, then together to trace memory."""
    plans = [plan.shortened() if quick else plan for plan in SETUPS.values()]
    timed = [_follow(RunSpec(plan, traced=False))[0] for plan in plans]
    traced = _follow(*(RunSpec(plan, traced=True) for plan in plans))
    return [_cost_table(timed), _memory_table(timed, traced, quick=quick)]


def _follow(*specs: RunSpec) -> list[Result]:
    """Execute the specs at the same time."""
    return run_all("soak_process", specs, Result)


def _cost_table(results: Sequence[Result]) -> Table:
    table = Table(
        "CPU time per poll of a stream that runs for days of virtual time",
        ("setup", "polls", "messages", "failures", "early", "days", "wall s", "CPU s", "CPU us"),
        notes=[
            "A poll returns 0, 1 or 2 messages; every hundredth fails. CPU us: per poll.",
            "A session follows chat and mail, merged, with requests to a service on loopback.",
            "early: polls before their interval was over. An item out of order is an error.",
        ],
        chart=Bars("setup", ("CPU us", "early")),
    )
    for setup, result in zip(SETUPS, results, strict=True):
        polls = result.samples[-1].polls
        microseconds = result.cpu / polls * 1e6
        counts = (polls, result.messages, result.failures, result.early)
        table.add(setup, *counts, result.days, result.wall, result.cpu, microseconds)
    return table


def _memory_table(timed: Sequence[Result], traced: Sequence[Result], *, quick: bool) -> Table:
    parts = [f"{part:.0%}" for part in PARTS]
    resident_after = [f"RSS MiB {part}" for part in parts]
    traced_after = [f"traced KiB {part}" for part in parts]
    max_resident, max_traced = MAX_RESIDENT_GROWTH // 2**20, MAX_TRACED_GROWTH // 2**10
    table = Table(
        f"Memory after {', '.join(parts)} of the polls",
        ("setup", *resident_after, "store KiB", "polls", *traced_after, "target", "met"),
        notes=[
            "Logs keep their last 20 items. store: the size of its files at the end.",
            "traced: memory allocated by Python code, in a separate run of so many polls.",
            (
                "flat: from the first sample to the last, RSS grows by at most "
                f"{max_resident} MiB, traced by {max_traced} KiB."
            ),
        ],
        chart=Bars("setup", (resident_after[0], resident_after[-1])),
    )
    for setup, result, traced_result in zip(SETUPS, timed, traced, strict=True):
        resident = [sample.resident for sample in result.samples]
        allocated = [sample.traced for sample in traced_result.samples]
        flat = _growth(resident) <= MAX_RESIDENT_GROWTH and _growth(allocated) <= MAX_TRACED_GROWTH
        table.add(
            setup,
            *_in_units(resident, 2**20),
            result.samples[-1].stored / 2**10,
            traced_result.samples[-1].polls,
            *_in_units(allocated, 2**10),
            *((None, None) if quick else ("flat", flat)),  # too few polls to fill all structures
        )
    return table


def _in_units(sizes: Sequence[int | None], unit: int) -> list[Cell]:
    return [size and size / unit for size in sizes]


def _growth(sizes: Sequence[int | None]) -> int:
    return (sizes[-1] or 0) - (sizes[0] or 0)
