"""The comparison of streams: the polled chat, the target, and errors that end it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from helpers import run_on_virtual_time

from benchmarks.competitors.streaming import Candidate, Handle, load_candidates
from benchmarks.competitors.streaming import Chat as Polled
from benchmarks.latency import CONSUMERS, Delays, Scenario, measure, target_met
from benchmarks.many_consumers import delivery_work
from benchmarks.memory_chat import PAGE, PYTHPEER, Chat
from pythpeer import ChatMessage

SCENARIO = Scenario("a test", 2.0, 40)

CANDIDATES = [PYTHPEER, *load_candidates()[0].values()]


async def ids(chat: Chat, after: int | None, limit: int = PAGE) -> list[int]:
    return [message.id for message in await chat.ask(after, limit)]


@pytest.mark.anyio
async def test_the_chat_returns_the_first_after_an_id_and_without_one_the_newest() -> None:
    chat = Chat(2 * PAGE + 3)
    assert await ids(chat, 0) == list(range(1, PAGE + 1))
    assert await ids(chat, 2 * PAGE) == [2 * PAGE + 1, 2 * PAGE + 2, 2 * PAGE + 3]
    assert await ids(chat, None, 2) == [2 * PAGE + 2, 2 * PAGE + 3]
    assert len(await ids(chat, 0, 2 * PAGE)) == PAGE
    assert await ids(chat, 2 * PAGE + 3) == []
    assert chat.polls == 5


@pytest.mark.anyio
async def test_the_chat_counts_polls_that_are_too_early() -> None:
    chat = Chat(interval=1.0)
    for pause in (0.0, 1.0, 0.9, 1.0):
        await asyncio.sleep(pause)
        await chat.ask(0)
    assert (chat.polls, chat.early) == (4, 1)


@pytest.mark.anyio
async def test_a_chat_can_be_copied_without_its_polls() -> None:
    chat = Chat(3, interval=1.0)
    await chat.ask(0)
    copy = chat.copy()
    assert (copy.polls, copy.interval, await ids(copy, 0)) == (0, 1.0, [1, 2, 3])


@pytest.mark.parametrize("candidate", CANDIDATES, ids=[candidate.name for candidate in CANDIDATES])
def test_every_implementation_delivers_everything_in_time(candidate: Candidate[object]) -> None:
    """No message before its post, and with asyncpraw within its longest pause."""
    delays_ = measure(candidate, SCENARIO)
    assert len(delays_.delays) == CONSUMERS * SCENARIO.messages
    assert min(delays_.delays) >= 0.0
    assert max(delays_.delays) <= (18.0 if candidate.name == "asyncpraw" else 1.2)


def test_one_poll_serves_all_consumers_and_keeps_the_interval() -> None:
    ours = measure(PYTHPEER, SCENARIO)
    per_consumer = measure(load_candidates()[0]["a loop per consumer"], SCENARIO)
    assert ours.early == 0
    assert per_consumer.early > 0
    assert per_consumer.polls > 2 * ours.polls


def delays(*values: float, early: int = 0) -> Delays:
    return Delays(10, early, values)


@pytest.mark.parametrize(
    ("ours", "other", "is_met"),
    [
        (delays(0.5), delays(0.5), True),
        (delays(0.5), delays(0.3), False),
        (delays(0.5), delays(0.45), True),  # which chance can do
        (delays(0.5), delays(0.3, early=1), True),
        (delays(0.5, early=1), delays(0.9), False),
        (delays(0.5, early=1), delays(0.9, early=1), False),
    ],
)
def test_only_an_implementation_that_keeps_the_interval_can_be_faster(
    ours: Delays, other: Delays, is_met: bool
) -> None:
    assert target_met({"pythpeer": ours, "another": other}, 400) is is_met


def test_more_posts_make_a_smaller_difference_significant() -> None:
    measured = {"pythpeer": delays(0.5), "another": delays(0.45)}
    assert [target_met(measured, posts) for posts in (400, 1_000)] == [True, False]


Reorder = Callable[[Sequence[ChatMessage]], Sequence[ChatMessage]]


def reordering(reorder: Reorder) -> Candidate[Polled]:
    """Return a candidate that waits for three messages, and delivers them reordered."""

    @asynccontextmanager
    async def open(chat: Polled) -> AsyncGenerator[Callable[[], Polled]]:
        yield lambda: chat

    async def follow(chat: Polled, handle: Handle) -> None:
        page: Sequence[ChatMessage] = ()
        while len(page) < 3:
            await asyncio.sleep(1.0)
            page = await chat.ask(0)
        for message in reorder(page):
            handle(message)

    return Candidate("flawed", open, follow)


REORDERINGS: list[tuple[Reorder, str]] = [
    (lambda page: [page[0], page[2]], "message 3 instead of 2"),
    (lambda page: [page[0], page[0]], "message 1 instead of 2"),
    (lambda page: page[:2], "messages came|only 0 of 3 received everything"),
]


def failure(work: Callable[[], object]) -> str:
    """Return the text of a `RuntimeError`, which may be nested in exception groups."""
    error: BaseException | None = None
    try:
        work()
    except (RuntimeError, BaseExceptionGroup) as raised:
        error = raised
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


@pytest.mark.parametrize(
    ("reorder", "pattern"), REORDERINGS, ids=["lost", "duplicated", "left out"]
)
def test_a_candidate_that_loses_or_duplicates_a_message_is_an_error(
    reorder: Reorder, pattern: str
) -> None:
    candidate = reordering(reorder)
    assert re.search(pattern, failure(lambda: measure(candidate, Scenario("a test", 0.1, 3))))
    work = delivery_work(candidate, 3, 3, [])
    assert re.search(pattern, failure(lambda: run_on_virtual_time(awaited(work))))


async def awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()


@pytest.mark.anyio
async def test_polls_are_counted_for_each_call() -> None:
    for candidate, expected in ((PYTHPEER, 2), (load_candidates()[0]["a loop per consumer"], 8)):
        polls: list[int] = []
        work = delivery_work(candidate, 4, 2 * PAGE, polls)
        await work()
        await work()
        assert polls == [expected, expected]
