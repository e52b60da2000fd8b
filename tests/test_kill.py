"""A reader is killed at random times; nothing is lost, and nothing acknowledged is redelivered.

The reader is a process with a `SqliteStore`, the services live on here and answer badly. Real
processes, real time; which moments these are follows from the run's ``--randomly-seed``.
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
from fork_server import HANG_TIMEOUT, ForkServer
from helpers import real_time, run_together, wait_until
from processes import AppendedLines, Process, needs_fork
from scripted import (
    API_ERROR,
    CUT,
    DROP,
    DROP_WITHOUT_EFFECT,
    ERROR_500,
    GARBAGE,
    HANG,
    OK,
    RESET,
    Scripted,
    ScriptedFault,
    _Connection,
)

pytestmark = [
    pytest.mark.anyio,
    real_time,
    pytest.mark.processes,
    needs_fork,
]
pytest_plugins = ("processes",)

LIVES: Final = 15
"""Times that each reader is killed; with four quirks of the service that is 60 in all."""

FAULTS: Final = (DROP, DROP_WITHOUT_EFFECT, RESET, CUT, HANG, GARBAGE, ERROR_500, API_ERROR)


class UnreliableServices(Scripted):
    """Answers one request in four badly, and the others after uneven delays."""

    def __init__(self, chance: random.Random, *, mail_ids: bool, readall_marks: bool) -> None:
        super().__init__(mail_ids=mail_ids, readall_marks=readall_marks)
        self.chance = chance
        self.is_reliable = False

    def receive(self, connection: _Connection, target: str) -> None:
        fault = OK
        if not self.is_reliable:
            late = ScriptedFault(
                before=self.chance.uniform(0, 0.02), after=self.chance.uniform(0, 0.02)
            )
            fault = self.chance.choice((*FAULTS, *[late] * 3 * len(FAULTS)))
        for kind in ("get", "readnew", "readall"):
            self.default_faults[kind] = fault
        super().receive(connection, target)

    async def be_busy(self) -> None:
        """Add messages and mails until this is cancelled.

        It waits for a slow reader: of more than a response holds, some would be lost.
        """
        for number in itertools.count():
            await asyncio.sleep(self.chance.uniform(0.001, 0.02))
            if self.unread() > 150:
                continue
            self.say(self.chance.randrange(4), step=self.chance.randrange(1, 4))
            if number % 3 == 0:
                self.deliver(f"mail-{number}")

    def unread(self) -> int:
        """Return how many messages are newer than the position of the last request."""
        last_id = int(self.asked("get")[-1].params.get("mid", 0))
        return sum(id > last_id for id in self.ids)


class Note(NamedTuple):
    """A line of the log of a reader."""

    process_id: str
    kind: str
    text: str
    recovered: bool


class Reader:
    """A process, which is killed and started again, and the log that it writes."""

    def __init__(self, server: ForkServer, url: str, folder: Path, *, timeout: float = 0.3) -> None:
        self._server = server
        self._arguments = (url, folder, timeout)
        self._folder = folder
        self._log = AppendedLines(folder / "book")
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        self.live()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.kill()

    def live(self) -> None:
        self._process = Process(
            *(self._server, "proc_reader", *self._arguments), folder=self._folder, name="reader"
        )

    async def kill(self) -> None:
        assert self._process is not None
        assert self._process.is_alive
        self._process.kill()
        await self._process.wait_ended()
        assert self._process.errors == ""

    @property
    def lines(self) -> int:
        """The number of lines in the log."""
        return len(self._log())

    def notes(self) -> Iterator[Note]:
        for line in self._log():
            process_id, kind, text, recovered = line.split(" ")
            yield Note(process_id, kind, text, recovered == "1")

    def read(self, kind: str) -> list[Note]:
        return [note for note in self.notes() if note.kind == kind]

    def seen(self, kind: str) -> set[str]:
        return {note.text for note in self.read(kind)}


async def test_a_killed_reader_loses_nothing(
    folder: Path, process_server: ForkServer, request: pytest.FixtureRequest
) -> None:
    """Chat and mail come whole; what was acknowledged, once; the one that was not, again.

    It takes long because there are so many lives, each with connections and a store to open.
    """
    seed = request.config.getoption("randomly_seed", None)

    async def check(ids: bool, marks: bool) -> None:
        chance = random.Random(f"{seed} {ids} {marks}")
        home = folder / f"{ids} {marks}"
        home.mkdir()
        async with (
            UnreliableServices(chance, mail_ids=ids, readall_marks=marks) as services,
            Reader(process_server, services.url, home) as reader,
        ):
            await _kill_repeatedly(chance, services, reader)
            for name in ("chat-1", "chat-2"):
                _check_chat(services, reader, name)
            _check_mail(services, reader, ids=ids)

    quirks = itertools.product((True, False), repeat=2)
    await run_together({f"{ids=} {marks=}": check(ids, marks) for ids, marks in quirks})


async def _kill_repeatedly(
    chance: random.Random, services: UnreliableServices, reader: Reader
) -> None:
    """Kill the reader at random moments; in the end it has read everything."""
    # What comes from then on is the readers' own.
    await wait_until(lambda: len(reader.read("began")) == 3)
    busy = asyncio.ensure_future(services.be_busy())
    for number in range(LIVES):
        await _random_progress(chance, number, services, reader)
        await reader.kill()
        reader.live()
    busy.cancel()
    services.is_reliable = True
    wanted = _wanted(services)
    await wait_until(lambda: all(wanted[kind] <= reader.seen(kind) for kind in wanted))


async def _random_progress(
    chance: random.Random, number: int, services: Scripted, reader: Reader
) -> None:
    """Wait until a process is at a random step of its work.

    Requests and lines of the log are steps. One process in five is killed while it starts.
    """
    if number % 5 != 4:
        start = len(services.requests) + reader.lines
        steps = chance.randrange(1, 40)
        await wait_until(lambda: len(services.requests) + reader.lines >= start + steps)
        await asyncio.sleep(chance.uniform(0.0, 0.005))
    else:
        await asyncio.sleep(chance.uniform(0.0, 0.05))


def _wanted(services: Scripted) -> dict[str, set[str]]:
    chat = {str(id) for id in services.ids}
    return {
        "chat-1": chat,
        "chat-2": chat,
        "mail": {letter.text for letter in services.mails},
    }


def _check_chat(services: Scripted, reader: Reader, name: str) -> None:
    notes = [note for note in reader.notes() if note.kind in (name, "acknowledged")]
    acknowledged = 0  # by earlier processes
    here: list[int] = []
    duplicates = 0
    seen: set[int] = set()
    for note, following in itertools.zip_longest(notes, notes[1:]):
        id = int(note.text)
        if note.kind == name:
            assert id > acknowledged, f"{id} came again although {acknowledged} was acknowledged"
            assert not here or id > here[-1], "out of order"
            duplicates += id in seen
            seen.add(id)
            here.append(id)
        elif name == "chat-2":
            assert id == here[-1]
            acknowledged = id
        if following is None or following.process_id != note.process_id:
            # The process acknowledged each item before it asked for the next one.
            acknowledged = max([acknowledged, *here[:-1]])
            here.clear()
    assert seen == set(services.ids)
    assert duplicates <= LIVES + 1


def _check_mail(services: Scripted, reader: Reader, *, ids: bool) -> None:
    notes = reader.read("mail")
    acknowledged: set[str] = set()
    for note, following in itertools.zip_longest(notes, notes[1:]):
        if note.text in acknowledged:
            assert note.recovered, f"{note.text} came again, and is not marked as recovered"
            assert not ids, f"{note.text} came again although it has an id"
        if following is not None and following.process_id == note.process_id:
            acknowledged.add(note.text)
    seen = Counter(note.text for note in notes)
    assert set(seen) == {letter.text for letter in services.mails}
    first_reads = Counter(note.text for note in notes if not note.recovered)
    again = sum(first_reads.values()) - len(first_reads)
    assert (
        again <= LIVES + 1
    )  # one for each process that was killed before it asked for the next one


async def test_a_request_that_was_cut_off_by_the_kill_is_made_good(
    folder: Path, process_server: ForkServer
) -> None:
    """The service marked the mail as read, and the response is lost; the next process has it."""
    services = Scripted(readall_marks=False)
    services.deliver("one", "two")
    services.script("readnew", ScriptedFault(after=HANG_TIMEOUT))
    async with (
        services,
        Reader(process_server, services.url, folder, timeout=2 * HANG_TIMEOUT) as reader,
    ):
        await wait_until(lambda: all(letter.read for letter in services.mails))
        await reader.kill()
        assert not reader.read("mail")
        assert not services.asked("readall")
        reader.live()
        await wait_until(lambda: len(reader.read("mail")) == 2)
        services.deliver("three")
        await wait_until(lambda: "three" in reader.seen("mail"))
    assert services.asked("readall")
    read_mails = [(note.text, note.recovered) for note in reader.read("mail")]
    assert read_mails == [("one", True), ("two", True), ("three", False)]
