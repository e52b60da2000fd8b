"""However a program is stopped, it ends soon, says nothing of it, and its next life goes on.

In real processes with Python's development mode on, where everything that was left open is said.
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
    """Services with something to say."""
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
    """How programs are run: by whom they are forked, and what they talk to."""

    server: ForkServer
    services: Scripted

    async def stopped(
        self,
        path: Path | str,
        loop: str,
        way: str,
        *signals: signal.Signals,
        polls: int = 1,
        last: str = "message 5",
    ) -> tuple[int, list[str], str]:
        """The exit code, what was said on stdout, and everything on stderr.

        A signal comes once chat and mail have been polled so often, and *last* has been said.
        """
        process = ForkedProcess(
            *(self.server, self.services.url, str(path), loop, way),
            program=str(STOPPER),
            folder=Path(path).parent if path != "memory" else None,
        )
        said: list[str] = []

        def read() -> str:
            """Read both streams; what comes on the second is little."""
            assert process.stdout is not None
            assert process.stderr is not None
            said.extend(line.rstrip("\n") for line in process.stdout)
            return process.stderr.read()

        reading = asyncio.ensure_future(asyncio.to_thread(read))
        try:
            async with asyncio.timeout(HANG_TIMEOUT):
                for number in signals:
                    for kinds in (("get",), ("readnew", "readall")):
                        while len(self.services.asked(*kinds)) < polls or last not in ["", *said]:
                            assert not reading.done()
                            await asyncio.sleep(0.01)
                    process.send_signal(number)
                err = await reading
                return await asyncio.to_thread(process.wait), said, err
        finally:
            process.close()
            await asyncio.wait([reading])

    async def again(self, path: Path, last: str) -> tuple[int, list[str], str]:
        """The next life of a program, stopped once it has said this and had time for more."""
        (path.parent / "been").touch()
        self.services.requests.clear()
        options = ("asyncio", "handler", signal.SIGTERM)
        return await self.stopped(path, *options, polls=4, last=last)


WAYS: Final = {
    "break": ([], 0, None),
    "raise": ([], 0, "ValueError"),
    "alone": ([], 0, None),
    "close": ([], 0, "SessionClosedError"),
    "SIGINT": ([signal.SIGINT], 0, "KeyboardInterrupt"),
    "SIGTERM": ([signal.SIGTERM], -signal.SIGTERM, None),
    "handler": ([signal.SIGTERM], 0, "CancelledError"),
}


@pytest.mark.parametrize("way", WAYS)
async def test_it_ends_soon_and_quietly(server: ForkServer, tmp_path: Path, way: str) -> None:
    """Nothing hangs, nothing is left open, no task was never retrieved."""
    signals, code, last = WAYS[way]

    async def check(path: Path | str, loop: str) -> None:
        async with busy() as services:
            stopper = Stopper(server, services)
            found, said, errors = await stopper.stopped(path, loop, way, *signals)
        assert errors == ""
        assert found == code
        assert last is None or said[-1] == last

    await asyncio.gather(check("memory", LOOPS[0]), check(tmp_path / "store.sqlite", LOOPS[-1]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_request_under_way_does_not_keep_it(
    server: ForkServer, tmp_path: Path, number: signal.Signals
) -> None:
    """A poll that hangs is given up, a consuming read within its time limit; then mail is there."""
    way = "handler" if number is signal.SIGTERM else "SIGINT"
    path = tmp_path / "store.sqlite"
    async with busy() as services:
        services.script("readnew", HANG)
        services.default_faults["get"] = HANG
        stopper = Stopper(server, services)
        _, _, errors = await stopper.stopped(path, "asyncio", way, number, last="")
        assert errors == ""
        services.default_faults.clear()
        _, said, errors = await stopper.again(path, "mail 1")
    assert errors == ""
    assert "mail 1" in said


@pytest.mark.parametrize("way", ["break", "raise", "SIGTERM", "handler", "SIGINT"])
async def test_its_next_life_goes_on(server: ForkServer, tmp_path: Path, way: str) -> None:
    """With what was not acknowledged, and nothing else."""
    signals, _, _ = WAYS[way]
    path = tmp_path / "store.sqlite"
    async with busy() as services:
        stopper = Stopper(server, services)
        _, first, _ = await stopper.stopped(path, "asyncio", way, *signals)
        services.say(1)
        _, second, errors = await stopper.again(path, "message 6")
    assert errors == ""
    wanted = [f"message {number}" for number in range(1, 7)]
    lives = [[text for text in life if text.startswith("message")] for life in (first, second)]
    last = wanted.index(lives[0][-1])  # whether it was acknowledged depends on the moment
    assert lives[1] in (wanted[last:], wanted[last + 1 :])
