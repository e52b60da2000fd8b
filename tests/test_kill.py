"""A reader is killed at random moments: nothing is lost, no acknowledged item is returned again.

The reader is a process with a `SqliteStore`; the services run in this process, and fail often. Real
processes, real time; the moments are determined by the run's ``--randomly-seed``.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

import pytest
from helpers import real_time, wait_until
from processes import HANG_TIMEOUT, Forker, AppendedLines, Process, needs_fork
from scripted import (
    CUT,
    DROP,
    DROP_UNSEEN,
    ERROR_500,
    GARBAGE,
    HANG,
    OK,
    REFUSED,
    RESET,
    ScriptedFault,
    Scripted,
    _Connection,
)

pytestmark = [
    pytest.mark.anyio,
    real_time,
    pytest.mark.processes,
    needs_fork,
]
pytest_plugins = ("processes",)

KILLS: Final = 15
"""The number of times that each reader is killed; with four variants of the service, 60 in all."""

FAULTS: Final = (DROP, DROP_UNSEEN, RESET, CUT, HANG, GARBAGE, ERROR_500, REFUSED)


class FlakyServices(Scripted):
    """Fails for one request in four, and responds to the others after random delays."""

    def __init__(self, chance: random.Random, *, mail_ids: bool, readall_marks: bool) -> None:
        super().__init__(mail_ids=mail_ids, readall_marks=readall_marks)
        self.chance = chance
        self.is_reliable = False

    def receive(self, connection: _Connection, target: str) -> None:
        fault = OK
        if not self.is_reliable:
            delay = ScriptedFault(before=self.chance.uniform(0, 0.02), seconds=self.chance.uniform(0, 0.02))
            fault = self.chance.choice((*FAULTS, *[delay] * 3 * len(FAULTS)))
        for kind in ("get", "readnew", "readall"):
            self.default_faults[kind] = fault
        super().receive(connection, target)

    async def generate_load(self) -> None:
        """Add chat messages and mail until it is cancelled.

        Waits for slow readers: a page is limited, and more messages than it holds would be lost.
        """
        for number in itertools.count():
            await asyncio.sleep(self.chance.uniform(0.001, 0.02))
            if self.unread() > 150:
                continue
            self.say(self.chance.randrange(4), step=self.chance.randrange(1, 4))
            if number % 3 == 0:
                self.deliver(f"mail-{number}")

    def unread(self) -> int:
        """Return the number of messages after the position of the last request."""
        position = int(self.asked("get")[-1].params.get("mid", 0))
        return sum(id > position for id in self.ids)


class LogLine(NamedTuple):
    """A line of the reader's log file."""

    pid: str
    kind: str
    label: str
    recovered: bool


class KilledReader:
    """The reader, one process after the other, and the file that it logs to."""

    def __init__(self, forker: Forker, url: str, folder: Path, *, timeout: float = 0.3) -> None:
        self._forker = forker
        self._arguments = (url, folder, timeout)
        self._folder = folder
        self._log_file = AppendedLines(folder / "book")
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        self.run()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.kill()

    def run(self) -> None:
        self._process = self._forker.fork(
            "reader", *self._arguments, folder=self._folder, name="reader"
        )

    async def kill(self) -> None:
        assert self._process is not None
        assert self._process.is_alive
        self._process.kill()
        await self._process.wait_ended()
        assert self._process.errors == ""

    @property
    def line_count(self) -> int:
        """The number of lines in the log file."""
        return len(self._log_file())

    def lines(self) -> Iterator[LogLine]:
        for line in self._log_file():
            pid, kind, label, recovered = line.split(" ")
            yield LogLine(pid, kind, label, recovered == "1")

    def read(self, kind: str) -> list[LogLine]:
        return [line for line in self.lines() if line.kind == kind]

    def seen(self, kind: str) -> set[str]:
        return {line.label for line in self.read(kind)}


