"""`FakeServices`: Peerbet and PythBots on loopback, as documented, with a judge at the door."""

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

from ..limiter import loop_clock
from ..misuse import AsyncContextOnly
from ..session import Session, SessionOptions
from ..wire import Rate
from .chat import FakeChat
from .directory import Chats, Users, seed_directory
from .faults import ERROR_PAGE, Fault, Faults
from .habits import QuirkOptions, Quirks, habits_from
from .incoming import Arrival, IncomingRequest, Service, redacted
from .judge import DEFAULT_RATES, RequestChecker, Violation
from .keys import ApiKeys
from .mail import FakeMail
from .people import People
from .pythbots import FakePythBots
from .replies import FakeResponse, RefusedError, php_json

if TYPE_CHECKING:
    from aiohttp import web

    from .server import LoopbackServer

__all__ = ["FakeServices"]

MAX_RECORDED: Final = 10_000
"""How many of the latest requests are kept in the record."""

SESSION_GUARD: Final = 5.0
"""The guard of the sessions made here, in seconds. Service and client share an event loop, and on a
busy machine the one may see a request later than a guard for a network allows. With this one, each
interval counts from the answer to the last request."""

SERVICES: Final[tuple[Service, ...]] = ("peerbet", "pythbots")


class FakeServices(AsyncContextOnly):
    """Both services, each on a loopback port of its own, while ``async with`` lasts.

    - ``rates`` is the law per endpoint name, `LAW` where it is silent.
    - ``username`` is whose ``peerbet_key`` and ``personal_key`` these are. PythBots demands an API
      key only if ``pythbots_api_key`` is given, or one is added to ``api_keys``.
    - ``clock`` returns seconds and never goes back; by default it is the event loop's, so virtual
      time moves the fake too. ``now`` is the date at the start, by default today's, in UTC.
    - ``seed`` decides everything that is left to chance: the same for the same seed.
    - ``peerbet_port`` and ``pythbots_port`` are where they listen, by default on free ports. One
      that is taken is an ``OSError`` when they start, which says so.
    - What is documented nowhere is a habit: ``order="shuffled"``, ``mail_ids=False`` and so on, as
      `Habits` describes them.

    ``chat``, ``mail``, ``users``, ``chats`` and ``api_keys`` hold what the services know.
    ``people`` say and answer things by themselves. ``faults`` is what goes wrong on purpose.
    ``requests`` records the latest requests, without keys. ``violations`` is everything that was
    wrong with any.
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
        **habits: Unpack[QuirkOptions],
    ) -> None:
        self.username = username
        self.peerbet_key = peerbet_key
        self.personal_key = personal_key
        self.pythbots_api_key = pythbots_api_key
        self._habits = habits_from(Quirks(), **habits)
        self._rates = rates
        self._given_clock = clock
        self._given_now = now
        self._set_clock(clock or time.monotonic)

        self.users: Final = Users()
        self.chats: Final = Chats(self.users)
        seed_directory(self.users, self.chats)
        owner = self.users.ensure(username)
        self.chat: Final = FakeChat(
            habits=self._get_habits, date=self._get_date, rng=Random(f"{seed} chat")
        )
        self.mail: Final = FakeMail(
            self.users,
            owner,
            habits=self._get_habits,
            date=self._get_date,
            rng=Random(f"{seed} mail"),
        )
        self.register(username, peerbet_key=peerbet_key, personal_key=personal_key)
        self.api_keys: Final = ApiKeys()
        if pythbots_api_key is not None:
            self.api_keys.add(pythbots_api_key)
        self.people: Final = People(self.chat, self.mail, owner=owner, rng=Random(f"{seed} people"))
        self.faults: Final = Faults(Random(f"{seed} faults"))
        self.requests: list[Arrival] = []
        self._judge = RequestChecker(
            rates,
            personal_key=lambda: self._habits.personal_key_param,
            api_key=lambda: bool(self.api_keys),
        )
        self._pythbots = FakePythBots(
            self.users, self.chats, self.mail, self.api_keys, self._get_habits
        )
        self._ports: dict[Service, int] = {"peerbet": peerbet_port, "pythbots": pythbots_port}
        self._servers: dict[Service, LoopbackServer] = {}
        self._listeners: list[Callable[[Arrival], None]] = []
        self._running = False

    def __repr__(self) -> str:
        state = "running" if self._running else "stopped"
        return f"<FakeServices {state}, violations={len(self.violations)}>"

    @property
    def quirks(self) -> Quirks:
        """How the services behave where nothing is documented."""
        return self._habits

    def set_quirks(self, **habits: Unpack[QuirkOptions]) -> None:
        """Change habits, from the next request on. Raises `InvalidRequestError`."""
        self._habits = habits_from(self._habits, **habits)

    @property
    def violations(self) -> list[Violation]:
        """What was wrong with the requests so far, in their order. Clear it to start afresh."""
        return self._judge.violations

    @property
    def peerbet_url(self) -> str:
        """The base URL of the fake Peerbet. Raises ``RuntimeError`` while it is not running."""
        return self._url("peerbet")

    @property
    def pythbots_url(self) -> str:
        """The base URL of the fake PythBots. Raises ``RuntimeError`` while it is not running."""
        return self._url("pythbots")

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead ``Session.from_env()`` here, such as ``PYTHPEER_PEERBET_URL``.

        Raises ``RuntimeError`` while it is not running.
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

    def listen(self, listener: Callable[[Arrival], None]) -> Callable[[], None]:
        """Have *listener* called with each request from now on, until what is returned is called.

        It is called once the request was judged and has had its effect, before it is answered, and
        should return soon.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def register(self, username: str, *, peerbet_key: str, personal_key: str) -> None:
        """Give *username* a key for Peerbet, and one for the mail of PythBots."""
        self.chat.register(username, peerbet_key)
        self.mail.register(username, personal_key)

    def session(
        self, username: str | None = None, /, **overrides: Unpack[SessionOptions]
    ) -> Session:
        """Make a `Session` with the URLs, the keys and the rates of this fake, not yet open.

        *username* is whose session it is, with keys made up on the spot; by default that of the
        fake's own user. *overrides* are arguments of `Session`, and win. Where neither the fake
        nor they say otherwise, intervals are counted from the last answer.
        """
        keys = (self.peerbet_key, self.personal_key)
        if username is not None:
            keys = (f"fake-peerbet-key-of-{username}", f"fake-personal-key-of-{username}")
            self.register(username, peerbet_key=keys[0], personal_key=keys[1])
        patient = {
            name: Rate(law.interval, law.burst, SESSION_GUARD)
            for name, law in DEFAULT_RATES.items()
        }
        settings: SessionOptions = {
            "peerbet_url": self.peerbet_url,
            "pythbots_url": self.pythbots_url,
            "peerbet_key": keys[0],
            "personal_key": keys[1],
            "pythbots_api_key": self.pythbots_api_key,
            "personal_key_param": self._habits.personal_key_param,
            "rates": {**patient, **(self._rates or {})},
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
        """Open both ports. What was said and mailed before, or in an earlier run, stays."""
        if self._running:
            raise RuntimeError("the fake services are running already")
        self._running = True
        loop = asyncio.get_running_loop()
        self._set_clock(self._given_clock or loop_clock(loop))
        self._judge.reset()
        self.api_keys.reset()
        try:
            # Shielded, for a cancelled `create_server` leaves its socket to nobody.
            with anyio.CancelScope(shield=True):
                for service in SERVICES:
                    await self._listen(service, self._ports[service])
        except BaseException:
            await self.aclose()
            raise
        self.people._start(loop)

    async def aclose(self) -> None:
        """Close both ports and every connection at once. Does nothing the second time.

        People go home: what they were still to say is not said.
        """
        self._running = False
        self.people.stop()
        with anyio.CancelScope(shield=True):
            for server in self._servers.values():
                await server.aclose()
        self._servers.clear()

    @asynccontextmanager
    async def outage(self, *services: Service) -> AsyncGenerator[None]:
        """Drop every connection and refuse new ones while it lasts, of one service or of both."""
        down = services or SERVICES
        with anyio.CancelScope(shield=True):
            for service in down:
                await self._servers[service].aclose()
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                for service in down if self._running else ():
                    await self._listen(service, self._servers[service].port)

    async def _listen(self, service: Service, port: int) -> None:
        # Late: a test run that uses no fake need not import aiohttp for it.
        from .server import LoopbackServer

        malformed = partial(self._judge.report_malformed, service)
        server = LoopbackServer(partial(self._respond, service), malformed, port)
        self._servers[service] = server
        await server.start()

    def _url(self, service: Service) -> str:
        if not self._running or service not in self._servers:
            raise RuntimeError("the fake services are not running: `async with` starts them")
        return f"http://127.0.0.1:{self._servers[service].port}"

    # -- answering --------------------------------------------------------------------------------

    def _respond(
        self, service: Service, request: web.BaseRequest
    ) -> tuple[FakeResponse, Fault | None]:
        # `raw_path` is the target as it was received; the other attributes show it decoded.
        at, target = self.clock(), request.raw_path
        call = IncomingRequest(service, request.method, target, request.headers, at)
        fault = self.faults.next_for(call.kind)
        arrival = self._record(call, target, fault)
        self._judge.check(call)
        status, body = (200, ERROR_PAGE)
        if fault is None or fault.effect:
            status, body = self._answer(call)
        for listener in tuple(self._listeners):
            listener(arrival)
        return FakeResponse(status, body, self._habits.content_type), fault

    def _record(self, call: IncomingRequest, target: str, fault: Fault | None) -> Arrival:
        keys = (*self.chat.keys, *self.mail.keys, *self.api_keys.keys)
        arrival = Arrival(call.endpoint, call.at, redacted(target, keys), fault)
        self.requests.append(arrival)
        del self.requests[:-MAX_RECORDED]
        return arrival

    def _answer(self, call: IncomingRequest) -> tuple[int, bytes]:
        if "." not in call.endpoint:
            return 404, b"<html><body><h1>404 Not Found</h1></body></html>"
        if call.method != "GET":
            return 405, b"<html><body><h1>405 Method Not Allowed</h1></body></html>"
        service = self.chat if call.endpoint.startswith("peerbet.") else self._pythbots
        try:
            return 200, php_json(service.answer(call), self._habits)
        except RefusedError as refusal:
            status = refusal.status or self._habits.refusal_status
            return status, php_json(refusal.document, self._habits)

    def _get_habits(self) -> Quirks:
        return self._habits

    def _get_date(self) -> str:
        return self.date

    # -- time -------------------------------------------------------------------------------------

    def _set_clock(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._epoch = (self._given_now or datetime.now(UTC)) - timedelta(seconds=clock())

    @property
    def date(self) -> str:
        """The services' date and time, ``yyyy-MM-dd HH:mm:ss``: it goes on as the clock does."""
        now = self._epoch + timedelta(seconds=self.clock())
        return now.strftime("%Y-%m-%d %H:%M:%S")
