"""`VirtualRedisStore`: a Redis store on virtual time, with a server in the event loop of the test.

The server is fakeredis, with the clock of the loop, and with a socket that needs neither a thread
nor a task. The store connects to it as to a real server.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import Callable
from typing import Any, Final

from fakeredis import FakeServer
from fakeredis._clients._tcp_server import encode_reply
from fakeredis._helpers import NoResponse
from fakeredis._socket import FakeSocket
from redis import Redis

from pythpeer.stores import RedisStore

__all__ = ["EPOCH", "Commands", "VirtualRedisStore", "flush_server"]

EPOCH: Final = 1_000_000_000
"""The server's time in seconds when the clock of the loop shows 0."""

RUN: Final = 3600
"""The seconds for which the server has been running by then: no requests from before matter."""

PROTECT_GLOBALS: Final = """
    setmetatable(_G, {
        __newindex = function(_, name)
            error('Script attempted to create global variable ' .. tostring(name))
        end
    })
"""
"""What a real server does before the first script."""


class VirtualRedisStore(RedisStore):
    """A store with a separate server, which responds while a session is open.

    Its content remains after the sessions, as on any other server.
    """

    def __init__(self, *, max_length: int) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        # asyncio sets this only where the protocol of the socket is stated. Without it the kernel
        # delays a second response by real time, and virtual time jumps over it.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        weakref.finalize(self, self._socket.close)
        self.port: int = self._socket.getsockname()[1]
        """The port of the server."""
        self.url = f"redis://127.0.0.1:{self.port}/0"
        """The URL of the server, for further stores on it."""
        super().__init__(self.url, max_length=max_length)
        self._data = FakeServer(version=(7,))
        self._server: asyncio.Server | None = None
        self.step = 0.0
        """The seconds by which the server's clock was set forward."""
        self._clients: set[_Client] = set()
        commands = Commands(self._data, 0, client_class=Redis)
        commands.write = bytes  # no client reads the response
        since = (EPOCH - RUN) * 1_000_000
        commands._process_command(
            [b"HSET", self._keys.server.encode(), b"run", b"", b"since", b"%d" % since]
        )
        commands.close()

    async def open(self) -> None:
        if self._server is None:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Client(self._data, self._clients, self._time), sock=self._socket.dup()
            )
        try:
            await super().open()
        finally:
            self._stop()

    def _time(self) -> float:
        return asyncio.get_running_loop().time() + self.step

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            self._stop()

    def _stop(self) -> None:
        if not self._sessions and self._server is not None:
            self._server.close()
            self._server = None
            for client in list(self._clients):
                client.close()


async def flush_server(port: int) -> None:
    """Delete all data of the server at a port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"*1\r\n$8\r\nFLUSHALL\r\n")
    assert await reader.readline() == b"+OK\r\n"
    writer.close()


class _Client(asyncio.Protocol):
    """One connection to the server."""

    def __init__(self, data: FakeServer, clients: set[_Client], clock: Callable[[], float]) -> None:
        self._data = data
        self._clock = clock
        self._clients = clients

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._commands = Commands(self._data, 0, client_class=Redis)
        self._commands.write = transport.write
        self._commands.clock = self._clock
        self._clients.add(self)

    def data_received(self, data: bytes) -> None:
        self._commands.sendall(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._commands.forget()
        self._commands.close()
        self._clients.discard(self)

    def close(self) -> None:
        self._transport.abort()


class _Lua:
    """The Lua runtime of fakeredis, made faster.

    fakeredis compiles a script for each call, collects all garbage after it, and looks for new
    global variables after each of its commands. Here it is compiled once, Lua collects garbage
    automatically, and an assignment to a new global variable is an error, as on a real server.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self.table_from: Callable[..., Any] = runtime.table_from
        self._compiled: dict[bytes | str, Callable[[], Any]] = {"collectgarbage()": lambda: None}
        runtime.execute(PROTECT_GLOBALS)

    def execute(self, script: bytes | str) -> Any:
        """Run a script, and return its result."""
        run = self._compiled.get(script)
        if run is None:
            run = self._compiled[script] = self._runtime.compile(script)
        return run()

    def globals(self) -> dict[bytes, Any]:
        """Return no variables: there are no new ones."""
        return {}


class Commands(FakeSocket):
    """The commands of a connection, executed with a given clock, and without blocking."""

    write: Callable[[bytes], object]
    clock: Callable[[], float]
    _end: asyncio.TimerHandle | None = None
    _changed: Callable[[], None]

    def time(self) -> list[bytes]:
        """The command TIME, also in scripts."""
        now = round((EPOCH + self.clock()) * 1_000_000)
        return [b"%d" % part for part in divmod(now, 1_000_000)]

    def put_response(self, msg: Any) -> None:
        self.write(encode_reply(msg, self._client_info.protocol_version))

    def _get_server_runtime(self, server: FakeServer) -> _Lua:
        """Return the Lua runtime of all connections to *server*."""
        lua: _Lua | None = vars(server).get("_lua")
        if lua is None:
            lua = vars(server)["_lua"] = _Lua(super()._get_server_runtime(server))
        return lua

    def _lua_redis_call(
        self, lua_runtime: Any, expected_globals: set[Any], op: bytes, *args: Any
    ) -> Any:
        """Execute a command of a script."""
        return super()._lua_redis_call(
            self._get_server_runtime(self._server), expected_globals, op, *args
        )

    def _blocking(
        self,
        timeout: float | None,
        func: Callable[[bool], Any],
        shape: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Respond when there is a result, or after the time-out."""
        result = func(True)
        if result is not None or not timeout:
            return result

        loop = asyncio.get_running_loop()

        def check() -> None:
            if self._end is not None and (result := func(False)) is not None:
                self.forget()
                self.put_response(self._decode_result(result))

        def expire() -> None:
            self.forget()
            self.put_response(None)

        def changed() -> None:
            loop.call_soon(check)  # not during a change

        self._changed = changed
        self._db.add_change_callback(self._changed)
        self._end = loop.call_later(timeout, expire)
        return NoResponse()

    def forget(self) -> None:
        """Stop waiting."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
            self._db.remove_change_callback(self._changed)