@pytest.mark.parametrize("marks", [True, False], ids=["readall marks", "readall leaves"])
@pytest.mark.parametrize("ids", [True, False], ids=["ids", "no ids"])
async def test_a_killed_reader_loses_nothing(
    ids: bool, marks: bool, folder: Path, forker: Forker, request: pytest.FixtureRequest
) -> None:
    """Chat and mail are complete; acknowledged items are returned once, the others again.

    It takes long because each of many processes opens connections and a store.
    """
    seed = request.config.getoption("randomly_seed", None)
    chance = random.Random(f"{seed} {ids} {marks}")
    async with (
        FlakyServices(chance, mail_ids=ids, readall_marks=marks) as services,
        KilledReader(forker, services.url, folder) as reader,
    ):
        # The positions are set from then on.
        await wait_until(lambda: len(reader.read("began")) == 3)
        busy = asyncio.ensure_future(services.generate_load())
        for number in range(KILLS):
            await _wait_for_a_moment(chance, number, services, reader)
            await reader.kill()
            reader.run()
        busy.cancel()
        services.is_reliable = True
        expected = _expected(services)
        await wait_until(lambda: all(expected[kind] <= reader.seen(kind) for kind in expected))
        for name in ("chat-1", "chat-2"):
            _verify_chat(services, reader, name)
        _verify_mail(services, reader, ids=ids)


async def _wait_for_a_moment(
    chance: random.Random, number: int, services: Scripted, reader: KilledReader
) -> None:
    """Wait until the process is at a random point of its work, however long that takes.

    Its work is visible in requests and in the log file. One in five is killed while it starts.
    """
    if number % 5 != 4:
        started = len(services.requests) + reader.line_count
        steps = chance.randrange(1, 40)
        await wait_until(lambda: len(services.requests) + reader.line_count >= started + steps)
        await asyncio.sleep(chance.uniform(0.0, 0.005))
    else:
        await asyncio.sleep(chance.uniform(0.0, 0.05))


def _expected(services: Scripted) -> dict[str, set[str]]:
    chat = {str(id) for id in services.ids}
    return {
        "chat-1": chat,
        "chat-2": chat,
        "mail": {letter.text for letter in services.mails},
    }


def _verify_chat(services: Scripted, reader: KilledReader, name: str) -> None:
    lines = [line for line in reader.lines() if line.kind in (name, "acknowledged")]
    acknowledged = 0  # in earlier processes
    here: list[int] = []
    duplicates = 0
    seen: set[int] = set()
    for line, following in itertools.zip_longest(lines, lines[1:]):
        id = int(line.label)
        if line.kind == name:
            assert id > acknowledged, (
                f"{id} was returned again although {acknowledged} was acknowledged"
            )
            assert not here or id > here[-1], "out of order"
            duplicates += id in seen
            seen.add(id)
            here.append(id)
        elif name == "chat-2":
            assert id == here[-1]
            acknowledged = id
        if following is None or following.pid != line.pid:
            # All items but the last of a process were acknowledged in it.
            acknowledged = max([acknowledged, *here[:-1]])
            here.clear()
    assert seen == set(services.ids)
    assert duplicates <= KILLS + 1


def _verify_mail(services: Scripted, reader: KilledReader, *, ids: bool) -> None:
    lines = reader.read("mail")
    acknowledged: set[str] = set()
    for line, following in itertools.zip_longest(lines, lines[1:]):
        if line.label in acknowledged:
            assert line.recovered, (
                f"{line.label} was returned again, and is not marked as recovered"
            )
            assert not ids, f"{line.label} was returned again although it has an id"
        if following is not None and following.pid == line.pid:
            acknowledged.add(line.label)
    seen = Counter(line.label for line in lines)
    assert set(seen) == {letter.text for letter in services.mails}
    unmarked = Counter(line.label for line in lines if not line.recovered)
    duplicates = sum(unmarked.values()) - len(unmarked)
    assert duplicates <= KILLS + 1  # one for each process, which had not requested the next one


async def test_mail_of_a_request_during_the_kill_is_recovered(folder: Path, forker: Forker) -> None:
    """The service has marked it as read, and the response is lost; the next process has it."""
    services = Scripted(readall_marks=False)
    services.deliver("one", "two")
    services.script("readnew", ScriptedFault(seconds=HANG_TIMEOUT))
    async with services, KilledReader(forker, services.url, folder, timeout=2 * HANG_TIMEOUT) as reader:
        await wait_until(lambda: all(letter.read for letter in services.mails))
        await reader.kill()
        assert not reader.read("mail")
        assert not services.asked("readall")
        reader.run()
        await wait_until(lambda: len(reader.read("mail")) == 2)
        services.deliver("three")
        await wait_until(lambda: "three" in reader.seen("mail"))
    assert services.asked("readall")
    mails = [(line.label, line.recovered) for line in reader.read("mail")]
    assert mails == [("one", True), ("two", True), ("three", False)]
