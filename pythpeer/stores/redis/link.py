"""The connections to the server, and all that can go wrong with them.

The only importer of redis. No exception of it leaves this module, nor a password: failures are
values up to a frame that holds neither. Every script may run twice, because its answer was lost and
it is asked again; those who write scripts see to it that this does no harm.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

from ...errors import StoreError
from .address import Address
from .scripts import Script, script

if TYPE_CHECKING:
    from redis.asyncio.connection import Connection

__all__ = ["Argument", "Connections"]

Argument = bytes | str | int

MIN_VERSION: Final = 7
"""The oldest version of the server that works."""

MAX_CONNECTIONS: Final = 8
"""How many questions are under way at a time, and connections kept open that nobody uses just now.
Questions for news have connections of their own: one for each log that a session follows."""

BASE_BACKOFF: Final = 0.05
"""Seconds after which a server that is away is tried again, at first."""

MAX_BACKOFF: Final = 1.0
"""The same in the end."""


def _pack(args: Iterable[Argument]) -> bytes:
    """Arguments as they travel: redis-py's own way takes as long as the server does."""
    parts: list[bytes] = []
    for arg in args:
        data = b"%d" % arg if isinstance(arg, int) else arg if isinstance(arg, bytes) else None
        data = str(arg).encode() if data is None else data
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


@lru_cache(256)
def _pack_cached(*args: Argument) -> bytes:
    """How a command begins that is said time and again."""
    return _pack(args)


def _pack_command(opening: bytes, count: int, args: Sequence[Argument]) -> bytes:
    """A command of *count* arguments that are packed already, and more."""
    return b"*%d\r\n%b%b" % (count + len(args), opening, _pack(args))


@cache
def _driver() -> dict[str, Any]:
    """What a server is told of redis-py. A newer one looks its version up for each connection."""
    found: dict[str, Any] = {}
    with suppress(ImportError):
        from redis.driver_info import DriverInfo

        found["driver_info"] = DriverInfo()
    return found


class _Failure:
    """Why there is no answer."""

    __slots__ = ("error", "retryable")

    def __init__(self, error: StoreError, *, retryable: bool = False) -> None:
        self.error: Final = error
        self.retryable: Final = retryable
        """Whether to ask again makes sense."""


