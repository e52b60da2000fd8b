"""A day of polling on virtual time: cost, losses, and growth of memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from .chart import Bars
from .competitors.polling import load_candidates
from .day_process import READERS, Result, RunSpec, setups
from .report import Cell, Table
from .subprocesses import run_all

__all__ = ["run"]

DAY: Final = 86_400.0
QUICK: Final = 3_600.0
MAX_PARALLEL: Final = 2

OURS: Final = "pythpeer"


def run(*, quick: bool) -> list[Table]:
    """Run every program on the same day, two of them at a time."""
    seconds = QUICK if quick else DAY

    def follow(name: str) -> Result:
        return run_all("day_process", [RunSpec(name, seconds)], Result)[0]

    names = list(setups())
    with ThreadPoolExecutor(MAX_PARALLEL) as pool:  # a finished program starts the next one
        results = dict(zip(names, pool.map(follow, names), strict=True))
    return [_table(results, seconds)]


def _table(results: dict[str, Result], seconds: float) -> Table:
    table = Table(
        (
            f"Cost and losses of polling a chat for {seconds / 3600:g} h, for {READERS} "
            "readers in one program"
        ),
        (
            *("program", "CPU s", "requests", "requests/ideal", "of", "delivered", "lost"),
            *("duplicated", "reported", "delay s", "MiB", "growth MiB", "target", "met"),
        ),
        notes=[
            "CPU: includes the service, which runs in the same process.",
            "ideal: one request a second for all readers. The service does not allow more.",
            (
                "lost: three bursts are larger than a response. reported: the lost "
                "messages that were reported to the program."
            ),
            "delay: median time from the post until a reader receives it.",
            "growth: of resident memory, from the end of the first hour to the end of the last.",
            (
                "Every two hundredth connection breaks, and for ten minutes of a day no "
                "request is answered."
            ),
            "pythpeer's stores keep the last 10,000 messages.",
            *(
                candidate.note
                for candidate in load_candidates()[0].values()
                if candidate.chat and candidate.note
            ),
            *load_candidates()[1],
        ],
        chart=Bars("program", ("CPU s", "requests/ideal", "lost", "growth MiB")),
    )
    for name, result in results.items():
        delivery, ideal = result.delivery_result, seconds
        first, last = result.resident
        growth = None if first is None or last is None else (last - first) / 2**20
        target: tuple[Cell, Cell] = None, None
        if name.startswith(OURS):
            is_met = (
                delivery.reported == delivery.lost
                and not delivery.duplicated
                and result.requests <= ideal
            )
            target = "none unreported or duplicated, requests <= 1", is_met
        table.add(
            name,
            *(result.cpu, result.requests, result.requests / ideal),
            *(
                delivery.of,
                delivery.delivered,
                delivery.lost,
                delivery.duplicated,
                delivery.reported,
                delivery.delay,
            ),
            *(last and last / 2**20, growth),
            *target,
        )
    return table
