"""A stream that runs for a very long virtual time: a subprocess of `soak`.

Receives a `RunSpec` on the command line, and prints a `Result`. All bounded structures fill up
early, so that memory can be compared from the first sample on. Every item must be delivered once
and in order; otherwise the run fails.
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
from pythpeer.pacing.queue import Priority
from pythpeer.stores.base import Log, Store, Topic
from pythpeer.streams.gaps import link_entries
from pythpeer.streams.poller import Poller, Pollers, PollSource
from pythpeer.streams.stream import Stream

from .durable import TEXT, message
from .inprocess_server import answered, resident, serving
from .subprocesses import read_spec, run_spec

__all__ = ["PARTS", "Plan", "Result", "RunSpec", "Sample"]

MAX_LENGTH: Final = 20
"""Maximum items of a log."""

GAPS: Final = 1_100
"""Polls at the beginning that cause a gap each; a stream keeps its last 1,000 gaps."""

FAULT_EVERY: Final = 100
"""Polls per fault, and requests per mail."""

MAIL_EVERY: Final = 20
"""Requests per mail at the beginning, until there are more mails than a log keeps."""

PARTS: Final = (0.1, 0.5, 1.0)
"""Parts of a run after which memory is sampled."""

MAIL_PATH: Final = "/api/mail.php"
MESSAGE_FIELDS: Final = {
    "by": "somebody",
    "to": "",
    "msg": TEXT,
    "date": "2012-12-12 21:12:21",
    "bot": 0,
    "my": 0,
    "me": 0,
}
MAIL_FIELDS: Final = {"from": "somebody", "message": TEXT, "read": 0}

KEY: Final = "0123456789abcdef"

ONE_PER_SECOND: Final = Rate(1.0, guard=0.0)


class Plan(msgspec.Struct, frozen=True):
    """The setup of a stream, and its number of polls."""

    setup: str
    """``scripted``: generated polls, with limiter, poller, store and stream. ``session``: chat and
    mail, merged, with requests to a service in the same process."""

    store: str
    """``memory`` or ``sqlite``."""

    polls: int

    traced: int
    """Polls of a second run with traced allocations, which takes about four times as long."""

    def shortened(self) -> Plan:
        """Return a smaller plan for a trial."""
        return msgspec.structs.replace(self, polls=self.polls // 100, traced=self.traced // 10)


class RunSpec(msgspec.Struct, frozen=True):
    """One of the two runs of a plan."""

    plan: Plan
    traced: bool

    @property
    def polls(self) -> int:
        """Number of polls of this run."""
        return self.plan.traced if self.traced else self.plan.polls


class Sample(msgspec.Struct, frozen=True):
    """The memory of the process at one time."""

    polls: int
    resident: int | None
    """Resident bytes; ``None`` if the system does not report them."""

    traced: int | None
    """Bytes allocated by Python code and not freed; ``None`` without tracing."""

    stored: int
    """Bytes of the store's files."""


class Result(msgspec.Struct, frozen=True):
    """The result of a run."""

    samples: tuple[Sample, ...]
    messages: int
    failures: int
    early: int
    """Requests that arrived less than an interval after the previous one."""

    days: float
    """Days of virtual time."""

    wall: float
    cpu: float


class _Monitor:
    """Counts polls and items, and samples memory after the `PARTS` of a run."""

    def __init__(self, polls: int, folder: Path) -> None:
        self.polls = 0
        self.failures = 0
        self.early = 0
        self.messages = 0
        self.samples: list[Sample] = []
        self._sample_at = [round(polls * part) for part in PARTS]
        self._folder = folder

    @property
    def done(self) -> bool:
        """Whether all polls are done; read after each message, because it takes the samples."""
        if self.polls >= self._sample_at[len(self.samples)]:
            self.samples.append(self._take_sample())
        return len(self.samples) == len(self._sample_at)

    def _take_sample(self) -> Sample:
        gc.collect()
        traced = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else None
        size = sum(file.stat().st_size for file in self._folder.iterdir())
        return Sample(self.polls, resident(), traced, size)


# -- generated polls ------------------------------------------------------------------------------


class _ScriptedSource(PollSource[ChatMessage]):
    """A chat with 0, 1 or 2 new messages before each poll."""

    def __init__(self, store: Store, monitor: _Monitor) -> None:
        self.name = "benchmark.chat"
        self._limiter = store.limiter("benchmark", self.name, ONE_PER_SECOND)
        self._monitor = monitor
        self._posted = 0

    async def initial_position(self, log: Log[ChatMessage]) -> int | None:
        return 0

    async def try_poll(self, poller: Poller[ChatMessage]) -> PythpeerError | None:
        permit = await self._limiter.acquire(Priority.POLL)
        permit.on_written()
        number = self._monitor.polls = self._monitor.polls + 1
        if number % FAULT_EVERY == 0:
            self._monitor.failures += 1
            permit.close()
            return TransportError("scripted", endpoint=self.name)
        permit.on_answered()
        permit.close()
        after = poller.min_position
        gap = number < GAPS
        first = after + 2 if gap else after + 1
        self._posted = max(self._posted + number % 3, first if gap else 0)
        entries = {id: message(id) for id in range(first, self._posted + 1)}
        await poller.log.append(link_entries(after, entries, full=gap))
        poller.confirm(after, full=gap)
        return None