class Connections:
    """What a store says to the server at *address*, and hears from it.

    *timeout* limits one answer, *patience* how long one waits for a server that is away; both are
    seconds. *marker* is the key under which the server's run is noted.
    """

    def __init__(self, address: Address, *, run_key: str, timeout: float, max_wait: float) -> None:
        self._address = address
        self._run_key = run_key
        self._timeout = timeout
        self._max_wait = max_wait
        self._node: tuple[str, int] | None = None  # where a cluster has sent us
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._idle: list[Connection] = []
        self._errors: tuple[type[Exception], ...] = (OSError,)  # and redis-py's, once it is open
        self._open = False

    async def open(self) -> None:
        """See that the server is there and of use. Raises `StoreError` at once where it is not."""
        with suppress(ImportError):
            from redis.exceptions import RedisError

            self._errors = (RedisError, OSError)
            self._open = True
        if not self._open:
            raise StoreError("RedisStore needs the extra: pip install 'pythpeer[redis]'")
        outcome = await self._execute_once(_pack_command(b"", 0, ("PING",)))
        if isinstance(outcome, _Failure):
            await self.aclose()
            raise outcome.error

    async def aclose(self) -> None:
        """Close the connections. Those in use end with what they are used for."""
        self._open = False
        await self._discard_idle()

    async def run_script(
        self,
        script: Script,
        keys: Sequence[Argument],
        args: Sequence[Argument],
        *,
        fixed_args: Sequence[Argument] = (),
    ) -> Any:
        """Run a script and return its answer. Waits a moment for a server that is away.

        *always* are arguments before *args* that a caller hands over time and again.
        """
        count = 3 + len(keys) + len(fixed_args)
        command = _pack_command(
            _pack_cached("EVALSHA", script.digest, len(keys), *keys, *fixed_args), count, args
        )
        loop = asyncio.get_running_loop()
        end, step = loop.time() + self._max_wait, BASE_BACKOFF
        while True:
            outcome = await self._execute(command)
            if isinstance(outcome, _Failure) and outcome.error.args == (NO_SCRIPT,):
                # Nothing was done; this does it, and has it known from now on.
                opening = _pack_cached("EVAL", script.text, len(keys), *keys, *fixed_args)
                outcome = await self._execute(_pack_command(opening, count, args))
            if not isinstance(outcome, _Failure):
                return outcome
            wait = random.uniform(step / 2, step)
            if not outcome.retryable or loop.time() + wait > end:
                break
            await asyncio.sleep(wait)
            step = min(2 * step, MAX_BACKOFF)
        raise outcome.error

    async def wait_for_entry(self, stream: Argument, last: int, seconds: float) -> bool:
        """Wait until a stream has entries with ids over *last*, *seconds* at most: has it?"""
        block = max(1, int(seconds * 1000))
        command = ("XREAD", "COUNT", 1, "BLOCK", block, "STREAMS", stream, f"{last}-0")
        outcome = await self._execute_once(_pack_command(b"", 0, command), self._timeout + seconds)
        if isinstance(outcome, _Failure):
            raise outcome.error
        return bool(outcome)

    async def scan(self, start: str) -> list[str]:
        """The keys that begin so, each perhaps more than once. Looks through all that there are."""
        pattern = "".join(f"\\{each}" if each in "*?[]^\\" else each for each in start) + "*"
        found: list[str] = []
        cursor: Argument = 0
        while True:
            command = ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            outcome = await self._execute(_pack_command(b"", 0, command))
            if isinstance(outcome, _Failure):
                raise outcome.error
            cursor, keys = outcome
            found += [key.decode("utf-8", "replace") for key in keys]
            if not int(cursor):
                return found

    # -- one try ----------------------------------------------------------------------------------

    async def _execute(self, command: bytes) -> Any:
        """One answer as `_attempt` gives it, in turn: a thousand streams need no more sockets."""
        self._rebind()
        turn = self._slots
        if turn.locked():
            try:
                async with asyncio.timeout(self._timeout):
                    await turn.acquire()
            except TimeoutError:
                return self._timeout_error()
        else:
            await turn.acquire()
        try:
            return await self._execute_once(command)
        finally:
            turn.release()

    def _rebind(self) -> None:
        """Come to the running loop. The connections of another one are gone with it."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._idle.clear()
            self._loop, self._slots = loop, asyncio.Semaphore(MAX_CONNECTIONS)

    async def _execute_once(self, command: bytes, timeout: float | None = None) -> Any:
        """One answer, or the failure to get one as a value."""
        if not self._open:
            return _Failure(StoreError("the store is not open: a session opens it"))
        connection: Connection | None = None
        try:
            connection = await self._acquire()
            async with asyncio.timeout(timeout or self._timeout):
                await connection.send_packed_command(command, check_health=False)
                answer = cast("object", await connection.read_response())
        except self._errors as error:
            if connection is not None and _is_reusable(error):
                await self._release(connection)
            elif connection is not None:
                await _discard(connection)
            node = self._node
            failure = self._explain(error)
            if self._node != node:
                await self._discard_idle()  # they lead elsewhere
            return failure
        except BaseException:
            if connection is not None:
                await _discard(connection)
            raise
        await self._release(connection)
        return answer

    async def _acquire(self) -> Connection:
        self._rebind()
        if self._idle:
            return self._idle.pop()
        connection = self._new_connection()
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
                # Not as its `redis_connect_func`, of which it asks what Python 3.14 deprecates.
                await self._on_connect(connection)
        except BaseException:
            await _discard(connection)
            raise
        return connection

    async def _discard_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await _discard(connection)

    async def _release(self, connection: Connection) -> None:
        if self._open and len(self._idle) < MAX_CONNECTIONS:
            self._idle.append(connection)
        else:
            await _discard(connection)

    def _new_connection(self) -> Connection:
        from redis.asyncio.connection import Connection, SSLConnection
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.credentials import CredentialProvider

        address = self._address

        class Credentials(CredentialProvider):
            """So that no connection has the password among its attributes."""

            def get_credentials(self) -> tuple[str] | tuple[str, str]:
                password = "" if address.password is None else address.password.reveal()
                return (password,) if address.username is None else (address.username, password)

        host, port = self._node or (address.host, address.port)
        secret = address.password is not None or address.username is not None
        kind = SSLConnection if address.tls else Connection
        options: dict[str, Any] = {**_driver(), **dict(address.files)}
        return kind(
            host=host,
            port=port,
            db=address.db,
            credential_provider=Credentials() if secret else None,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=self._timeout,
            retry=Retry(NoBackoff(), 0),
            **options,
        )

    async def _on_connect(self, connection: Connection) -> None:
        """See which server a new connection leads to, and check what the store's keys say of it."""
        from redis.exceptions import InvalidResponse, ResponseError

        await connection.send_command("INFO", "server")
        try:
            answer = cast("bytes", await connection.read_response())
        except ResponseError:
            answer = b""  # not for us to know; that a server is empty shows all the same
        lines = (line.partition(":") for line in answer.decode("utf-8", "replace").splitlines())
        server = {name: value for name, _, value in lines}
        version = server.get("redis_version", "")
        if version.partition(".")[0].isdigit() and int(version.partition(".")[0]) < MIN_VERSION:
            raise InvalidResponse(
                f"is version {version}, and {MIN_VERSION}.0 is the oldest that works"
            )
        run = server.get("run_id", "")
        await connection.send_command("EVAL", script("greet").text, 1, self._run_key, run)
        await connection.read_response()

    # -- what went wrong --------------------------------------------------------------------------

    def _explain(self, error: Exception) -> _Failure:
        from redis import exceptions as e

        text, word = str(error), _error_code(error)
        if word == "NOSCRIPT":
            return _Failure(StoreError(NO_SCRIPT))
        if word == "MOVED":
            # All keys have one hash tag, so that one node has them all.
            host, _, port = text.rpartition(" ")[2].rpartition(":")
            self._node = (host or self._address.host, int(port))
        if word in ERRORS:
            reason, transient, again = ERRORS[word]
            return self._failure(reason, transient=transient, retryable=again)
        if isinstance(error, e.InvalidResponse):
            return self._failure(text, transient=False)
        if isinstance(error, e.ResponseError):
            return self._failure(f"says: {self._redacted(text)[:200]}", transient=False)
        self._node = None
        if isinstance(error, e.TimeoutError | TimeoutError):
            return self._timeout_error()
        return self._failure("cannot be reached", retryable=True)

    def _timeout_error(self) -> _Failure:
        return self._failure(f"gave no answer within {self._timeout:g} s", retryable=True)

    def _failure(self, reason: str, *, transient: bool = True, retryable: bool = False) -> _Failure:
        text = f"the store at {self._address} {reason}"
        return _Failure(StoreError(text, transient=transient), retryable=retryable)

    def _redacted(self, text: str) -> str:
        password = self._address.password
        return text if password is None else text.replace(password.reveal(), "***")


