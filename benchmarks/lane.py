"""One client on one lane of the judge, in a process of its own: twenty tasks and one limiter.

Started by the pacing benchmark with a description on the command line. It says ``ready``, waits for
a line, runs, and prints what it did. It ends with its stdin, or after its time limit.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

import aiohttp
import anyio
import msgspec
from aiolimiter import AsyncLimiter

from pythpeer import Effect, Endpoint, Rate, Retry, Session
from pythpeer.session import SessionOptions
from pythpeer.stores import RedisStore

__all__ = ["LIMITERS", "Outcome", "Run"]

TASKS: Final = 20

STALL: Final = 0.03
STALL_EVERY: Final = 0.15
COLD: Final = 0.02

Ask = Callable[[], Awaitable[object]]


class Run(msgspec.Struct, frozen=True):
    """What a client shall do."""

    url: str
    limiter: str
    interval: float
    guard: float
    requests: int
    seed: int
    loop: str = "asyncio"
    """``asyncio`` or ``uvloop``."""

    stalls: bool = False
    """Block the event loop for 30 ms at random, every 150 ms on average."""

    cold: bool = False
    """A connection for each request, which takes up to 20 ms more to make."""

    store: str = ""
    """The URL of a server that paces several clients together."""

    prefix: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """What it did."""

    failures: int
    cpu: float


class _SlowConnecting(asyncio.SelectorEventLoop):
    """A loop on which every new connection takes up to 20 ms more, whoever makes it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    async def sock_connect(self, sock: object, address: object) -> None:
        await asyncio.sleep(self._random.uniform(0.0, COLD))
        await super().sock_connect(sock, address)  # type: ignore[arg-type]


async def _pythpeer(run: Run, stack: AsyncExitStack) -> Ask:
    endpoint = Endpoint(
        "benchmark.lane",
        run.url,
        effect=Effect.CONSUME if run.cold else Effect.READ,  # which is what gets fresh connections
        rate=Rate(run.interval, guard=run.guard),
    )
    store = RedisStore(run.store, prefix=run.prefix) if run.store else None
    options: SessionOptions = {"retry": Retry(attempts=1), "max_wait": math.inf, "store": store}
    session = await stack.enter_async_context(Session(**options))
    return lambda: session.call(endpoint)


async def _aiolimiter(run: Run, stack: AsyncExitStack) -> Ask:
    get = await _bare(run, stack)
    limiter = AsyncLimiter(1, run.interval)

    async def ask() -> None:
        async with limiter:
            await get()

    return ask


async def _naive(run: Run, stack: AsyncExitStack) -> Ask:
    get = await _bare(run, stack)
    lock = asyncio.Lock()

    async def ask() -> None:
        async with lock:
            await get()
            await asyncio.sleep(run.interval)

    return ask


async def _bare(run: Run, stack: AsyncExitStack) -> Ask:
    connector = aiohttp.TCPConnector(force_close=run.cold)
    client = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))

    async def get() -> None:
        async with client.get(run.url) as response:
            await response.read()

    return get


LIMITERS: Final = {
    "pythpeer": _pythpeer,
    "aiolimiter": _aiolimiter,
    "lock + request + sleep": _naive,
}


def _stall(chance: random.Random) -> None:
    """Block the loop, and do so again later."""
    time.sleep(STALL)
    loop = asyncio.get_running_loop()
    loop.call_later(chance.expovariate(1 / STALL_EVERY), _stall, chance)


async def _work(run: Run) -> Outcome:
    failures = 0
    left = iter(range(run.requests))
    cpu = time.process_time()
    async with AsyncExitStack() as stack:
        ask = await LIMITERS[run.limiter](run, stack)
        if run.stalls:
            asyncio.get_running_loop().call_soon(_stall, random.Random(run.seed))

        async def some() -> None:
            nonlocal failures
            for _ in left:
                try:
                    await ask()
                except Exception as error:  # noqa: BLE001 - counted, and the run goes on
                    failures += 1
                    print(f"{run.limiter}: {type(error).__name__}: {error}", file=sys.stderr)

        # Naive on slow answers takes twice to three times the ideal.
        async with asyncio.timeout(5 * run.requests * run.interval + 10):
            async with anyio.create_task_group() as group:
                for _ in range(TASKS):
                    group.start_soon(some)
    return Outcome(failures, time.process_time() - cpu)


def _new_loop(run: Run) -> Callable[[], asyncio.AbstractEventLoop]:
    if run.loop == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return (lambda: _SlowConnecting(run.seed)) if run.cold else asyncio.SelectorEventLoop


def main() -> None:
    run = msgspec.json.decode(sys.argv[1], type=Run)
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    with asyncio.Runner(loop_factory=_new_loop(run)) as runner:
        outcome = runner.run(_work(run))
    print(msgspec.json.encode(outcome).decode(), flush=True)


if __name__ == "__main__":
    main()
