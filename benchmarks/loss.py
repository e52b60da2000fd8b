"""Losses and duplicates during faults, and how many of them are reported.

Time is virtual, so that an hour of faults takes seconds; the connections that break are real.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, Unpack

from pythpeer import PythpeerError
from pythpeer.testing import FakeServices, Fault, VirtualTimeLoop
from pythpeer.testing.quirks import QuirkOptions

from .chart import Bars
from .closed_connections import closed_connections
from .competitors.bare_loops import FAILURES
from .competitors.polling import Candidate, Reading, ServiceAccess, load_candidates
from .kill_runs import TEXTS_PER_RUN, kill
from .loss_count import LossCount, count_losses, within_gaps
from .pythpeer_readers import SETUPS
from .report import Cell, Table

__all__ = ["run"]

SEED: Final = 20121212

FAULT_CHANCE: Final = 0.3
"""Probability that a fault affects a request, in experiments with faults."""

QUIET_PERIOD: Final = 60.0
"""Seconds without posts at the end; texts not received by then are lost."""

OURS: Final = "pythpeer"

BURSTS: Final = (50, 150, 350, 700)
"""Messages posted at the same time; the service returns 300 of them."""


class Result(NamedTuple):
    """One program in one experiment."""

    experiment: str
    candidate: str
    counts: LossCount
    requests: int


class _Scenario:
    """Both fake services, and the texts posted to them."""

    def __init__(self, fake: FakeServices) -> None:
        self.fake: Final = fake
        self.posted: list[tuple[int, str]] = []
        self.requests = 0
        self.chance: Final = random.Random(SEED)
        fake.subscribe(self._count)

    def _count(self, _: object) -> None:
        self.requests += 1

    @property
    def access(self) -> ServiceAccess:
        fake = self.fake
        return ServiceAccess(
            fake.peerbet_url, fake.pythbots_url, fake.peerbet_key, fake.personal_key
        )

    def add_messages(self, count: int = 1) -> None:
        for _ in range(count):
            text = f"message {len(self.posted) + 1}"
            self.posted.append((self.fake.chat.say("somebody", text), text))

    def mail(self) -> None:
        text = f"mail {len(self.posted) + 1}"
        self.posted.append((self.fake.mail.deliver("somebody", text), text))


@asynccontextmanager
async def _open_scenario(**quirks: Unpack[QuirkOptions]) -> AsyncGenerator[_Scenario]:
    async with FakeServices(seed=SEED, **quirks) as fake:
        yield _Scenario(fake)


class Experiment(NamedTuple):
    """A script of posts, and the faults during it."""

    name: str
    script: Callable[[_Scenario, int], Awaitable[object]]
    messages: int
    """How many messages the script sends."""

    faults: tuple[tuple[str, Fault], ...] = ()
    quirks: QuirkOptions | None = None
    limit: float | None = None
    """Maximum seconds after which a program cancels its step, and starts it again."""


async def _mails(scenario: _Scenario, count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(scenario.chance.uniform(0.0, 4.0))
        scenario.mail()


async def _lines(scenario: _Scenario, count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(scenario.chance.uniform(0.0, 4.0))
        scenario.add_messages()


async def _bursts(scenario: _Scenario, count: int) -> None:
    await asyncio.sleep(20.0)
    scenario.add_messages()  # so that the chat is not empty
    for number in range(count):
        await asyncio.sleep(40.0)
        scenario.add_messages(BURSTS[number % len(BURSTS)])


async def _burst(scenario: _Scenario, _: int) -> None:
    await asyncio.sleep(20.0)
    scenario.add_messages(BURSTS[-1])


READNEW: Final = "pythbots.mail.readnew"
GET, SET = "peerbet.chat.get", "peerbet.chat.set"

MAIL: Final = (
    Experiment("responses cut off", _mails, 200, ((READNEW, Fault.cut()),)),
    Experiment("connections reset", _mails, 200, ((READNEW, Fault.reset()),)),
    Experiment("response timeouts", _mails, 200, ((READNEW, Fault.slow(1.5)),), limit=3.0),
    Experiment(
        "connections reset, mail without ids",
        _mails,
        200,
        ((READNEW, Fault.reset()),),
        {"mail_ids": False},
    ),
)
CHAT: Final = (
    Experiment("connections reset", _lines, 200, ((GET, Fault.reset()),)),
    Experiment("bursts, the newest are returned", _bursts, 20),
    Experiment("bursts, the oldest are returned", _bursts, 20, quirks={"window": "oldest"}),
    Experiment("a burst into an empty chat", _burst, 1),
)
POSTS: Final = (
    ("disconnected after the post was accepted", Fault.drop()),
    ("disconnected before the post was accepted", Fault.drop(effect=False)),
)


def run(*, quick: bool) -> list[Table]:
    """Read mail and chat and send posts with every program and every fault."""
    others, missing = load_candidates()
    candidates = [*SETUPS.values(), *others.values()]
    share = 8 if quick else 1
    mail = [
        _run(_read(experiment, share, candidate, candidate.mail))
        for experiment in MAIL
        for candidate in candidates
        if candidate.mail
    ]
    chat = [
        _run(_read(experiment, share, candidate, candidate.chat))
        for experiment in CHAT
        for candidate in candidates
        if candidate.chat
    ]
    posts = [
        _run(_send(name, fault, 100 // share, candidate))
        for name, fault in POSTS
        for candidate in candidates
        if candidate.post
    ]
    return [
        _table(
            (
                "Mail lost and duplicated, by fault: the service marks mail as read "
                "before it is received"
            ),
            mail,
            candidates,
        ),
        _table(
            "Chat messages lost and duplicated, by fault: a response holds at most 300 messages",
            chat,
            candidates,
        ),
        _table(
            "Posts lost and duplicated, by fault: posts are GET requests",
            posts,
            candidates,
            missing,
        ),
        _killed_table(1 if quick else 10),
        closed_connections(quick=quick),
    ]


def _run(work: Any) -> Result:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        result: Result = runner.run(work)
        return result


async def _read(experiment: Experiment, share: int, candidate: Candidate, reader: Any) -> Result:
    async with (
        _open_scenario(**(experiment.quirks or {})) as scenario,
        reader(scenario.access) as reading,
    ):
        for name, fault in experiment.faults:
            scenario.fake.faults.always(name, fault, chance=FAULT_CHANCE)
        received: list[str] = []
        following = asyncio.create_task(_follow(reading, received, experiment.limit))
        await experiment.script(scenario, max(4, experiment.messages // share))
        scenario.fake.faults.clear()
        await asyncio.sleep(QUIET_PERIOD)
        if following.done():
            following.result()
        following.cancel()
        await asyncio.wait([following])
        reported = within_gaps(scenario.posted, reading.gaps()) | reading.marked
        counts = count_losses([text for _, text in scenario.posted], received, reported)
        return Result(experiment.name, candidate.name, counts, scenario.requests)


async def _follow(reading: Reading, received: list[str], limit: float | None) -> None:
    chance = random.Random(SEED)
    while True:
        time_limit = None if limit is None else chance.uniform(0.0, limit)
        try:
            async with asyncio.timeout(time_limit):
                received += await reading.step()
        except TimeoutError:
            pass


async def _send(experiment: str, fault: Fault, count: int, candidate: Candidate) -> Result:
    assert candidate.post is not None
    reported: set[str] = set()
    async with _open_scenario() as scenario, candidate.post(scenario.access) as post:
        scenario.fake.faults.always(SET, fault, chance=FAULT_CHANCE)
        texts = [f"post {number}" for number in range(1, count + 1)]
        for text in texts:
            try:
                await post(text)
            except (PythpeerError, *FAILURES):
                reported.add(text)
            await asyncio.sleep(1.0)
        shown = [line.text for line in scenario.fake.chat.messages]
        return Result(
            experiment, candidate.name, count_losses(texts, shown, reported), scenario.requests
        )


def _table(
    title: str,
    results: Sequence[Result],
    candidates: Iterable[Candidate],
    missing: Sequence[str] = (),
) -> Table:
    compared = {result.candidate for result in results}
    table = Table(
        title,
        (
            "experiment",
            "program",
            "of",
            "lost",
            "duplicated",
            "reported",
            "requests",
            "target",
            "met",
        ),
        notes=[
            "reported: of the lost and duplicated, those that were reported to the program.",
            f"Faults affect {FAULT_CHANCE:.0%} of the requests.",
            *(
                candidate.note
                for candidate in candidates
                if candidate.note and candidate.name in compared
            ),
            *missing,
        ],
        chart=Bars("program", ("lost", "duplicated", "reported"), by="experiment"),
    )
    for result in results:
        counts = result.counts
        target_cells = (
            ("none unreported", counts.unreported == 0)
            if result.candidate.startswith(OURS)
            else (None, None)
        )
        cells = (counts.of, counts.lost, counts.duplicated, counts.reported, result.requests)
        table.add(result.experiment, result.candidate, *cells, *target_cells)
    return table


def _killed_table(runs: int) -> Table:
    table = Table(
        (
            "Texts lost and duplicated by programs that are killed while handling a text, "
            f"and restarted: {runs} times"
        ),
        ("service", "program", "of", "lost", "duplicated", "requests", "target", "met"),
        notes=[
            f"{TEXTS_PER_RUN} texts before each run, in one response.",
            (
                "Killed: `os._exit`, so that nothing is closed and nothing is flushed. "
                "The text being handled counts as not handled."
            ),
            "MemoryStore lasts as long as the program: it has no position to resume from.",
        ],
        chart=Bars("program", ("lost", "duplicated"), by="service"),
    )
    for service, candidate, counts, requests in asyncio.run(kill(runs)):
        target: tuple[Cell, Cell] = None, None
        if "SqliteStore" in candidate:
            target = "0 lost, 0 doubled", not (counts.lost or counts.duplicated)
        table.add(service, candidate, counts.of, counts.lost, counts.duplicated, requests, *target)
    return table
