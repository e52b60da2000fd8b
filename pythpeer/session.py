"""The session: owns the keys, the limiters and the store, and the connections while it is open."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar, Unpack

import anyio
import msgspec

from .calls import Caller
from .errors import InvalidRequestError, SessionClosedError
from .health import EndpointHealth, OutcomeTracker, SessionHealth, utc_now
from .hooks import GapEvent, Hook, Hooks, RequestEvent, ResponseEvent, RetryEvent, Telemetry
from .misuse import AsyncContextOnly
from .options import (
    Keys,
    SessionOptions,
    add_environment,
    check_rates,
    check_ssl_context,
    check_store,
    check_type,
    misspelt_rates,
)
from .pacing.bucket import Rate
from .pacing.limiter import Limiter
from .peerbet import Peerbet
from .pythbots import KEY_PARAM, PythBots
from .retry import Retry
from .secret import Secret
from .stores import MemoryStore, Store
from .streams.poller import Pollers
from .validation import (
    INT32_MAX,
    check_duration,
    check_integer,
    check_seconds,
    check_time_limit,
    check_url,
)
from .version import __version__
from .wire.endpoints import Endpoint
from .wire.query import Param
from .wire.request import Request

if TYPE_CHECKING:
    from .transport import Transport

__all__ = ["Session", "SessionOptions"]

T = TypeVar("T")

logger: Final = logging.getLogger(__name__)

# No output, unless the program configures logging.
logging.getLogger(__package__).addHandler(logging.NullHandler())


class Diagnostics(msgspec.Struct, frozen=True, kw_only=True):
    """What the doctor needs of an open session, to send requests of its own."""

    caller: Caller
    """Gets tokens and sends requests."""

    chat_endpoint: Endpoint[object]
    """Peerbet's endpoint for reading the chat."""

    user_endpoint: Endpoint[object]
    """PythBots' endpoint for looking up a user."""

    staff_endpoint: Endpoint[object]
    """PythBots' endpoint for the staff of a chat."""

    stats_endpoint: Endpoint[object]
    """PythBots' endpoint for the statistics of a chat."""

    mail_endpoint: Endpoint[object]
    """PythBots' endpoint for reading all mail."""

    keys: Keys
    """The keys of the session."""

    headers: Mapping[str, Secret] | None
    """The headers of each request to PythBots, ``None`` without an API key."""

    key_param: str
    """The name of the parameter for the personal key."""

    ssl_context: ssl.SSLContext | None
    """The user's TLS context, ``None`` for the default."""