NO_SCRIPT: Final = "the server does not know the script"


ERRORS: Final = {
    "NOAUTH": ("refuses the user name or the password", False, False),
    "WRONGPASS": ("refuses the user name or the password", False, False),
    "NOPERM": ("refuses the user name or the password", False, False),
    "LOADING": ("is still loading its data", True, True),
    "READONLY": ("is a replica just now, and cannot be written", True, True),
    "OOM": ("has no memory left: raise its maxmemory", True, False),
    "MISCONF": ("cannot save to its disk, and refuses to be written", True, False),
    "MOVED": ("is a cluster that sends us from node to node", True, True),
    "CLUSTERDOWN": ("is a cluster that is not complete just now", True, True),
    "TRYAGAIN": ("is a cluster that is not complete just now", True, True),
}
"""What the first word of an answer means, whether it passes by itself, and whether to ask again."""


def _error_code(error: Exception) -> str:
    """The first word of what the server says. Versions of redis-py differ in making it a class."""
    from redis import exceptions as e

    classes: dict[str, type[Exception]] = {
        "NOSCRIPT": e.NoScriptError,
        "NOAUTH": e.AuthenticationError,
        "NOPERM": e.NoPermissionError,
        "LOADING": e.BusyLoadingError,
        "OOM": e.OutOfMemoryError,
        "READONLY": e.ReadOnlyError,
        "MOVED": e.MovedError,
        "CLUSTERDOWN": e.ClusterDownError,
        "TRYAGAIN": e.TryAgainError,
    }
    for word, kind in classes.items():
        if isinstance(error, kind):
            return word
    text = str(error)
    return "OOM" if "OOM command not allowed" in text else text.partition(" ")[0]


def _is_reusable(error: Exception) -> bool:
    """Whether the connection can still be used: the server answered, if with a no."""
    from redis.exceptions import ResponseError

    return isinstance(error, ResponseError) and _error_code(error) != "READONLY"


async def _discard(connection: Connection) -> None:
    with suppress(Exception):  # it was of no use any more
        await connection.disconnect(nowait=True)
