"""What is lost and what comes twice when things go wrong, and who is told of it.

Time is virtual, so that an hour of trouble takes a moment; the connections that break are real.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, Unpack

from pythpeer import PythpeerError
from pythpeer.testing import FakeServices, Fault, VirtualTimeLoop
from pythpeer.testing.habits import QuirkOptions

from .chart import Bars
from .killing import EACH, kill
from .reading import WAYS
from .report import Cell, Table
from .rivals.bare_loops import FAILURES
from .rivals.polling import Arm, Place, Reading, arms
from .tally import Tally, between, tally

__all__ = ["run"]

SEED: Final = 20121212

CHANCE: Final = 0.3
"""How likely it is that a request meets trouble, where it meets any."""

QUIET: Final = 60.0
"""Seconds at the end in which nothing is said: who has not got something by then has lost it."""

OURS: Final = "pythpeer"

BURSTS: Final = (50, 150, 350, 700)
"""How many messages there are at once; the service shows 300 of them."""


class Result(NamedTuple):
    """One way in one experiment."""

    experiment: str
    way: str
    tally: Tally
    requests: int


class _Scene:
    """Both services, and what is said there."""

    def __init__(self, fake: FakeServices) -> None:
        self.fake: Final = fake
        self.said: list[tuple[int, str]] = []
        self.requests = 0
        self.chance: Final = random.Random(SEED)
        fake.subscribe(self._count)

    def _count(self, _: object) -> None:
        self.requests += 1

    @property
    def place(self) -> Place:
        fake = self.fake
        return Place(fake.peerbet_url, fake.pythbots_url, fake.peerbet_key, fake.personal_key)

    def say(self, many: int = 1) -> None:
        for _ in range(many):
            text = f"message {len(self.said) + 1}"
            self.said.append((self.fake.chat.say("somebody", text), text))

    def mail(self) -> None:
        text = f"mail {len(self.said) + 1}"
        self.said.append((self.fake.mail.deliver("somebody", text), text))


@asynccontextmanager
async def _scene(**habits: Unpack[QuirkOptions]) -> AsyncGenerator[_Scene]:
    async with FakeServices(seed=SEED, **habits) as fake:
        yield _Scene(fake)


class Experiment(NamedTuple):
    """What is said, and what goes wrong."""

    name: str
    script: Callable[[_Scene, int], Awaitable[object]]
    many: int
    """How often the script says something."""

    faults: tuple[tuple[str, Fault], ...] = ()
    habits: QuirkOptions | None = None
    limit: float | None = None
    """Up to how many seconds a program waits before it gives up, to wait again."""


async def _mails(scene: _Scene, many: int) -> None:
    for _ in range(many):
        await asyncio.sleep(scene.chance.uniform(0.0, 4.0))
        scene.mail()


async def _lines(scene: _Scene, many: int) -> None:
    for _ in range(many):
        await asyncio.sleep(scene.chance.uniform(0.0, 4.0))
        scene.say()


async def _bursts(scene: _Scene, many: int) -> None:
    await asyncio.sleep(20.0)
    scene.say()  # so that the chat is not empty
    for number in range(many):
        await asyncio.sleep(40.0)
        scene.say(BURSTS[number % len(BURSTS)])


async def _burst(scene: _Scene, _: int) -> None:
    await asyncio.sleep(20.0)
    scene.say(BURSTS[-1])


READNEW: Final = "pythbots.mail.readnew"
GET, SET = "peerbet.chat.get", "peerbet.chat.set"

MAIL: Final = (
    Experiment("answers cut off", _mails, 200, ((READNEW, Fault.cut()),)),
    Experiment("connections reset", _mails, 200, ((READNEW, Fault.reset()),)),
    Experiment("no answer in time", _mails, 200, ((READNEW, Fault.slow(1.5)),), limit=3.0),
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
    Experiment("bursts, the newest are shown", _bursts, 20),
    Experiment("bursts, the oldest are shown", _bursts, 20, habits={"window": "oldest"}),
    Experiment("a burst into an empty chat", _burst, 1),
)
POSTS: Final = (
    ("disconnected after it was taken", Fault.drop()),
    ("disconnected before it was taken", Fault.drop(effect=False)),
)


def run(*, quick: bool) -> list[Table]:
    """Have mail and chat read, and posts sent, in every way and with everything that goes wrong."""
    found, absent = arms()
    ways = [*WAYS.values(), *found.values()]
    share = 8 if quick else 1
    mail = [_run(_read(each, share, way, way.mail)) for each in MAIL for way in ways if way.mail]
    chat = [_run(_read(each, share, way, way.chat)) for each in CHAT for way in ways if way.chat]
    posts = [
        _run(_send(name, fault, 100 // share, way))
        for name, fault in POSTS
        for way in ways
        if way.post
    ]
    return [
        _table("Mail that the service marks as read before it was received", mail, ways),
        _table("Chat, of which an answer holds 300 messages at most", chat, ways),
        _table("Posts, which are GETs", posts, ways, absent),
        _killed(1 if quick else 10),
    ]


def _run(work: Any) -> Result:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        result: Result = runner.run(work)
        return result


async def _read(experiment: Experiment, share: int, way: Arm, reader: Any) -> Result:
    async with _scene(**(experiment.habits or {})) as scene, reader(scene.place) as reading:
        for name, fault in experiment.faults:
            scene.fake.faults.always(name, fault, chance=CHANCE)
        came: list[str] = []
        following = asyncio.create_task(_follow(reading, came, experiment.limit))
        await experiment.script(scene, max(4, experiment.many // share))
        scene.fake.faults.clear()
        await asyncio.sleep(QUIET)
        if following.done():
            following.result()
        following.cancel()
        await asyncio.wait([following])
        told = between(scene.said, reading.gaps()) | reading.marked
        counted = tally([text for _, text in scene.said], came, told)
        return Result(experiment.name, way.name, counted, scene.requests)


async def _follow(reading: Reading, came: list[str], limit: float | None) -> None:
    chance = random.Random(SEED)
    while True:
        patience = None if limit is None else chance.uniform(0.0, limit)
        try:
            async with asyncio.timeout(patience):
                came += await reading.step()
        except TimeoutError:
            pass


async def _send(experiment: str, fault: Fault, many: int, way: Arm) -> Result:
    assert way.post is not None
    told: set[str] = set()
    async with _scene() as scene, way.post(scene.place) as post:
        scene.fake.faults.always(SET, fault, chance=CHANCE)
        texts = [f"post {number}" for number in range(1, many + 1)]
        for text in texts:
            try:
                await post(text)
            except (PythpeerError, *FAILURES):
                told.add(text)
            await asyncio.sleep(1.0)
        shown = [line.text for line in scene.fake.chat.messages]
        return Result(experiment, way.name, tally(texts, shown, told), scene.requests)


def _table(
    title: str, results: Sequence[Result], ways: Iterable[Arm], absent: Sequence[str] = ()
) -> Table:
    concerned = {result.way for result in results}
    table = Table(
        title,
        ("experiment", "way", "of", "lost", "doubled", "told", "requests", "target", "met"),
        notes=[
            "told: of lost and doubled together, how many the program was told of.",
            f"Trouble meets {CHANCE:.0%} of the requests.",
            *(way.note for way in ways if way.note and way.name in concerned),
            *absent,
        ],
        chart=Bars("way", ("lost", "doubled", "told"), by="experiment"),
    )
    for result in results:
        seen = result.tally
        held = ("none untold", seen.silent == 0) if result.way.startswith(OURS) else (None, None)
        counts = (seen.of, seen.lost, seen.doubled, seen.told, result.requests)
        table.add(result.experiment, result.way, *counts, *held)
    return table


def _killed(lives: int) -> Table:
    table = Table(
        f"Programs killed with a text in hand and started again, {lives} x",
        ("what", "way", "of", "lost", "doubled", "requests", "target", "met"),
        notes=[
            f"{EACH} texts before each life, in one answer. Killed: `os._exit`, so that nothing is",
            "closed and nothing is flushed. What was in hand has not been handled.",
            "MemoryStore lasts as long as the program does: it has nothing to go on from.",
        ],
        chart=Bars("way", ("lost", "doubled"), by="what"),
    )
    for what, way, seen, requests in asyncio.run(kill(lives)):
        target: tuple[Cell, Cell] = None, None
        if "SqliteStore" in way:
            target = "0 lost, 0 doubled", not (seen.lost or seen.doubled)
        table.add(what, way, seen.of, seen.lost, seen.doubled, requests, *target)
    return table
