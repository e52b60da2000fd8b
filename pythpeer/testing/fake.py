"""`FakeServices`: Peerbet and PythBots on loopback, as documented, with a judge at the door."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, Unpack

import anyio
from aiohttp import web

from ..limiter import clock as loop_clock
from ..wire import Rate
from .chat import FakeChat, Window
from .directory import Chats, Users, seed
from .incoming import Arrival, Incoming, Service, redacted
from .judge import Judge, Violation
from .mail import FakeMail
from .pythbots import FakePythBots
from .replies import RefusedError, php_json
from .server import LoopbackServer

if TYPE_CHECKING:
    from ..session import Session, SessionOptions

__all__ = ["FakeServices"]

RECORDED: Final = 10_000
"""How many of the latest requests are kept in the record."""


class FakeServices:
    """Both services, each on a loopback port of its own, while ``async with`` lasts.

    ``rates`` is the law per endpoint name, `LAW` where it is silent. ``clock`` returns seconds and
    never goes back; by default it is the event loop's, so virtual time moves the fake too.
    ``username`` is whose ``peerbet_key`` and ``personal_key`` these are. PythBots demands an API
    key only if ``pythbots_api_key`` is given. ``personal_key_param`` is the spelling of that
    parameter. ``window`` says which messages Peerbet leaves out when there are too many after
    ``mid``, and ``readall_marks`` whether reading all mail marks it as read: neither is documented.

    ``chat``, ``mail``, ``users`` and ``chats`` hold what the services know. ``requests`` records
    the latest requests, without keys. ``violations`` is everything that was wrong with any.
    """

    def __init__(
        self,
        *,
        rates: Mapping[str, Rate] | None = None,
        clock: Callable[[], float] | None = None,
        username: str = "pythpeer",
        peerbet_key: str = "fake-peerbet-key",
        personal_key: str = "fake-personal-key",
        pythbots_api_key: str | None = None,
        personal_key_param: str = "personalkey",
        window: Window = "newest",
        readall_marks: bool = False,
    ) -> None:
        self.username = username
        self.peerbet_key = peerbet_key
        self.personal_key = personal_key
        self.pythbots_api_key = pythbots_api_key
        self._personal_key_param = personal_key_param
        self._rates = rates
        self._given_clock = clock
        self._set_clock(clock or time.monotonic)

        self.users = Users()
        self.chats = Chats(self.users)
        seed(self.users, self.chats)
        owner = self.users.ensure(username)
        self.chat = FakeChat(window=window, date=self._date)
        self.chat.register(username, peerbet_key)
        self.mail = FakeMail(self.users, owner, readall_marks=readall_marks, date=self._date)
        self.requests: list[Arrival] = []
        self._judge = Judge(
            rates, personal_key=personal_key_param, api_key=pythbots_api_key is not None
        )
        self._pythbots = FakePythBots(
            self.users,
            self.chats,
            self.mail,
            personal_key=personal_key,
            personal_key_param=personal_key_param,
            api_key=pythbots_api_key,
        )
        self._servers = {name: self._server(name) for name in ("peerbet", "pythbots")}
        self._running = False

    def __repr__(self) -> str:
        state = "running" if self._running else "stopped"
        return f"<FakeServices {state}, violations={len(self.violations)}>"

    @property
    def violations(self) -> list[Violation]:
        """What was wrong with the requests so far, in their order. Clear it to start afresh."""
        return self._judge.violations

    @property
    def peerbet_url(self) -> str:
        """The base URL of the fake Peerbet. Raises ``RuntimeError`` while it is not running."""
        return self._servers["peerbet"].url

    @property
    def pythbots_url(self) -> str:
        """The base URL of the fake PythBots. Raises ``RuntimeError`` while it is not running."""
        return self._servers["pythbots"].url

    def session(self, **overrides: Unpack[SessionOptions]) -> Session:
        """Make a `Session` with the URLs, the keys and the rates of this fake, not yet open.

        *overrides* are arguments of `Session`, and win.
        """
        from ..session import Session

        settings: SessionOptions = {
            "peerbet_url": self.peerbet_url,
            "pythbots_url": self.pythbots_url,
            "peerbet_key": self.peerbet_key,
            "personal_key": self.personal_key,
            "pythbots_api_key": self.pythbots_api_key,
            "personal_key_param": self._personal_key_param,
            "rates": self._rates,
        }
        return Session(**(settings | overrides))

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
        self._set_clock(self._given_clock or loop_clock(asyncio.get_running_loop()))
        self._judge.start_afresh()
        try:
            # Shielded, for a cancelled `create_server` leaves its socket to nobody.
            with anyio.CancelScope(shield=True):
                for server in self._servers.values():
                    await server.start()
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close both ports and every connection at once. Does nothing the second time."""
        self._running = False
        with anyio.CancelScope(shield=True):
            for server in self._servers.values():
                await server.aclose()

    def _server(self, service: Service) -> LoopbackServer:
        return LoopbackServer(
            partial(self._respond, service), partial(self._judge.malformed, service)
        )

    async def _respond(self, service: Service, request: web.BaseRequest) -> web.Response:
        # `raw_path` is the target as it was received; the other attributes show it decoded.
        at, target = self.clock(), request.raw_path
        call = Incoming(service, request.method, target, request.headers, at)
        self._record(call, target)
        self._judge.consider(call)
        status, body = self._answer(call)
        return web.Response(status=status, body=body, content_type="text/html", charset="utf-8")

    def _record(self, call: Incoming, target: str) -> None:
        keys = (self.peerbet_key, self.personal_key, self.pythbots_api_key)
        self.requests.append(Arrival(call.endpoint, call.at, redacted(target, keys)))
        del self.requests[:-RECORDED]

    def _answer(self, call: Incoming) -> tuple[int, bytes]:
        if "." not in call.endpoint:
            return 404, b"<html><body><h1>404 Not Found</h1></body></html>"
        if call.method != "GET":
            return 405, b"<html><body><h1>405 Method Not Allowed</h1></body></html>"
        service = self.chat if call.endpoint.startswith("peerbet.") else self._pythbots
        try:
            return 200, php_json(service.answer(call))
        except RefusedError as refusal:
            return refusal.status, php_json(refusal.document)

    def _set_clock(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._epoch = datetime.now(UTC) - timedelta(seconds=clock())

    def _date(self) -> str:
        """The services' date and time, in UTC: it goes on as the clock does."""
        now = self._epoch + timedelta(seconds=self.clock())
        return now.strftime("%Y-%m-%d %H:%M:%S")
