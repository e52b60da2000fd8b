"""The interval as the server sees it: six scenarios, two scales, three limiters side by side.

The judge is a raw server in its own process; every limiter runs in a process of its own, those that
are compared at the same time. On the small scale the three limiters of one scenario run together
and the scenarios take turns; on the scale of a second everything runs at once, because it is
waiting nearly all the time.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Final

import msgspec

from .lane import LIMITERS, Outcome, Run
from .report import Table
from .server import ROOT, Server

__all__ = ["SEED", "judge", "run", "start"]

SHORT: Final = 0.001
"""Seconds by which a gap must be under the interval to be counted as short."""

SEED: Final = 20121212


class Scale(msgspec.Struct, frozen=True):
    """An interval, and the delays that its guard is meant for."""

    interval: float
    guard: float
    requests: int
    forward: float
    slow: float


class Scenario(msgspec.Struct, frozen=True):
    """What goes wrong. Forward and backward delays are drawn from 0 to what is given here."""

    name: str
    forward: bool = False
    back: str = ""
    loop: str = "asyncio"
    stalls: bool = False
    cold: bool = False


SCENARIOS: Final = (
    Scenario("plain"),
    Scenario("jitter", forward=True, back="forward"),
    Scenario("slow answers", forward=True, back="slow"),
    Scenario("stalled loop", stalls=True),
    Scenario("cold connections", cold=True),
    Scenario("uvloop", loop="uvloop"),
)


class Verdict(msgspec.Struct, frozen=True):
    """What the judge saw of one run."""

    gaps: int
    short: int
    doubtful: int
    worst: float
    rate: float


def run(*, quick: bool) -> list[Table]:
    """Run every scenario at 0.05 s and at 1 s."""
    small = Scale(0.05, 0.02, 60 if quick else 200, forward=0.02, slow=0.1)
    large = Scale(1.0, 0.05, 8 if quick else 30, forward=0.05, slow=0.1)
    uvloop = importlib.util.find_spec("uvloop") is not None
    scenarios = [scenario for scenario in SCENARIOS if uvloop or scenario.loop != "uvloop"]
    with Server() as server:
        return [
            _table(server, small, [[scenario] for scenario in scenarios], least=None),
            _table(server, large, [scenarios], least=0.95),
        ]


def _table(
    server: Server, scale: Scale, turns: Iterable[Sequence[Scenario]], *, least: float | None
) -> Table:
    forward, slow = f"{scale.forward * 1e3:.0f}", f"{scale.slow * 1e3:.0f}"
    table = Table(
        f"Pacing at {scale.interval:g} s, {scale.requests} requests by 20 tasks,"
        f" guard {scale.guard * 1e3:.0f} ms",
        (
            *("scenario", "limiter", "gaps", "short", "of these doubtful", "worst ms"),
            *("rate", "CPU ms", "target", "met"),
        ),
        notes=[
            "short: gaps at the server more than 1 ms under the interval; rate: of the ideal.",
            "worst: by how much the shortest gap was under the interval.",
            "doubtful: the judge itself was not run when the request that began the gap came in.",
            f"jitter: 0 to {forward} ms each way; slow answers: 0 to {forward} there, {slow} back.",
            "stalled loop: for 30 ms, every 150 ms on average.",
            "cold connections: one for each request, which takes 0 to 20 ms more to make.",
        ],
    )
    for together in turns:
        for scenario, limiter, verdict, outcome in _together(server, scale, together):
            target = met = None
            if limiter == "pythpeer":
                target = "0 short" if least is None else f"0 short, >= {least}"
                whole = verdict.gaps == scale.requests - 1 and not outcome.failures
                met = whole and verdict.short == 0 and verdict.rate >= (least or 0.0)
            if outcome.failures:
                table.notes.append(f"{scenario.name}, {limiter}: {outcome.failures} failed")
            table.add(
                scenario.name,
                limiter,
                verdict.gaps,
                verdict.short,
                verdict.doubtful,
                verdict.worst * 1e3,
                verdict.rate,
                outcome.cpu * 1e3,
                target,
                met,
            )
    return table


def _together(
    server: Server, scale: Scale, scenarios: Sequence[Scenario]
) -> list[tuple[Scenario, str, Verdict, Outcome]]:
    """Run all limiters in all of *scenarios* at the same time."""
    clients: list[tuple[Scenario, str, str, subprocess.Popen[str]]] = []
    with ExitStack() as stack:
        for number, scenario in enumerate(scenarios):
            for place, limiter in enumerate(LIMITERS):
                lane = f"{number}-{place}"
                server.open_lane(
                    lane,
                    forward=scale.forward if scenario.forward else 0.0,
                    back={"": 0.0, "forward": scale.forward, "slow": scale.slow}[scenario.back],
                    seed=SEED + number,
                )
                run = Run(
                    server.lane_url(lane),
                    limiter,
                    scale.interval,
                    scale.guard,
                    scale.requests,
                    SEED + number,
                    scenario.loop,
                    scenario.stalls,
                    scenario.cold,
                )
                clients.append((scenario, limiter, lane, start(run, stack)))
        # None begins while another is still importing.
        for *_, client in clients:
            if client.stdout is None or client.stdout.readline() != "ready\n":
                raise RuntimeError("a client did not get ready")
        for *_, client in clients:
            if client.stdin is not None:
                client.stdin.write("go\n")
                client.stdin.flush()
            time.sleep(scale.interval / len(clients))  # nor all of them in the same moment
        results: list[tuple[Scenario, str, Verdict, Outcome]] = []
        for scenario, limiter, lane, client in clients:
            printed, _ = client.communicate(timeout=6 * scale.requests * scale.interval + 30)
            if client.returncode != 0:
                raise RuntimeError(f"{scenario.name}, {limiter}: the client did not finish")
            outcome = msgspec.json.decode(printed, type=Outcome)
            verdict = judge(server.close_lane(lane), scale.interval)
            results.append((scenario, limiter, verdict, outcome))
        return results


def start(run: Run, stack: ExitStack) -> subprocess.Popen[str]:
    """Start a client, which ends with *stack*."""
    command = [sys.executable, "-m", f"{__package__}.lane", msgspec.json.encode(run).decode()]
    pipe = subprocess.PIPE
    client = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    stack.callback(_end, client)
    return client


def _end(client: subprocess.Popen[str]) -> None:
    """Reap a client, whatever state it is in."""
    if client.poll() is None:
        client.kill()
    client.communicate()


def judge(lane: dict[str, list[tuple[float, float]]], interval: float) -> Verdict:
    """What the requests that came in on a lane say of the interval."""
    requests = sorted(lane["requests"], key=lambda request: request[1])
    arrivals = [arrival for _, arrival in requests]
    short = doubtful = 0
    worst = 0.0
    for (stamp, before), after in zip(requests, arrivals[1:], strict=False):
        lack = interval - (after - before)
        worst = max(worst, lack)
        if lack > SHORT:
            short += 1
            doubtful += any(start <= stamp <= end + 0.001 for start, end in lane["late"])
    gaps = len(arrivals) - 1
    rate = gaps * interval / (arrivals[-1] - arrivals[0]) if gaps > 0 else 0.0
    return Verdict(gaps, short, doubtful, worst, rate)
