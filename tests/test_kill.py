"""A reader is killed at random moments, and nothing is lost, and nothing acknowledged comes again.

The reader is a process with a `SqliteStore`, the services live on here and answer badly. Real
processes, real time; the seed is in the test's name.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

import pytest
from helpers import real_time, wait_until
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
    Fault,
    Scripted,
    _Connection,
)

pytestmark = [
    pytest.mark.anyio,
    real_time,
    pytest.mark.processes,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="readers are forked"),
]

READER: Final = Path(__file__).with_name("reader.py")

LIVES: Final = 15
"""Times that each reader is killed; with four habits of the service that is 60 in all."""

FAULTS: Final = (DROP, DROP_UNSEEN, RESET, CUT, HANG, GARBAGE, ERROR_500, REFUSED)


class Moody(Scripted):
    """Answers one request in four badly, and the others after uneven delays."""

    def __init__(self, chance: random.Random, *, mail_ids: bool, readall_marks: bool) -> None:
        super().__init__(mail_ids=mail_ids, readall_marks=readall_marks)
        self.chance = chance
        self.well = False

    def receive(self, connection: _Connection, target: str) -> None:
        fault = OK
        if not self.well:
            late = Fault(before=self.chance.uniform(0, 0.02), after=self.chance.uniform(0, 0.02))
            fault = self.chance.choice((*FAULTS, *[late] * 3 * len(FAULTS)))
        for kind in ("get", "readnew", "readall"):
            self.constant[kind] = fault
        super().receive(connection, target)

    async def be_busy(self) -> None:
        """Have people talk and write, for as long as nobody asks for quiet."""
        for number in itertools.count():
            await asyncio.sleep(self.chance.uniform(0.001, 0.02))
            self.say(self.chance.randrange(4), step=self.chance.randrange(1, 4))
            if number % 3 == 0:
                self.deliver(f"mail-{number}")


class Note(NamedTuple):
    """A line of the reader's book."""

    life: str
    kind: str
    what: str
    recovered: bool


class Reader:
    """The process, one life of it at a time, and the book it keeps."""

    def __init__(self, url: str, folder: Path) -> None:
        self._command = (sys.executable, READER, url, folder)
        self._book = folder / "book"
        self._errors = folder / "errors"
        self._pid = 0

    async def __aenter__(self) -> Self:
        with self._errors.open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        await self.live()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        assert self._errors.read_text(encoding="utf-8") == ""

    async def live(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"live\n")
        self._pid = int(await self._said())

    async def die(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        assert await self._said() == b"over\n"

    async def _said(self) -> bytes:
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            return await self._process.stdout.readline()

    def notes(self) -> Iterator[Note]:
        if not self._book.exists():
            return
        for line in self._book.read_text(encoding="utf-8").splitlines():
            life, kind, what, recovered = line.split(" ")
            yield Note(life, kind, what, recovered == "1")

    def read(self, kind: str) -> list[Note]:
        return [note for note in self.notes() if note.kind == kind]

    def seen(self, kind: str) -> set[str]:
        return {note.what for note in self.read(kind)}


@pytest.mark.parametrize("marks", [True, False], ids=["readall marks", "readall leaves"])
@pytest.mark.parametrize("ids", [True, False], ids=["ids", "no ids"])
@pytest.mark.parametrize("seed", [random.SystemRandom().randrange(10**6)])
async def test_a_killed_reader_loses_nothing(
    ids: bool, marks: bool, seed: int, tmp_path: Path
) -> None:
    """Chat and mail come whole; what was acknowledged, once; the one that was not, again."""
    chance = random.Random(seed)
    async with (
        Moody(chance, mail_ids=ids, readall_marks=marks) as services,
        Reader(services.url, tmp_path) as reader,
    ):
        # What comes from now on is the readers' own.
        await wait_until(lambda: services.asked("get"))
        await asyncio.sleep(0.5)
        busy = asyncio.ensure_future(services.be_busy())
        for _ in range(LIVES):
            await asyncio.sleep(chance.uniform(0.0, 0.3))
            await reader.die()
            await reader.live()
        busy.cancel()
        services.well = True
        wanted = _wanted(services)
        await wait_until(lambda: all(wanted[kind] <= reader.seen(kind) for kind in wanted))
    for name in ("chat-1", "chat-2"):
        _judge_chat(services, reader, name)
    _judge_mail(services, reader, ids=ids)


def _wanted(services: Scripted) -> dict[str, set[str]]:
    chat = {str(id) for id in services.ids}
    return {
        "chat-1": chat,
        "chat-2": chat,
        "mail": {letter.text for letter in services.letters},
    }


def _judge_chat(services: Scripted, reader: Reader, name: str) -> None:
    notes = [note for note in reader.notes() if note.kind in (name, "acknowledged")]
    acknowledged = 0  # in earlier lives
    here: list[int] = []
    duplicates = 0
    seen: set[int] = set()
    for note, following in itertools.zip_longest(notes, notes[1:]):
        id = int(note.what)
        if note.kind == name:
            assert id > acknowledged, f"{id} came again although {acknowledged} was acknowledged"
            assert not here or id > here[-1], "out of order"
            duplicates += id in seen
            seen.add(id)
            here.append(id)
        elif name == "chat-2":
            assert id == here[-1]
            acknowledged = id
        if following is None or following.life != note.life:
            # Whatever had a successor in its life was acknowledged in it.
            acknowledged = max([acknowledged, *here[:-1]])
            here.clear()
    assert seen == set(services.ids)
    assert duplicates <= LIVES + 1


def _judge_mail(services: Scripted, reader: Reader, *, ids: bool) -> None:
    notes = reader.read("mail")
    acknowledged: set[str] = set()
    for note, following in itertools.zip_longest(notes, notes[1:]):
        if note.what in acknowledged:
            assert note.recovered, f"{note.what} came again, and did not say that it may"
            assert not ids, f"{note.what} came again although it has an id"
        if following is not None and following.life == note.life:
            acknowledged.add(note.what)
    seen = Counter(note.what for note in notes)
    assert set(seen) == {letter.text for letter in services.letters}
    unmarked = Counter(note.what for note in notes if not note.recovered)
    again = sum(unmarked.values()) - len(unmarked)
    assert again <= LIVES + 1  # one for each life that ended before it asked for the next one


async def test_a_request_that_was_cut_off_by_the_kill_is_made_good(tmp_path: Path) -> None:
    """The service has marked the mail as read, its answer reaches nobody; the next life has it."""
    services = Scripted(readall_marks=False)
    services.deliver("one", "two")
    services.script("readnew", Fault(after=0.2))
    async with services, Reader(services.url, tmp_path) as reader:
        await wait_until(lambda: services.asked("readnew"))
        await asyncio.sleep(0.1)  # the mail is marked as read, the answer is not there yet
        await reader.die()
        assert not reader.read("mail")
        await reader.live()
        await wait_until(lambda: len(reader.read("mail")) == 2)
        await asyncio.sleep(0.3)
    assert services.asked("readall")
    found = [(note.what, note.recovered) for note in reader.read("mail")]
    assert found == [("one", True), ("two", True)]
