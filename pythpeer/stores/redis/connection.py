"""`Connections`: the connections to the server, with retries, and the mapping of their errors.

The only importer of redis, with `server_errors`. No exception of it leaves this module, and no
password: an error is returned as a value to a frame that holds neither, and a cancellation leaves
without the frames in which it arrived. A script may be executed twice, because its response was
lost and it is sent again; every script must allow for that.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import ssl
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, cast

from ...errors import StoreError
from ...extras import install_advice
from ...tracebacks import strip_tracebacks
from .address import Address
from .keys import Keys
from .scripts import Script, script
from .server_errors import (
    ERRORS,
    NO_SCRIPT,
    REJECTIONS,
    denied,
    denied_command,
    error_code,
    is_about_data,
    is_response,
    is_reusable,
)

if TYPE_CHECKING:
    from redis.asyncio.connection import Connection

__all__ = ["Argument", "Connections"]

logger: Final = logging.getLogger(__name__)

Argument = bytes | str | int

_warned: Final[set[str]] = set()
"""The addresses for which the warning about encryption was logged in this process."""

MIN_VERSION: Final = 7
"""The oldest supported version of the server."""

_inherited: Final[list[Any]] = []
"""The connections of a parent process. To close one would end its registration with the parent's
event loop, which both processes share."""

MAX_CONNECTIONS: Final = 8
"""The number of commands that are under way at the same time, and of idle connections that are kept
open. A command that waits for an append has a separate connection, one for each log that a session
follows."""

BASE_BACKOFF: Final = 0.05
"""Seconds before the first retry, while the server is not reachable."""

MAX_BACKOFF: Final = 1.0
"""The maximum of seconds before a retry."""


def _pack(args: Iterable[Argument]) -> bytes:
    """Encode arguments in the protocol. redis-py's own encoder takes as long as the server does."""
    parts: list[bytes] = []
    for arg in args:
        if isinstance(arg, bytes):
            data = arg
        elif isinstance(arg, int):
            data = b"%d" % arg
        else:
            data = str(arg).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


@lru_cache(256)
def _pack_cached(*args: Argument) -> bytes:
    """Encode the beginning of a command that is sent often."""
    return _pack(args)


def _pack_command(opening: bytes, count: int, args: Sequence[Argument]) -> bytes:
    """Encode a command of *count* arguments that are encoded in *opening*, and of *args*."""
    return b"*%d\r\n%b%b" % (count + len(args), opening, _pack(args))


@cache
def _driver() -> dict[str, Any]:
    """Return the options that report redis-py's version to the server.

    A newer redis-py would otherwise look its version up for each connection.
    """
    options: dict[str, Any] = {}
    with suppress(ImportError):
        from redis.driver_info import DriverInfo

        options["driver_info"] = DriverInfo()
    return options


class _Failure:
    """The reason why there is no response."""

    __slots__ = ("error", "malformed", "other_salt", "retryable", "stale")

    def __init__(
        self,
        error: StoreError,
        *,
        retryable: bool = False,
        stale: bool = False,
        malformed: bool = False,
        other_salt: bool = False,
    ) -> None:
        self.error = error
        self.other_salt: Final = other_salt
        """Whether the names of the keys were made with a salt that the store does not have now."""
        self.malformed: Final = malformed
        """Whether a script has failed because of what is stored."""
        self.retryable: Final = retryable
        """Whether another attempt may succeed."""
        self.stale: Final = stale
        """Whether an idle connection was found dead, so that a new one may succeed immediately."""

    def take_error(self) -> StoreError:
        """Return the error, which is raised then, and keep no reference to it.

        Otherwise the error and the frame that has this failure would refer to each other.
        """
        error = self.error
        del self.error
        return error


