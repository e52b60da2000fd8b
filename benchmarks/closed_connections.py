"""Polls of a server that closes idle connections after as long as a client waits between two polls.

Such is Apache with ``KeepAliveTimeout 1``, polled once a second: a request and the end of its
connection pass each other on the way. Time is virtual, connections are real.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Final

import msgspec

from pythpeer import Endpoint, Rate, Secret, Session
from pythpeer.testing import VirtualTimeLoop

from .competitors.calling import KEY, Calls, Candidate, load_candidates
from .competitors.installed import OURS
from .competitors.msgspec_structs import Roll
from .report import Table
from .server import SMALL, SMALL_PATH, http_answer

__all__ = ["closed_connections"]

INTERVAL: Final = 1.0
"""Seconds between two polls, and for which the server keeps an idle connection."""

MAX_DELAY: Final = 0.02
"""Maximum seconds of each way over the network."""

SEED: Final = 20121212


class _Server:
    """A server behind a network with delays, and the requests that it has received."""

    def __init__(self) -> None:
        self.chance: Final = random.Random(SEED)
        self.arrivals: dict[bytes, list[float]] = {}
        """By request, when it has arrived, also on a connection that was just closed."""

        self.transports: set[asyncio.Transport] = set()
        """The open connections: each adds and removes itself."""

    def delay(self) -> float:
        """Return the seconds of one way over the network."""
        return self.chance.uniform(0.0, MAX_DELAY)

    @property
    def repeats(self) -> list[float]:
        """The seconds between two arrivals of the same request."""
        return [
            after - before for times in self.arrivals.values() for before, after in pairwise(times)
        ]


class _Connection(asyncio.Protocol):
    """Closes when it was idle for `INTERVAL`; what arrives after that is not answered."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._is_closed = False
        """Whether the server has closed it, which the client learns a little later."""
        self._end: asyncio.TimerHandle | None = None
        """When it is closed: set while it is idle."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.transports.add(transport)

    def data_received(self, data: bytes) -> None:
        self._loop.call_later(self._server.delay(), self._arrive, data.partition(b"\r\n")[0])

    def _arrive(self, request: bytes) -> None:
        self._server.arrivals.setdefault(request, []).append(self._loop.time())
        if self._is_closed:
            return
        if self._end is not None:
            self._end.cancel()
        self._loop.call_later(self._server.delay(), self._write)
        self._end = self._loop.call_later(INTERVAL, self._close)

    def _write(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(http_answer(SMALL))

    def _close(self) -> None:
        self._is_closed = True
        if self._transport is not None:
            self._loop.call_later(self._server.delay(), self._transport.close)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._end is not None:
            self._end.cancel()
        if self._transport is not None:
            self._server.transports.discard(self._transport)


@asynccontextmanager
async def _open(url: str) -> AsyncGenerator[Calls, None]:
    key = Secret(KEY)
    endpoint = Endpoint("benchmark.roll", url + SMALL_PATH, rate=Rate(INTERVAL), answer=Roll)
    async with Session(peerbet_url=url) as session:

        async def roll(number: int) -> Roll:
            return await session.call(endpoint, key=key, number=number)

        async def page(after: int) -> tuple[()]:
            raise NotImplementedError

        yield Calls(roll, page)


class _Warnings(logging.Handler):
    """Counts the warnings that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


async def _poll(candidate: Candidate, polls: int) -> tuple[int, _Server]:
    """Return how many polls have failed, and the server."""
    behind, failed = _Server(), 0
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: _Connection(behind), "127.0.0.1", 0)
    async with listener, candidate.open(_url(listener)) as calls:
        for number in range(polls):
            try:
                await calls.roll(number)
            except Exception:  # noqa: BLE001  # each library has its own
                failed += 1
            if candidate.name != OURS:  # which waits itself
                await asyncio.sleep(INTERVAL)
    for transport in behind.transports:
        transport.close()
    await asyncio.sleep(INTERVAL)
    return failed, behind


def _url(listener: asyncio.Server) -> str:
    return f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


def closed_connections(*, quick: bool) -> Table:
    """Poll with every client, and count the failures and the repeated requests."""
    polls = 50 if quick else 500
    others, missing = load_candidates()
    candidates: Mapping[str, Candidate] = {
        OURS: Candidate(OURS, _open, msgspec.to_builtins),
        **others,
    }
    table = Table(
        "Polls of a server that closes idle connections after as long as a client waits",
        ("program", "polls", "failed", "warnings", "repeated", "too early", "target", "met"),
        notes=[
            (
                f"The server closes a connection {INTERVAL:g} s after its last response; a client "
                f"polls {INTERVAL:g} s after the response. Each way takes 0 to "
                f"{MAX_DELAY * 1e3:.0f} ms."
            ),
            "repeated: requests that the client has sent again, on another connection.",
            "too early: of these, those that arrived less than the interval after the first.",
            *missing,
        ],
    )
    for name, candidate in candidates.items():
        warnings = _Warnings()
        logging.getLogger().addHandler(warnings)
        try:
            with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
                failed, server = runner.run(_poll(candidate, polls))
        finally:
            logging.getLogger().removeHandler(warnings)
        early = sum(seconds < INTERVAL for seconds in server.repeats)
        target = ("none failed or early", not (failed or early)) if name == OURS else (None, None)
        repeated = len(server.repeats)
        table.add(name, polls, failed, warnings.count, repeated, early, *target)
    return table
