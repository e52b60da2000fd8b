"""The power fails: files have the content that was synced last, or partly newer.

A program reads chat and mail from a `SqliteStore`, with a library preloaded that keeps what it has
synced. It is stopped at random moments, and from each of them several disks are made that it could
have left: without what was not synced, with all of it, and with a random part of it.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from helpers import real_time, wait_until

from pythpeer import SqliteStore
from pythpeer.stores import Entry, Topic

HERE: Final = Path(__file__).parent
COMPILER: Final = shutil.which("cc") or shutil.which("gcc")

pytestmark = [
    pytest.mark.anyio,
    real_time,
    pytest.mark.processes,
    pytest.mark.skipif(
        COMPILER is None or not sys.platform.startswith("linux"),
        reason="needs a C compiler and LD_PRELOAD",
    ),
]

CHAT: Final = Topic("chat", int)
MAIL: Final = Topic("mail", int, destructive=True)
BLOCK: Final = 512
"""The bytes that a disk writes as a whole, or not at all."""

CUTS: Final = 5
"""The moments at which a program is stopped."""


class Event(NamedTuple):
    """A line of the program's report."""

    at: float
    name: str
    what: str
    id: int


class Disk(NamedTuple):
    """What the program had written at one moment, and what of it was synced."""

    at: float
    events: list[Event]
    written: dict[str, bytes]
    synced: dict[str, bytes]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("power") / "power_cut.so"
    command = [str(COMPILER), "-shared", "-fPIC", "-O1", "-o", str(target), "power_cut.c"]
    subprocess.run(command, cwd=HERE, check=True)
    return target


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the database and its log; the index of the log is in memory, and lost."""
    return {name: (folder / name).read_bytes() for name in NAMES if (folder / name).exists()}


NAMES: Final = ("store.sqlite", "store.sqlite-wal")


class Program:
    """The process, which is stopped at each `cut` and continues after it."""

    def __init__(self, library: Path, folder: Path, durability: str, *kinds: str) -> None:
        self._live, self._synced = folder / "live", folder / "synced"
        self._report = folder / "report"
        self._live.mkdir()
        self._synced.mkdir()
        environment = os.environ | {
            "LD_PRELOAD": str(library),
            "SYNCED_FROM": str(self._live),
            "SYNCED_TO": str(self._synced),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        command = [sys.executable, str(HERE / "proc_power.py"), str(self._live / NAMES[0])]
        command += [durability, str(self._report), *kinds]
        self._process = subprocess.Popen(command, env=environment)

    def events(self) -> list[Event]:
        text = self._report.read_text("ascii") if self._report.exists() else ""
        lines = (line.split(" ") for line in text.split("\n")[:-1])
        return [Event(float(at), name, what, int(id)) for at, name, what, id in lines]

    def cut(self) -> Disk:
        assert self._process.poll() is None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)
        at = time.monotonic()
        disk = Disk(at, self.events(), read_files(self._live), read_files(self._synced))
        self._process.send_signal(signal.SIGCONT)
        return disk

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def disks(disk: Disk, chance: random.Random) -> Iterator[dict[str, bytes]]:
    """Yield the contents of the files that a power failure can leave."""
    for states in itertools.product(("synced", "written", "torn"), repeat=len(NAMES)):
        files: dict[str, bytes] = {}
        for name, state in zip(NAMES, states, strict=True):
            old, new = disk.synced.get(name, b""), disk.written.get(name, b"")
            files[name] = {"synced": old, "written": new, "torn": torn(old, new, chance)}[state]
        yield files


def torn(old: bytes, new: bytes, chance: random.Random) -> bytes:
    """Return *old* with some blocks of *new*."""
    size = chance.choice((len(old), len(new)))
    old, new = old.ljust(size, b"\0")[:size], new.ljust(size, b"\0")[:size]
    return b"".join(
        (old, new)[chance.randrange(2)][start : start + BLOCK] for start in range(0, size, BLOCK)
    )


def last_acknowledged(disk: Disk, name: str, before: float) -> int:
    events = (event for event in disk.events if event.name == name and event.at <= before)
    return max((event.id for event in events if event.what == "acknowledged"), default=0)


def longest_pause(disk: Disk) -> float:
    """Return the seconds for which the program, or the machine, stood still."""
    times = [event.at for event in disk.events] + [disk.at]
    return max(later - earlier for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize(
    ("durability", "kinds"),
    # The fetch intents of mail are synced, and with them whatever was committed before.
    [("normal", ("chat",)), ("normal", ("chat", "mail")), ("full", ("chat", "mail"))],
)
async def test_a_power_failure_loses_nothing_and_repeats_little(
    durability: str,
    kinds: tuple[str, ...],
    library: Path,
    folder: Path,
    request: pytest.FixtureRequest,
) -> None:
    """What was acknowledged over a second before is not returned again; with ``full`` one item is.

    Each mail that the service has given out is in the log, or its fetch counts as lost. It takes
    long because a second has to pass.
    """
    chance = random.Random(f"{request.config.getoption('randomly_seed', None)} {durability}")
    program = Program(library, folder, durability, *kinds)
    try:
        await wait_until(lambda: len(program.events()) > 20)
        cuts: list[tuple[Disk, dict[str, int]]] = []
        while len(cuts) < CUTS:
            time.sleep(chance.uniform(0.05, 0.4))  # noqa: ASYNC251
            disk = program.cut()
            # A machine that stands still does so while it syncs, too.
            since = disk.at - 1.0 - longest_pause(disk) if durability == "normal" else disk.at
            expected = {name: last_acknowledged(disk, name, since) for name in kinds}
            if all(expected.values()):
                cuts.append((disk, expected))
            assert disk.at < disk.events[0].at + 120.0
    finally:
        program.kill()
    for disk, expected in cuts:
        for number, files in enumerate(disks(disk, chance)):
            after = folder / f"{disk.at}-{number}"
            after.mkdir()
            for name, content in files.items():
                (after / name).write_bytes(content)
                (after / name).chmod(0o600)
            await verify(after / NAMES[0], disk, expected)


async def verify(path: Path, disk: Disk, expected: dict[str, int]) -> None:
    store = SqliteStore(path)
    await store.open()
    try:
        chat, mail = store.log(CHAT), store.log(MAIL)
        assert (await chat.reader("me").position() or 0) >= expected["chat"]
        position = await mail.reader("me").position() or 0
        assert position >= expected.get("mail", 0)
        entries: list[Entry[int]] = []
        while batch := await mail.reader(None).read(entries[-1].id if entries else 0, 1000):
            entries += batch
        assert position <= (entries[-1].id if entries else 0)  # new mail is not acknowledged
        taken = {event.id for event in disk.events if event.what == "taken"}
        missing = taken - {entry.item for entry in entries}
        assert not missing or (await store.snapshot()).logs[1].pending_fetches
    finally:
        await store.aclose()
