"""The HTTP server of the page: its files, its events, and its actions.

Whatever else is open in the browser can send requests here, too. So requests for a host name that
is not this machine's are rejected (DNS rebinding), and so are actions of other pages (by their
``Origin``); and headers forbid the browser to run, frame and load anything but the page's files.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from types import TracebackType
from typing import Annotated, Final, Self, TypeVar

import anyio
import msgspec
from aiohttp import ClientConnectionResetError, web
from aiohttp.typedefs import Handler, Middleware

from ...errors import InvalidRequestError
from ...misuse import AsyncContextOnly
from ..chat import MAX_TEXT
from ..fake import FakeServices
from ..server import HOST, listen, logger, stop_accepting
from .events import EventFeed, EventReader
from .fault_panel import FaultPanel
from .notices import Notice

__all__ = ["Page"]

T = TypeVar("T")

FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        # With these, even a mistake in the page's script cannot turn a message into markup.
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

MAX_BODY: Final = 16_384
"""The most bytes in the body of a request."""

KEEPALIVE_INTERVAL: Final = 15.0
"""Seconds without an event after which a comment is sent, which detects lost connections."""

MAX_READERS: Final = 40
"""The most pages that receive events at the same time: each event is encoded for each of them."""

MAX_MAIL: Final = 2000
"""Characters of a mail at most, as in the form of the page."""

FLOOD_SIZE: Final = 350
"""Messages in a flood: more than one response of the chat can hold."""

# -- the bodies of actions -----------------------------------------------------------------------

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=40, pattern=r"\S")]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class SayBody(msgspec.Struct, forbid_unknown_fields=True):
    """Post a chat message, to everyone or to one user."""

    sender: Name
    """The name of the sender."""
    text: Text
    """The text."""
    to: Annotated[str, msgspec.Meta(max_length=40)] = ""
    """The name of the only recipient; empty for everyone."""
    bot: bool = False
    """Whether the message is marked as sent by a bot."""


class MailBody(msgspec.Struct, forbid_unknown_fields=True):
    """Put a mail into the bot's inbox."""

    sender: Name
    """The name of the sender."""
    text: Text
    """The text."""


class UserBody(msgspec.Struct, forbid_unknown_fields=True):
    """Add a user, or replace the one of that name."""

    username: Name
    """The name."""
    rank: Name = "User"
    """The rank."""
    online: bool = False
    """Whether the user is online."""


class FaultBody(msgspec.Struct, forbid_unknown_fields=True):
    """Set the fault of one target."""

    target: str
    """An endpoint, or a service."""
    kind: str
    """The name of the fault."""


class EmptyBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an action without parameters."""


# -- the server -----------------------------------------------------------------------------------


class Page(AsyncContextOnly):
    """Serves the page for *fake*, which is running, on *port* while ``async with`` lasts.

    *port* 0 selects a free one. Raises ``OSError`` if the port is in use. *on_notice* is called
    with each `Notice`.
    """

    def __init__(
        self,
        fake: FakeServices,
        *,
        port: int = 0,
        on_notice: Callable[[Notice], object] = lambda _: None,
    ) -> None:
        self._fake = fake
        """The services that the page shows."""
        self._port = port
        """The port, 0 for a free one; ``__aenter__`` sets it to the one that was selected."""
        self._on_notice = on_notice
        """Called with each new notice."""
        self._listener: socket.socket | None = None
        """The socket that listens; set by ``__aenter__``, reset by ``__aexit__``."""
        self._readers = 0
        """How many pages receive events now. Changed by `_serve_events`."""
        self._files = {
            path: (files("pythpeer.testing.web").joinpath("static", name).read_bytes(), kind)
            for path, (name, kind) in FILES.items()
        }
        """Content and type of each static file, by path; never changed."""

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{HOST}:{self._port}/"

    async def __aenter__(self) -> Self:
        self._fault_panel = FaultPanel(self._fake)
        self._feed = EventFeed(self._fake, self._fault_panel, self._on_notice)
        application = web.Application(
            middlewares=[self._security_middleware()], client_max_size=MAX_BODY
        )
        application.router.add_get("/api/events", self._serve_events)
        application.router.add_get("/{path:.*}", self._serve_file)
        for name, action in self._actions().items():
            application.router.add_post(f"/api/{name}", action)
        application.on_response_prepare.append(_add_security_headers)
        # Closing the feed ends the readers, so there is little to wait for.
        self._runner = web.AppRunner(
            application,
            access_log=None,
            # Not that of aiohttp, which logs what it cannot parse: a target may have a key.
            logger=logger,
            shutdown_timeout=1.0,
        )
        try:
            with anyio.CancelScope(shield=True):
                await self._runner.setup()
                self._listener = listener = await listen(self._runner, self._port)
                self._port = int(listener.getsockname()[1])
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._feed.close()
        with anyio.CancelScope(shield=True):
            listener, self._listener = self._listener, None
            if listener is not None:
                await stop_accepting(listener)
            await self._runner.cleanup()

    def _security_middleware(self) -> Middleware:
        @web.middleware
        async def secure(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not self._is_ours(request):
                return _json_response(
                    {"error": "only the page itself may send this, on this machine"}, 403
                )
            try:
                return await handler(request)
            except web.HTTPException as error:
                return _json_response({"error": error.reason}, error.status)
            except (InvalidRequestError, msgspec.DecodeError, UnicodeDecodeError) as error:
                return _json_response({"error": str(error)}, 400)

        return secure

    def _is_ours(self, request: web.Request) -> bool:
        host = request.headers.get("Host", "")
        if host not in (f"{HOST}:{self._port}", f"localhost:{self._port}"):
            return False
        origin = request.headers.get("Origin")
        if request.method == "POST" or origin is not None:
            return origin == f"http://{host}"
        # Links to the page may be anywhere; its events are for the page only.
        site = request.headers.get("Sec-Fetch-Site", "none")
        return not request.path.startswith("/api/") or site in ("same-origin", "none")

    async def _serve_file(self, request: web.Request) -> web.Response:
        if request.path not in self._files:
            raise web.HTTPNotFound
        body, kind = self._files[request.path]
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def _serve_events(self, request: web.Request) -> web.StreamResponse:
        """Send events until the page disconnects or the feed is closed."""
        if self._readers >= MAX_READERS:
            return _json_response({"error": "too many pages are open"}, 503)
        self._readers += 1
        try:
            return await self._send_events(request)
        finally:
            self._readers -= 1

    async def _send_events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        reader = EventReader(self._feed)
        with contextlib.suppress(ClientConnectionResetError):  # the page was closed
            await response.write(b"retry: 1000\n\n")
            while not self._feed.closed:
                try:
                    async with asyncio.timeout(KEEPALIVE_INTERVAL):
                        events = await reader.next()
                except TimeoutError:
                    await response.write(b": keep-alive\n\n")
                    continue
                for name, data in events:
                    await response.write(b"event: %b\ndata: %b\n\n" % (name.encode(), data))
        return response

    # -- actions ----------------------------------------------------------------------------------

    def _actions(self) -> Mapping[str, Handler]:
        async def say(request: web.Request) -> web.Response:
            body = await _read(request, SayBody)
            _check_length(body.text, MAX_TEXT)
            id = self._fake.chat.say(body.sender.strip(), body.text, to=body.to, bot=body.bot)
            return _json_response({"id": id})

        async def mail(request: web.Request) -> web.Response:
            body = await _read(request, MailBody)
            _check_length(body.text, MAX_MAIL)
            return _json_response({"id": self._fake.mail.deliver(body.sender.strip(), body.text)})

        async def users(request: web.Request) -> web.Response:
            body = await _read(request, UserBody)
            person = self._fake.users.add(body.username.strip(), rank=body.rank, online=body.online)
            return _json_response({"id": person.id})

        async def faults(request: web.Request) -> web.Response:
            body = await _read(request, FaultBody)
            return await self._change_faults(lambda: self._fault_panel.set(body.target, body.kind))

        async def normal(request: web.Request) -> web.Response:
            await _read(request, EmptyBody)
            return await self._change_faults(self._fault_panel.clear)

        async def flood(request: web.Request) -> web.Response:
            await _read(request, EmptyBody)
            for number in range(FLOOD_SIZE):
                self._fake.chat.say("flood", f"message {number + 1} of {FLOOD_SIZE}")
            return _json_response({"messages": FLOOD_SIZE})

        async def forget(request: web.Request) -> web.Response:
            await _read(request, EmptyBody)
            self._feed.notices.clear()
            return _json_response({})

        actions = (say, mail, users, faults, normal, flood, forget)
        return {action.__name__: self._then_wake(action) for action in actions}

    def _then_wake(self, action: Handler) -> Handler:
        """Return the same action, after which every page looks for changes."""

        async def act(request: web.Request) -> web.StreamResponse:
            try:
                return await action(request)
            finally:
                self._feed.wake()

        return act

    async def _change_faults(self, change: Callable[[], Awaitable[None]]) -> web.Response:
        try:
            await change()
        except OSError as error:
            return _json_response({"error": f"still down: {error.strerror}"}, 503)
        return _json_response({})


async def _read(request: web.Request, kind: type[T]) -> T:
    """Return the body of a request. Raises `InvalidRequestError` unless its type is JSON."""
    if request.content_type != "application/json":
        raise InvalidRequestError("Content-Type must be application/json")
    return msgspec.json.decode(await request.read(), type=kind)


def _check_length(text: str, limit: int) -> None:
    excess = len(text) - limit
    if excess > 0:
        number = "1 character" if excess == 1 else f"{excess} characters"
        raise InvalidRequestError(f"{number} too many: at most {limit} are possible")


def _json_response(document: Mapping[str, object], status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(document), content_type="application/json"
    )


async def _add_security_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
