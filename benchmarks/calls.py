"""The time of one call, small and large, sequential and 16 concurrent, on asyncio and on uvloop.

Nothing is paced: the code between the caller and the server is measured.
"""

from __future__ import annotations

import asyncio
import cProfile
import importlib.util
import itertools
import pstats
import statistics
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

import pythpeer
from pythpeer import ChatMessage, Endpoint, Rate, Secret, Session
from pythpeer.transport.pool import LIMIT_PER_ENDPOINT

from .chart import Bars
from .competitors.calling import BARE, KEY, Calls, Candidate, load_candidates
from .competitors.installed import OURS
from .competitors.limiting import share
from .measure import Times, interleave
from .report import Cell, Table, ratio
from .server import MESSAGES, PAGE, ROLL, SMALL, SMALL_PATH, Server

__all__ = ["part", "parts", "run", "speeds"]

UNLIMITED: Final = Rate(0.0, 1000)
WIDTHS: Final = {1: "sequential", 16: "16 concurrent"}

PACKAGE: Final = Path(pythpeer.__file__).parent
HERE: Final = Path(__file__).parent

TARGETS: Final = {("small", 1): 1.2, ("small", 16): 1.3, ("page", 1): 1.05, ("page", 16): 1.05}
"""Minimum speed of pythpeer, by wall clock and by CPU time, relative to bare aiohttp and msgspec:
by the response, and the number of concurrent calls."""

Work = Callable[[], Awaitable[object]]


class Roll(msgspec.Struct, frozen=True):
    """The small response."""

    status: int
    id: int
    user: str
    roll: float
    bet: str


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Calls, None]:
    key = Secret(KEY)
    endpoint = Endpoint("benchmark.roll", url + SMALL_PATH, rate=UNLIMITED, answer=Roll)
    rates = {"peerbet.chat.get": UNLIMITED}
    async with Session(peerbet_key=key, peerbet_url=url, rates=rates) as session:

        async def roll(number: int) -> Roll:
            return await session.call(endpoint, key=key, number=number)

        async def page(after: int) -> Sequence[ChatMessage]:
            return (await session.peerbet.messages(after=after, last=300)).messages

        yield Calls(roll, page)


def run(*, quick: bool) -> list[Table]:
    """Measure every client on both loops, and the parts of a small call."""
    candidates = {OURS: Candidate(OURS, _open, msgspec.to_builtins)}
    others, missing = load_candidates()
    candidates |= others
    with Server() as server:
        tables = [asyncio.run(_measure(candidates, server.url, "asyncio", quick=quick))]
        if importlib.util.find_spec("uvloop") is not None:
            import uvloop

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                tables.append(runner.run(_measure(candidates, server.url, "uvloop", quick=quick)))
        else:
            missing = [*missing, "Left out: uvloop's loop, which is not installed."]
        for table in tables:
            table.notes += missing
        if BARE in candidates:
            both = {name: candidates[name] for name in (BARE, OURS)}
            tables.append(asyncio.run(_profiles(both, server.url, 300 if quick else 3000)))
    return tables


async def _measure(
    candidates: Mapping[str, Candidate], url: str, loop: str, *, quick: bool
) -> Table:
    rounds = 3 if quick else 15
    counts = {"small": 96 if quick else 320, "page": 32 if quick else 96}
    table = Table(
        f"Time per call, by client, on {loop}",
        ("response", "client", "us", "CPU us", "speed", "CPU speed", "target", "met"),
        notes=[
            (
                f"{rounds} alternating rounds of {counts['small']} small calls or "
                f"{counts['page']} pages."
            ),
            f"small: an object of {len(SMALL)} bytes; page: 300 messages, {len(PAGE):,} bytes.",
            "The query of each call is different, as in a poll after the last id.",
            (
                f"speed: relative to {BARE}, median of the rounds' ratios; CPU speed: the "
                "same of its CPU time."
            ),
            (
                f"{OURS} opens at most {LIMIT_PER_ENDPOINT} connections for an endpoint; "
                "further calls wait for one."
            ),
            *(candidate.note for candidate in candidates.values() if candidate.note),
        ],
        chart=Bars("client", ("us", "speed"), by="response"),
    )
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(candidate.open(url))
            for name, candidate in candidates.items()
        }
        for name, calls in clients.items():
            await _check(candidates[name], calls)
        for answer, count in counts.items():
            for width, width_name in WIDTHS.items():
                work = {
                    name: _repeated(_asking(calls, answer), count, width)
                    for name, calls in clients.items()
                }
                times = await interleave(rounds, work)
                for name, cells in speeds(times, count, TARGETS[answer, width]).items():
                    table.add(f"{answer}, {width_name}", name, *cells)
                table.samples.update(
                    {
                        f"{answer} {width} {name} s": measured.wall
                        for name, measured in times.items()
                    }
                )
    return table


