"""The interval between requests at the server: six scenarios, two intervals, all limiters.

A raw server in a separate process measures the requests; each limiter runs in a separate process,
and compared limiters run at the same time. With the short interval the scenarios run one after the
other; with an interval of a second all run at the same time, because they wait nearly all the time.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

import msgspec

from .chart import Bars
from .client_processes import begin, start
from .competitors.installed import OURS
from .competitors.limiting import load_candidates
from .interval_analysis import NOISE, Analysis, analyse, check_target, combine
from .pacing_client import Outcome, Run
from .report import Cell, Table
from .server import Server

__all__ = ["SEED", "run"]

SEED: Final = 20121212

MAX_DURATION_RATIO: Final = 2.5
"""A limiter is stopped after this multiple of the ideal time."""


class Scale(msgspec.Struct, frozen=True):
    """An interval with its guard, in seconds, and the delays of the scenarios."""

    interval: float
    guard: float
    requests: int
    forward: float
    slow: float


class Scenario(msgspec.Struct, frozen=True):
    """The conditions of a run; delays are drawn from 0 to the maximum that the scale defines."""

    name: str
    forward: bool = False
    back: str = ""
    loop: str = "asyncio"
    stalls: bool = False
    cold: bool = False


SCENARIOS: Final = (
    Scenario("plain"),
    Scenario("jitter", forward=True, back="forward"),
    Scenario("slow responses", forward=True, back="slow"),
    Scenario("stalled loop", stalls=True),
    Scenario("cold connections", cold=True),
    Scenario("uvloop", loop="uvloop"),
)


class Result(msgspec.Struct, frozen=True):
    """One limiter in one scenario."""

    scenario: str
    limiter: str
    analysis: Analysis
    outcome: Outcome


def run(*, quick: bool) -> list[Table]:
    """Run every scenario at 0.05 s and at 1 s."""
    small = Scale(0.05, 0.02, 25 if quick else 200, forward=0.02, slow=0.1)
    large = Scale(1.0, 0.05, 8 if quick else 30, forward=0.05, slow=0.1)
    uvloop = importlib.util.find_spec("uvloop") is not None
    scenarios = [scenario for scenario in SCENARIOS if uvloop or scenario.loop != "uvloop"]
    tables: list[Table] = []
    with Server() as server:
        for scale, groups in ((small, [[result] for result in scenarios]), (large, [scenarios])):
            results = [result for group in groups for result in _run_group(server, scale, group)]
            tables += [_overall_table(scale, results), _scenario_table(scale, results)]
    return tables


def _run_group(server: Server, scale: Scale, scenarios: Sequence[Scenario]) -> list[Result]:
    """Run all limiters in all of *scenarios* at the same time."""
    names = (OURS, *load_candidates()[0])
    with ExitStack() as stack:
        clients = {
            (scenario.name, name): start(_channel(server, scale, scenario, name), stack)
            for scenario in scenarios
            for name in names
        }
        begin(list(clients.values()), within=scale.interval)  # not all at the same moment
        results: list[Result] = []
        for (scenario, name), client in clients.items():
            outcome = client.outcome()
            channel = server.close_channel(_channel_name(scenario, name))
            results.append(Result(scenario, name, analyse(channel, scale.interval), outcome))
        return results


def _channel(server: Server, scale: Scale, scenario: Scenario, limiter: str) -> Run:
    """Open a channel and return the run for it; the random seed is the same for every limiter."""
    channel = _channel_name(scenario.name, limiter)
    seed = SEED + SCENARIOS.index(scenario)
    server.open_channel(
        channel,
        forward=scale.forward if scenario.forward else 0.0,
        back={"": 0.0, "forward": scale.forward, "slow": scale.slow}[scenario.back],
        seed=seed,
    )
    return Run(
        server.channel_url(channel),
        limiter,
        scale.interval,
        scale.guard,
        scale.requests,
        seed,
        scenario.loop,
        scenario.stalls,
        scenario.cold,
        MAX_DURATION_RATIO,
    )


def _channel_name(scenario: str, limiter: str) -> str:
    """A name that needs no quoting in a URL."""
    return "".join(filter(str.isalnum, f"{scenario}{limiter}"))


# -- the tables ------------------------------------------------------------------------------------


def _overall_table(scale: Scale, results: Sequence[Result]) -> Table:
    """Return the table of the combined scenarios."""
    scenarios = len({result.scenario for result in results})
    table = Table(
        (
            f"Share of requests that arrived too early, and rate: {scenarios} scenarios, "
            f"interval {scale.interval:g} s"
        ),
        (
            *("limiter", "gaps", "too early", "share too early", "uncertain"),
            *("worst ms", "rate", "CPU ms"),
            *("rate, none too early", "target", "met"),
        ),
        notes=[
            (
                "too early: requests that arrived at the server more than 1 ms before the "
                "interval was over."
            ),
            "share too early: of all gaps between two requests.",
            "uncertain: too early, but the server's loop was late for the previous request.",
            "worst: by how much the shortest gap was under the interval.",
            "rate: relative to the ideal rate, mean of the scenarios.",
            (
                f"target: none too early, and a rate within {NOISE} of the best other "
                "limiter with none too early."
            ),
            (
                f"A limiter that takes {MAX_DURATION_RATIO} times the ideal time is "
                "stopped, and has fewer gaps."
            ),
            *(candidate.note for candidate in load_candidates()[0].values() if candidate.note),
            *load_candidates()[1],
        ],
        chart=Bars(
            "limiter",
            ("share too early", "rate, none too early"),
            captions=(
                "share of requests that arrived too early",
                "rate, of limiters with none too early",
            ),
        ),
    )
    by_limiter: dict[str, list[Analysis]] = {}
    for result in results:
        by_limiter.setdefault(result.limiter, []).append(result.analysis)
    analyses = {limiter: combine(runs) for limiter, runs in by_limiter.items()}
    ours = check_target(analyses, OURS, scenarios * (scale.requests - 1))
    for limiter, analysis in analyses.items():
        cpu = sum(result.outcome.cpu for result in results if result.limiter == limiter)
        rate_if_none_short = None if analysis.short else analysis.rate
        target_cells = ours if limiter == OURS else (None, None)
        table.add(limiter, *_cells(analysis, cpu), rate_if_none_short, *target_cells)
    return table


def _scenario_table(scale: Scale, results: Sequence[Result]) -> Table:
    """Return the table of the separate scenarios."""
    forward, slow = f"{scale.forward * 1e3:.0f}", f"{scale.slow * 1e3:.0f}"
    table = Table(
        (
            "Share of requests that arrived too early, and rate, by scenario: interval "
            f"{scale.interval:g} s"
        ),
        (
            *("scenario", "limiter", "gaps", "too early", "share too early", "uncertain"),
            *("worst ms", "rate", "CPU ms", "target", "met"),
        ),
        notes=[
            f"{scale.requests} requests by 20 tasks, guard {scale.guard * 1e3:.0f} ms.",
            (
                f"jitter: delays of 0 to {forward} ms each way; slow responses: 0 to "
                f"{forward} ms to the server, 0 to {slow} ms back."
            ),
            "stalled loop: blocked for 30 ms, every 150 ms on average.",
            "cold connections: a new one for each request, which takes 0 to 20 ms more to open.",
            (
                "Where the target is missed: a limiter that counts from the time at which "
                "a request was due or written is faster by a round trip while delays are "
                "even, and too early in all other scenarios."
            ),
        ],
        chart=Bars(
            "limiter",
            ("share too early", "rate"),
            by="scenario",
            captions=("share too early", "rate"),
        ),
    )
    for result in results:
        scenario, limiter = result.scenario, result.limiter
        target_cells: tuple[Cell, Cell] = None, None
        if limiter == OURS:
            same_scenario = {
                result.limiter: result.analysis for result in results if result.scenario == scenario
            }
            target_cells = check_target(same_scenario, OURS, scale.requests - 1)
        if result.outcome.failures:
            table.notes.append(f"{scenario}, {limiter}: {result.outcome.failures} failed")
        table.add(scenario, limiter, *_cells(result.analysis, result.outcome.cpu), *target_cells)
    return table


def _cells(analysis: Analysis, cpu: float) -> tuple[Cell, ...]:
    return (
        analysis.gaps,
        analysis.short,
        analysis.short / analysis.gaps if analysis.gaps else 0.0,
        analysis.doubtful,
        analysis.worst * 1e3,
        analysis.rate,
        cpu * 1e3,
    )
