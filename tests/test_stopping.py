"""Tests how programs stop: they end soon, print no warning, and resume after a restart.

The programs are real processes in Python's development mode, which warns about each task,
connection and file that was not closed.
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
from helpers import real_time, run_together
from scripted import HANG, Scripted

pytestmark = [pytest.mark.anyio, real_time, pytest.mark.processes]

PROGRAM: Final = Path(__file__).with_name("proc_stopped.py")

LOOPS: Final = ["asyncio", *(["uvloop"] if sys.platform != "win32" else [])]

IMPORTED: Final = (
    *("pythpeer.public", "pythpeer.stores.sqlite", "aiohttp", "anyio._backends._asyncio"),
    *LOOPS,
)
"""What the fork server imports."""


def services_with_items() -> Scripted:
    """Services with five messages and one mail."""
    services = Scripted()
    services.say(5)
    services.deliver("mail 1")
    return services


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """A fork server in development mode, with warnings as errors."""
    with ForkServer(*IMPORTED, options=("-X", "dev", "-W", "error")) as server:
        yield server


class Output(NamedTuple):
    """The result of a program."""

    code: int
    """The exit code, or minus the number of a signal."""

    lines: list[str]
    """The lines on stdout."""

    errors: str
    """The text on stderr."""


class StoppedProgram(NamedTuple):
    """Runs the program on `server`, with *services* for its requests."""

    server: ForkServer
    services: Scripted

    async def run(
        self,
        path: Path | str,
        loop: str,
        ending: str,
        *signals: signal.Signals,
        polls: int = 1,
        last_line: str = "message 5",
    ) -> Output:
        """Run the program to its end, and send *signals* to it.

        Each signal is sent after *polls* polls of chat and of mail, and after *last_line* was
        printed, if it is not empty.
        """
        process = ForkedProcess(
            *(self.server, self.services.url, str(path), loop, ending),
            program=str(PROGRAM),
            folder=Path(path).parent if path != "memory" else None,
        )
        lines: list[str] = []

        def read() -> str:
            """Read stdout, then stderr; the text on stderr is short enough for the pipe."""
            assert process.stdout is not None
            assert process.stderr is not None
            lines.extend(line.rstrip("\n") for line in process.stdout)
            return process.stderr.read()

        reading = asyncio.ensure_future(asyncio.to_thread(read))
        try:
            async with asyncio.timeout(HANG_TIMEOUT):
                for number in signals:
                    for kinds in (("get",), ("readnew", "readall")):
                        while len(self.services.asked(*kinds)) < polls or last_line not in [
                            "",
                            *lines,
                        ]:
                            assert not reading.done()
                            await asyncio.sleep(0.01)
                    process.send_signal(number)
                errors = await reading
                return Output(await asyncio.to_thread(process.wait), lines, errors)
        finally:
            process.close()
            await asyncio.wait([reading])

    async def run_again(self, path: Path, last_line: str) -> Output:
        """Restart the program, and stop it after it printed this and had time to print more."""
        (path.parent / "restarted").touch()
        self.services.requests.clear()
        options = ("asyncio", "handler", signal.SIGTERM)
        return await self.run(path, *options, polls=4, last_line=last_line)


ENDINGS: Final = {
    "break": ([], 0, None),
    "raise": ([], 0, "ValueError"),
    "not closed": ([], 0, None),
    "close": ([], 0, "SessionClosedError"),
    "SIGINT": ([signal.SIGINT], 0, "KeyboardInterrupt"),
    "SIGTERM": ([signal.SIGTERM], -signal.SIGTERM, None),
    "handler": ([signal.SIGTERM], 0, "CancelledError"),
}
"""By the way in which the program ends: the signals, the exit code and the last line."""


def store_path(folder: Path, ending: str) -> Path:
    """The path of a store in a folder of its own, as `run_again` marks the folder."""
    (folder / ending).mkdir()
    return folder / ending / "store.sqlite"


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_program_ends_soon_and_without_warnings(
    server: ForkServer, tmp_path: Path, ending: str
) -> None:
    """It does not hang, closes everything, and retrieves the exceptions of all tasks."""
    signals, code, last_line = ENDINGS[ending]

    async def check(path: Path | str, loop: str) -> None:
        async with services_with_items() as services:
            program = StoppedProgram(server, services)
            output = await program.run(path, loop, ending, *signals)
        assert output.errors == ""
        assert output.code == code
        assert last_line is None or output.lines[-1] == last_line

    await asyncio.gather(check("memory", LOOPS[0]), check(tmp_path / "store.sqlite", LOOPS[-1]))


async def test_a_pending_request_does_not_delay_the_end(server: ForkServer, tmp_path: Path) -> None:
    """A poll is cancelled, a destructive read ends within its time limit, and no mail is lost."""

    async def check(ending: str) -> None:
        signals, _, _ = ENDINGS[ending]
        path = store_path(tmp_path, ending)
        async with services_with_items() as services:
            services.script("readnew", HANG)
            services.default_faults["get"] = HANG
            program = StoppedProgram(server, services)
            output = await program.run(path, "asyncio", ending, *signals, last_line="")
            assert output.errors == ""
            services.default_faults.clear()
            output = await program.run_again(path, "mail 1")
        assert output.errors == ""
        assert "mail 1" in output.lines

    await run_together({ending: check(ending) for ending in ("SIGINT", "handler")})


async def test_a_restarted_program_resumes(server: ForkServer, tmp_path: Path) -> None:
    """It reads the messages that were not acknowledged, and no others."""

    async def check(ending: str) -> None:
        signals, _, _ = ENDINGS[ending]
        path = store_path(tmp_path, ending)
        async with services_with_items() as services:
            program = StoppedProgram(server, services)
            first = await program.run(path, "asyncio", ending, *signals)
            services.say(1)
            second = await program.run_again(path, "message 6")
        assert second.errors == ""
        all_messages = [f"message {number}" for number in range(1, 7)]
        first_messages, second_messages = (
            [line for line in output.lines if line.startswith("message")]
            for output in (first, second)
        )
        last = all_messages.index(first_messages[-1])  # it may or may not have been acknowledged
        assert second_messages in (all_messages[last:], all_messages[last + 1 :])

    endings = ("break", "raise", "SIGTERM", "handler", "SIGINT")
    await run_together({ending: check(ending) for ending in endings})
