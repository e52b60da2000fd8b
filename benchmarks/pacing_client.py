"""A client process on one channel of the measuring server: twenty tasks and one limiter."""

from __future__ import annotations

import asyncio
import functools
import math
import random
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection
from typing import Final
from urllib.parse import urljoin

import aiohttp
import anyio
import msgspec

from pythpeer import Effect, Endpoint, Rate, Retry, Session
from pythpeer.session import SessionOptions
from pythpeer.stores import RedisStore

from .competitors.installed import OURS
from .competitors.limiting import Get, load_candidates, share
from .server import SMALL_PATH

__all__ = ["Outcome", "Run", "serve"]

TASKS: Final = 20

STALL: Final = 0.03
STALL_EVERY: Final = 0.15
COLD: Final = 0.02

# Imported here, so that a process forked from one with this module has all libraries.
load_candidates()


class Run(msgspec.Struct, frozen=True):
    """The settings of a client; times are in seconds."""

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

    max_duration_ratio: float = 5.0
    """The client is stopped after this multiple of the ideal time."""

    store: str = ""
    """The URL of a server that paces several clients together."""

    prefix: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """The result of a client."""

    failures: int
    stopped: bool
    cpu: float


class _SlowConnectLoop(asyncio.SelectorEventLoop):
    """An event loop on which every new connection takes up to 20 ms more."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    async def sock_connect(self, sock: object, address: object) -> None:
        await asyncio.sleep(self._random.uniform(0.0, COLD))
        await super().sock_connect(sock, address)  # type: ignore[arg-type]


# Both send a warm-up request first, so that the connection and all one-time state exist.


async def _session(run: Run, stack: AsyncExitStack) -> Get:
    """Return a function that sends a request with pythpeer, which paces it."""
    effect = Effect.CONSUME if run.cold else Effect.READ  # destructive reads get new connections
    rate = Rate(run.interval, guard=run.guard)
    endpoint = Endpoint("benchmark.lane", run.url, effect=effect, rate=rate)
    warm_up = Endpoint("benchmark.first", urljoin(run.url, SMALL_PATH), effect=effect, rate=rate)
    store = RedisStore(run.store, prefix=run.prefix) if run.store else None
    options: SessionOptions = {"retry": Retry(attempts=1), "max_wait": math.inf, "store": store}
    session = await stack.enter_async_context(Session(**options))
    await session.call(warm_up)
    return lambda: session.call(endpoint)


async def _bare(run: Run, stack: AsyncExitStack) -> Get:
    """Return a function that sends a request with aiohttp, without pacing."""
    connector = aiohttp.TCPConnector(force_close=run.cold)
    client = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))

    async def get(url: str) -> None:
        async with client.get(url) as response:
            await response.read()

    await get(urljoin(run.url, SMALL_PATH))
    return functools.partial(get, run.url)


class _CountedRequest:
    """A request whose failures are counted and printed, without ending the run."""

    def __init__(self, name: str, get: Get) -> None:
        self._name = name
        self._get = get
        self.failures = 0

    async def __call__(self) -> None:
        try:
            await self._get()
        except Exception as error:  # noqa: BLE001 - a limiter or a request can raise any exception
            self.failures += 1
            print(f"{self._name}: {type(error).__name__}: {error}", file=sys.stderr)


def _stall(chance: random.Random) -> None:
    """Block the loop for `STALL` seconds, and schedule the next stall."""
    time.sleep(STALL)
    loop = asyncio.get_running_loop()
    loop.call_later(chance.expovariate(1 / STALL_EVERY), _stall, chance)


async def _work(run: Run, connection: Connection) -> None:
    async with AsyncExitStack() as stack:
        get = await (_session if run.limiter == OURS else _bare)(run, stack)
        counted_get = _CountedRequest(run.limiter, get)
        if run.limiter == OURS:
            send = functools.partial(share, counted_get)
        else:
            candidate = load_candidates()[0][run.limiter]
            send = functools.partial(candidate.send, candidate.make(run.interval, 1), counted_get)
        connection.send(None)
        try:
            connection.recv()  # blocking is safe: no request is running
        except EOFError:
            return
        cpu = time.process_time()
        if run.stalls:
            asyncio.get_running_loop().call_soon(_stall, random.Random(run.seed))
        with anyio.move_on_after(run.max_duration_ratio * run.requests * run.interval) as scope:
            await send(run.requests, TASKS)
        cpu = time.process_time() - cpu
        connection.send(Outcome(counted_get.failures, scope.cancelled_caught, cpu))


def _new_loop(run: Run) -> Callable[[], asyncio.AbstractEventLoop]:
    if run.loop == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return (lambda: _SlowConnectLoop(run.seed)) if run.cold else asyncio.SelectorEventLoop


def serve(connection: Connection, run: Run) -> None:
    """Report readiness, wait for the start signal, execute *run*, and send the `Outcome`.

    Returns when the parent process closes the connection, or after the time limit.
    """
    with asyncio.Runner(loop_factory=_new_loop(run)) as runner:
        runner.run(_work(run, connection))