class Session(AsyncContextOnly):
    """One user's access to both services: ``async with Session(...) as session``.

    A session belongs to the event loop in which it was opened; once closed it can be opened again.
    It runs no background task, so it may be entered in one task and left in another.

    Args:
        peerbet_key: The Peerbet key, text or `Secret`; needed for posting and for private messages.
            It is sent in the URL, as documented.
        personal_key: The personal key of PythBots; needed for mail. It is sent in the URL, as
            documented.
        pythbots_api_key: The API key of PythBots, ASCII only. It is sent in a header.
        peerbet_url: The address of Peerbet: https, or plain http to this machine.
        pythbots_url: The address of PythBots: https, or plain http to this machine.
        personal_key_param: The name of the mail service's parameter for the personal key: by
            default ``"personal_key"``. The documentation shows it as ``personalkey``.
        rates: Rates by endpoint name, in place of the defaults. A name that is similar to that of a
            built-in endpoint is logged at WARNING when the session is opened.
        retry: The retry policy for failed reads; by default 4 attempts, with random delays of at
            most 0.5 s at first, doubled each time, and never more than 30 s.
        timeout: Seconds of one attempt at most, header and body, counted from its token; more than
            0, or ``math.inf``. A call can have a limit of its own; the polls of streams have this.
            Within it, each address of the service has 5 s to accept a connection, with TLS; that is
            fixed.
        max_wait: Seconds that a call may wait for a token, or ``math.inf``; a stream's poll waits
            without a limit.
        store: Where positions, logs and pacing are kept; by default a new `MemoryStore`.
        max_body: Bytes of a response body at most; by default 1 MiB.
        max_header: Bytes of one header of a response at most; by default 16 KiB. A response has at
            most 128 headers.
        idle_check: Seconds without a message after which a chat stream looks for the newest one, in
            place of a normal poll, to notice that the ids began again at 1; 0 never does. Sessions
            that share a store should have the same value, because any of them polls.
        ssl_context: A TLS context, for a private certificate authority. It must check certificates
            and host names: that cannot be switched off.
        on_request: A hook that is called before each request is sent.
        on_response: A hook that is called after each request, with or without a response.
        on_retry: A hook that is called before a failed read is repeated.
        on_gap: A hook that is called when messages may be missing.
        telemetry: A `Telemetry`, which receives further events, such as
            ``pythpeer.otel.OpenTelemetry()``.

    A hook is a function or a coroutine function that receives one frozen event. A function is
    called immediately, within the call, and should return fast. A coroutine function runs in a
    separate task, one event after the other in order: it delays no call, misses events while 1000
    are waiting for it, and has one second to end when the session is closed. An exception that a
    hook raises is logged, once for each hook, and affects nothing else.

    Raises:
        InvalidRequestError: If an option is not valid; raised immediately, before anything is sent.
        StoreError: If another session on *store* has a different rate for one of the endpoints.
    """

    # Invariants: `_transport` is set exactly while the session is open, and `_loop` is the event
    # loop in which it was opened last. The store is open whenever `_transport` is set. Opening is
    # done under `_open_lock`, so two tasks that open a session at the same time open it once.

    def __init__(
        self,
        *,
        peerbet_key: str | Secret | None = None,
        personal_key: str | Secret | None = None,
        pythbots_api_key: str | Secret | None = None,
        peerbet_url: str = "https://www.peerbet.org",
        pythbots_url: str = "https://pythbots.com",
        personal_key_param: str = KEY_PARAM,
        rates: Mapping[str, Rate] | None = None,
        retry: Retry = Retry(),
        timeout: float = 20.0,
        max_wait: float = 60.0,
        store: Store | None = None,
        max_body: int = 1_048_576,
        max_header: int = 16_384,
        idle_check: float = 60.0,
        ssl_context: ssl.SSLContext | None = None,
        on_request: Hook[RequestEvent] | None = None,
        on_response: Hook[ResponseEvent] | None = None,
        on_retry: Hook[RetryEvent] | None = None,
        on_gap: Hook[GapEvent] | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        # First of all, so that no later error can show a key among this frame's variables.
        self._keys = Keys.wrap(peerbet_key, personal_key, pythbots_api_key)
        """The keys, which never change."""
        peerbet_key = personal_key = pythbots_api_key = None
        self._keys.raise_error()
        self._store: Store = MemoryStore() if store is None else check_store(store)
        """The store, which is opened and closed with the session."""
        self._rates = check_rates(rates)
        """The user's rates by endpoint name."""
        self._timeout = check_time_limit(timeout)
        """Seconds of one attempt at most, unless the call has a limit of its own."""
        self._max_body = check_integer("max_body", max_body, 1)
        """Bytes of a response body at most."""
        self._max_header = check_integer("max_header", max_header, 1, INT32_MAX)
        """Bytes of one header of a response at most."""
        self._ssl_context = check_ssl_context(ssl_context)
        """The user's TLS context."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop in which the session was opened last. Set by `open`."""
        self._open_lock = asyncio.Lock()
        """Held while the session opens. Replaced by `open` in another event loop."""
        self._store_open = False
        """Whether the store was opened and not closed yet. Set by `open`, reset by `aclose`."""
        self._transport: Transport | None = None
        """The connections while the session is open. Set by `open`, reset by `aclose`."""
        self._hooks = Hooks(
            on_request=on_request,
            on_response=on_response,
            on_retry=on_retry,
            on_gap=on_gap,
            telemetry=telemetry,
        )
        """The user's hooks."""
        self._limiters: dict[str, Limiter] = {}
        """The limiters by endpoint name; a custom endpoint's is added by its first call."""
        self._pollers = Pollers(self._require_open, self._hooks, self._limiter_wait)
        """The pollers of all streams."""
        self._caller = Caller(
            transport=self._require_open,
            limiter=self._limiter,
            retry=check_type("retry", Retry, retry),
            timeout=self._timeout,
            max_wait=check_duration("max_wait", max_wait),
            hooks=self._hooks,
            keys=self._keys.present(),
        )
        """Runs all calls."""
        self._peerbet_url = check_url("peerbet_url", peerbet_url).rstrip("/")
        """The address of Peerbet."""
        self._pythbots_url = check_url("pythbots_url", pythbots_url).rstrip("/")
        """The address of PythBots."""
        self._peerbet = Peerbet(
            self._caller,
            self._pollers,
            url=self._peerbet_url,
            key=self._keys.peerbet,
            idle_check=check_seconds("idle_check", idle_check),
        )
        """The client of Peerbet."""
        self._pythbots = PythBots(
            self._caller,
            self._pollers,
            url=self._pythbots_url,
            personal_key=self._keys.personal,
            api_key=self._keys.pythbots_api,
            personal_key_param=personal_key_param,
        )
        """The client of PythBots."""
        self._add_limiters()

    @classmethod
    def from_env(cls, **overrides: Unpack[SessionOptions]) -> Self:
        """Make a session from environment variables.

        The variables are ``PYTHPEER_PEERBET_KEY``, ``PYTHPEER_PERSONAL_KEY``,
        ``PYTHPEER_PYTHBOTS_API_KEY``, ``PYTHPEER_PEERBET_URL``, ``PYTHPEER_PYTHBOTS_URL``,
        ``PYTHPEER_PERSONAL_KEY_PARAM`` and ``PYTHPEER_STORE`` (``memory``, the path of a file, or
        a server's ``redis://``, ``rediss://`` or ``valkey://`` URL). An empty variable is ignored.

        Args:
            **overrides: Options of `Session`. An option that is given takes precedence over its
                variable.

        Raises:
            InvalidRequestError: If a variable or an option is not valid.
            StoreError: As for `Session`.
        """
        add_environment(overrides)
        return cls(**overrides)

    @property
    def peerbet(self) -> Peerbet:
        """The client of Peerbet: the chat."""
        return self._peerbet

    @property
    def pythbots(self) -> PythBots:
        """The client of PythBots: users, staff and statistics of chats, and mail."""
        return self._pythbots

    @property
    def limiters(self) -> Mapping[str, Limiter]:
        """The limiters by endpoint name; a custom endpoint is included from its first call on."""
        return MappingProxyType(self._limiters)

    def describe(self) -> str:
        """Return one line for a log: the hosts, which keys are set, and the store; no secret."""
        keys = {
            "Peerbet": self._keys.peerbet,
            "personal": self._keys.personal,
            "PythBots API": self._keys.pythbots_api,
        }
        kinds = [kind for kind, key in keys.items() if key is not None]
        return (
            f"Peerbet at {self._peerbet_url}, PythBots at {self._pythbots_url}; "
            f"keys: {', '.join(kinds) or 'none'}; store: {self._store}"
        )

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called since the session was opened."""
        return self._pollers.stop.made

    def stop(self) -> None:
        """End every stream of the session. Idempotent; safe in signal handlers and other threads.

        ``async for`` ends when it asks for the next item: the item it has counts as acknowledged. A
        stream that waits ends immediately, and a stream that is used later returns no item. Calls
        and posts continue. Opening the session again clears the request; on a session that is not
        open it has no effect.
        """
        loop = self._loop
        if self._transport is not None and loop is not None and not loop.is_closed():
            self._pollers.stop.make(loop)

    async def wait_stopping(self, timeout: float | None = None) -> bool:
        """Wait until `stop` is called, at most *timeout* seconds. Returns `stopping`.

        A program that pauses waits here instead of sleeping, so that a stop ends the pause.

        Args:
            timeout: Seconds to wait at most; ``None`` or ``math.inf`` for no limit.

        Raises:
            InvalidRequestError: If *timeout* is not valid.
            SessionClosedError: If the session is closed, unless `stop` was called.
        """
        seconds = math.inf if timeout is None else check_duration("timeout", timeout)
        stop = self._pollers.stop
        if not stop.made:
            self._require_open()
            await stop.wait(seconds)
        if not stop.made:
            self._require_open()
        return stop.made

    def health(self) -> SessionHealth:
        """Return the state of endpoints and streams at this moment; msgspec encodes it as JSON.

        Sends no request and reads no store.
        """
        at = utc_now()
        endpoints = {name: self._endpoint_health(name) for name in self._limiters}
        streams = tuple(stream.health() for stream in self._pollers.streams())
        is_open = self._transport is not None
        failures = [endpoint.failures for endpoint in endpoints.values()]
        failures += [stream.failures for stream in streams]
        recovery_errors = [stream.recovery_error for stream in streams]
        return SessionHealth(
            at=at,
            ok=is_open and not any(failures) and not any(recovery_errors),
            open=is_open,
            endpoints=endpoints,
            streams=streams,
        )

    def _endpoint_health(self, name: str) -> EndpointHealth:
        limiter = self._limiters[name]
        outcomes = self._caller.outcomes.get(name) or OutcomeTracker()
        return EndpointHealth(
            last_success=outcomes.last_success,
            failures=outcomes.failures,
            last_error=outcomes.last_error,
            waiting=limiter.waiting,
            waiting_for_connection=self._transport.waiting(name) if self._transport else 0,
            next_token=limiter.next_token,
            paused_for=limiter.paused_for,
            failing_since=outcomes.failing_since,
        )

    async def call(self, endpoint: Endpoint[T], /, **params: Param) -> T:
        """Call any endpoint, with the pacing, secrecy and errors of the built-in endpoints.

        Args:
            endpoint: The endpoint to call.
            **params: Parameters of the query, after the endpoint's fixed query, in the order given.
                ``None`` is left out, `FLAG` is sent as a bare name. No key is added; a key given as
                `Secret` is sent, and shown nowhere else. All keywords are parameters: the time
                limit of one call is that of ``endpoint.with_timeout(seconds)``.

        Raises:
            InvalidRequestError: If an argument is not valid; no token was spent.
            PythpeerError: If the call failed.
        """
        if not isinstance(endpoint, Endpoint):
            kind = type(endpoint).__name__
            raise InvalidRequestError(f"endpoint must be an Endpoint, not {kind}")
        request = Request(endpoint, params)
        self._caller.remember_keys(request.secrets())
        return await self._caller.call(request)

    async def open(self) -> Self:
        """Open the session in the running event loop, and return it. Idempotent.

        The first session that a process opens imports aiohttp, which blocks the event loop for some
        tenths of a second. A program in which that matters can import aiohttp at its start.

        Raises:
            SessionClosedError: If the session is open in another event loop.
            InvalidRequestError: If the TLS context does not check certificates any more.
            StoreError: If the store cannot be opened.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None or self._loop.is_closed():
            self._transport = None  # its connections ended when their event loop was closed
        if self._transport is None and loop is not self._loop:
            self._loop, self._open_lock = loop, asyncio.Lock()
        async with self._open_lock:
            if self._transport is not None:
                self._require_open()  # raises if it is open in another event loop
                return self
            from .transport import Transport  # late: it imports aiohttp, which takes long

            _load_anyio()
            self._report_misspelt_rates()
            check_ssl_context(self._ssl_context)  # it may have been changed
            if not self._store_open:
                await self._store.open()
                self._store_open = True
            self._transport = Transport(
                user_agent=f"pythpeer/{__version__}",
                timeout=self._timeout,
                max_body=self._max_body,
                max_header=self._max_header,
                ssl_context=self._ssl_context,
            )
            self._hooks.reset()
            self._pollers.open(self._store, self._caller.retry)
        return self

    def _report_misspelt_rates(self) -> None:
        """Log a WARNING for each rate whose name is similar to that of a built-in endpoint."""
        services = (self._peerbet, self._pythbots)
        known = [endpoint.name for service in services for endpoint, _ in service.endpoint_accounts]
        for name, similar in misspelt_rates(self._rates, known).items():
            logger.warning(
                "rates: no endpoint is called %r, did you mean %s? Only an endpoint of your own "
                "with that name has this rate",
                name,
                " or ".join(map(repr, similar)),
                extra={"endpoint": name, "similar": similar},
            )

    async def aclose(self) -> None:
        """Close the session. Calls and streams that wait raise `SessionClosedError`. Idempotent.

        A request for unread mail that was sent is waited for, at most for its time limit, because
        the service marks the mail as read. If the closing is cancelled, that request is
        cancelled, and the mail is recovered later.
        """
        if self._transport is None:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._require_open()  # raises if it is open in another event loop
        transport, self._transport = self._transport, None
        self._pollers.close()
        for limiter in self._limiters.values():
            limiter.fail_waiters(self._caller)
        self._caller.end_back_offs()
        async with self._open_lock:  # opening the session again waits for its end
            try:
                transport.abort()
                await self._pollers.drain()
            finally:
                # Shielded, because the rest must be closed even if this task is cancelled.
                with anyio.CancelScope(shield=True):
                    await self._close_rest(transport)

    async def _close_rest(self, transport: Transport) -> None:
        """Abort all requests, store what they have fetched, and close the store and the hooks."""
        async with AsyncExitStack() as stack:  # each is closed, whatever the others raise
            stack.push_async_callback(self._hooks.aclose)
            stack.push_async_callback(self._close_store)
            stack.push_async_callback(self._pollers.aclose)
            stack.push_async_callback(transport.aclose)

    async def _close_store(self) -> None:
        self._store_open = False
        await self._store.aclose()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        # A traceback may show a session whose constructor failed: attributes may be missing.
        store = getattr(self, "_store", None)
        state = "open" if getattr(self, "_transport", None) else "closed"
        return f"<Session {state}, {store!r}>"

    # -- what the doctor needs --------------------------------------------------------------------

    def _diagnostics(self) -> Diagnostics:
        """Return the session's parts for the doctor. Raises `SessionClosedError` unless open."""
        self._require_open()
        return Diagnostics(
            caller=self._caller,
            chat_endpoint=self._peerbet.read_endpoint,
            user_endpoint=self._pythbots.user_endpoint,
            staff_endpoint=self._pythbots.staff_endpoint,
            stats_endpoint=self._pythbots.stats_endpoint,
            mail_endpoint=self._pythbots.history_endpoint,
            keys=self._keys,
            headers=self._pythbots.headers,
            key_param=self._pythbots.key_param,
            ssl_context=self._ssl_context,
        )

    # -- what calls and pollers need --------------------------------------------------------------

    def _require_open(self) -> Transport:
        """Return the open transport. Raises `SessionClosedError` unless open in this event loop."""
        if self._transport is None:
            raise SessionClosedError("the session is not open: use 'async with', or open() it")
        if asyncio.get_running_loop() is not self._loop:
            raise SessionClosedError(
                "the session is open in another event loop: create one for each"
            )
        return self._transport

    def _limiter(self, endpoint: Endpoint[T]) -> Limiter:
        """Return the endpoint's limiter; a custom endpoint's first call adds it."""
        limiter = self._limiters.get(endpoint.name)
        if limiter is None:
            return self._add_limiter(endpoint)
        if limiter.rate != endpoint.rate and endpoint.name not in self._rates:
            raise InvalidRequestError(
                "another endpoint of this name has another rate: give this one another name, or set"
                " the rate of both by rates",
                endpoint=endpoint.name,
            )
        return limiter

    def _limiter_wait(self, name: str) -> float:
        """Return the seconds until the limiter of the endpoint *name* has a token."""
        return self._limiters[name].next_token

    def _add_limiters(self) -> None:
        """Add the limiters of the built-in endpoints."""
        for service in (self._peerbet, self._pythbots):
            for endpoint, account in service.endpoint_accounts:
                self._add_limiter(endpoint, account)

    def _add_limiter(self, endpoint: Endpoint[T], account: str = "") -> Limiter:
        name = endpoint.name
        key = f"{name} {endpoint.url} {account}"
        limiter = self._store.limiter(key, name, self._rates.get(name, endpoint.rate))
        self._limiters[name] = limiter
        return limiter


def _load_anyio() -> None:
    """Import what anyio imports when it is used: a call that has no free file descriptor cannot."""
    anyio.CancelScope()
    _ = anyio.move_on_after, anyio.sleep
