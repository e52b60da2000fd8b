"""A Redis or Valkey server for a benchmark, on loopback, if one is installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

__all__ = ["NOT_INSTALLED", "redis_server"]

PROGRAM: Final = shutil.which("redis-server") or shutil.which("valkey-server")

NOT_INSTALLED: Final = (
    "Left out: RedisStore, because redis-server, valkey-server or redis is not installed."
)

START_TIMEOUT: Final = 10.0
"""Seconds within which the server must accept connections."""


@contextmanager
def redis_server() -> Generator[str | None]:
    """Run a server that writes its append-only file once a second, and yield its URL.

    Yields ``None`` if the server program or the client is not installed. The server is killed at
    the end.
    """
    if PROGRAM is None or find_spec("redis") is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [PROGRAM, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        options = ["--save", "", "--appendonly", "yes"]
        server = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
        try:
            _wait_for(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            server.wait()


def _wait_for(port: int) -> None:
    end = time.monotonic() + START_TIMEOUT
    while True:
        with socket.socket() as client:
            if not client.connect_ex(("127.0.0.1", port)):
                return
        if time.monotonic() > end:
            raise RuntimeError("the server did not start")
        time.sleep(0.01)