async def _scripted(store: Store, monitor: _Monitor) -> None:
    await store.open()
    pollers = Pollers()
    pollers.open(store, Retry(max_delay=5.0))
    poller = pollers.get(Topic("benchmark", ChatMessage), lambda: _ScriptedSource(store, monitor))
    expected = 0
    async for item in Stream(poller, after=0, name="soak"):
        if item.id != expected + 1 and not (monitor.polls <= GAPS and item.id == expected + 2):
            raise RuntimeError(f"message {item.id} came after {expected}")
        expected = item.id
        monitor.messages += 1
        if monitor.done:
            break
    await store.aclose()


# -- through a session ----------------------------------------------------------------------------


class _Service:
    """The polled endpoints of both services, in this process and on its virtual time."""

    def __init__(self, monitor: _Monitor) -> None:
        self.posted = 0
        self.delivered = 0
        self._monitor = monitor
        self._next_mail = MAIL_EVERY
        self._read = 0
        self._last: dict[str, float] = {}

    def answer(self, target: str) -> bytes | None:
        """Return the response to a request, or ``None`` to break the connection."""
        path, _, query = target.partition("?")
        monitor = self._monitor
        monitor.polls += 1
        self._count_early(path)
        fails = monitor.polls % FAULT_EVERY == 0
        monitor.failures += fails
        document = self._mail(query) if path == MAIL_PATH else self._chat(dict(parse_qsl(query)))
        if fails and monitor.polls % (2 * FAULT_EVERY):
            return None
        return answered(document, "503 Scripted" if fails else "200 OK")

    def _count_early(self, path: str) -> None:
        now = asyncio.get_running_loop().time()
        self._monitor.early += now - self._last.get(path, -1.0) < ONE_PER_SECOND.interval - 1e-5
        self._last[path] = now

    def _chat(self, params: dict[str, str]) -> object:
        self.posted += self._monitor.polls % 3
        after = int(params.get("mid", self.posted - 1))
        messages = [MESSAGE_FIELDS | {"id": id} for id in range(after + 1, self.posted + 1)]
        return {"status": 1, "users_online": 3, "message_list": messages}

    def _mail(self, query: str) -> object:
        if self._monitor.polls >= self._next_mail:
            self.delivered += 1
            self._next_mail += MAIL_EVERY if self.delivered <= MAX_LENGTH else FAULT_EVERY
        first = 0 if "readall" in query else self._read
        self._read = self.delivered
        return [MAIL_FIELDS | {"id": id} for id in range(first + 1, self.delivered + 1)]


async def _session(store: Store, monitor: _Monitor) -> None:
    rates = {"peerbet.chat.get": ONE_PER_SECOND, "pythbots.mail": ONE_PER_SECOND}
    async with (
        serving(_Service(monitor).answer) as url,
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
        async for item in stream:
            id, kind = item.id or 0, type(item)
            if id != last[kind] + 1:
                raise RuntimeError(f"{kind.__name__} {id} came after {last[kind]}")
            last[kind] = id
            monitor.messages += 1
            if monitor.done:
                break


# -- the process ----------------------------------------------------------------------------------


async def _run(spec: RunSpec, folder: Path) -> Result:
    plan, monitor = spec.plan, _Monitor(spec.polls, folder)
    store: Store = (
        MemoryStore(max_length=MAX_LENGTH)
        if plan.store == "memory"
        else SqliteStore(folder / "soak.sqlite", max_length=MAX_LENGTH)
    )
    loop = asyncio.get_running_loop()
    wall, cpu, virtual = time.perf_counter(), time.process_time(), loop.time()
    await (_scripted if plan.setup == "scripted" else _session)(store, monitor)
    return Result(
        samples=tuple(monitor.samples),
        messages=monitor.messages,
        failures=monitor.failures,
        early=monitor.early,
        days=(loop.time() - virtual) / 86_400,
        wall=time.perf_counter() - wall,
        cpu=time.process_time() - cpu,
    )


def main() -> None:
    spec = read_spec(RunSpec)
    if spec.traced:
        tracemalloc.start()
    run_spec(spec, _run)


if __name__ == "__main__":
    main()
