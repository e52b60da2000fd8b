"""A program that reads chat and mail from sources of its own, until its power is cut.

It is run with ``power_cut.c`` preloaded. Its arguments are the path of the store, the durability, a
file to which it appends a line for each event (when, what, and the id), and what it reads.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
import time
from typing import Final

from pythpeer import PythpeerError, Retry, SqliteStore
from pythpeer.stores import Log, NewEntry, Topic
from pythpeer.streams.poller import Poller, Pollers, PollSource
from pythpeer.streams.stream import Stream

CHAT: Final = Topic("chat", int)
MAIL: Final = Topic("mail", int, destructive=True)


class Source(PollSource[int]):
    """A poll source that has one to four new items at each poll."""

    def __init__(self, name: str, report: int) -> None:
        self.name = name
        self._report = report

    async def initial_position(self, log: Log[int]) -> int | None:
        return 0

    def note(self, what: str, id: int) -> None:
        os.write(self._report, f"{time.monotonic()} {self.name} {what} {id}\n".encode())

    async def try_poll(self, poller: Poller[int]) -> PythpeerError | None:
        await asyncio.sleep(random.uniform(0.0, 0.02))
        after = poller.newest
        ids = range(after + 1, after + 1 + random.randint(1, 4))
        poller.update_newest(ids[-1])
        await self.store(poller.log, ids)
        poller.confirm(poller.min_position, full=False)
        return None

    async def store(self, log: Log[int], ids: range) -> None:
        await log.append([NewEntry(id, id=id, after=id - 1) for id in ids])


class MailSource(Source):
    """Its items are given out only once, as mail is."""

    async def store(self, log: Log[int], ids: range) -> None:
        intent = await log.begin_fetch(1000.0)
        for id in ids:
            self.note("taken", id)
        await asyncio.sleep(random.uniform(0.0, 0.005))
        await log.append([NewEntry(id, identity=str(id)) for id in ids], completes=[intent])


async def follow(pollers: Pollers, topic: Topic[int], source: Source) -> None:
    stream = Stream(pollers.get(topic, lambda: source), after=0, name="me")
    previous = 0
    async for item in stream:
        source.note("acknowledged", previous)
        source.note("got", item)
        previous = item
        if random.random() < 0.5:
            await asyncio.sleep(random.uniform(0.0, 0.01))


async def main(path: str, durability: str, report: str, *kinds: str) -> None:
    descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    store = SqliteStore(path, durability="full" if durability == "full" else "normal")
    await store.open()
    pollers = Pollers()
    pollers.open(store, Retry())
    follows = {
        "chat": follow(pollers, CHAT, Source("chat", descriptor)),
        "mail": follow(pollers, MAIL, MailSource("mail", descriptor)),
    }
    for kind in follows.keys() - kinds:
        follows.pop(kind).close()
    await asyncio.gather(*follows.values(), do_other_work())


async def do_other_work() -> None:
    """Keep the loop busy, as a handler that computes does."""
    for _ in itertools.count():
        await asyncio.sleep(0.1)
        time.sleep(random.uniform(0.0, 0.03))  # noqa: ASYNC251


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