async def _check(candidate: Candidate, calls: Calls) -> None:
    """Check that the objects of a client contain exactly the data of the server."""
    if dict(candidate.plain(await calls.roll(0))) != ROLL:
        raise RuntimeError(f"{candidate.name} decodes a different roll")
    if [dict(candidate.plain(message)) for message in await calls.page(0)] != MESSAGES:
        raise RuntimeError(f"{candidate.name} decodes a different page")


def _asking(calls: Calls, answer: str) -> Work:
    """Return a call whose query is different each time."""
    ask: Callable[[int], Awaitable[object]] = calls.roll if answer == "small" else calls.page
    numbers = itertools.count()
    return lambda: ask(next(numbers))


def _repeated(call: Work, count: int, width: int) -> Work:
    """Return a function that makes *count* calls by *width* concurrent tasks."""
    return lambda: share(call, count, width)


def speeds(times: Mapping[str, Times], count: int, target: float) -> dict[str, Sequence[Cell]]:
    """Return the figures of each client, without the columns that name response and client."""
    rows: dict[str, Sequence[Cell]] = {}
    bare = times.get(BARE)
    for name, measured in times.items():
        wall, cpu = statistics.median(measured.wall), statistics.median(measured.cpu)
        speed = ratio(bare.wall, measured.wall) if bare else None
        cpu_speed = ratio(bare.cpu, measured.cpu) if bare else None
        target_cells: Sequence[Cell] = (None, None)
        if name == OURS and speed is not None and cpu_speed is not None:
            target_cells = f"both >= {target}", min(speed, cpu_speed) >= target
        rows[name] = (
            wall / count * 1e6,
            cpu / count * 1e6,
            speed,
            cpu_speed,
            *target_cells,
        )
    return rows


# -- parts of a call ------------------------------------------------------------------------------


async def _profiles(both: Mapping[str, Candidate], url: str, count: int) -> Table:
    """Return the table of the time of each part of a small call, for bare aiohttp and pythpeer."""
    profiles: dict[str, Counter[str]] = {}
    for name, candidate in both.items():
        async with candidate.open(url) as calls:
            call = _asking(calls, "small")
            await share(call, count, 1)
            profile = cProfile.Profile()
            with profile:
                await share(call, count, 1)
            profiles[name] = parts(pstats.Stats(profile), count)
    table = Table(
        "Time per small sequential call, by part, in microseconds",
        ("part", *both),
        notes=[
            (
                f"cProfile, {count} calls; profiling slows each function down, so compare "
                "the shares only."
            ),
            "C: built-in and compiled functions, including sockets and msgspec; without waiting.",
            (
                f"{OURS} adds many small steps, the same for a page: taking a token, "
                "putting the key into the URL, checking whether the connection is idle, "
                "limiting the body, recording the call."
            ),
        ],
    )
    totals = {name: part_times.total() for name, part_times in profiles.items()}
    for name, _ in (profiles[OURS] | profiles[BARE]).most_common():
        table.add(name, *(part_times[name] for part_times in profiles.values()))
    table.add("total", *totals.values())
    return table


def parts(stats: Any, count: int) -> Counter[str]:
    """Return the microseconds of each part, without the functions that it calls."""
    part_times: Counter[str] = Counter()
    for (file, _, function), (_, _, seconds, _, _) in stats.stats.items():
        if "poll' of 'select.epoll" not in function and "select.kqueue" not in function:
            part_times[part(file)] += seconds / count * 1e6
    return part_times


def part(file: str) -> str:
    """Return the part of a file: a module of pythpeer, a package, the standard library, or C."""
    path = Path(file)
    if path.is_relative_to(PACKAGE):
        return f"{OURS}.{path.stem}"
    if path.is_relative_to(HERE):
        return "benchmark"
    if "site-packages" in path.parts:
        return path.parts[path.parts.index("site-packages") + 1]
    return "standard library" if path.suffix else "C"
