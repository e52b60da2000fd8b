"""A stream that is followed for a very long time, in a process of its own, on virtual time.

Started by the soak with an order on the command line; prints what it saw. What is bounded fills up
early, so that memory can be compared from the first look on. Everything has to come, in order and
once: a soak that lost something would prove nothing.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from pythpeer import (
    ChatMessage,
    Mail,
    MemoryStore,
    PythpeerError,
    Rate,
    Retry,
    Session,
    SqliteStore,
    TransportError,
    merge,
)
from pythpeer.feed import Poller, Pollers
from pythpeer.line import Priority
from pythpeer.polling import link_entries
from pythpeer.stores.base import Log, Store, Topic
from pythpeer.streams import Stream

from .answering import answered, resident, serving
from .children import obey, order_of
from .durable import TEXT, message

__all__ = ["PARTS", "Look", "Order", "Plan", "Result"]

LENGTH: Final = 20
"""Items that a log keeps."""

GAPS: Final = 1_100
"""Polls at the beginning that leave a gap each: a stream remembers its last 1,000."""

RARELY: Final = 100
"""Every how many polls something goes wrong, and every how many requests a mail comes."""

OFTEN: Final = 20
"""Every how many requests a mail comes at the beginning, until there are more than a log keeps."""

PARTS: Final = (0.1, 0.5, 1.0)
"""After which parts of a run memory is looked at."""

MAIL_PATH: Final = "/api/mail.php"
LINE: Final = {
    "by": "somebody",
    "to": "",
    "msg": TEXT,
    "date": "2012-12-12 21:12:21",
    "bot": 0,
    "my": 0,
    "me": 0,
}
LETTER: Final = {"from": "somebody", "message": TEXT, "read": 0}

KEY: Final = "0123456789abcdef"

SECOND: Final = Rate(1.0, guard=0.0)


class Plan(msgspec.Struct, frozen=True):
    """What to follow, and for how long."""

    way: str
    """``scripted``: polls out of thin air, through limiter, feed, store and stream. ``session``:
    chat and mail, merged, by requests to a service in the same process."""

    store: str
    """``memory`` or ``sqlite``."""

    polls: int

    traced: int
    """Polls of a second run, whose allocations are counted: that takes about four times as long."""

    def hundredth(self) -> Plan:
        """A plan for a trial."""
        return msgspec.structs.replace(self, polls=self.polls // 100, traced=self.traced // 10)


class Order(msgspec.Struct, frozen=True):
    """One of the two runs of a plan."""

    plan: Plan
    traced: bool

    @property
    def polls(self) -> int:
        """How many polls it is to do."""
        return self.plan.traced if self.traced else self.plan.polls


class Look(msgspec.Struct, frozen=True):
    """What the process holds at one moment."""

    polls: int
    resident: int | None
    """Bytes; ``None`` where the system does not say."""

    traced: int | None
    """Bytes that Python code has allocated and not freed."""

    stored: int
    """Bytes of the store's files."""


class Result(msgspec.Struct, frozen=True):
    """What came of it."""

    looks: tuple[Look, ...]
    messages: int
    failures: int
    early: int
    """Requests that came less than an interval after the one before."""

    days: float
    """Virtual time that passed."""

    wall: float
    cpu: float


class _Watch:
    """Counts polls, and looks at memory when it is time to."""

    def __init__(self, polls: int, folder: Path) -> None:
        self.polls = 0
        self.failures = 0
        self.early = 0
        self.messages = 0
        self.looks: list[Look] = []
        self._due = [round(polls * part) for part in PARTS]
        self._folder = folder

    @property
    def over(self) -> bool:
        """Whether all polls are done. Asked after each message."""
        if self.polls >= self._due[len(self.looks)]:
            self.looks.append(self._look())
        return len(self.looks) == len(self._due)

    def _look(self) -> Look:
        gc.collect()
        traced = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else None
        size = sum(file.stat().st_size for file in self._folder.iterdir())
        return Look(self.polls, resident(), traced, size)


# -- polls out of thin air ------------------------------------------------------------------------


class _Script:
    """A chat in which nobody, one or two say something before each poll."""

    def __init__(self, store: Store, watch: _Watch) -> None:
        self.name: Final = "benchmark.chat"
        self._limiter = store.limiter("benchmark", self.name, SECOND)
        self._watch = watch
        self._said = 0

    async def initial_position(self, log: Log[ChatMessage]) -> int | None:
        return 0

    async def drain(self) -> None:
        pass

    async def try_poll(self, feed: Poller[ChatMessage]) -> PythpeerError | None:
        permit = await self._limiter.acquire(Priority.POLL)
        permit.on_written()
        number = self._watch.polls = self._watch.polls + 1
        if number % RARELY == 0:
            self._watch.failures += 1
            permit.close()
            return TransportError("scripted", endpoint=self.name)
        permit.on_answered()
        permit.close()
        after = feed.min_position
        gap = number < GAPS
        first = after + 2 if gap else after + 1
        self._said = max(self._said + number % 3, first if gap else 0)
        known = {id: message(id) for id in range(first, self._said + 1)}
        await feed.log.append(link_entries(after, known, full=gap))
        feed.confirm(after, full=gap)
        return None


