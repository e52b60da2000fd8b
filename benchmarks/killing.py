"""Programs that are killed with a text in hand and started again: what that loses or doubles."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from pythpeer.testing import FakeServices

from .mortal import CHAT, KILLED, MAIL, Life
from .rivals.polling import Place
from .server import ROOT
from .tally import Tally, tally

__all__ = ["EACH", "Outcome", "kill"]

SEED: Final = 20121212

EACH: Final = 20
"""How much is said before each life: one answer holds it all."""

AT_ONCE: Final = 3


class Outcome(NamedTuple):
    """One way, with all its lives."""

    kind: str
    way: str
    tally: Tally
    requests: int


async def kill(lives: int) -> list[Outcome]:
    """Kill every way so many times."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(kind: str, way: str) -> Outcome:
        async with turn:
            return await _lives(kind, way, lives)

    kinds = [("chat", way) for way in CHAT] + [("mail", way) for way in MAIL]
    return await asyncio.gather(*(one(*each) for each in kinds))


async def _lives(kind: str, way: str, lives: int) -> Outcome:
    chance, said, handled = random.Random(SEED), list[str](), list[str]()
    requests = 0

    def count(_: object) -> None:
        nonlocal requests
        requests += 1

    with tempfile.TemporaryDirectory() as folder:
        async with FakeServices(seed=SEED) as fake:
            fake.subscribe(count)
            keys = (fake.peerbet_key, fake.personal_key)
            place = Place(fake.peerbet_url, fake.pythbots_url, *keys)
            file = str(Path(folder) / "kept")
            for number in range(lives + 1):
                for _ in range(EACH):
                    text = f"text {len(said) + 1}"
                    said.append(text)
                    if kind == "chat":
                        fake.chat.say("somebody", text)
                    else:
                        fake.mail.deliver("somebody", text)
                dies_at = chance.randint(2, EACH - 1) if number < lives else 0
                handled += await _life(kind, Life(way, place, file, dies_at, said[-1]))
    return Outcome(kind, way, tally(said, handled), requests)


async def _life(kind: str, life: Life) -> list[str]:
    order = msgspec.json.encode(life).decode()
    command = (sys.executable, "-m", f"{__package__}.mortal", kind, order)
    child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        printed, _ = await asyncio.wait_for(child.communicate(), 60)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != (KILLED if life.dies_at else 0):
        raise RuntimeError(f"{life.way} did not live as it was told")
    return printed.decode().splitlines()
