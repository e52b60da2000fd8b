"""The session: holds keys, limiters and store, and the connections while it is open."""

from __future__ import annotations

import asyncio
import math
import os
import ssl
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Final, Self, TypedDict, TypeVar, Unpack, cast

import anyio

from .calls import Caller
from .errors import InvalidRequestError, PythpeerError, Result, SessionClosedError
from .feed import Pollers
from .health import EndpointHealth, OutcomeTracker, SessionHealth, utc_now
from .hooks import GapEvent, Hook, Hooks, RequestEvent, ResponseEvent, RetryEvent, Telemetry
from .limiter import Limiter
from .misuse import AsyncContextOnly
from .peerbet import Peerbet
from .pythbots import PythBots
from .retry import Retry
from .secret import Secret
from .stores import MemoryStore, Store, store_from_url
from .version import version
from .wire import (
    Endpoint,
    Param,
    Rate,
    Request,
    check_integer,
    check_seconds,
    check_text,
    check_url,
)

if TYPE_CHECKING:
    from .transport import Transport

__all__ = ["Session", "SessionOptions"]

T = TypeVar("T")

KEY_VARIABLES: Final = {
    "peerbet_key": "PYTHPEER_PEERBET_KEY",
    "personal_key": "PYTHPEER_PERSONAL_KEY",
    "pythbots_api_key": "PYTHPEER_PYTHBOTS_API_KEY",
}


class SessionOptions(TypedDict, total=False):
    """What `Session` can be told, each option as described there."""

    peerbet_key: str | Secret | None
    personal_key: str | Secret | None
    pythbots_api_key: str | Secret | None
    peerbet_url: str
    pythbots_url: str
    personal_key_param: str
    rates: Mapping[str, Rate] | None
    retry: Retry
    timeout: float
    max_wait: float
    store: Store | None
    max_body: int
    ssl_context: ssl.SSLContext | None
    on_request: Hook[RequestEvent] | None
    on_response: Hook[ResponseEvent] | None
    on_retry: Hook[RetryEvent] | None
    on_gap: Hook[GapEvent] | None
    telemetry: Telemetry | None


