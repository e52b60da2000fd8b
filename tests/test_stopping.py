"""However a program is stopped, it ends soon and silently, and its next run resumes.

In real processes with Python's development mode on, which reports everything left open.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from fork_server import HANG_TIMEOUT, ForkedProcess, ForkServer
from helpers import real_time
from scripted import HANG, Scripted

pytestmark = [pytest.mark.anyio, real_time, pytest.mark.processes]

STOPPER: Final = Path(__file__).with_name("stopper.py")

LOOPS: Final = ["asyncio", *(["uvloop"] if sys.platform != "win32" else [])]

IMPORTED: Final = (
    *("pythpeer.public", "pythpeer.stores.sqlite", "aiohttp", "anyio._backends._asyncio"),
    *LOOPS,
)


def busy() -> Scripted:
    """Services with messages and mail."""
    services = Scripted()
    services.say(5)
    services.deliver("mail 1")
    return services


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """Forks processes in development mode."""
    with ForkServer(*IMPORTED, options=("-X", "dev", "-W", "error")) as server:
        yield server


class Stopper(NamedTuple):
    """How programs are run: by which fork server, and which services they use."""

    server: ForkServer
    services: Scripted

    async def stopped(
        self,
        path: Path | str,
        loop: str,
        ending: str,
        *signals: signal.Signals,
        polls: int = 1,
        last: str = "message 5",
    ) -> tuple[int, list[str], str]:
        """Return the exit code, the lines of stdout, and everything on stderr.

        A signal is sent once chat and mail have been polled so often, and *last* has been printed.
        """
        process = ForkedProcess(
            *(self.server, self.services.url, str(path), loop, ending),
            program=str(STOPPER),
            folder=Path(path).parent if path != "memory" else None,
        )
        lines: list[str] = []

        def read() -> str:
            """Read both streams; the second has few items."""
            assert process.stdout is not None
            assert process.stderr is not None
            lines.extend(line.rstrip("\n") for line in process.stdout)
            return process.stderr.read()

        reading = asyncio.ensure_future(asyncio.to_thread(read))
        try:
            async with asyncio.timeout(HANG_TIMEOUT):
                for number in signals:
                    for kinds in (("get",), ("readnew", "readall")):
                        while len(self.services.asked(*kinds)) < polls or last not in ["", *lines]:
                            assert not reading.done()
                            await asyncio.sleep(0.01)
                    process.send_signal(number)
                err = await reading
                return await asyncio.to_thread(process.wait), lines, err
        finally:
            process.close()
            await asyncio.wait([reading])

    async def again(self, path: Path, last: str) -> tuple[int, list[str], str]:
        """Run the program again, and stop it once it has printed this and had time for more."""
        (path.parent / "been").touch()
        self.services.requests.clear()
        options = ("asyncio", "handler", signal.SIGTERM)
        return await self.stopped(path, *options, polls=4, last=last)


ENDINGS: Final = {
    "break": ([], 0, None),
    "raise": ([], 0, "ValueError"),
    "alone": ([], 0, None),
    "close": ([], 0, "SessionClosedError"),
    "SIGINT": ([signal.SIGINT], 0, "KeyboardInterrupt"),
    "SIGTERM": ([signal.SIGTERM], -signal.SIGTERM, None),
    "handler": ([signal.SIGTERM], 0, "CancelledError"),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_it_ends_soon_and_quietly(server: ForkServer, tmp_path: Path, ending: str) -> None:
    """Nothing hangs, nothing is left open, no task was never retrieved."""
    signals, code, last = ENDINGS[ending]

    async def check(path: Path | str, loop: str) -> None:
        async with busy() as services:
            stopper = Stopper(server, services)
            exit_code, lines, errors = await stopper.stopped(path, loop, ending, *signals)
        assert errors == ""
        assert exit_code == code
        assert last is None or lines[-1] == last

    await asyncio.gather(check("memory", LOOPS[0]), check(tmp_path / "store.sqlite", LOOPS[-1]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_request_under_way_does_not_keep_it(
    server: ForkServer, tmp_path: Path, number: signal.Signals
) -> None:
    """A poll that hangs is cancelled, a destructive read within its time limit; mail is kept."""
    ending = "handler" if number is signal.SIGTERM else "SIGINT"
    path = tmp_path / "store.sqlite"
    async with busy() as services:
        services.script("readnew", HANG)
        services.default_faults["get"] = HANG
        stopper = Stopper(server, services)
        _, _, errors = await stopper.stopped(path, "asyncio", ending, number, last="")
        assert errors == ""
        services.default_faults.clear()
        _, lines, errors = await stopper.again(path, "mail 1")
    assert errors == ""
    assert "mail 1" in lines


@pytest.mark.parametrize("ending", ["break", "raise", "SIGTERM", "handler", "SIGINT"])
async def test_its_next_run_resumes(server: ForkServer, tmp_path: Path, ending: str) -> None:
    """With what was not acknowledged, and nothing else."""
    signals, _, _ = ENDINGS[ending]
    path = tmp_path / "store.sqlite"
    async with busy() as services:
        stopper = Stopper(server, services)
        _, first, _ = await stopper.stopped(path, "asyncio", ending, *signals)
        services.say(1)
        _, second, errors = await stopper.again(path, "message 6")
    assert errors == ""
    wanted = [f"message {number}" for number in range(1, 7)]
    runs = [[text for text in run if text.startswith("message")] for run in (first, second)]
    last = wanted.index(runs[0][-1])  # whether it was acknowledged depends on the moment
    assert runs[1] in (wanted[last:], wanted[last + 1 :])
