"""The measuring server: a raw HTTP server in a separate process, on loopback.

For speed it has prebuilt responses. For pacing it has channels, each with separate delays, on which
it stamps every request in ``data_received``. A request arrives at its stamp plus its forward delay,
and is answered a backward delay later. The server ends when its stdin is closed, so it never
outlives its parent. It also detects when its loop was delayed by more than a millisecond: stamps of
that time are late, and a gap that starts with one looks too short.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

__all__ = [
    "MESSAGES",
    "PAGE",
    "PAGE_PATH",
    "ROLL",
    "ROOT",
    "SMALL",
    "SMALL_PATH",
    "Server",
    "http_answer",
]

ROOT: Final = Path(__file__).resolve().parent.parent

SMALL_PATH: Final = "/small/"
PAGE_PATH: Final = "/api/chat/"
CHANNEL_PATH: Final = "/channel/"

ROLL: Final = {"status": 1, "id": 184467, "user": "somebody", "roll": 49.1832, "bet": "0.00012"}
MESSAGES: Final = [
    {
        "id": id,
        "by": f"user{id % 9}",
        "to": "",
        "msg": f"This is test message number {id}, as long as they often are",
        "date": "2012-12-12 21:12:21",
        "bot": 0,
        "my": 0,
        "me": 0,
    }
    for id in range(1_000_001, 1_000_301)
]


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


SMALL: Final = _json(ROLL)
PAGE: Final = _json({"status": 1, "users_online": 3, "message_list": MESSAGES})

CHECK_INTERVAL: Final = 0.002


def http_answer(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


PREBUILT: Final = {SMALL_PATH.encode(): http_answer(SMALL), PAGE_PATH.encode(): http_answer(PAGE)}
CHANNEL_RESPONSE: Final = http_answer(b'{"status":1,"mid":1}')
NOT_FOUND: Final = http_answer(b"", "404 Not Found")


class _Channel:
    """One run of one limiter: its delays, and the times of its requests."""

    def __init__(self, forward: float, back: float, seed: int) -> None:
        self._forward = forward
        self._back = back
        self._random = random.Random(seed)
        self.requests: list[tuple[float, float]] = []

    def arrive(self, stamp: float) -> float:
        """Record a request; return the seconds until its response is due."""
        forward = self._random.uniform(0.0, self._forward)
        back = self._random.uniform(0.0, self._back)
        self.requests.append((stamp, stamp + forward))
        return forward + back


class _MeasuringServer:
    """All channels, and the periods in which stamps are late."""

    def __init__(self) -> None:
        self.channels: dict[str, _Channel] = {}
        self._stalls: deque[tuple[float, float]] = deque(maxlen=50_000)
        self._watchdog: asyncio.Task[None] | None = None

    def control(self, target: str) -> bytes:
        """Open a channel, or close one and return its requests."""
        parts = urlsplit(target)
        options = dict(parse_qsl(parts.query))
        name = options["channel"]
        if parts.path == "/control/open":
            delays = float(options["forward"]), float(options["back"])
            self.channels[name] = _Channel(*delays, seed=int(options["seed"]))
            self._watchdog = self._watchdog or asyncio.ensure_future(self._watch_loop())
            return http_answer(b"null")
        channel = self.channels.pop(name)
        if not self.channels and self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        document = {"requests": channel.requests, "late": list(self._stalls)}
        return http_answer(json.dumps(document).encode())

    async def _watch_loop(self) -> None:
        self._stalls.clear()
        while True:
            due = time.monotonic() + CHECK_INTERVAL
            await asyncio.sleep(CHECK_INTERVAL)
            now = time.monotonic()
            if now - due > 0.001:
                self._stalls.append((due, now))


class _Connection(asyncio.Protocol):
    def __init__(self, channels: _MeasuringServer) -> None:
        self._channels = channels
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        stamp = time.monotonic()
        buffer = self._buffer + data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            target = buffer[4 : buffer.index(b" ", 4)]
            buffer = buffer[end + 4 :]
            self._serve(target, stamp)
        self._buffer = buffer

    def _serve(self, target: bytes, stamp: float) -> None:
        prebuilt = PREBUILT.get(target.partition(b"?")[0])
        if prebuilt is not None:
            self._write(prebuilt)
            return
        path = target.decode()
        if path.startswith("/control/"):
            self._write(self._channels.control(path))
            return
        channel = self._channels.channels.get(path.removeprefix(CHANNEL_PATH).partition("/")[0])
        if channel is None:
            self._write(NOT_FOUND)
            return
        delay = channel.arrive(stamp)
        if delay:
            # Counted from the stamp, so that the response is never before the arrival.
            later = stamp + delay - time.monotonic()
            asyncio.get_running_loop().call_later(max(0.0, later), self._write, CHANNEL_RESPONSE)
        else:
            self._write(CHANNEL_RESPONSE)

    def _write(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


class Server:
    """The server's process, which runs as long as the ``with`` block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The URL of the server, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def channel_url(self, channel: str) -> str:
        """Return the URL of a channel."""
        return f"{self.url}{CHANNEL_PATH}{channel}/"

    def open_channel(self, channel: str, *, forward: float, back: float, seed: int) -> None:
        """Open a channel with delays drawn from 0 to *forward* and to *back* seconds."""
        self._control(f"open?channel={channel}&forward={forward}&back={back}&seed={seed}")

    def close_channel(self, channel: str) -> dict[str, list[tuple[float, float]]]:
        """Close a channel; return ``requests`` as (stamp, arrival), and ``late`` as (from, to)."""
        document: dict[str, list[tuple[float, float]]] = self._control(f"close?channel={channel}")
        return document

    def _control(self, command: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", f"/control/{command}")
            response = connection.getresponse()
            if response.status != 200:
                raise RuntimeError(f"the server returned {response.status} for {command}")
            return json.loads(response.read())
        finally:
            connection.close()

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", f"{__package__}.server"]
        process = self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        line = process.stdout.readline() if process.stdout is not None else b""
        if not line:
            self._end()
            raise RuntimeError("the server did not start")
        self.port = int(line)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            if process.stdout is not None:
                process.stdout.close()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    channels = _MeasuringServer()
    server = await loop.create_server(lambda: _Connection(channels), "127.0.0.1", 0, backlog=512)
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(_main())