class Session(AsyncContextOnly):
    """One user's access to both services: ``async with Session(...) as session``.

    - ``peerbet_key``, ``personal_key``, ``pythbots_api_key``: text or `Secret`; each is needed only
      for what asks for it. The API key travels in a header, the others in the URL as documented.
    - ``peerbet_url``, ``pythbots_url``: https, or plain http to this machine.
    - ``personal_key_param``: how the mail service spells its key's parameter.
    - ``rates``: pacing by endpoint name, over the defaults.
    - ``retry``: what to do about failed reads.
    - ``timeout``: seconds for one attempt, head and body, from the moment it has its token.
    - ``max_wait``: seconds a call may wait for a token; a stream's poll waits as long as it takes.
    - ``store``: where cursors, logs and pacing live; by default a `MemoryStore` of its own.
    - ``max_body``: bytes an answer may have.
    - ``ssl_context``: for a private certificate authority; there is no way to switch checking off.
    - ``on_request``, ``on_response``, ``on_retry``, ``on_gap``: hooks, each a function or coroutine
      function that is given a frozen event. A function runs at once, within the call, and had
      better be quick. A coroutine function runs in a task of its own, one event after the other in
      order: it delays no call, misses events once 1000 are waiting for it, and has one second to
      end when the session is closed. What a hook raises is logged once for each hook, and goes no
      further.
    - ``telemetry``: a `Telemetry`, which sees more than the hooks do, such as
      ``pythpeer.otel.OpenTelemetry()``.

    Whatever of this is wrong is an `InvalidRequestError` at once. A session belongs to the event
    loop it was opened in; once closed it can be opened again. It runs no background task, so it
    may be entered in one task and left in another.
    """

    def __init__(
        self,
        *,
        peerbet_key: str | Secret | None = None,
        personal_key: str | Secret | None = None,
        pythbots_api_key: str | Secret | None = None,
        peerbet_url: str = "https://www.peerbet.org",
        pythbots_url: str = "https://pythbots.com",
        personal_key_param: str = "personalkey",
        rates: Mapping[str, Rate] | None = None,
        retry: Retry = Retry(),
        timeout: float = 20.0,
        max_wait: float = 60.0,
        store: Store | None = None,
        max_body: int = 1_048_576,
        ssl_context: ssl.SSLContext | None = None,
        on_request: Hook[RequestEvent] | None = None,
        on_response: Hook[ResponseEvent] | None = None,
        on_retry: Hook[RetryEvent] | None = None,
        on_gap: Hook[GapEvent] | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        # First of all, so that no later error can show a key among this frame's variables.
        keys = [Secret.try_wrap(key) for key in (peerbet_key, personal_key, pythbots_api_key)]
        peerbet_key = personal_key = pythbots_api_key = None
        peerbet_secret, personal_secret, api_secret = (_raise_if_error(key) for key in keys)
        if api_secret is not None and not api_secret.reveal().isascii():
            raise InvalidRequestError("pythbots_api_key travels in a header: it must be ASCII")
        self._store: Store = MemoryStore() if store is None else store
        if not isinstance(self._store, Store):
            raise InvalidRequestError("store must be a store, such as MemoryStore()")
        if rates is not None and not isinstance(rates, Mapping):
            raise InvalidRequestError("rates maps endpoint names to Rates")
        self._rates = {
            check_text("an endpoint's name", name): _check_type(f"rates[{name!r}]", Rate, rate)
            for name, rate in dict(rates or {}).items()
        }
        self._timeout = _check_timeout("timeout", timeout)
        if not self._timeout:
            raise InvalidRequestError("timeout must be more than 0 seconds")
        self._max_body = check_integer("max_body", max_body, 1)
        self._ssl_context = ssl_context
        if ssl_context is not None:
            _check_type("ssl_context", ssl.SSLContext, ssl_context)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open_lock = asyncio.Lock()
        self._store_open = False
        self._transport: Transport | None = None
        self._hooks = Hooks(
            on_request=on_request,
            on_response=on_response,
            on_retry=on_retry,
            on_gap=on_gap,
            telemetry=telemetry,
        )
        self._limiters: dict[str, Limiter] = {}
        self._feeds = Pollers(
            self._require_open, self._hooks, lambda name: self._limiters[name].next_token
        )
        self._caller = Caller(
            transport=self._require_open,
            limiter=self._limiter,
            retry=_check_type("retry", Retry, retry),
            timeout=self._timeout,
            max_wait=_check_timeout("max_wait", max_wait),
            hooks=self._hooks,
        )
        self._peerbet = Peerbet(
            self._caller,
            self._feeds,
            url=check_url("peerbet_url", peerbet_url).rstrip("/"),
            key=peerbet_secret,
        )
        self._pythbots = PythBots(
            self._caller,
            self._feeds,
            url=check_url("pythbots_url", pythbots_url).rstrip("/"),
            personal_key=personal_secret,
            api_key=api_secret,
            personal_key_param=personal_key_param,
        )
        for endpoint, account in (
            *self._peerbet.endpoint_accounts,
            *self._pythbots.endpoint_accounts,
        ):
            self._add_limiter(endpoint, account)

    @classmethod
    def from_env(cls, **overrides: Unpack[SessionOptions]) -> Self:
        """A session from environment variables; what is given here wins over them.

        ``PYTHPEER_PEERBET_KEY``, ``PYTHPEER_PERSONAL_KEY``, ``PYTHPEER_PYTHBOTS_API_KEY``,
        ``PYTHPEER_PEERBET_URL``, ``PYTHPEER_PYTHBOTS_URL``, ``PYTHPEER_STORE`` (``memory``, the
        path of a file, or a server's ``redis://``, ``rediss://`` or ``valkey://`` URL), and
        ``PYTHPEER_PERSONAL_KEY_PARAM``. An empty variable counts as none.
        """
        options = overrides
        first_error = _wrap_keys(cast("dict[str, object]", options))
        if first_error is not None:
            raise first_error
        if (value := _env("PYTHPEER_PEERBET_URL")) and "peerbet_url" not in options:
            options["peerbet_url"] = value
        if (value := _env("PYTHPEER_PYTHBOTS_URL")) and "pythbots_url" not in options:
            options["pythbots_url"] = value
        if (value := _env("PYTHPEER_PERSONAL_KEY_PARAM")) and ("personal_key_param" not in options):
            options["personal_key_param"] = value
        if (value := _env("PYTHPEER_STORE")) and "store" not in options:
            store = store_from_url(value)
            value = None
            if isinstance(store, InvalidRequestError):
                raise store
            options["store"] = store
        return cls(**options)

    @property
    def peerbet(self) -> Peerbet:
        """Peerbet chat."""
        return self._peerbet

    @property
    def pythbots(self) -> PythBots:
        """PythBots: user info, chat staff, chat statistics, mail."""
        return self._pythbots

    @property
    def limiters(self) -> Mapping[str, Limiter]:
        """The live token buckets by endpoint name; a user's own endpoint from its first call on."""
        return MappingProxyType(self._limiters)

    def health(self) -> SessionHealth:
        """How the session is doing at this moment: endpoints and streams. Turns into JSON.

        Costs nothing but the asking, and asks no service.
        """
        endpoints = {name: self._endpoint_health(name) for name in self._limiters}
        streams = tuple(stream.health() for stream in self._feeds.streams())
        is_open = self._transport is not None
        failures = [part.failures for part in endpoints.values()]
        failures += [stream.failures for stream in streams]
        return SessionHealth(
            at=utc_now(),
            ok=is_open and not any(failures),
            open=is_open,
            endpoints=endpoints,
            streams=streams,
        )

    def _endpoint_health(self, name: str) -> EndpointHealth:
        limiter = self._limiters[name]
        record = self._caller.outcomes.get(name) or OutcomeTracker()
        return EndpointHealth(
            last_success=record.last_success,
            failures=record.failures,
            last_error=record.last_error,
            waiting=limiter.waiting,
            next_token=limiter.next_token,
            paused_for=limiter.paused_for,
        )

    async def call(self, endpoint: Endpoint[T], /, **params: Param) -> T:
        """Ask any endpoint, with the pacing, secrecy and errors that the services' own have.

        *params* follow the endpoint's fixed query in the order given. No key is added: one given
        as `Secret` goes on the wire and nowhere else. ``None`` is left out, `FLAG` is a bare name.
        Raises `InvalidRequestError` before a token is spent, and whatever the call fails with.
        """
        if not isinstance(endpoint, Endpoint):
            raise InvalidRequestError("what is called is an Endpoint")
        return await self._caller.call(Request(endpoint, params))

    async def open(self) -> Self:
        """Open the session in the running event loop. Once is enough; more does no harm."""
        loop = asyncio.get_running_loop()
        if self._loop is None or self._loop.is_closed():
            self._transport = None  # what was left open in a closed loop is gone with it
        if self._transport is None and loop is not self._loop:
            self._loop, self._open_lock = loop, asyncio.Lock()
        async with self._open_lock:
            if self._transport is not None:
                self._require_open()  # says so if that is another loop's
                return self
            from .transport import Transport  # aiohttp is most of what importing would cost

            if not self._store_open:
                await self._store.open()
                self._store_open = True
            self._transport = Transport(
                user_agent=f"pythpeer/{version()}",
                timeout=self._timeout,
                max_body=self._max_body,
                ssl_context=self._ssl_context,
            )
            self._hooks.reset()
            self._feeds.open(self._store, self._caller.retry)
        return self

    async def aclose(self) -> None:
        """Close the session: whoever waits gets `SessionClosedError`. Idempotent."""
        if self._transport is None:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._require_open()  # says so if that is another loop's
        transport, self._transport = self._transport, None
        self._feeds.close()
        for limiter in self._limiters.values():
            limiter.fail_waiters(self._caller)
        try:
            await transport.aclose()
        finally:
            # Also if that was cancelled: nobody will come back for the rest.
            with anyio.CancelScope(shield=True):
                try:
                    await self._feeds.drain()
                finally:
                    self._store_open = False
                    try:
                        await self._store.aclose()
                    finally:
                        await self._hooks.aclose()

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
        # Not everything is there yet where a traceback shows a session that could not be made.
        store = getattr(self, "_store", None)
        return f"<Session {'open' if getattr(self, '_transport', None) else 'closed'}, {store!r}>"

    # -- what calls need --------------------------------------------------------------------------

    def _require_open(self) -> Transport:
        if self._transport is None:
            raise SessionClosedError("the session is not open: use 'async with', or open() it")
        if asyncio.get_running_loop() is not self._loop:
            raise SessionClosedError("the session is open in another event loop")
        return self._transport

    def _limiter(self, endpoint: Endpoint[T]) -> Limiter:
        limiter = self._limiters.get(endpoint.name)
        if limiter is None:
            return self._add_limiter(endpoint)
        if limiter.rate != endpoint.rate and endpoint.name not in self._rates:
            raise InvalidRequestError(
                "another endpoint of this name has another rate", endpoint=endpoint.name
            )
        return limiter

    def _add_limiter(self, endpoint: Endpoint[T], account: str = "") -> Limiter:
        name = endpoint.name
        key = f"{name} {endpoint.url} {account}"
        limiter = self._store.limiter(key, name, self._rates.get(name, endpoint.rate))
        self._limiters[name] = limiter
        return limiter


def _env(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _wrap_keys(options: dict[str, object]) -> PythpeerError | None:
    """Put keys under cover where they stand, with those of the environment beside them.

    What is wrong with one comes back, to be raised when no key is in sight.
    """
    first_error: PythpeerError | None = None
    for name, variable in KEY_VARIABLES.items():
        key = Secret.try_wrap(options[name] if name in options else _env(variable))
        options[name] = None if isinstance(key, PythpeerError) else key
        first_error = key if isinstance(key, PythpeerError) else first_error
    return first_error


def _raise_if_error(key: Result[Secret | None]) -> Secret | None:
    if isinstance(key, PythpeerError):
        raise key
    return key


def _check_type(name: str, kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise InvalidRequestError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")
    return value


def _check_timeout(name: str, value: object) -> float:
    """A number of seconds, or infinity for no limit."""
    return math.inf if value == math.inf else check_seconds(name, value)
