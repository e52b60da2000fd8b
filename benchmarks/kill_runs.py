"""Runs of programs that are killed while handling a text, and restarted: losses and duplicates."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from pythpeer.testing import FakeServices

from .competitors.polling import ServiceAccess
from .killed_process import CHAT, KILLED, MAIL, KilledRun
from .loss_count import LossCount, count_losses
from .server import ROOT

__all__ = ["TEXTS_PER_RUN", "Outcome", "kill"]

SEED: Final = 20121212

TEXTS_PER_RUN: Final = 20
"""Texts posted before each run; one response holds all of them."""

MAX_PARALLEL: Final = 3


class Outcome(NamedTuple):
    """The combined runs of one program."""

    kind: str
    setup: str
    count_losses: LossCount
    requests: int


async def kill(runs: int) -> list[Outcome]:
    """Kill every program *runs* times."""
    slots = asyncio.Semaphore(MAX_PARALLEL)

    async def run_setup(kind: str, setup: str) -> Outcome:
        async with slots:
            return await _run_until_killed(kind, setup, runs)

    kinds = [("chat", setup) for setup in CHAT] + [("mail", setup) for setup in MAIL]
    return await asyncio.gather(*(run_setup(*pair) for pair in kinds))


async def _run_until_killed(kind: str, setup: str, runs: int) -> Outcome:
    chance, posted, handled = random.Random(SEED), list[str](), list[str]()
    requests = 0

    def count(_: object) -> None:
        nonlocal requests
        requests += 1

    with tempfile.TemporaryDirectory() as folder:
        async with FakeServices(seed=SEED) as fake:
            fake.listen(count)
            keys = (fake.peerbet_key, fake.personal_key)
            access = ServiceAccess(fake.peerbet_url, fake.pythbots_url, *keys)
            file = str(Path(folder) / "kept")
            for number in range(runs + 1):
                for _ in range(TEXTS_PER_RUN):
                    text = f"text {len(posted) + 1}"
                    posted.append(text)
                    if kind == "chat":
                        fake.chat.say("somebody", text)
                    else:
                        fake.mail.deliver("somebody", text)
                kill_after = chance.randint(2, TEXTS_PER_RUN - 1) if number < runs else 0
                handled += await _run_once(
                    kind, KilledRun(setup, access, file, kill_after, posted[-1])
                )
    return Outcome(kind, setup, count_losses(posted, handled), requests)


async def _run_once(kind: str, run: KilledRun) -> list[str]:
    encoded = msgspec.json.encode(run).decode()
    command = (sys.executable, "-m", f"{__package__}.killed_process", kind, encoded)
    child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        printed, _ = await asyncio.wait_for(child.communicate(), 60)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != (KILLED if run.kill_after else 0):
        raise RuntimeError(f"{run.setup} did not end as expected")
    return printed.decode().splitlines()
