"""Delay from a post to `async for`, on virtual time, so that hours take seconds."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from pythpeer import ChatMessage
from pythpeer.testing import VirtualTimeLoop

from .chart import Curves
from .competitors.installed import OURS
from .competitors.streaming import Candidate, Handle
from .memory_chat import Chat, consumer
from .report import Table

__all__ = ["Delays", "Scenario", "latency", "measure", "target_met"]

INTERVAL: Final = 1.0
MAX_DELAY: Final = 0.05
"""Maximum seconds of a poll, each way."""

CONSUMERS: Final = 3
SEED: Final = 20121212

POINTS: Final = 200
"""Points of each distribution that are stored."""


class Scenario(msgspec.Struct, frozen=True):
    """A chat with posts at random times."""

    name: str
    pause: float
    """Mean seconds between two posts."""

    messages: int


class Delays(msgspec.Struct, frozen=True):
    """The result of one implementation; delays are in intervals."""

    polls: int
    early: int
    delays: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.delays)


def latency(candidates: Sequence[Candidate[Any]], *, quick: bool) -> list[Table]:
    """Measure the delay of messages, in a busy chat and in a quiet one."""
    scenarios = (
        Scenario("a busy chat, a post every half second", 0.5, 300 if quick else 4_000),
        Scenario("a quiet chat, a post every ten seconds", 10.0, 100 if quick else 2_000),
    )
    return [
        _table(scenario, {candidate.name: measure(candidate, scenario) for candidate in candidates})
        for scenario in scenarios
    ]


def measure(candidate: Candidate[Any], scenario: Scenario) -> Delays:
    """Follow a chat with several concurrent consumers."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(_measure(candidate, scenario))


async def _measure(candidate: Candidate[Any], scenario: Scenario) -> Delays:
    chat, random_source = Chat(interval=INTERVAL, max_delay=MAX_DELAY), random.Random(SEED)
    now = asyncio.get_running_loop().time
    posted_at: list[float] = []
    delays: list[float] = []
    done: list[str] = []

    async def post_all() -> None:
        for _ in range(scenario.messages):
            await asyncio.sleep(random_source.expovariate(1 / scenario.pause))
            posted_at.append(now())
            chat.post()

    def watched(handle: Handle) -> Handle:
        def watch(message: ChatMessage) -> bool:
            last = handle(message)
            delays.append((now() - posted_at[message.id - 1]) / INTERVAL)
            return last

        return watch

    async with candidate.open(chat) as make, asyncio.TaskGroup() as group:
        for _ in range(CONSUMERS):
            handle = watched(consumer(candidate.name, scenario.messages, done))
            group.create_task(candidate.follow(make(), handle))
        group.create_task(post_all())
    if len(done) != CONSUMERS:
        raise RuntimeError(f"{candidate.name}: only {len(done)} of {CONSUMERS} received everything")
    return Delays(chat.polls, chat.early, delays)


def _table(scenario: Scenario, delays_by_name: dict[str, Delays]) -> Table:
    table = Table(
        f"Delay from a post to the consumer, in intervals: {scenario.name}",
        (
            "implementation",
            "median",
            "p95",
            "worst",
            "mean - 1/2",
            "polls",
            "early",
            "target",
            "met",
        ),
        notes=[
            f"{scenario.messages:,} posts, {CONSUMERS} consumers, {INTERVAL:g} s, virtual time.",
            f"A poll takes 0 to {MAX_DELAY * 1e3:.0f} ms each way; all else takes no time.",
            (
                "mean - 1/2: the mean minus half an interval, which is the minimum "
                "without network delay."
            ),
            "early: polls that arrived less than an interval after the previous one.",
            (
                "target: no implementation without early polls has a median that is lower "
                "by more than chance."
            ),
        ],
        chart=Curves(tuple(delays_by_name), "delay in intervals", log=True),
    )
    for setup, delays in delays_by_name.items():
        p95 = statistics.quantiles(delays.delays, n=20)[-1]
        table.add(
            setup,
            delays.median,
            p95,
            max(delays.delays),
            statistics.fmean(delays.delays) - 0.5,
            delays.polls,
            delays.early,
            *(
                ("none better", target_met(delays_by_name, scenario.messages))
                if setup == OURS
                else (None, None)
            ),
        )
        table.samples[setup] = statistics.quantiles(delays.delays, n=POINTS)
    return table


def target_met(delays_by_name: dict[str, Delays], posts: int) -> bool:
    """Return whether pythpeer kept the interval, and no implementation that did was faster.

    Two medians of delays between 0 and 1 differ significantly by twice the standard error of their
    difference, which is 0.7 divided by the square root of the number of posts.
    """
    medians = {setup: delays.median for setup, delays in delays_by_name.items() if not delays.early}
    slack = 1.4 / math.sqrt(posts)
    return medians.get(OURS, math.inf) <= min(medians.values(), default=0.0) + slack