async def _scripted(store: Store, watch: _Watch) -> None:
    await store.open()
    feeds = Pollers()
    feeds.open(store, Retry(max_delay=5.0))
    feed = feeds.get(Topic("benchmark", ChatMessage), lambda: _Script(store, watch))
    expected = 0
    async for one in Stream(feed, after=0, name="soak"):
        if one.id != expected + 1 and not (watch.polls <= GAPS and one.id == expected + 2):
            raise RuntimeError(f"message {one.id} came after {expected}")
        expected = one.id
        watch.messages += 1
        if watch.over:
            break
    await store.aclose()


# -- through a session ----------------------------------------------------------------------------


class _Service:
    """Both services as far as they are polled, in this process and on its virtual time."""

    def __init__(self, watch: _Watch) -> None:
        self.said = 0
        self.delivered = 0
        self._watch = watch
        self._next_mail = OFTEN
        self._read = 0
        self._last: dict[str, float] = {}

    def answer(self, target: str) -> bytes | None:
        """The answer to a request; nothing where the connection is to break."""
        path, _, query = target.partition("?")
        watch = self._watch
        watch.polls += 1
        self._judge(path)
        trouble = watch.polls % RARELY == 0
        watch.failures += trouble
        found = self._mail(query) if path == MAIL_PATH else self._chat(dict(parse_qsl(query)))
        if trouble and watch.polls % (2 * RARELY):
            return None
        return answered(found, "503 Scripted" if trouble else "200 OK")

    def _judge(self, path: str) -> None:
        now = asyncio.get_running_loop().time()
        self._watch.early += now - self._last.get(path, -1.0) < SECOND.interval - 1e-5
        self._last[path] = now

    def _chat(self, params: dict[str, str]) -> object:
        self.said += self._watch.polls % 3
        after = int(params.get("mid", self.said - 1))
        shown = [LINE | {"id": id} for id in range(after + 1, self.said + 1)]
        return {"status": 1, "users_online": 3, "message_list": shown}

    def _mail(self, query: str) -> object:
        if self._watch.polls >= self._next_mail:
            self.delivered += 1
            self._next_mail += OFTEN if self.delivered <= LENGTH else RARELY
        first = 0 if "readall" in query else self._read
        self._read = self.delivered
        return [LETTER | {"id": id} for id in range(first + 1, self.delivered + 1)]


async def _session(store: Store, watch: _Watch) -> None:
    rates = {"peerbet.chat.get": SECOND, "pythbots.mail": SECOND}
    async with (
        serving(_Service(watch).answer) as url,
        Session(
            peerbet_url=url,
            pythbots_url=url,
            peerbet_key=KEY,
            personal_key=KEY,
            rates=rates,
            retry=Retry(max_delay=5.0),
            store=store,
        ) as session,
        merge(
            session.peerbet.chat_stream(name="soak", after=0),
            session.pythbots.mail_stream(name="soak"),
        ) as stream,
    ):
        last = {Mail: 0, ChatMessage: 0}
        async for one in stream:
            id, kind = one.id or 0, type(one)
            if id != last[kind] + 1:
                raise RuntimeError(f"{kind.__name__} {id} came after {last[kind]}")
            last[kind] = id
            watch.messages += 1
            if watch.over:
                break


# -- the process ----------------------------------------------------------------------------------


async def _run(order: Order, folder: Path) -> Result:
    plan, watch = order.plan, _Watch(order.polls, folder)
    store: Store = (
        MemoryStore(max_length=LENGTH)
        if plan.store == "memory"
        else SqliteStore(folder / "soak.sqlite", max_length=LENGTH)
    )
    loop = asyncio.get_running_loop()
    wall, cpu, virtual = time.perf_counter(), time.process_time(), loop.time()
    await (_scripted if plan.way == "scripted" else _session)(store, watch)
    return Result(
        looks=tuple(watch.looks),
        messages=watch.messages,
        failures=watch.failures,
        early=watch.early,
        days=(loop.time() - virtual) / 86_400,
        wall=time.perf_counter() - wall,
        cpu=time.process_time() - cpu,
    )


def main() -> None:
    order = order_of(Order)
    if order.traced:
        tracemalloc.start()
    obey(order, _run)


if __name__ == "__main__":
    main()
