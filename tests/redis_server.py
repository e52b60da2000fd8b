"""Servers for the Redis store: a fake one, and a real one if it is installed.

The fake is fakeredis behind a socket, so that the connections of the store are tested.
"""

from __future__ import annotations

import asyncio
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler
from helpers import free_port
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from pythpeer.stores import RedisStore
from pythpeer.stores.redis.scripts import Script, script

PROGRAM: Final = shutil.which("redis-server") or shutil.which("valkey-server")
"""The path of the real server, if this machine has one."""

CANARY: Final = "hunter2-canary"
"""The password of `FaultyRedis`."""

TOOL: Final = shutil.which("redis-cli") or shutil.which("valkey-cli")
"""The path of its command-line client."""


needs_a_server: Final = pytest.mark.skipif(
    PROGRAM is None, reason="RedisStore on a real server: redis-server is not installed"
)


class RealServer:
    """A server process on a free loopback port, which can be killed and started again."""

    def __init__(self, folder: Path, *options: str, password: str = "") -> None:
        self.port = free_port()
        self.folder = folder
        self.password = password
        self._options = [*options, *(["--requirepass", password] if password else [])]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        assert PROGRAM is not None
        command = [PROGRAM, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        # Always, because a slow disk can delay a write by a second or two.
        command += ["--appendonly", "yes", "--appendfsync", "always", "--dir", str(self.folder)]
        command += self._options
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break  # its port was in use, or its data are damaged
            if self._is_ready():
                return
            time.sleep(0.005)
        self.kill()
        raise AssertionError("the server does not start")

    def _is_ready(self) -> bool:
        """Return whether this process is ready, and not another server on its port."""
        assert self._process is not None
        with suppress(RedisError), Redis(port=self.port, password=self.password or None) as client:
            client.ping()  # fails while it loads its data
            info = client.info("server")
            return isinstance(info, dict) and info["process_id"] == self._process.pid
        return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def delete_data(self) -> None:
        """Delete all data, as the restart of a server without a disk does."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def real_server(folder: Path, *options: str, password: str = "") -> Iterator[RealServer]:
    server = RealServer(folder, *options, password=password)
    server.start()
    try:
        yield server
    finally:
        server.kill()


async def make_tokens_available(store: RedisStore) -> None:
    """Let the server count as running for long, so that all tokens are available."""
    await store._connections.run_script(
        Script("redis.call('HSET', KEYS[1], 'since', 0)"), lambda: (store._keys.server,), ()
    )


class _Handler(TCPFakeRequestHandler):
    """A connection to the fake server, which stays open after an error, as on a real one."""

    def handle(self) -> None:
        client = self.current_client
        while not self.server._shutdown_event.is_set():
            try:
                if client.can_read():
                    self.writer.dump(client.read_response())
                elif line := self.rfile.readline():
                    client.get_socket().sendall(line)
                elif select.select([self.connection], [], [], 0.01)[0]:
                    line = self.rfile.readline()
                    if not line:
                        return
                    client.get_socket().sendall(line)
            except ResponseError as error:
                self.writer.dump(error)
            except OSError:
                return


@contextmanager
def fake_server() -> Iterator[str]:
    """Run a fake server in a thread; yield its URL."""
    server = TcpFakeServer(("127.0.0.1", 0))
    server.RequestHandlerClass = _Handler
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def leaks(error: BaseException | None) -> bool:
    """Return whether the password is in an error: in its text, its attributes or its frames."""
    if error is None:
        return False
    text = [str(error), repr(error.args), repr(vars(error))]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if not frame.f_code.co_filename.startswith(str(Path(__file__).parent)):
            text += [f"{name}={value!r}" for name, value in frame.f_locals.items()]
    return CANARY in "".join(text) or leaks(error.__context__) or leaks(error.__cause__)


class FaultyRedis:
    """A server with given responses to scripts, and with those of a server to other commands."""

    def __init__(
        self, *answers: bytes, version: str | None = "7.0.0", context: ssl.SSLContext | None = None
    ) -> None:
        self._context = context
        self.answers = deque(answers)
        self.version = version
        """The version that it reports; ``None`` if it denies the command for that."""
        self.scripts = 0
        self.commands: list[list[bytes]] = []
        self._muted: set[asyncio.StreamWriter] = set()
        self.silent = False
        """Whether it reads commands, and responds to none."""
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> RedisStore:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://:{CANARY}@127.0.0.1:{port}/0"
        self.store = RedisStore(self.url, patience=0.3)
        return self.store

    async def __aexit__(self, *exc_info: object) -> None:
        await self.store._connections.aclose()
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0.01)

    def reset(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._writers.clear()

    def mute(self) -> None:
        """Respond on no connection that is open now."""
        self._muted |= set(self._writers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                words: list[bytes] = []
                for _ in range(int((await reader.readuntil(b"\r\n"))[1:])):
                    size = int((await reader.readuntil(b"\r\n"))[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                self.commands.append(words)
                response = self._answer(words)
                if not self.silent and writer not in self._muted:
                    writer.write(response + b"\r\n")

    def _answer(self, words: list[bytes]) -> bytes:
        if words[0] == b"INFO" and self.version is None:
            return b"-NOPERM no permissions"
        if words[0] == b"INFO":
            text = f"redis_version:{self.version}\r\nrun_id:x".encode()
            return b"$%d\r\n%s" % (len(text), text)
        if words[0] == b"EVAL":  # register_run
            return b"*2\r\n$32\r\n" + 16 * b"00" + b"\r\n$1\r\n1"
        if words[1:2] == [script("rights").digest.encode()]:
            return b"*0"
        if words[0] == b"EVALSHA":
            self.scripts += 1
            return self.answers.popleft() if self.answers else b":7"
        return b"+OK"


class LosingProxy:
    """A proxy for a server. It loses the responses to chosen commands, and then the connection."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2].partition("/")[0])
        self._url = self.url = url
        self.lose: deque[bytes] = deque()
        """What the next commands contain whose responses are lost, in their order."""
        self.lost = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return self._url.replace(f":{self._port}/", f":{port}/")

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while data := await reader.read(1 << 20):
                downstream.write(data)
                response = await upstream.read(1 << 20)
                if self.lose and self.lose[0] in data:
                    self.lose.popleft()
                    self.lost += 1
                    break
                writer.write(response)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            downstream.close()
