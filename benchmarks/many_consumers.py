"""Many consumers of one chat in one program: what is polled and delivered, and what one weighs."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from .chart import Bars
from .competitors.installed import OURS
from .competitors.streaming import Arm
from .measure import kept_bytes, take_turns
from .memory_chat import PAGE, Chat, consumer
from .report import Table, ratio

__all__ = ["crowd", "delivering"]

CROWDS: Final = (1, 100, 1_000, 10_000)

LONG: Final = 3_600.0
"""Seconds until the next poll, while waiting consumers are weighed."""


async def crowd(arms: Sequence[Arm[Any]], *, quick: bool) -> Table:
    """Hand a backlog to 1, 100, 1,000 and 10,000 consumers at once."""
    rounds = 1 if quick else 5
    deliveries = 50_000 if quick else 300_000
    table = Table(
        "A backlog for many consumers in one program",
        (
            *("consumers", "way", "messages", "polls", "least polls"),
            *("delivered/s", f"to {OURS}", "B each", "target", "met"),
        ),
        notes=[
            f"A poll brings {PAGE} messages, in memory; medians of {rounds} rounds, in turns.",
            f"to {OURS}: of the rates of delivery. B each: a consumer that waits, and its task;",
            "a single one is charged with all that the consumers share.",
            "Polls of a crowd that shares none are what the service has to bear.",
            f"Why {OURS} takes longer than a queue: a message is acknowledged when the next one is",
            "asked for (a tenth of the time), and a poll takes a token, links what came and puts",
            "it into the log (three fifths with a single consumer, next to nothing with many).",
        ],
        chart=Bars("way", ("polls", "delivered/s", "B each"), by="consumers"),
    )
    for consumers in CROWDS:
        messages = max(2 * PAGE, deliveries // consumers // PAGE * PAGE)
        polls: dict[str, list[int]] = {arm.name: [] for arm in arms}
        times = await take_turns(
            rounds,
            {arm.name: delivering(arm, consumers, messages, polls[arm.name]) for arm in arms},
        )
        least = messages // PAGE
        for arm in arms:
            most, wall = max(polls[arm.name]), times[arm.name].wall
            table.add(
                consumers,
                arm.name,
                messages,
                most,
                least,
                consumers * messages / statistics.median(wall),
                ratio(times[OURS].wall, wall),
                await _weight(arm, consumers),
                *(("least polls", most == least) if arm.name == OURS else (None, None)),
            )
            table.samples[f"{consumers} {arm.name} s"] = wall
    return table


def delivering(
    arm: Arm[Any], consumers: int, messages: int, polls: list[int]
) -> Callable[[], Awaitable[None]]:
    """Have everybody have everything once. Each time adds to *polls* how many it took."""
    script = Chat(messages)

    async def work() -> None:
        chat, done = script.again(), list[str]()
        async with asyncio.timeout(120), arm.open(chat) as make, asyncio.TaskGroup() as group:
            for _ in range(consumers):
                group.create_task(arm.follow(make(), consumer(arm.name, messages, done)))
        if len(done) != consumers:
            raise RuntimeError(f"{arm.name}: only {len(done)} of {consumers} had everything")
        polls.append(chat.polls)

    return work


async def _weight(arm: Arm[Any], consumers: int) -> float:
    """Bytes of each of so many consumers that wait for the first message."""
    tasks: list[asyncio.Task[None]] = []
    async with arm.open(Chat(interval=LONG)) as make:

        async def build() -> None:
            tasks.extend(
                asyncio.create_task(arm.follow(make(), consumer(arm.name, 1, [])))
                for _ in range(consumers)
            )
            for _ in range(8):
                await asyncio.sleep(0)

        each = await kept_bytes(consumers, build)
        if any(task.done() for task in tasks):
            raise RuntimeError(f"{arm.name}: somebody did not wait")
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return each
