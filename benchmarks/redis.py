"""The store for many machines, compared with bare commands to the same server.

As a program this module is a worker that is killed: it acquires the lease, reads an item, prints
``ready``, and runs until it is killed.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, Final, cast

import msgspec
from redis.asyncio import Redis

from pythpeer import ChatMessage, Rate
from pythpeer.pacing.queue import Priority
from pythpeer.stores import RedisStore, Topic
from pythpeer.streams.gaps import link_entries
from pythpeer.streams.poller import LEASE

from .chart import Bars
from .client_processes import begin, start
from .interval_analysis import analyse
from .measure import alternate, interleave
from .pacing import SEED
from .pacing_client import Run
from .redis_server import NOT_INSTALLED, redis_server
from .report import Table, ratio
from .server import ROOT, Server

__all__ = ["run"]

PAGE: Final = 50
"""Messages of a poll."""

BATCH: Final = 100
"""Messages that a consumer reads at a time."""

DELAY: Final = 0.03
"""Maximum delay of a request in seconds, each way."""

PROCESSES: Final = 4

TOPIC: Final = Topic("benchmark", ChatMessage)


def run(*, quick: bool) -> list[Table]:
    """Measure a token, fan-out, pacing by four processes, and the time until a takeover."""
    with redis_server() as url:
        if url is None:
            return [Table("Not measured", ("",), notes=[NOT_INSTALLED])]
        return [
            asyncio.run(_token(url, 200 if quick else 2_000)),
            asyncio.run(_fan_out(url, 2_000 if quick else 20_000, 1 if quick else 7)),
            _pacing(url, 3 if quick else 12),
            asyncio.run(_takeover(url, 1 if quick else 10)),
        ]


def _store(url: str, prefix: str = "") -> RedisStore:
    return RedisStore(url, prefix=prefix or uuid.uuid4().hex)


# -- a token --------------------------------------------------------------------------------------


async def _token(url: str, repeats: int) -> Table:
    table = Table(
        "Time of a token shared by all processes, and of a bare PING of redis-py",
        ("operation", "median us", "p99 us", "relative to PING", "target", "met"),
        notes=[f"Alternating round trips, {repeats} of each; the bucket is never empty."],
        chart=Bars("operation", ("median us", "p99 us")),
    )
    store, client = _store(url), Redis.from_url(url)
    await store.open()
    limiter = store.limiter("benchmark", "benchmark", Rate(1e-6, guard=0.0))
    operations: dict[str, Callable[[], Awaitable[object]]] = {
        "bare PING": lambda: cast("Awaitable[object]", client.ping()),
        "pythpeer, acquire": lambda: limiter.acquire(Priority.CALL),
    }
    durations: dict[str, list[float]] = {name: [] for name in operations}
    for name in alternate(repeats + 50, list(operations)):
        start = time.perf_counter()
        permit = await operations[name]()
        durations[name].append(time.perf_counter() - start)
        if name == "pythpeer, acquire":
            _use_permit(permit)
        # The commands that report the token are not part of the next measurement, and no operation
        # is measured directly after one of its kind, because a bot's tokens are far apart.
        await asyncio.sleep(0.002)
    durations = {name: times[50:] for name, times in durations.items()}
    ping = statistics.median(durations["bare PING"])
    for name, times in durations.items():
        middle, high = statistics.median(times), statistics.quantiles(times, n=100)[98]
        ours = name == "pythpeer, acquire"
        target, is_met = ("<= 1.5", middle / ping <= 1.5) if ours else (None, None)
        table.add(name, middle * 1e6, high * 1e6, middle / ping, target, is_met)
        table.samples[f"{name} s"] = times
    await client.aclose()
    await store.aclose()
    return table


def _use_permit(permit: Any) -> None:
    """Report that the request of a permit was sent and answered."""
    permit.on_written()
    permit.on_answered(200)
    permit.close()


# -- fan-out --------------------------------------------------------------------------------------


async def _fan_out(url: str, messages: int, rounds: int) -> Table:
    table = Table(
        (
            f"Throughput of {messages} messages from one producer to one consumer, "
            "pythpeer and bare commands"
        ),
        ("messages", "ours/s", "bare/s", "ratio", "bytes each", "target", "met"),
        notes=[
            f"bare: XADD in pipelines of {PAGE}, XREADGROUP and XACK of {BATCH}, the same JSON.",
            f"ours: the log's `append` of {PAGE}, a named reader, each item acknowledged.",
            (
                "ratio: median of the ratios of alternating rounds. bytes each: MEMORY "
                "USAGE of the log per message."
            ),
        ],
    )
    posted = [ChatMessage(id, "somebody", f"message number {id}") for id in range(1, messages + 1)]
    store, client = _store(url), Redis.from_url(url, protocol=2)
    await store.open()

    numbers = itertools.count()
    times = await interleave(
        rounds,
        {
            "ours": lambda: _through_the_store(store, posted, next(numbers)),
            "bare": lambda: _through_the_server(client, posted, f"bare-{next(numbers)}"),
        },
    )
    (log, *_) = [key async for key in client.scan_iter("*:log:*")]
    size = cast("int", await client.memory_usage(log, samples=0))
    ours, bare = times["ours"].wall, times["bare"].wall
    rate = ratio(bare, ours)
    own_rate, bare_rate = messages / statistics.median(ours), messages / statistics.median(bare)
    table.add(messages, own_rate, bare_rate, rate, size / messages, ">= 0.5", rate >= 0.5)
    table.samples.update({"ours s": ours, "bare s": bare})
    await client.aclose()
    await store.aclose()
    return table


async def _through_the_store(store: RedisStore, posted: list[ChatMessage], number: int) -> None:
    log = store.log(Topic(f"benchmark {number}", ChatMessage))
    reader = log.reader("team")
    await reader.seek_if_new(0)

    async def append() -> None:
        for first in range(0, len(posted), PAGE):
            page = {message.id: message for message in posted[first : first + PAGE]}
            await log.append(link_entries(first, page, full=False))

    async def consume() -> None:
        done = 0
        while done < len(posted):
            entries = await reader.read(done, BATCH)
            for entry in entries:
                reader.ack(entry.id)
            done += len(entries)
        await reader.flush()

    await asyncio.gather(append(), consume())
    await reader.leave()


async def _through_the_server(client: Redis, posted: list[ChatMessage], key: str) -> None:
    encode, decode = msgspec.json.encode, msgspec.json.Decoder(ChatMessage).decode
    await client.xgroup_create(key, "team", "0", mkstream=True)

    async def append() -> None:
        for first in range(0, len(posted), PAGE):
            pipeline = client.pipeline(transaction=False)
            for message in posted[first : first + PAGE]:
                _ = pipeline.xadd(key, {"item": encode(message)}, id=f"{message.id}-0")
            await pipeline.execute()

    async def consume() -> None:
        done = 0
        while done < len(posted):
            answer: Any = await client.xreadgroup("team", "me", {key: ">"}, count=BATCH)
            entries = answer[0][1] if answer else []
            for _, fields in entries:
                decode(fields[b"item"])
            if entries:
                await client.xack(key, "team", *[id for id, _ in entries])
            done += len(entries)

    await asyncio.gather(append(), consume())


# -- pacing ---------------------------------------------------------------------------------------


def _pacing(url: str, requests: int) -> Table:
    delay = f"up to {DELAY * 1e3:.0f} ms each way"
    table = Table(
        (
            f"Requests that arrived too early, and rate: {PROCESSES} processes on one "
            f"store, interval 1 s, {requests} requests each, delays {delay}"
        ),
        ("gaps", "too early", "uncertain", "worst ms", "rate", "target", "met"),
        notes=["Measured by a server in a separate process; see the benchmark `pacing`."],
    )
    prefix = uuid.uuid4().hex
    with Server() as server, ExitStack() as stack:
        server.open_channel("0", forward=DELAY, back=DELAY, seed=SEED)
        run = Run(server.channel_url("0"), "pythpeer", 1.0, 0.05, requests, SEED)
        run = msgspec.structs.replace(
            run, store=url, prefix=prefix, max_duration_ratio=3 * PROCESSES
        )
        clients = [start(run, stack) for _ in range(PROCESSES)]
        begin(clients)
        for client in clients:
            client.outcome()
        analysis = analyse(server.close_channel("0"), 1.0)
    whole = analysis.gaps == PROCESSES * requests - 1
    is_met = whole and not analysis.short and analysis.rate >= 0.95
    table.add(
        analysis.gaps,
        analysis.short,
        analysis.doubtful,
        analysis.worst * 1e3,
        analysis.rate,
        "0 too early, >= 0.95",
        is_met,
    )
    return table


# -- takeover -------------------------------------------------------------------------------------


async def _takeover(url: str, rounds: int) -> Table:
    table = Table(
        f"Time from the kill -9 of a worker until another takes over: {rounds} kills",
        ("operation", "median s", "worst s", "target", "met"),
        notes=["The other worker waits for an append, as streams do; default settings."],
        chart=Bars("operation", ("median s", "worst s")),
    )
    item_times: list[float] = []
    leases: list[float] = []
    for _ in range(rounds):
        item, lease = await _kill_worker(url)
        item_times.append(item)
        leases.append(lease)
    for name, durations in (("a pending item", item_times), ("the lease", leases)):
        table.add(name, statistics.median(durations), max(durations), "<= 2", max(durations) <= 2.0)
        table.samples[f"{name} s"] = durations
    return table


async def _kill_worker(url: str) -> tuple[float, float]:
    store = _store(url)
    await store.open()
    log = store.log(TOPIC)
    reader = log.reader("team")
    await reader.seek_if_new(0)
    await log.append(link_entries(0, {1: ChatMessage(1, "somebody", "text")}, full=False))
    command = (sys.executable, "-m", f"{__package__}.redis", url, store._keys.prefix)
    worker = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.PIPE
    )
    if worker.stdout is None or await worker.stdout.readline() != b"ready\n":
        raise RuntimeError("a worker did not start")
    await reader.read(0, 1)  # registers this reader, which keeps it alive
    worker.kill()
    killed_at = time.monotonic()

    async def item() -> float:
        while not await reader.read(0, 1):
            await log.wait_for_append(LEASE)
        return time.monotonic() - killed_at

    async def lease() -> float:
        while not await log.acquire_lease(LEASE):
            await log.wait_for_append(LEASE)
        return time.monotonic() - killed_at

    try:
        async with asyncio.timeout(30):
            durations = await asyncio.gather(item(), lease())
    finally:
        await worker.wait()
        await store.aclose()
    return durations[0], durations[1]


async def _run_worker(url: str, prefix: str) -> None:
    store = _store(url, prefix)
    await store.open()
    log = store.log(TOPIC)
    reader = log.reader("team")
    await reader.seek_if_new(0)
    if not await reader.read(0, 1):
        raise RuntimeError("there is no item to read")
    while True:
        await log.acquire_lease(LEASE)
        print("ready", flush=True)
        await asyncio.sleep(0.3)


if __name__ == "__main__":
    asyncio.run(_run_worker(sys.argv[1], sys.argv[2]))