class Connections:
    """The connections of a store to the server at *address*.

    *timeout* limits the wait for one response, *max_wait* the time for which a call retries while
    the server is not reachable; both are in seconds. *keys* has the key for the server's run, and
    the salt.

    Invariants: a connection is either idle or used by one command; after an error or a
    cancellation, when a response may still arrive on it, it is discarded. When one idle connection
    is found dead, all of them are discarded, because the same event has probably ended them all.
    """

    def __init__(self, address: Address, keys: Keys, *, timeout: float, max_wait: float) -> None:
        self._address = address
        self._keys = keys
        self._timeout = timeout
        self._max_wait = max_wait
        self._node: tuple[str, int] | None = None
        """The host and port to which a cluster has redirected. Changed by `_explain`."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the idle connections and of the semaphore."""
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        """Limits the commands under way. Replaced in another event loop."""
        self._idle: list[Connection] = []
        """The open connections that no command uses."""
        self._open = False
        """Whether commands are allowed. Changed by `open` and `aclose`."""
        self.has_renamed: bool = False
        """Whether the keys of version 0.1 have been renamed. Read at each new connection."""
        self._has_salt = False
        """Whether the salt is that of the store. Set by the first connection."""
        self._was_accepted = False
        """Whether the server has accepted the credentials since `open`. A rejection after that is
        transient: the password is being changed. Changed by `open`."""

    async def open(self) -> None:
        """Check that the server can be used. Raises `StoreError` without a retry if it cannot."""
        self._open = find_spec("redis") is not None
        if not self._open:
            raise StoreError(f"RedisStore needs redis; {install_advice('redis')}")
        self._was_accepted = False
        failure = await self._try_open()
        if failure is not None:
            await self.aclose()
            raise failure.take_error()
        self._was_accepted = True
        if self._address.is_exposed and str(self._address) not in _warned:
            _warned.add(str(self._address))
            logger.warning(
                "the connection to the store at %s is not encrypted: use rediss:// unless the"
                " network is trusted",
                self._address,
            )

    async def _try_open(self) -> _Failure | None:
        """Check that the server responds, and that the user has all rights."""
        outcome = await self._execute_once(_pack_command(b"", 0, ("PING",)))
        if isinstance(outcome, _Failure):
            return outcome
        rights, server = script("rights"), self._keys.server
        command = _pack_command(b"", 0, ("EVALSHA", rights.digest, 1, server))
        missing = await self._execute_once(command)
        if isinstance(missing, _Failure) and missing.error.args == (NO_SCRIPT,):
            missing = await self._execute_once(
                _pack_command(b"", 0, ("EVAL", rights.text, 1, server))
            )
        if isinstance(missing, _Failure):
            return missing
        names = ", ".join(name.decode() for name in missing)
        return self._failure(denied(names), transient=False) if names else None

    def reset_after_fork(self) -> None:
        """Use none of the connections in a child process, and close none."""
        _inherited.extend(self._idle)
        self._idle = []
        self._open, self._loop = False, None

    async def aclose(self) -> None:
        """Close idle connections. Others are closed after their command."""
        self._open = False
        await self._discard_idle()

    async def run_script(
        self,
        script: Script,
        keys: Callable[[], Sequence[Argument]],
        args: Sequence[Argument],
        *,
        fixed_args: Sequence[Argument] = (),
    ) -> Any:
        """Execute a script and return its response. Retries while the server is not reachable.

        *keys* returns the keys; it is called again if the store has another salt now. *fixed_args*
        are arguments before *args* that a caller passes with each call.
        """
        outcome = await self._try_script(script, keys(), args, fixed_args)
        if isinstance(outcome, _Failure) and outcome.other_salt:
            await self._discard_idle()
            await self._execute(_pack_command(b"", 0, ("PING",)))  # a new connection reads the salt
            outcome = await self._try_script(script, keys(), args, fixed_args)
        if isinstance(outcome, _Failure):
            raise outcome.take_error()
        return outcome

    async def _try_script(
        self,
        script: Script,
        keys: Sequence[Argument],
        args: Sequence[Argument],
        fixed_args: Sequence[Argument],
    ) -> Any:
        """Execute a script. Returns its response, or the last `_Failure`."""
        count = 3 + len(keys) + len(fixed_args)
        command = _pack_command(
            _pack_cached("EVALSHA", script.digest, len(keys), *keys, *fixed_args), count, args
        )
        loop = asyncio.get_running_loop()
        end, backoff, was_stale = loop.time() + self._max_wait, BASE_BACKOFF, False
        while True:
            outcome = await self._execute(command)
            if isinstance(outcome, _Failure) and outcome.error.args == (NO_SCRIPT,):
                # Nothing was executed. This executes it, and the server keeps it.
                opening = _pack_cached("EVAL", script.text, len(keys), *keys, *fixed_args)
                outcome = await self._execute(_pack_command(opening, count, args))
            if not isinstance(outcome, _Failure):
                return outcome
            if outcome.stale and not was_stale:
                was_stale = True
                continue
            wait = random.uniform(backoff / 2, backoff)
            if outcome.malformed:
                outcome = self._failure(_malformed(self._shown(str(keys[0]))), transient=False)
            if not outcome.retryable or loop.time() + wait > end:
                return outcome
            await asyncio.sleep(wait)
            backoff = min(2 * backoff, MAX_BACKOFF)

    async def wait_for_entry(self, stream: Argument, last: int, seconds: float) -> bool:
        """Return whether a stream gets entries with ids over *last* within *seconds*."""
        block = max(1, int(seconds * 1000))
        command = ("XREAD", "COUNT", 1, "BLOCK", block, "STREAMS", stream, f"{last}-0")
        outcome = await self._execute_once(_pack_command(b"", 0, command), self._timeout + seconds)
        if isinstance(outcome, _Failure) and outcome.stale:
            return False  # immediately, so that the caller asks again on a new connection
        if isinstance(outcome, _Failure):
            raise outcome.take_error()
        return bool(outcome)

    async def scan(self, prefix: str) -> list[str]:
        """Return the keys with a prefix, some perhaps twice. Scans all keys of the database."""
        pattern = re.sub(r"[*?\[\]^\\]", r"\\\g<0>", prefix) + "*"
        names: list[str] = []
        cursor: Argument = 0
        while True:
            command = ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            cursor, keys = await self._execute_or_raise(*command)
            names += [key.decode("utf-8", "replace") for key in keys]
            if not int(cursor):
                return names

    async def rename_keys(self) -> None:
        """Rename the keys of version 0.1, whose names contain the digest of a key."""
        for name in set(await self.scan(self._keys.tag)):
            new_name = self._keys.stored(name)
            if new_name != name:
                await self._execute_or_raise("RENAMENX", name, new_name)
        await self._execute_or_raise("HSET", self._keys.server, "renamed", 1)

    async def _execute_or_raise(self, *words: Argument) -> Any:
        outcome = await self._execute(_pack_command(b"", 0, words))
        if isinstance(outcome, _Failure):
            raise outcome.take_error()
        return outcome

    # -- one attempt ------------------------------------------------------------------------------

    async def _execute(self, command: bytes) -> Any:
        """Execute a command as `_execute_once` does, with a limited number of connections."""
        self._rebind()
        slots = self._slots
        if slots.locked():
            try:
                async with asyncio.timeout(self._timeout):
                    await slots.acquire()
            except TimeoutError:
                return self._timeout_error()
        else:
            await slots.acquire()
        try:
            return await self._execute_once(command)
        finally:
            slots.release()

    def _rebind(self) -> None:
        """Switch to the running loop. Connections of another one cannot be used."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._idle.clear()
            self._loop, self._slots = loop, asyncio.Semaphore(MAX_CONNECTIONS)

    async def _execute_once(self, command: bytes, timeout: float | None = None) -> Any:
        """Send a command. Returns its response, or a `_Failure`."""
        if not self._open:
            return _Failure(StoreError("the store is not open: a session opens it"))
        connection = self._take_idle()
        stale = connection is not None
        try:
            if connection is None:
                connection = await self._connect()
            async with asyncio.timeout(timeout or self._timeout):
                await connection.send_packed_command(command, check_health=False)
                response = cast("object", await connection.read_response())
        except Exception as error:  # noqa: BLE001 - a closed transport may raise any
            strip_tracebacks(error)
            return await self._on_error(connection, error, stale=stale)
        except BaseException as error:
            strip_tracebacks(error)
            if connection is not None:
                await _discard(connection)
            raise
        await self._release(connection)
        return response

    async def _on_error(
        self, connection: Connection | None, error: Exception, *, stale: bool
    ) -> _Failure:
        """Release or discard the connection of a failed command. Returns the failure."""
        if connection is not None and is_reusable(error):
            await self._release(connection)
        elif connection is not None:
            await _discard(connection)
        node = self._node
        failure = self._explain(error)
        stale = stale and failure.retryable and not is_response(error)
        if self._node != node or stale:
            await self._discard_idle()
        return _Failure(
            failure.error,
            retryable=failure.retryable,
            stale=stale,
            malformed=not failure.retryable and is_about_data(error),
            other_salt=error_code(error) == "SALT",
        )

    def _take_idle(self) -> Connection | None:
        self._rebind()
        return self._idle.pop() if self._idle else None

    async def _connect(self) -> Connection:
        connection = self._new_connection()
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
                # Not as its `redis_connect_func`, with which it calls what Python 3.14 deprecates.
                await self._on_connect(connection)
        except BaseException as error:
            strip_tracebacks(error)
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
            """Keeps the password out of the attributes of a connection."""

            def get_credentials(self) -> tuple[str] | tuple[str, str]:
                password = "" if address.password is None else address.password.reveal()
                return (password,) if address.username is None else (address.username, password)

            async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
                # redis-py warns at each connection where only the other method exists.
                return self.get_credentials()

        host, port = self._node or (address.host, address.port)
        secret = address.password is not None or address.username is not None
        connection_class = SSLConnection if address.tls else Connection
        options: dict[str, Any] = {**_driver(), **dict(address.files)}
        if address.tls:
            # Explicitly: old versions of redis-py do not check by default for which host a
            # certificate is.
            options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        return connection_class(
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
        """Check the version of the server, and register its run in the store's keys."""
        from redis.exceptions import InvalidResponse, ResponseError

        await connection.send_command("INFO", "server")
        try:
            response = cast("bytes", await connection.read_response())
        except ResponseError as error:
            strip_tracebacks(error)
            response = b""  # not permitted; a new and empty server is still recognised
        lines = (line.partition(":") for line in response.decode("utf-8", "replace").splitlines())
        server = {name: value for name, _, value in lines}
        version = server.get("redis_version", "")
        if version.partition(".")[0].isdigit() and int(version.partition(".")[0]) < MIN_VERSION:
            raise InvalidResponse(
                f"has version {version}, and {MIN_VERSION}.0 is the oldest supported one"
            )
        run = server.get("run_id", "")
        text, salt = script("register_run").text, self._keys.salt.hex()
        known = int(self._has_salt)
        await connection.send_command("EVAL", text, 1, self._keys.server, run, salt, known)
        stored_salt, renamed = cast("list[bytes]", await connection.read_response())
        try:
            self._keys.salt = bytes.fromhex(stored_salt.decode())
        except ValueError:
            raise InvalidResponse(_malformed(self._keys.server)) from None
        self._has_salt = True
        self.has_renamed = renamed == b"1"

    # -- errors -----------------------------------------------------------------------------------

    def _explain(self, error: Exception) -> _Failure:
        from redis import exceptions as e

        text, code = str(error), error_code(error)
        if code == "NOSCRIPT":
            return _Failure(StoreError(NO_SCRIPT))
        if code == "MOVED":
            self._follow(text)
        if code in REJECTIONS:
            return self._failure(ERRORS[code][0], transient=self._was_accepted)
        if code == "NOPERM":
            return self._failure(denied(denied_command(text)), transient=False)
        if code in ERRORS:
            reason, transient, retryable = ERRORS[code]
            return self._failure(reason, transient=transient, retryable=retryable)
        if is_about_data(error):
            return self._failure(_malformed(self._keys.server), transient=False)
        if isinstance(error, e.InvalidResponse):
            return self._failure(self._shown(text), transient=False)
        if isinstance(error, e.ResponseError):
            return self._failure(f"returned an error: {self._shown(text)}", transient=False)
        self._node = None
        if isinstance(error, e.TimeoutError | TimeoutError):
            return self._timeout_error()
        if isinstance(error.__context__, ssl.SSLCertVerificationError):
            reason = "has a certificate that is not trusted, has expired, or is for another host"
            return self._failure(reason, transient=self._was_accepted)
        return self._failure("cannot be reached", retryable=True)

    def _follow(self, text: str) -> None:
        """Connect to the node that "MOVED slot host:port" names, from now on.

        All keys have the same hash tag, so one node has them all.
        """
        match = re.fullmatch(r"(?:MOVED )?\d+ (\S*):(\d{1,5})", text)
        self._node = (match[1] or self._address.host, int(match[2])) if match else None

    def _timeout_error(self) -> _Failure:
        return self._failure(f"did not respond within {self._timeout:g} s", retryable=True)

    def _failure(self, reason: str, *, transient: bool = True, retryable: bool = False) -> _Failure:
        text = f"the store at {self._address} {reason}"
        return _Failure(StoreError(text, transient=transient), retryable=retryable)

    def _shown(self, text: str) -> str:
        """Return a text of the server without the password and without control characters.

        A user name without a password may be a password whose colon is missing.
        """
        password, name = self._address.password, self._address.username
        if password is not None:
            for spelling in (password.reveal(), password.encoded()):
                text = text.replace(spelling, "***")
        elif name is not None:
            text = text.replace(name, "***")
        return "".join(c if c.isprintable() else "?" for c in text)[:200]


def _malformed(key: str) -> str:
    """Return the reason where a script fails because of what is stored."""
    return (
        f"has malformed data under the key {key}, or under another one with this end: another"
        " program has written there"
    )


async def _discard(connection: Connection) -> None:
    with suppress(Exception):  # it is not used any more
        await connection.disconnect(nowait=True)
