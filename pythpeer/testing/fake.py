"""`FakeServices`: Peerbet and PythBots on loopback, as documented; every request is checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, Unpack

import anyio

from ..deprecation import warn_renamed
from ..misuse import AsyncContextOnly, tolerant_repr
from ..pacing.bucket import Rate
from ..pacing.limiter import loop_clock
from ..session import Session, SessionOptions
from .chat import FakeChat
from .checker import RequestChecker, Violation
from .dice import FakeDice
from .directory import Chats, Users, seed_directory
from .endpoints import DEFAULT_RATES, SERVICES, Service
from .faults import ERROR_PAGE, Fault, Faults
from .keys import ApiKeys
from .mail import FakeMail
from .people import People
from .pythbots import FakePythBots
from .quirks import QuirkOptions, Quirks, make_quirks
from .requests import IncomingRequest, RecordedRequest, redacted
from .responses import FakeResponse, RejectedError, php_json

if TYPE_CHECKING:
    from aiohttp import web

    from .server import LoopbackServer

__all__ = ["FakeServices"]

MAX_RECORDED: Final = 10_000
"""How many of the latest requests are recorded."""

SESSION_GUARD: Final = 5.0
"""The guard of the sessions of `FakeServices.session`, in seconds.

Services and client share an event loop, and on a busy machine a request may be received later after
it was written than the guard for a network allows. With this guard, each interval counts from the
response to the last request.
"""


class FakeServices(AsyncContextOnly):
    """Both services, each on a loopback port of its own, while ``async with`` lasts.

    Undocumented behaviour is a quirk, given as a keyword argument: ``order="shuffled"``,
    ``mail_ids=False`` and so on, as described by `Quirks`.

    Args:
        rates: The rate of each endpoint by its name; `DEFAULT_RATES` for those not in it.
        username: The fake's own user, who has ``peerbet_key`` and ``personal_key``.
        peerbet_key: That user's key for Peerbet.
        personal_key: That user's key for the mail of PythBots.
        pythbots_api_key: An API key. PythBots requires one only if it is given, or if one is added
            to ``api_keys``.
        clock: Returns seconds, and never decreases. By default it is the event loop's clock, so
            that virtual time applies to the fake, too.
        now: The date and time at the start, in UTC; by default the current one.
        seed: Decides whatever is left to chance: equal seeds give equal results.
        peerbet_port: The port of Peerbet; 0, the default, selects a free one.
        pythbots_port: The same for PythBots.
        **quirks: Undocumented behaviour, as described by `Quirks`.

    Raises:
        InvalidRequestError: A quirk or the name of an endpoint is unknown.
        OSError: When the services start, if a port is in use; the message contains the port.
    """

    def __init__(
        self,
        *,
        rates: Mapping[str, Rate] | None = None,
        username: str = "pythpeer",
        peerbet_key: str = "fake-peerbet-key",
        personal_key: str = "fake-personal-key",
        pythbots_api_key: str | None = None,
        clock: Callable[[], float] | None = None,
        now: datetime | None = None,
        seed: int | str = 0,
        peerbet_port: int = 0,
        pythbots_port: int = 0,
        **quirks: Unpack[QuirkOptions],
    ) -> None:
        self.username = username
        """The name of the fake's own user."""
        self.peerbet_key = peerbet_key
        """That user's key for Peerbet."""
        self.personal_key = personal_key
        """That user's key for the mail of PythBots."""
        self.pythbots_api_key = pythbots_api_key
        """The API key of its sessions, ``None`` without one."""
        self._quirks = make_quirks(Quirks(), **quirks)
        """The present quirks; `set_quirks` replaces them."""
        self._rates = rates
        """The rates by endpoint that differ from `DEFAULT_RATES`; never changed."""
        self._given_clock = clock
        """The user's clock, in seconds; ``None`` for that of the event loop."""
        self._given_now = now
        """The user's date at the start, in UTC; ``None`` for the current one."""
        self._set_clock(clock or time.monotonic)

        self.users: Final = Users()
        """The users of PythBots."""
        self.chats: Final = Chats(self.users)
        """The chats of PythBots, with their staff and statistics."""
        seed_directory(self.users, self.chats)
        owner = self.users.ensure(username)
        self.chat: Final = FakeChat(
            quirks=self._get_quirks, date=self._get_date, rng=Random(f"{seed} chat")
        )
        """The chat of Peerbet."""
        self.dice: Final = FakeDice(
            user_of=self.chat.user_of, date=self._get_date, rng=Random(f"{seed} dice")
        )
        """The dice of Peerbet."""
        self.mail: Final = FakeMail(
            self.users,
            owner,
            quirks=self._get_quirks,
            date=self._get_date,
            rng=Random(f"{seed} mail"),
        )
        """The mailboxes of PythBots."""
        self.register(username, peerbet_key=peerbet_key, personal_key=personal_key)
        self.api_keys: Final = ApiKeys()
        """The API keys of PythBots."""
        if pythbots_api_key is not None:
            self.api_keys.add(pythbots_api_key)
        self.people: Final = People(self.chat, self.mail, owner=owner, rng=Random(f"{seed} people"))
        """Users who act by themselves."""
        self.faults: Final = Faults(Random(f"{seed} faults"))
        """Failures on purpose."""
        self.requests: list[RecordedRequest] = []
        """The latest requests, without keys; each request appends to them."""
        self._checker = RequestChecker(
            rates,
            personal_key=lambda: self._quirks.personal_key_param,
            api_key=lambda: bool(self.api_keys),
        )
        """Checks each request against the rules of the services, and keeps the violations."""
        self._pythbots = FakePythBots(
            self.users, self.chats, self.mail, self.api_keys, self._get_quirks
        )
        """Responds to requests for PythBots."""
        self._ports: dict[Service, int] = {"peerbet": peerbet_port, "pythbots": pythbots_port}
        """The ports that `start` opens, 0 for a free one; never changed."""
        self._servers: dict[Service, LoopbackServer] = {}
        """The servers that were started; `start` sets them, `aclose` removes them."""
        self._listeners: list[Callable[[RecordedRequest], None]] = []
        """The callers of `subscribe`, called with each request."""
        self._left_listeners: list[Callable[[], None]] = []
        """The callers of `subscribe_disconnects`."""
        self._running = False
        """Whether `start` was called, and `aclose` was not called after it."""

    @tolerant_repr
    def __repr__(self) -> str:
        state = "running" if self._running else "stopped"
        return f"<FakeServices {state}, violations={len(self.violations)}>"

    @property
    def quirks(self) -> Quirks:
        """The undocumented behaviour of the services at present."""
        return self._quirks

    def set_quirks(self, **quirks: Unpack[QuirkOptions]) -> None:
        """Change quirks, effective for the next request.

        Args:
            **quirks: Undocumented behaviour, as described by `Quirks`.

        Raises:
            InvalidRequestError: If a quirk or its value is unknown.
        """
        self._quirks = make_quirks(self._quirks, **quirks)

    @property
    def habits(self) -> Quirks:
        """Deprecated name of `quirks`."""
        warn_renamed("FakeServices.habits", "FakeServices.quirks")
        return self._quirks

    def adopt(self, **quirks: Unpack[QuirkOptions]) -> None:
        """Deprecated name of `set_quirks`."""
        warn_renamed("FakeServices.adopt()", "FakeServices.set_quirks()")
        self.set_quirks(**quirks)

    @property
    def violations(self) -> list[Violation]:
        """The rules that requests broke so far, in the order of the requests; may be cleared."""
        return self._checker.violations

    @property
    def peerbet_url(self) -> str:
        """The base URL of the fake Peerbet. Raises ``RuntimeError`` if it is not running."""
        return self._url("peerbet")

    @property
    def pythbots_url(self) -> str:
        """The base URL of the fake PythBots. Raises ``RuntimeError`` if it is not running."""
        return self._url("pythbots")

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which ``Session.from_env()`` uses this fake.

        They are ``PYTHPEER_PEERBET_URL`` and so on. Raises ``RuntimeError`` if it is not running.
        """
        variables = {
            "PYTHPEER_PEERBET_URL": self.peerbet_url,
            "PYTHPEER_PYTHBOTS_URL": self.pythbots_url,
            "PYTHPEER_PEERBET_KEY": self.peerbet_key,
            "PYTHPEER_PERSONAL_KEY": self.personal_key,
        }
        if self.pythbots_api_key is not None:
            variables["PYTHPEER_PYTHBOTS_API_KEY"] = self.pythbots_api_key
        return variables

    def subscribe(self, listener: Callable[[RecordedRequest], None]) -> Callable[[], None]:
        """Call *listener* with each request from now on, until the returned function is called.

        It is called after the request was checked and had its effect, before the response is sent,
        and must return soon.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def subscribe_disconnects(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call *listener* when clients have closed all connections that they had kept open.

        A program that ends closes them, and a session that sends no request for some seconds. It is
        called until the returned function is called, and must return soon.
        """
        self._left_listeners.append(listener)
        return lambda: self._left_listeners.remove(listener)

    def listen(self, listener: Callable[[RecordedRequest], None]) -> Callable[[], None]:
        """Deprecated name of `subscribe`."""
        warn_renamed("FakeServices.listen()", "FakeServices.subscribe()")
        return self.subscribe(listener)

    def register(self, username: str, *, peerbet_key: str, personal_key: str) -> None:
        """Make *peerbet_key* valid for *username*, and *personal_key* for the mail of that user."""
        self.chat.register(username, peerbet_key)
        self.mail.register(username, personal_key)

    def session(
        self, username: str | None = None, /, **overrides: Unpack[SessionOptions]
    ) -> Session:
        """Return a new `Session`, not yet open, with the URLs, keys and rates of this fake.

        Args:
            username: The user whose keys it has, which are made up and registered; by default the
                fake's own user.
            **overrides: Arguments of `Session` that replace those of the fake.

        Raises:
            RuntimeError: The fake is not running.
            InvalidRequestError: An argument is invalid.

        It waits longer than a real session does where responses are slow: each interval counts from
        the last response, so that a busy machine causes no violation. Rates of the fake or of
        *overrides* replace that, such as ``rates={"peerbet.chat.get": Rate(1.0)}``.
        """
        keys = (self.peerbet_key, self.personal_key)
        if username is not None:
            keys = (f"fake-peerbet-key-of-{username}", f"fake-personal-key-of-{username}")
            self.register(username, peerbet_key=keys[0], personal_key=keys[1])
        default_rates = {
            name: Rate(rate.interval, rate.burst, SESSION_GUARD)
            for name, rate in DEFAULT_RATES.items()
        }
        settings: SessionOptions = {
            "peerbet_url": self.peerbet_url,
            "pythbots_url": self.pythbots_url,
            "peerbet_key": keys[0],
            "personal_key": keys[1],
            "pythbots_api_key": self.pythbots_api_key,
            "personal_key_param": self._quirks.personal_key_param,
            "rates": {**default_rates, **(self._rates or {})},
        }
        return Session(**(settings | overrides))

    # -- starting and stopping --------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Open both ports. Messages and mails of before, also of an earlier run, are kept.

        Raises ``RuntimeError`` if it is running, and ``OSError`` if a port is in use.
        """
        if self._running:
            raise RuntimeError("the fake services are running already")
        self._running = True
        loop = asyncio.get_running_loop()
        self._set_clock(self._given_clock or loop_clock(loop))
        self._checker.reset()
        self.api_keys.reset()
        try:
            # Shielded, because a cancelled `create_server` leaves its socket open.
            with anyio.CancelScope(shield=True):
                for service in SERVICES:
                    await self._listen(service, self._ports[service])
        except BaseException:
            await self.aclose()
            raise
        self.people.start(loop)

    async def aclose(self) -> None:
        """Close both ports and every connection immediately. Does nothing the second time.

        What people were still to do is not done.
        """
        self._running = False
        self.people.stop()
        with anyio.CancelScope(shield=True):
            for server in self._servers.values():
                await server.aclose()
        self._servers.clear()

    @asynccontextmanager
    async def outage(self, *services: Service) -> AsyncGenerator[None]:
        """Drop every connection and refuse new ones: of *services*, or of both by default.

        The ports stay reserved until that ends with the context. In the rare case that another
        program gets one as the outage starts, the context raises ``OSError`` if it is in use then.
        """
        down = services or SERVICES
        with anyio.CancelScope(shield=True):
            for service in down:
                await self._servers[service].suspend()
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                for service in down if self._running else ():
                    await self._servers[service].start()

    async def _listen(self, service: Service, port: int) -> None:
        # Imported here, so that a test run without a fake does not import aiohttp.
        from .server import LoopbackServer

        malformed = partial(self._checker.report_malformed, service)
        answer = partial(self._respond, service)
        server = LoopbackServer(answer, malformed, port, self._on_left)
        self._servers[service] = server
        await server.start()

    def _on_left(self) -> None:
        if not any(server.has_kept_connections for server in self._servers.values()):
            for listener in tuple(self._left_listeners):
                listener()

    def _url(self, service: Service) -> str:
        if not self._running or service not in self._servers:
            raise RuntimeError("the fake services are not running: `async with` starts them")
        return f"http://127.0.0.1:{self._servers[service].port}"

    # -- responding -------------------------------------------------------------------------------

    def _respond(
        self, service: Service, request: web.BaseRequest
    ) -> tuple[FakeResponse, Fault | None]:
        # `raw_path` is the target as received; the other attributes are decoded.
        at, target = self.clock(), request.raw_path
        call = IncomingRequest(service, request.method, target, request.headers, at)
        fault = self.faults.next_for(call.kind)
        recorded = self._record(call, target, fault)
        self._checker.check(call)
        status, body, delay = (200, ERROR_PAGE, 0.0)
        if fault is None or fault.effect:
            status, body, delay = self._answer(call)
        for listener in tuple(self._listeners):
            listener(recorded)
        return FakeResponse(status, body, self._quirks.content_type, delay=delay), fault

    def _record(self, call: IncomingRequest, target: str, fault: Fault | None) -> RecordedRequest:
        keys = (*self.chat.keys, *self.mail.keys, *self.api_keys.keys)
        recorded = RecordedRequest(call.endpoint, call.at, redacted(target, keys), fault)
        self.requests.append(recorded)
        del self.requests[:-MAX_RECORDED]
        return recorded

    def _answer(self, call: IncomingRequest) -> tuple[int, bytes, float]:
        """Perform a request; return the status, the body, and the seconds until they are sent."""
        if "." not in call.endpoint:
            return 404, b"<html><body><h1>404 Not Found</h1></body></html>", 0.0
        if call.method != "GET":
            return 405, b"<html><body><h1>405 Method Not Allowed</h1></body></html>", 0.0
        try:
            if call.endpoint.startswith("peerbet.dice"):
                document = self.dice.answer(call)
                return 200, php_json(document, self._quirks), self.dice.delay(call)
            service = self.chat if call.endpoint.startswith("peerbet.") else self._pythbots
            return 200, php_json(service.answer(call), self._quirks), 0.0
        except RejectedError as refusal:
            status = refusal.status or self._quirks.refusal_status
            return status, php_json(refusal.document, self._quirks), 0.0

    def _get_quirks(self) -> Quirks:
        return self._quirks

    def _get_date(self) -> str:
        return self.date

    # -- time -------------------------------------------------------------------------------------

    def _set_clock(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._epoch = (self._given_now or datetime.now(UTC)) - timedelta(seconds=clock())

    @property
    def date(self) -> str:
        """The services' date and time, ``yyyy-MM-dd HH:mm:ss``, which advances with the clock."""
        now = self._epoch + timedelta(seconds=self.clock())
        return now.strftime("%Y-%m-%d %H:%M:%S")
