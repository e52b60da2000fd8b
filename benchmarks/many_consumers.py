"""Many consumers of one chat in one program: polls, delivery rate, and memory of a consumer."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from .chart import Bars
from .competitors.installed import OURS
from .competitors.streaming import Candidate
from .measure import interleave, retained_bytes
from .memory_chat import PAGE, Chat, consumer
from .report import Table, ratio

__all__ = ["compare_consumers", "delivery_work"]

CONSUMER_COUNTS: Final = (1, 100, 1_000, 10_000)

NEVER: Final = 3_600.0
"""Seconds until the next poll, while the memory of waiting consumers is measured."""


async def compare_consumers(candidates: Sequence[Candidate[Any]], *, quick: bool) -> Table:
    """Deliver a backlog to 1, 100, 1,000 and 10,000 concurrent consumers."""
    rounds = 1 if quick else 5
    deliveries = 50_000 if quick else 300_000
    table = Table(
        "Polls, delivery rate and memory of many consumers in one program",
        (
            *("consumers", "implementation", "messages", "polls", "min polls"),
            *("delivered/s", f"to {OURS}", "bytes each", "target", "met"),
        ),
        notes=[
            f"A poll returns {PAGE} messages, in memory; medians of {rounds} alternating rounds.",
            f"to {OURS}: ratio of the delivery rates.",
            (
                "bytes each: a waiting consumer and its task; with a single consumer, all "
                "that consumers share is included."
            ),
            "Without a shared poll the service receives the polls of all consumers.",
            (
                f"Why {OURS} takes longer than a queue: a message is acknowledged when the "
                "next one is requested (a tenth of the time), and a poll takes a token, "
                "links its messages and appends them to the log (three fifths with a "
                "single consumer, almost nothing with many)."
            ),
        ],
        chart=Bars("implementation", ("polls", "delivered/s", "bytes each"), by="consumers"),
    )
    for consumers in CONSUMER_COUNTS:
        messages = max(2 * PAGE, deliveries // consumers // PAGE * PAGE)
        polls: dict[str, list[int]] = {candidate.name: [] for candidate in candidates}
        times = await interleave(
            rounds,
            {
                candidate.name: delivery_work(candidate, consumers, messages, polls[candidate.name])
                for candidate in candidates
            },
        )
        min_polls = messages // PAGE
        for candidate in candidates:
            max_polls, wall = max(polls[candidate.name]), times[candidate.name].wall
            table.add(
                consumers,
                candidate.name,
                messages,
                max_polls,
                min_polls,
                consumers * messages / statistics.median(wall),
                ratio(times[OURS].wall, wall),
                await _bytes_each(candidate, consumers),
                *(
                    ("min polls", max_polls == min_polls)
                    if candidate.name == OURS
                    else (None, None)
                ),
            )
            table.samples[f"{consumers} {candidate.name} s"] = wall
    return table


def delivery_work(
    candidate: Candidate[Any], consumers: int, messages: int, polls: list[int]
) -> Callable[[], Awaitable[None]]:
    """Return a function that delivers all messages to all consumers, and appends to *polls*."""
    template = Chat(messages)

    async def work() -> None:
        chat, done = template.copy(), list[str]()
        async with asyncio.timeout(120), candidate.open(chat) as make, asyncio.TaskGroup() as group:
            for _ in range(consumers):
                group.create_task(
                    candidate.follow(make(), consumer(candidate.name, messages, done))
                )
        if len(done) != consumers:
            raise RuntimeError(
                f"{candidate.name}: only {len(done)} of {consumers} received everything"
            )
        polls.append(chat.polls)

    return work


async def _bytes_each(candidate: Candidate[Any], consumers: int) -> float:
    """Return the bytes per consumer while all wait for the first message."""
    tasks: list[asyncio.Task[None]] = []
    async with candidate.open(Chat(interval=NEVER)) as make:

        async def build() -> None:
            tasks.extend(
                asyncio.create_task(candidate.follow(make(), consumer(candidate.name, 1, [])))
                for _ in range(consumers)
            )
            for _ in range(8):
                await asyncio.sleep(0)

        bytes_each = await retained_bytes(consumers, build)
        if any(task.done() for task in tasks):
            raise RuntimeError(f"{candidate.name}: a consumer did not wait")
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return bytes_each
