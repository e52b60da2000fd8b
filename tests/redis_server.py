"""Servers for the Redis store: a fake one, and a real one if it is installed.

The fake is fakeredis behind a socket, so that the connections of the store are tested.
"""

from __future__ import annotations

import random
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from pythpeer.stores import RedisStore
from pythpeer.stores.redis.scripts import Script

PROGRAM: Final = shutil.which("redis-server") or shutil.which("valkey-server")
"""The path of the real server, if this machine has one."""

TOOL: Final = shutil.which("redis-cli") or shutil.which("valkey-cli")
"""The path of its command-line client."""


needs_a_server: Final = pytest.mark.skipif(
    PROGRAM is None, reason="RedisStore on a real server: redis-server is not installed"
)


class RealServer:
    """A server process on a free loopback port, which can be killed and started again."""

    def __init__(self, folder: Path, *options: str, password: str = "") -> None:
        self.port = _free_port()
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


def _free_port() -> int:
    """Return a free loopback port that the kernel assigns to no socket, so that it stays free.

    A cluster uses another port, which is greater by 10,000.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 22_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


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
        Script("redis.call('HSET', KEYS[1], 'since', 0)"), (store._keys.server,), ()
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
