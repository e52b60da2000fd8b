"""From the moment of a post to `async for`, on virtual time: nobody waits for hours."""

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
from .competitors.streaming import Arm, Handle
from .memory_chat import Chat, consumer
from .report import Table

__all__ = ["Delays", "Scene", "held", "latency", "measure"]

INTERVAL: Final = 1.0
TRIP: Final = 0.05
"""Seconds that a poll takes at most, each way."""

CONSUMERS: Final = 3
SEED: Final = 20121212

POINTS: Final = 200
"""Of each distribution so many points are written down."""


class Scene(msgspec.Struct, frozen=True):
    """How lively a chat is."""

    name: str
    pause: float
    """Seconds between two posts, on average; when they come is up to chance."""

    messages: int


class Delays(msgspec.Struct, frozen=True):
    """What came of one way of following, delays in intervals."""

    polls: int
    early: int
    delays: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.delays)


def latency(arms: Sequence[Arm[Any]], *, quick: bool) -> list[Table]:
    """How late messages come, in a lively chat and in a quiet one."""
    scenes = (
        Scene("a lively chat, a post every half second", 0.5, 300 if quick else 4_000),
        Scene("a quiet chat, a post every ten seconds", 10.0, 100 if quick else 2_000),
    )
    return [_table(scene, {arm.name: measure(arm, scene) for arm in arms}) for scene in scenes]


def measure(arm: Arm[Any], scene: Scene) -> Delays:
    """Follow a scene with several consumers at once."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(_measure(arm, scene))


async def _measure(arm: Arm[Any], scene: Scene) -> Delays:
    chat, chance = Chat(interval=INTERVAL, trip=TRIP), random.Random(SEED)
    now = asyncio.get_running_loop().time
    said: list[float] = []
    delays: list[float] = []
    done: list[str] = []

    async def talk() -> None:
        for _ in range(scene.messages):
            await asyncio.sleep(chance.expovariate(1 / scene.pause))
            said.append(now())
            chat.say()

    def watched(handle: Handle) -> Handle:
        def watch(message: ChatMessage) -> bool:
            last = handle(message)
            delays.append((now() - said[message.id - 1]) / INTERVAL)
            return last

        return watch

    async with arm.open(chat) as make, asyncio.TaskGroup() as group:
        for _ in range(CONSUMERS):
            handle = watched(consumer(arm.name, scene.messages, done))
            group.create_task(arm.follow(make(), handle))
        group.create_task(talk())
    if len(done) != CONSUMERS:
        raise RuntimeError(f"{arm.name}: only {len(done)} of {CONSUMERS} had everything")
    return Delays(chat.polls, chat.early, delays)


def _table(scene: Scene, found: dict[str, Delays]) -> Table:
    table = Table(
        f"From a post to `async for`, in intervals: {scene.name}",
        ("way", "median", "p95", "worst", "over 1/2", "polls", "early", "target", "met"),
        notes=[
            f"{scene.messages:,} posts, {CONSUMERS} consumers, {INTERVAL:g} s, virtual time.",
            f"A poll takes 0 to {TRIP * 1e3:.0f} ms each way, and nothing else takes any time.",
            "over 1/2: the mean over half an interval, which is the least without any way to go.",
            "early: polls at the service less than an interval after the one before.",
            "target: of those with none early, no median is lower by more than chance makes it.",
        ],
        chart=Curves(tuple(found), "intervals from the post to the consumer", log=True),
    )
    for way, delays in found.items():
        p95 = statistics.quantiles(delays.delays, n=20)[-1]
        table.add(
            way,
            delays.median,
            p95,
            max(delays.delays),
            statistics.fmean(delays.delays) - 0.5,
            delays.polls,
            delays.early,
            *(("none ahead", held(found, scene.messages)) if way == OURS else (None, None)),
        )
        table.samples[way] = statistics.quantiles(delays.delays, n=POINTS)
    return table


def held(found: dict[str, Delays], posts: int) -> bool:
    """Whether pythpeer kept the interval, and nobody who did was faster.

    Two medians of so many delays between 0 and 1 have to differ by twice the standard error of
    their difference, which is 0.7 over the root of their number.
    """
    fair = {way: delays.median for way, delays in found.items() if not delays.early}
    slack = 1.4 / math.sqrt(posts)
    return fair.get(OURS, math.inf) <= min(fair.values(), default=0.0) + slack
