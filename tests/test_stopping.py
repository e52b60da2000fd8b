"""However a program is stopped, it ends soon, says nothing of it, and its next life goes on.

In real processes with Python's development mode on, where everything that was left open is said.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Final

import pytest
from helpers import real_time
from scripted import HANG, Scripted

pytestmark = [pytest.mark.anyio, real_time, pytest.mark.processes]

STOPPER: Final = Path(__file__).with_name("stopper.py")

LOOPS: Final = ["asyncio", *(["uvloop"] if sys.platform != "win32" else [])]


def busy() -> Scripted:
    """Services with something to say."""
    services = Scripted()
    services.say(5)
    services.deliver("mail 1")
    return services


async def stopped(
    services: Scripted,
    path: Path | str,
    loop: str,
    way: str,
    *signals: signal.Signals,
    polls: int = 1,
) -> tuple[int, list[str], str]:
    """The exit code, what was said on stdout, and everything on stderr.

    A signal comes once chat and mail have been polled so often, and a moment later.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", str(STOPPER)),
        *(services.url, str(path), loop, way),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(path).parent if path != "memory" else None,
    )
    talk = asyncio.ensure_future(process.communicate())
    try:
        async with asyncio.timeout(30):
            for number in signals:
                for kinds in (("get",), ("readnew", "readall")):
                    while len(services.asked(*kinds)) < polls:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                await asyncio.sleep(0.3)
                process.send_signal(number)
            out, err = await talk
    except TimeoutError:
        process.kill()
        await talk
        raise
    assert process.returncode is not None
    return process.returncode, out.decode().split("\n")[:-1], err.decode()


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
async def test_it_ends_soon_and_quietly(tmp_path: Path, way: str) -> None:
    """Nothing hangs, nothing is left open, no task was never retrieved."""
    signals, code, last = WAYS[way]

    async def check(path: Path | str, loop: str) -> None:
        async with busy() as services:
            found, said, errors = await stopped(services, path, loop, way, *signals)
        assert errors == ""
        assert found == code
        assert last is None or said[-1] == last

    await asyncio.gather(check("memory", LOOPS[0]), check(tmp_path / "store.sqlite", LOOPS[-1]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_request_under_way_does_not_keep_it(tmp_path: Path, number: signal.Signals) -> None:
    """A poll that hangs is given up, a consuming read within its time limit; then mail is there."""
    way = "handler" if number is signal.SIGTERM else "SIGINT"
    path = tmp_path / "store.sqlite"
    async with busy() as services:
        services.script("readnew", HANG)
        services.constant["get"] = HANG
        _, _, errors = await stopped(services, path, "asyncio", way, number)
        assert errors == ""
        services.constant.clear()
        _, said, errors = await again(services, path)
    assert errors == ""
    assert "mail 1" in said


async def again(services: Scripted, path: Path) -> tuple[int, list[str], str]:
    """The next life of a program, stopped once it has had time for everything."""
    (path.parent / "been").touch()
    services.requests.clear()
    return await stopped(services, path, "asyncio", "handler", signal.SIGTERM, polls=4)


@pytest.mark.parametrize("way", ["break", "raise", "SIGTERM", "handler", "SIGINT"])
async def test_its_next_life_goes_on(tmp_path: Path, way: str) -> None:
    """With what was not acknowledged, and nothing else."""
    signals, _, _ = WAYS[way]
    path = tmp_path / "store.sqlite"
    async with busy() as services:
        _, first, _ = await stopped(services, path, "asyncio", way, *signals)
        services.say(1)
        _, second, errors = await again(services, path)
    assert errors == ""
    wanted = [f"message {number}" for number in range(1, 7)]
    lives = [[text for text in life if text.startswith("message")] for life in (first, second)]
    last = wanted.index(lives[0][-1])  # whether it was acknowledged depends on the moment
    assert lives[1] in (wanted[last:], wanted[last + 1 :])
